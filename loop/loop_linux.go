//go:build linux && !lb_portable

package loop

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Group is a set of loops that share listening sockets.
type Group struct {
	loops    []*Loop
	options  Options
	done     sync.WaitGroup
	panics   atomic.Uint64
	stopOnce sync.Once
}

// Loop is one event loop. Its methods, but for Post, belong to code that runs on it.
type Loop struct {
	group *Group
	index int
	now   int64
	cur   *Task
	round uint32

	ep    int
	conns []*Conn // by descriptor
	gen   int32
	open  int // connections, of both directions

	ready []*Task     // can go on in this round
	later []*Task     // can go on in the next
	dirty []*Conn     // have output to flush at the end of the round
	spare []*Conn     // dirty's other buffer
	eager []*Conn     // wait with something to read; told in the next round
	tasks Pool[*Task] // not in use
	all   []*Task
	wheel wheel

	accepted atomic.Int64 // open connections that came by a listener, those on their way here included
	lns      map[int32]*lnSide

	wake     int // eventfd
	sleeping atomic.Bool
	postMu   sync.Mutex
	posted   []func() // guarded by postMu, as is ended
	ended    bool
	npost    atomic.Int32
	postBuf  []func()
	stopping bool
	trim     Timer
}

type taskSys struct {
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	index int // in the loop's list of all its tasks
}

var epoch = time.Now()

// Clock is the time of every loop's clock now: nanoseconds on the process's monotonic clock. On a loop,
// Loop.Now is cheaper and the same for a whole round.
func Clock() int64 { return int64(time.Since(epoch)) + 1 }

// WallTime converts a time of the loops' clock to the wall clock as it was at the start of the process.
func WallTime(at int64) time.Time { return epoch.Add(time.Duration(at - 1)) }

// New starts n loops, each on a goroutine of its own, until Close.
func New(n int, o Options) (*Group, error) {
	g := &Group{options: o}
	for i := range n {
		l := &Loop{group: g, index: i, lns: map[int32]*lnSide{}}
		var err error
		if l.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			g.abandon()
			return nil, fmt.Errorf("loop: epoll: %w", err)
		}
		g.loops = append(g.loops, l)
		l.wake = -1
		if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			g.abandon()
			return nil, fmt.Errorf("loop: eventfd: %w", err)
		}
		if err := l.watch(l.wake, unix.EPOLLIN|unix.EPOLLET, 0); err != nil {
			g.abandon()
			return nil, fmt.Errorf("loop: epoll: %w", err)
		}
		l.now = Clock()
		l.wheel.init(l.now)
		l.tasks.Drop = l.endTask
	}
	g.done.Add(n)
	for _, l := range g.loops {
		go l.main()
	}
	return g, nil
}

func (g *Group) abandon() {
	for _, l := range g.loops {
		unix.Close(l.ep)
		if l.wake >= 0 {
			unix.Close(l.wake)
		}
	}
}

// Len is the number of loops.
func (g *Group) Len() int { return len(g.loops) }

// Loop returns the loop with index i.
func (g *Group) Loop(i int) *Loop { return g.loops[i] }

// Panics counts the tasks that panicked.
func (g *Group) Panics() uint64 { return g.panics.Load() }

// Close ends every loop: all connections are closed, parked tasks return with ErrStopped. It waits for the
// loops to end.
func (g *Group) Close() {
	g.stopOnce.Do(func() {
		for _, l := range g.loops {
			l.Post(func() { l.stopping = true })
		}
	})
	g.done.Wait()
}

func (g *Group) crashed(v any) {
	g.panics.Add(1)
	stack := debug.Stack()
	if g.options.Panicked != nil {
		g.options.Panicked(v, stack)
		return
	}
	fmt.Fprintf(os.Stderr, "loop: a task panicked: %v\n%s", v, stack)
}

// Index is the loop's number in its group, from 0.
func (l *Loop) Index() int { return l.index }

// Now is the time on the loop's clock, read once a round.
func (l *Loop) Now() int64 { return l.now }

// Conns is the number of connections open on the loop, in both directions.
func (l *Loop) Conns() int { return l.open }

// Post runs fn on the loop, soon. It may be called from anywhere, never blocks for long, and keeps the order
// of calls from one goroutine. After the loop has ended fn is dropped.
func (l *Loop) Post(fn func()) { l.postOrDrop(fn, nil) }

// postOrDrop is Post that calls dropped, if the loop has ended, in place of fn.
func (l *Loop) postOrDrop(fn, dropped func()) {
	l.postMu.Lock()
	if l.ended {
		l.postMu.Unlock()
		if dropped != nil {
			dropped()
		}
		return
	}
	l.posted = append(l.posted, fn)
	l.npost.Store(int32(len(l.posted)))
	l.postMu.Unlock()
	// The loop sets sleeping and then looks at npost; we set npost and then look at sleeping. Whoever is
	// second sees the other.
	if l.sleeping.Swap(false) {
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		unix.Write(l.wake, one[:])
	}
}

// Go starts a task. If it panics, c (which may be nil) is closed.
func (l *Loop) Go(r Runner, c *Conn) *Task {
	t, ok := l.tasks.Get()
	if !ok {
		t = l.newTask()
	}
	t.run, t.conn, t.intr = r, c, nil
	l.enqueue(t)
	return t
}

func (l *Loop) newTask() *Task {
	t := &Task{loop: l}
	t.sys.index = len(l.all)
	l.all = append(l.all, t)
	t.sys.next, t.sys.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.sys.yield = yield
		for {
			t.exec()
			t.run, t.conn = nil, nil
			l.tasks.Put(t)
			if !yield(struct{}{}) {
				return
			}
		}
	})
	return t
}

// endTask lets the coroutine of a task that is not in use return.
func (l *Loop) endTask(t *Task) {
	last := len(l.all) - 1
	l.all[t.sys.index] = l.all[last]
	l.all[t.sys.index].sys.index = t.sys.index
	l.all[last] = nil
	l.all = l.all[:last]
	t.sys.stop()
}

func (l *Loop) enqueue(t *Task) { l.ready = append(l.ready, t) }

// park switches back to the loop until the task is enqueued again.
func (t *Task) park() {
	t.parked = true
	t.sys.yield(struct{}{})
	t.parked = false
}

func (l *Loop) resume() {
	for i := 0; i < len(l.ready); i++ { // grows as tasks wake each other
		t := l.ready[i]
		l.cur = t
		t.sys.next()
	}
	l.cur = nil
	clear(l.ready)
	l.ready = l.ready[:0]
}

const maxEvents = 256

// main is the loop: one turn is one round.
func (l *Loop) main() {
	defer l.group.done.Done()
	events := make([]unix.EpollEvent, maxEvents)
	l.armTrim()
	for !l.stopping {
		n := l.poll(events)
		l.now = Clock()
		l.round++
		l.wheel.advance(l.now)
		if l.npost.Load() > 0 {
			l.runPosted()
		}
		for i := range events[:n] {
			l.event(&events[i])
		}
		if len(l.eager) > 0 {
			l.tellEager()
		}
		l.ready = append(l.ready, l.later...)
		l.later = l.later[:0]
		l.resume()
		l.flush()
		l.resume()
	}
	l.shutdown()
}

// poll looks for events without telling the scheduler, which is what a busy loop needs, and sleeps only when
// there are none.
func (l *Loop) poll(events []unix.EpollEvent) int {
	r, _, _ := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.ep), uintptr(unsafe.Pointer(&events[0])), maxEvents, 0, 0, 0)
	if n := int(r); n > 0 && n <= maxEvents {
		return n
	}
	if len(l.dirty) > 0 || len(l.later) > 0 || len(l.ready) > 0 || len(l.eager) > 0 {
		return 0
	}
	wait := l.wheel.wait(Clock())
	if wait > 0 {
		wait = (wait + 999_999) / 1_000_000
		wait = min(wait, math.MaxInt32)
	}
	l.sleeping.Store(true)
	defer l.sleeping.Store(false)
	if l.npost.Load() > 0 || wait == 0 {
		return 0
	}
	n, err := unix.EpollWait(l.ep, events, int(wait))
	if err != nil {
		return 0
	}
	return n
}

func (l *Loop) runPosted() {
	l.postMu.Lock()
	fns := l.posted
	l.posted = l.postBuf[:0]
	l.npost.Store(0)
	l.postMu.Unlock()
	for _, fn := range fns {
		fn()
	}
	clear(fns)
	l.postBuf = fns
}

func (l *Loop) watch(fd int, events uint32, gen int32) error {
	return unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd), Pad: gen})
}

func (l *Loop) event(e *unix.EpollEvent) {
	fd := int(e.Fd)
	if e.Pad == 0 { // no connection: those begin at 1
		if fd == l.wake {
			var b [8]byte
			unix.Read(fd, b[:])
		} else if s := l.lns[e.Fd]; s != nil {
			s.accept()
		}
		return
	}
	c := l.conns[fd]
	if c == nil || c.gen != e.Pad {
		return // closed earlier in this round, and the descriptor perhaps given out again
	}
	c.event(e.Events)
}

func (l *Loop) tellEager() {
	n := len(l.eager) // a handler may put its connection back: that is for the next round
	for i := range n {
		c := l.eager[i]
		c.eager = false
		if c.handler != nil && c.readable && !c.closed {
			c.tellHandler(false)
		}
	}
	rest := copy(l.eager, l.eager[n:])
	clear(l.eager[rest:])
	l.eager = l.eager[:rest]
}

// flush sends what was written in this round. Tasks that it wakes write for the next one.
func (l *Loop) flush() {
	dirty := l.dirty
	l.dirty = l.spare[:0]
	for i, c := range dirty {
		c.dirty = false
		c.flush()
		dirty[i] = nil
	}
	l.spare = dirty
}

// trimEvery is how often a loop gives back what a burst needed and nobody needs now.
const trimEvery = int64(2 * time.Second)

func (l *Loop) armTrim() {
	l.AfterFunc(&l.trim, l.now+trimEvery, func() {
		l.tasks.Trim()
		l.armTrim()
	})
}

func (l *Loop) shutdown() {
	for _, s := range l.lns {
		s.remove()
	}
	for _, c := range l.conns {
		if c != nil {
			c.Abort()
		}
	}
	// What a task does on its way out is bounded, but it may start others.
	for range 100 {
		for _, t := range l.all {
			if t.parked {
				t.Interrupt(ErrStopped)
			}
		}
		l.ready = append(l.ready, l.later...)
		l.later = l.later[:0]
		if len(l.ready) == 0 {
			break
		}
		l.resume()
	}
	l.postMu.Lock()
	l.ended = true
	rest := l.posted
	l.posted = nil
	l.postMu.Unlock()
	for _, fn := range rest { // listeners that close, connections on their way here
		fn()
	}
	for _, c := range l.conns {
		if c != nil {
			c.Abort()
		}
	}
	l.resume()
	l.tasks.Clear()
	unix.Close(l.ep)
	unix.Close(l.wake)
}
