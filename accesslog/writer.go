package accesslog

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// target is one file or writer, from opening to closing.
type target struct {
	w io.Writer
	f *os.File // nil for Options.Writer
}

// handover is a target that was opened and the writer has not taken yet.
type handover struct {
	target *target
	format string // of what is written to it; "" as before
	taken  chan struct{}
}

func newTarget(w io.Writer) *target {
	f, _ := w.(*os.File)
	return &target{w: w, f: f}
}

// openFile never waits. A FIFO is opened for reading too: that succeeds without a reader, and a reader that leaves is
// then no error; its successor gets what waits in the pipe (Linux, macOS and the BSDs; POSIX leaves it open).
func openFile(path string) (*os.File, error) {
	const flags = syscall.O_NONBLOCK | syscall.O_NOCTTY
	if fi, err := os.Stat(path); err == nil && fi.Mode()&os.ModeNamedPipe != 0 {
		return os.OpenFile(path, os.O_RDWR|flags, 0)
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|flags, 0o640)
}

// standardOutput is a descriptor of our own for it. A Go process dies of SIGPIPE when it writes to a closed pipe on
// descriptor 1, and requests must outlive the reader of their log; on any other descriptor it is an ordinary error.
func standardOutput() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(syscall.Stdout), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	return os.NewFile(uintptr(fd), "standard output"), nil
}

// interrupt makes a write that waits for a pipe's reader return, and later ones fail. Regular files, and standard
// output when it is a blocking descriptor (it is shared with others, so we leave its mode alone), know no deadlines.
func (t *target) interrupt() {
	if d, ok := t.w.(interface{ SetWriteDeadline(time.Time) error }); ok {
		_ = d.SetWriteDeadline(time.Unix(1, 0))
	}
}

func (t *target) close() {
	if t.f != nil {
		t.f.Close()
	}
}

func (t *target) same(o *target) bool {
	if t.f == nil || o.f == nil {
		return false
	}
	a, err := t.f.Stat()
	if err != nil {
		return false
	}
	b, err := o.f.Stat()
	return err == nil && os.SameFile(a, b)
}

// writer is the state of the writing goroutine, and touched by it alone.
type writer struct {
	target *target
	// torn is the rest of a line whose beginning is in the target already; it goes out before anything else.
	torn    []byte
	tornAt  int   // how much of that line is written
	tornEnd int64 // the file's size with it, to take it back when the line can never be finished; -1 if unknown
	failing bool
}

// run is the writing goroutine. It sleeps without a timer until there is a line.
func (l *Log) run() {
	defer close(l.done)
	t := time.NewTimer(time.Hour)
	t.Stop()
	for !l.closing.Load() {
		select {
		case <-l.kick:
			l.takeOver()
			continue
		case <-l.wake:
		}
		t.Reset(flushAfter)
		select {
		case <-t.C:
		case <-l.full:
			t.Stop()
		case <-l.kick:
			t.Stop()
			l.takeOver()
		}
		l.flush(false)
	}
	l.takeOver()
	l.flush(true)
	l.leave()
}

// flush writes what the loops have gathered.
func (l *Log) flush(last bool) {
	for i := range l.lanes {
		buf, lines := l.lanes[i].take(l.spare, last, "")
		if lines > 0 {
			l.spare = nil // the lane has it
			l.put(buf, lines)
		}
		if cap(buf) > 2*startSize && len(buf) < flushAt {
			buf = make([]byte, 0, startSize) // grown in a jam that is over
		}
		l.spare = buf[:0]
	}
}

// put writes the lines in p, or drops those that the target does not take.
func (l *Log) put(p []byte, lines int) {
	for {
		err := l.finish()
		if err == nil {
			var n int
			if n, err = write(l.out.target.w, p); err == nil {
				l.lines.Add(uint64(lines))
				lines = 0
			} else {
				whole := bytes.Count(p[:n], []byte{'\n'})
				l.lines.Add(uint64(whole))
				p, lines = l.tear(p, n, lines-whole)
			}
		}
		if l.next.Load() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			if l.takeOver() {
				continue // the rest belongs to the new file
			}
			l.dropped.Add(uint64(lines)) // it is not in the new one's format
			return
		}
		l.outcome(err)
		l.dropped.Add(uint64(lines))
		return
	}
}

// tear looks where in p a write stopped after n bytes. If that is inside a line, it keeps the rest of it for finish,
// which counts it too. What follows is returned.
func (l *Log) tear(p []byte, n, lines int) ([]byte, int) {
	head := n - (bytes.LastIndexByte(p[:n], '\n') + 1)
	p = p[n:]
	if head == 0 {
		return p, lines
	}
	o := &l.out
	end := bytes.IndexByte(p, '\n') + 1
	o.torn, o.tornAt, o.tornEnd = append(o.torn[:0], p[:end]...), head, -1
	if o.target.f != nil {
		if fi, err := o.target.f.Stat(); err == nil && fi.Mode().IsRegular() {
			o.tornEnd = fi.Size()
		}
	}
	return p[end:], lines - 1
}

// finish writes the rest of a torn line.
func (l *Log) finish() error {
	o := &l.out
	if len(o.torn) == 0 {
		return nil
	}
	n, err := write(o.target.w, o.torn)
	o.torn = o.torn[:copy(o.torn, o.torn[n:])]
	o.tornAt += n
	if o.tornEnd >= 0 {
		o.tornEnd += int64(n)
	}
	if len(o.torn) == 0 {
		l.lines.Add(1)
		return nil
	}
	return err
}

// takeOver turns to the target that was handed over, if one was. It returns false when that has lines of another
// format than those that are in hand.
func (l *Log) takeOver() (alike bool) {
	h := l.next.Swap(nil)
	if h == nil {
		return true
	}
	if h.format != "" {
		l.reform(h.format)
	}
	if l.out.target.same(h.target) {
		l.out.target.close() // nothing was renamed, or it is a FIFO: a torn line goes on where it stopped
	} else {
		l.leave()
	}
	l.out.target = h.target
	l.current.Store(h.target)
	if l.cut.Load() {
		h.target.interrupt() // Close may have interrupted the one before
	}
	if h.format != "" {
		l.on.Store(h.format != Off)
	}
	close(h.taken)
	return h.format == ""
}

// reform gives lines another format from here on, and what has gathered in the old one to the old target.
func (l *Log) reform(format string) {
	for i := range l.lanes {
		buf, lines := l.lanes[i].take(nil, false, format)
		if lines > 0 {
			l.put(buf, lines)
		}
	}
}

// leave closes the target. A torn line gets a last chance; then its beginning is taken off the file again, provided
// nobody has written there since.
func (l *Log) leave() {
	o := &l.out
	if len(o.torn) > 0 {
		if f := o.target.f; f != nil && !l.cut.Load() {
			_ = f.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)) // Reopen's interruption still stands
		}
		if l.finish() != nil {
			l.dropped.Add(1)
			if fi, err := o.statTorn(); err == nil && fi.Size() == o.tornEnd {
				_ = o.target.f.Truncate(o.tornEnd - int64(o.tornAt))
			}
		}
		o.torn = o.torn[:0]
	}
	o.target.close()
}

func (o *writer) statTorn() (os.FileInfo, error) {
	if o.target.f == nil || o.tornEnd < 0 {
		return nil, os.ErrInvalid
	}
	return o.target.f.Stat()
}

// outcome tells OnError when writing starts to fail and when it works again.
func (l *Log) outcome(err error) {
	if failing := err != nil; failing != l.out.failing {
		l.out.failing = failing
		if l.report != nil {
			l.report(err)
		}
	}
}

// write is w.Write that believes no impossible count and has an error for every short one.
func write(w io.Writer, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := w.Write(p)
	n = max(0, min(n, len(p)))
	if n == len(p) {
		return n, nil
	}
	if err == nil {
		err = io.ErrShortWrite
	}
	return n, err
}
