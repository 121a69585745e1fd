// Package accesslog writes a line for every request, without ever making a request wait for the disk.
//
// Append encodes into a buffer of the calling event loop and returns; a goroutine of the log's own takes the buffers
// and writes them. What cannot be written in time (a full disk, a pipe whose reader stopped) is dropped and counted,
// and what is written is whole: every line of a file begins and ends in that file, also across a rotation, a partial
// write and a disk that was full for a while.
package accesslog

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Formats that Open knows.
const (
	JSON     = "json"     // one JSON object a line
	Combined = "combined" // Apache's and nginx's "combined"
	Off      = "off"      // nothing
)

const (
	// limit bounds what a loop may have waiting, in bytes. At 450 bytes a line it holds the lines of 2,300 requests:
	// some hundred milliseconds of a busy loop, which is longer than a disk with a queue pauses.
	limit = 1 << 20
	// startSize is the capacity that buffers start with; it is well above flushAt, so that what comes in while the
	// writer wakes up does not make them grow.
	startSize = 128 << 10
	// flushAt is how many waiting bytes wake the writer at once.
	flushAt = 64 << 10
	// flushAfter is how long a line may wait for others to share its write: below what a person at `tail -f` notices.
	flushAfter = 100 * time.Millisecond
	// maxField is how many bytes of a field are logged. With it, the longest possible line fits an empty buffer, so
	// nobody can keep a request out of the log by making it large.
	maxField = 8 << 10
)

// Record is what is known of one request when it is over. Slices are read during Append only.
type Record struct {
	Time time.Time // wall clock, when the request's head had come in; JSON shows it in UTC, combined in its own zone

	Client    netip.Addr // invalid when there is none (a unix socket); its zone is not logged
	Method    []byte
	Host      []byte
	Target    []byte // as the client sent it, with the query
	Proto     []byte // HTTP/1.1
	RequestID []byte
	UserAgent []byte
	Referer   []byte

	Listener string
	Route    string
	Pool     string
	Backend  string // of the last attempt
	Affinity string // what the client was known by and what became of it, "" for nothing
	Reason   string // why lb answered by itself, "" when the application did

	Status int // 0: the client left before there was one
	Tries  int // attempts made, 0 when no backend was asked

	Connect   time.Duration // of the last attempt, 0 on a reused connection; negative when not known, as the next two
	FirstByte time.Duration // from Time to the first byte of the answer's head
	Total     time.Duration // from Time to the last byte

	BytesIn  int64 // of the body, from the client
	BytesOut int64 // of the body, to the client
}

// Options says what Open opens. The zero value writes JSON to standard output.
type Options struct {
	Format string // JSON (also ""), Combined or Off
	Path   string // "" and "-" mean standard output; a FIFO is opened without waiting for its reader
	Loops  int    // how many loops there are; Append's first argument is below it. 0 means 1

	// Writer is written to in place of Path. It need not be safe for concurrent use. If it has a method
	// SetWriteDeadline, Close can interrupt it.
	Writer io.Writer

	// OnError hears of the first error when writing starts to fail, and of nil when it works again. It is called on
	// the writer's goroutine; lines wait meanwhile.
	OnError func(error)
}

// Log is an open access log. Its methods are safe for concurrent use, but for Append, whose calls for one loop come
// one after the other. A nil Log is one that is off.
type Log struct {
	on     atomic.Bool
	report func(error)
	lanes  []lane

	wake chan struct{} // a buffer has its first line
	full chan struct{} // a buffer has flushAt bytes
	kick chan struct{} // next or closing changed

	ctl     sync.Mutex  // one Reopen or Use at a time
	path    string      // guarded by ctl; "" when there is nothing to reopen
	started atomic.Bool // the writer runs, and done is closed when it ends
	next    atomic.Pointer[handover]
	current atomic.Pointer[target] // what is written to now, to interrupt it
	closing atomic.Bool
	cut     atomic.Bool // Close ran out of time
	done    chan struct{}

	lines   atomic.Uint64
	dropped atomic.Uint64 // by the writer; lanes count what they drop themselves

	out   writer
	spare []byte // the writer's empty buffer, exchanged for a full one
}

// lane is where one loop's lines wait. The mutex is contended only while the writer exchanges the buffer, which is
// a few instructions.
type lane struct {
	mu      sync.Mutex
	format  string // of the lines to come
	buf     []byte
	lines   int // in buf
	closed  bool
	stamp   stamp
	dropped atomic.Uint64
	_       [64]byte // the next lane belongs to another core
}

// Open opens the log and starts its writer. It does not block: a FIFO without a reader fills up to its kernel buffer,
// and then lines are dropped until somebody reads.
func Open(o Options) (*Log, error) {
	n, err := o.open()
	if err != nil {
		return nil, err
	}
	l := &Log{
		report: o.OnError, path: n.path, done: make(chan struct{}), lanes: make([]lane, max(o.Loops, 1)),
		wake: make(chan struct{}, 1), full: make(chan struct{}, 1), kick: make(chan struct{}, 1),
	}
	for i := range l.lanes {
		l.lanes[i].format = n.format
	}
	l.out.target = n.target
	l.current.Store(n.target)
	l.on.Store(n.format != Off)
	if l.On() {
		l.start()
	}
	return l, nil
}

// start starts the writer. A log that is off has none, and no buffers.
func (l *Log) start() {
	l.started.Store(true)
	go l.run()
}

// opened is what Options ask for.
type opened struct {
	format string
	path   string // to open again, or ""
	target *target
}

func (o Options) open() (opened, error) {
	n := opened{format: o.Format}
	switch o.Format {
	case "":
		n.format = JSON
	case JSON, Combined:
	case Off:
		n.target = newTarget(io.Discard)
		return n, nil
	default:
		return n, fmt.Errorf("access log: unknown format %q, want %q, %q or %q", o.Format, JSON, Combined, Off)
	}
	switch {
	case o.Writer != nil:
		n.target = newTarget(o.Writer)
	case o.Path == "" || o.Path == "-":
		f, err := standardOutput()
		if err != nil {
			return n, fmt.Errorf("access log: standard output: %w", err)
		}
		n.target = newTarget(f)
	default:
		f, err := openFile(o.Path)
		if err != nil {
			return n, fmt.Errorf("access log: %w", err)
		}
		n.path, n.target = o.Path, newTarget(f)
	}
	return n, nil
}

// On says whether lines are written, so that a caller may save itself filling a Record.
func (l *Log) On() bool { return l != nil && l.on.Load() }

// Append adds a line for r to the buffer of the given loop. It does no I/O, does not allocate once buffers have grown
// to what traffic needs, and never waits for the writer; with a megabyte waiting already, the line is dropped.
func (l *Log) Append(loop int, r *Record) {
	if !l.On() {
		return
	}
	b, need := &l.lanes[loop], r.room()
	b.mu.Lock()
	had := len(b.buf)
	if b.format == Off { // it is being turned on or off
		b.mu.Unlock()
		return
	}
	if b.closed || had+need > limit {
		b.mu.Unlock()
		b.dropped.Add(1)
		return
	}
	if cap(b.buf)-had < need {
		b.grow(need)
	}
	if b.format == JSON {
		b.buf = appendJSON(b.buf, r, &b.stamp)
	} else {
		b.buf = appendCombined(b.buf, r, &b.stamp)
	}
	b.lines++
	has := len(b.buf)
	b.mu.Unlock()
	// Signalled at the two crossings only: some ten times a second, not once a line.
	if had == 0 {
		signal(l.wake)
	}
	if had < flushAt && has >= flushAt {
		signal(l.full)
	}
}

func (b *lane) grow(need int) {
	size := min(max(2*cap(b.buf), len(b.buf)+need, startSize), limit)
	b.buf = append(make([]byte, 0, size), b.buf...)
}

// take exchanges the lane's buffer for an empty one. With last, the lane takes no more lines; with a format, those
// to come have it.
func (b *lane) take(empty []byte, last bool, format string) (buf []byte, lines int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = b.closed || last
	if format != "" {
		b.format, b.stamp = format, stamp{}
	}
	if len(b.buf) == 0 {
		return empty, 0
	}
	buf, lines = b.buf, b.lines
	b.buf, b.lines = empty, 0
	return buf, lines
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is waiting already, and whoever takes it sees what we did
	}
}

// Lines is how many lines were written whole.
func (l *Log) Lines() uint64 {
	if l == nil {
		return 0
	}
	return l.lines.Load()
}

// Dropped is how many lines were lost: to a full buffer, a failed write, or a Close that ran out of time.
func (l *Log) Dropped() uint64 {
	if l == nil {
		return 0
	}
	n := l.dropped.Load()
	for i := range l.lanes {
		n += l.lanes[i].dropped.Load()
	}
	return n
}

// reopenWait is how long Reopen waits for a write in progress that cannot be interrupted, such as one to a disk that
// does not answer.
const reopenWait = 5 * time.Second

// Reopen opens the path again, for a file that was renamed by log rotation. The new file is opened first: when that
// fails, the old one stays in use and the error says why. When Reopen returns nil, the old file is complete and
// closed. For standard output it does nothing.
func (l *Log) Reopen() error {
	if l == nil {
		return nil
	}
	l.ctl.Lock()
	defer l.ctl.Unlock()
	if l.path == "" {
		return nil
	}
	if l.closing.Load() {
		return fmt.Errorf("access log: reopen: %w", os.ErrClosed)
	}
	f, err := openFile(l.path)
	if err != nil {
		return fmt.Errorf("access log: reopen, the old file stays in use: %w", err)
	}
	if err := l.hand(&handover{target: newTarget(f), taken: make(chan struct{})}, 0); err != nil {
		return fmt.Errorf("access log: reopen: %w", err)
	}
	return nil
}

// hand gives the writer another target and waits until it has taken it. A write in progress is interrupted after the
// given time. The caller holds ctl.
func (l *Log) hand(h *handover, patience time.Duration) error {
	old := l.current.Load() // before the writer can see the new one, which must not be interrupted
	if last := l.next.Load(); last != nil && h.format == "" {
		h.format = last.format // the writer still hangs, and never heard of it
	}
	if unclaimed := l.next.Swap(h); unclaimed != nil {
		unclaimed.target.close()
	}
	signal(l.kick)
	t := time.NewTimer(patience)
	defer t.Stop()
	for range 2 {
		select {
		case <-h.taken:
			return nil
		case <-l.done:
			if l.next.CompareAndSwap(h, nil) {
				h.target.close()
				return os.ErrClosed
			}
			return nil
		case <-t.C:
			old.interrupt() // it may be waiting for the reader of a pipe
			t.Reset(reopenWait)
		}
	}
	return fmt.Errorf("a write to the old file has not returned in %v; the new one is used when it does", reopenWait)
}

// Close writes what is waiting and closes the file. When ctx ends first, what is left is dropped and counted and Close
// returns ctx.Err(); a write that cannot be interrupted is then left to itself. Append drops lines from here on.
func (l *Log) Close(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.closing.Store(true)
	signal(l.kick)
	if !l.started.Load() {
		return nil
	}
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
	}
	l.cut.Store(true)
	l.current.Load().interrupt()
	// The writer needs a moment to count what it drops; if it hangs in a system call it gets no more than that.
	t := time.NewTimer(20 * time.Millisecond)
	defer t.Stop()
	select {
	case <-l.done:
	case <-t.C:
	}
	return ctx.Err()
}
