package loop

import (
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Loop is one event loop. Its methods, but for Post, belong to code that runs on it.
type Loop struct {
	group *Group
	index int
	now   int64
	cur   *Task
	round uint32
	conns int   // open connections, of both directions
	blame *Conn // whose handler is running

	ready []*Task     // can go on in this round
	next  int         // first of ready that has not gone on
	later []*Task     // can go on in the next
	dirty []*Conn     // have output to flush at the end of the round
	spare []*Conn     // dirty's other buffer
	eager []*Conn     // have a handler that need not wait
	tasks Pool[*Task] // not in use
	all   []*Task
	wheel wheel
	trim  Timer

	accepted atomic.Int64 // open connections that came by a listener, those on their way here included

	sleeping atomic.Bool
	npost    atomic.Int32
	postMu   sync.Mutex
	posted   []func() // guarded by postMu, as is ended
	ended    bool
	running  []func() // taken from posted
	ran      int      // how many of running were called
	stopping bool
	over     bool

	poller // what waits for the system
}

type taskSys struct {
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	index int // in the loop's list of all its tasks
}

// Index is the loop's number in its group, from 0.
func (l *Loop) Index() int { return l.index }

// Now is the time on the loop's clock, read once a round.
func (l *Loop) Now() int64 { return l.now }

// Conns is the number of connections open on the loop, in both directions.
func (l *Loop) Conns() int { return l.conns }

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
	// The loop sets sleeping and then looks at npost; we set npost and then look at sleeping. Whoever is
	// second sees the other. The lock is held because a loop that ends meanwhile gives its descriptors back.
	if l.sleeping.Swap(false) {
		l.wakeUp()
	}
	l.postMu.Unlock()
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
		returned := false
		defer func() {
			if !returned { // runtime.Goexit: no function can stop it, the coroutine is lost
				l.forget(t)
			}
		}()
		for {
			t.exec()
			t.run, t.conn = nil, nil
			l.tasks.Put(t)
			if !yield(struct{}{}) {
				returned = true
				return
			}
		}
	})
	return t
}

func (l *Loop) forget(t *Task) {
	last := len(l.all) - 1
	l.all[t.sys.index] = l.all[last]
	l.all[t.sys.index].sys.index = t.sys.index
	l.all[last] = nil
	l.all = l.all[:last]
}

// endTask lets the coroutine of a task that is not in use return.
func (l *Loop) endTask(t *Task) {
	l.forget(t)
	t.sys.stop()
}

func (l *Loop) enqueue(t *Task) { l.ready = append(l.ready, t) }

// park switches back to the loop until the task is enqueued again.
func (t *Task) park() {
	t.parked = true
	t.sys.yield(struct{}{})
	t.parked = false
}

// maxResumes bounds what goes on between two looks at the sockets, so that tasks that wake one another
// without end do not keep the others from theirs.
const maxResumes = 8192

func (l *Loop) resume() {
	for n := 0; l.next < len(l.ready); n++ { // grows as tasks wake each other
		if n == maxResumes {
			rest := copy(l.ready, l.ready[l.next:])
			clear(l.ready[rest:])
			l.ready, l.next, l.cur = l.ready[:rest], 0, nil
			return
		}
		t := l.ready[l.next]
		l.next++
		l.cur = t
		t.sys.next()
	}
	l.cur = nil
	clear(l.ready)
	l.ready, l.next = l.ready[:0], 0
}

// main is the loop: one turn is one round.
func (l *Loop) main() {
	defer l.left()
	if l.round > 0 { // a panic or Goexit ended the goroutine that ran the loop before: go on where it was
		l.wheel.refire(l.now)
		l.work()
	}
	for !l.stopping {
		l.poll()
		l.now = Clock()
		l.round++
		l.work()
	}
	l.shutdown()
	l.over = true
}

// left looks at why main returned. Tasks hold their panics themselves, but Goexit in one of them, and either
// in a handler, a timer or a posted function, end the goroutine: another takes the loop over.
func (l *Loop) left() {
	if l.over {
		l.group.done.Done()
		return
	}
	defer func() { go l.main() }() // deferred, as the callback for panics may panic
	v := recover()
	task := l.cur != nil // it has been counted
	l.cur = nil
	if c := l.blame; c != nil {
		l.blame = nil
		c.Abort()
	}
	if !task {
		l.group.crashed(v)
	}
}

// work is what a round does. Everything in it can be taken up again after it was left half done.
func (l *Loop) work() {
	l.wheel.advance(l.now)
	if l.npost.Load() > 0 || l.ran < len(l.running) {
		l.runPosted()
	}
	l.dispatch()
	if len(l.eager) > 0 {
		l.tellEager()
	}
	l.ready = append(l.ready, l.later...)
	l.later = l.later[:0]
	l.resume()
	l.flush()
	l.resume()
}

// busy reports whether there is work that waits for nothing.
func (l *Loop) busy() bool {
	return len(l.dirty)|len(l.later)|len(l.ready)|len(l.eager) != 0
}

func (l *Loop) runPosted() {
	if l.ran == len(l.running) {
		l.postMu.Lock()
		l.running, l.posted = l.posted, l.running[:0]
		l.npost.Store(0)
		l.postMu.Unlock()
		l.ran = 0
	}
	for l.ran < len(l.running) {
		fn := l.running[l.ran]
		l.running[l.ran] = nil
		l.ran++
		fn()
	}
}

func (l *Loop) tellEager() {
	n := len(l.eager) // a handler may put its connection back: that is for the next round
	for i := range n {
		c := l.eager[i]
		if c.eager {
			c.eager = false
			if c.handler != nil && c.readable && !c.closed {
				c.tellHandler(false)
			}
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
		l.trimPoller()
		l.armTrim()
	})
}

func (l *Loop) shutdown() {
	l.closeListeners()
	l.endTasks()
	l.postMu.Lock()
	l.ended = true
	l.npost.Store(0)
	rest := l.posted
	l.posted = nil
	l.postMu.Unlock()
	// Listeners that close, connections on their way here.
	l.running, l.ran = append(l.running[l.ran:], rest...), 0
	for l.ran < len(l.running) {
		l.ran++
		l.running[l.ran-1]()
	}
	l.endTasks()
	l.tasks.Clear()
	l.close()
}

// endTasks closes every connection and lets every task return. What a task does on its way out is bounded,
// but it may start others.
func (l *Loop) endTasks() {
	for range 100 {
		l.abortAll()
		for _, t := range l.all {
			if t.run != nil {
				t.Interrupt(ErrStopped)
			}
		}
		l.ready = append(l.ready, l.later...)
		l.later = l.later[:0]
		if len(l.ready) == 0 {
			return
		}
		l.resume()
	}
}
