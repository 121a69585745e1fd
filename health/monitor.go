package health

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"lb/upstream"
)

// Options are what a Monitor needs of the world. The zero value is right.
type Options struct {
	Log     *slog.Logger   // nil: nothing is logged
	OnEvent func(Event)    // told of each event, in order, from one goroutine; nil: nobody
	Probe   Probe          // in place of what Check says
	Knock   Probe          // in place of making a connection, to see whether anybody listens
	Chance  func() float64 // a number in [0, 1), for what is spread by chance

	// Known is what another process knew of a backend when New takes over from it; nil, or false: nothing.
	Known func(*upstream.Backend) (Standing, bool)
}

// Monitor checks the backends of one pool, ejects those whose requests fail, and lets them back.
type Monitor struct {
	pool *upstream.Pool
	opt  Options

	ctx     context.Context // ends with the Monitor
	end     context.CancelFunc
	hungry  atomic.Bool // watches were told that requests wait for somebody to be ready
	running sync.WaitGroup

	mu      sync.Mutex // guards what follows, and all ejections; taken before the pool's locks
	check   Check
	passive Passive
	probe   Probe
	watches map[*upstream.Live]*watch
	panic   bool // what was last told of it

	events struct {
		sync.Mutex
		list  []Event
		more  chan struct{} // has room for one
		ended chan struct{}
	}
}

// New begins to check the backends of p: all of them at once.
func New(p *upstream.Pool, c Check, pas Passive, opt Options) *Monitor {
	if opt.Chance == nil {
		opt.Chance = rand.Float64
	}
	if opt.Knock == nil {
		opt.Knock = knock
	}
	m := &Monitor{pool: p, opt: opt, watches: map[*upstream.Live]*watch{}}
	m.ctx, m.end = context.WithCancel(context.Background())
	m.events.more = make(chan struct{}, 1)
	m.events.ended = make(chan struct{})
	go m.tell()
	m.Update(c, pas)
	m.opt.Known = nil // who joins later by the same name is somebody else
	p.SetWatcher(m)
	return m
}

// Update is to be called when the pool's backends have changed, or its checks. Backends that stay keep what is known
// about them; if their check is another they are asked at once by the new one, and are what they were until that has
// seen enough.
func (m *Monitor) Update(c Check, pas Passive) {
	c = c.complete()
	m.mu.Lock()
	defer m.mu.Unlock()
	other := !c.equal(&m.check)
	m.check, m.passive = c, pas.complete()
	if m.probe = m.opt.Probe; m.probe == nil {
		m.probe = c.probe()
	}
	was := m.watches
	m.watches = map[*upstream.Live]*watch{}
	for _, b := range m.pool.Snapshot().All {
		w := was[b.Live]
		delete(was, b.Live)
		switch {
		case w == nil:
			w = &watch{m: m, b: b, kick: make(chan struct{}, 1)}
			if m.opt.Known != nil {
				if s, ok := m.opt.Known(b); ok {
					w.inherit(s)
				}
			}
		case other:
			w.stop()
		default:
			m.watches[b.Live] = w
			continue
		}
		m.watches[b.Live] = w
		w.start(c, m.probe)
	}
	for _, w := range was {
		w.stop()
	}
	m.changed()
}

// eagerFor is how long a backend that is rechecked is asked often: as long as a process usually takes to start.
const eagerFor = time.Minute

// Asks reports whether there are active checks.
func (m *Monitor) Asks() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.check.Kind != Off
}

// Recheck forgets what is known about b: another process may be behind it by now. As one that has just joined, it is
// asked at once and its first answer decides; while others are up, it gets nothing before. If it is not there yet, it is
// asked again every Check.Changing for a minute. Where there are no active checks Recheck does nothing.
func (m *Monitor) Recheck(b *upstream.Backend) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.watches[b.Live]
	if w == nil || m.check.Kind == Off {
		return
	}
	w.stop()
	w.faults, w.times, w.last = window{}, 0, Status{}
	if w.out != nil { // it ends by the checks that pass from now on, however often there was one before
		w.out.good, w.out.nth, w.out.failed = 0, 1, true
	}
	w.eager = time.Now().Add(eagerFor)
	m.pool.SetProbed(b, upstream.Unknown)
	w.start(m.check, m.probe)
	m.changed()
}

// Overrule says that somebody else wants b drained now, whether b asks for that or not: that b no longer asks is no reason to
// take it back then.
func (m *Monitor) Overrule(b *upstream.Backend) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.watches[b.Live]; w != nil {
		w.asked.Store(false)
	}
}

// Close ends all checks and returns when everything has been told. What is known about the backends stays.
func (m *Monitor) Close() {
	m.pool.SetWatcher(nil)
	m.mu.Lock()
	all := m.watches
	m.watches = nil
	m.mu.Unlock()
	for _, w := range all {
		w.stop()
	}
	m.end()
	m.running.Wait()
	close(m.events.more)
	<-m.events.ended
}

// Waiting implements upstream.Watcher.
func (m *Monitor) Waiting() {
	if m.hungry.Swap(true) {
		return // all are on their way
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wakeAll()
}

func (m *Monitor) wakeAll() {
	for _, w := range m.watches {
		w.wake()
	}
}

// isHungry reports whether requests wait because nobody is ready.
func (m *Monitor) isHungry() bool {
	is := func() bool { return m.pool.Waiting() > 0 && len(m.pool.Snapshot().Ready) == 0 }
	if is() {
		return true
	}
	// Who begins to wait now either finds the flag down, and wakes all, or is seen by the second look.
	m.hungry.Store(false)
	return is()
}

// Fault implements upstream.Watcher. It runs on a loop: it computes, but waits for nothing.
func (m *Monitor) Fault(b *upstream.Backend, o upstream.Outcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.watches[b.Live]
	if w == nil || m.passive.Off {
		return
	}
	if o.Fault == upstream.FaultRefused && b.Addr.Local() {
		// On this machine that is proof: the kernel says that nobody listens.
		w.dead()
		return
	}
	if w.out != nil {
		return
	}
	faults, requests := w.faults.fault(o.Now, int64(m.passive.Window), ended(b))
	if !m.passive.tooMany(faults, requests) {
		return
	}
	why := fmt.Sprintf("%d of %d requests failed within %v, the last by fault %q", faults, requests, m.passive.Window, o.Fault)
	n, suspects := m.members()
	switch may := mayEject(n); {
	case suspects < may:
		w.eject(ejection{connect: o.Fault == upstream.FaultConnect || o.Fault == upstream.FaultRefused}, why)
	case time.Since(w.spared) >= m.passive.Window: // once in a while is enough
		w.spared = time.Now()
		if n == 1 {
			why += "; there is no other that is alive"
		} else {
			why += fmt.Sprintf("; no more than %d of %d may be out", may, n)
		}
		w.emit(Event{What: Spared, Why: why})
	}
}

// HungUp implements upstream.Watcher. A process that goes away stops to listen and closes what connections it thinks
// idle at the same moment; those that it thinks busy stay, and what is sent on them later is served by a process that
// ends, or by nobody. So it is asked at once whether it listens. That it does not is proof on this machine only.
func (m *Monitor) HungUp(l *upstream.Live) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.watches[l]
	if w == nil || w.out != nil || w.knocking || m.passive.Off || !w.b.Addr.Local() {
		return
	}
	w.knocking = true
	wait := knockPause - time.Since(w.knocked)
	m.running.Go(func() { w.knock(wait) })
}

// ended is the number of requests that ended on b and say something about it.
func ended(b *upstream.Backend) uint64 {
	n := uint64(0)
	for loop := range b.Loops() {
		s := b.Stats(loop)
		for i := range s.Requests {
			n += s.Requests[i].Load()
		}
		n -= s.Faults[upstream.FaultClient].Load()
	}
	return n
}

// members is the number of backends that would share the load if suspicions were wrong, and how many of them are out on
// suspicion. Who is known to be dead is neither: if it took the place of a suspect, one instance that stays away would mean
// that no other is ejected, and if it counted as a member, the last one alive could be.
func (m *Monitor) members() (n, suspects int) {
	for _, b := range m.pool.Snapshot().All {
		life := b.Life()
		if b.Weight <= 0 || life.Wanted != upstream.In || life.Probed == upstream.Down || life.Dead {
			continue
		}
		n++
		if !life.Ejected.IsZero() {
			suspects++
		}
	}
	return n, suspects
}

// Status is what is known about a backend from asking it.
type Status struct {
	Checked time.Time // when it was last asked; zero: never
	Took    time.Duration
	Err     error     // what was wrong then
	Streak  int       // checks in a row that said the same
	Ejected time.Time // until when; zero: it is not
	Why     string    // it is ejected
}

// Status is what is known about b.
func (m *Monitor) Status(b *upstream.Backend) Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.watches[b.Live]
	if w == nil {
		return Status{}
	}
	s := w.last
	if w.out != nil {
		s.Ejected, s.Why = w.out.until, w.why
	}
	return s
}

// changed looks at what a change of a backend meant for the pool. The caller holds m.mu.
func (m *Monitor) changed() {
	if m.isHungry() && !m.hungry.Swap(true) {
		m.wakeAll() // those who wait did so for somebody who is no longer ready
	}
	if is := m.pool.Snapshot().Panic; is != m.panic {
		m.panic = is
		what := FailOpenOver
		if is {
			what = FailOpen
		}
		m.emit(Event{What: what})
	}
}

// emit hands an event to tell: whoever makes one may be a loop, and a log can block.
func (m *Monitor) emit(e Event) {
	e.Time, e.Pool = time.Now(), m.pool.Name
	m.events.Lock()
	m.events.list = append(m.events.list, e)
	m.events.Unlock()
	select {
	case m.events.more <- struct{}{}:
	default:
	}
}

func (m *Monitor) tell() {
	defer close(m.events.ended)
	for open := true; open; {
		_, open = <-m.events.more
		m.events.Lock()
		list := m.events.list
		m.events.list = nil
		m.events.Unlock()
		for i := range list {
			if m.opt.Log != nil {
				list[i].log(m.opt.Log)
			}
			if m.opt.OnEvent != nil {
				m.opt.OnEvent(list[i])
			}
		}
	}
}

// jittered is d, changed by up to part of it by chance.
func (m *Monitor) jittered(d time.Duration, part float64) time.Duration {
	return time.Duration(float64(d) * (1 + part*(2*m.opt.Chance()-1)))
}
