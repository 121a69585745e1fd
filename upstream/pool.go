package upstream

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Why Acquire gives no lease. To wait helps against the first two, see Pool.Wait.
var (
	ErrNoBackend = errors.New("no backend is ready")
	ErrBusy      = errors.New("all backends have as many requests as they may have")
	ErrTried     = errors.New("all backends have been tried")
)

// Strategy chooses among the backends that it was built with. Pick runs for every attempt of every request, on several
// loops at once: it takes no lock, does not block, and does not allocate. It returns nil when the selection Has each
// of them.
type Strategy interface {
	Pick(*Selection) *Backend
}

// Build makes a strategy for a set of ready backends, which is never empty. It is called for each new snapshot; what
// shall outlive one goes into Pool.Memory and Live.Memory.
type Build func(ready []*Backend) Strategy

// Observer is a Strategy that wants to know what became of its choices. Acquire and Done tell it, on the loop's
// goroutine, under the same rules as Pick.
type Observer interface {
	Sent(b *Backend, l Lease)
	Done(b *Backend, l Lease, o Outcome)
}

// Holder is a Strategy with limits of its own for what a backend may have in work. While all are at theirs, its Pick
// returns nil for a request that has not tried all, unless that is a stream, or Selection.MayWait says that there is no place
// to wait; Acquire then says ErrBusy, and the request waits in the pool's queue as one does for MaxInflight. So that nobody
// who waits is forgotten, Pick refuses a request only while one of the backends that it has not tried has an active
// request: the end of that one is when the queue is looked at again.
type Holder interface {
	// Room is how many more requests Pick would place at a time, with so many waiting: any, or when s is not nil, such
	// as have tried what s has. At least one of them Pick does place if nothing changes. limited is false when the
	// strategy has no limit now; n does not count then. Room is called with the queue locked, under the rules of Pick.
	Room(now, waiting int64, s *Selection) (n int64, limited bool)
}

// Pool is a set of interchangeable backends under a name.
type Pool struct {
	Name string

	// Memory is where the pool's strategy keeps what it learned about all backends together.
	Memory

	loops int

	// Every request reads these.
	snap      atomic.Pointer[Snapshot]
	attention atomic.Int64 // what makes a request leave the short path: see waiters and ramping; 0 most of the time
	watcher   atomic.Pointer[Watcher]
	witnesses atomic.Pointer[[]*witness] // read only while attention says explaining

	mu    sync.Mutex // held by those who make the next snapshot; taken before queue.mu and a Live's
	build Build

	_      [64]byte // those who wait do not slow down those who do not
	queue  queue
	waits  waits
	retry  budget
	search budget
	failed failures
}

// Snapshot is a pool at one moment. Nothing in it changes.
type Snapshot struct {
	All      []*Backend // in the order of the configuration
	Ready    []*Backend // those that may be sent to, in the same order
	Panic    bool       // nobody is fit, and Ready is all those that are not known to be dead
	Settings *Settings

	pick Strategy // nil when nobody is ready
	obs  Observer // pick, when it wants to be told
	hold Holder   // pick, when it is one and requests may wait
}

// NewPool makes a pool whose leases are taken by the given number of loops. Settings of nil are the defaults.
func NewPool(name string, loops int, specs []Spec, set *Settings, build Build) *Pool {
	p := &Pool{Name: name, loops: max(1, loops), build: build}
	if set == nil {
		set = DefaultSettings()
	}
	p.snap.Store(&Snapshot{Settings: set})
	p.Update(specs, nil, nil)
	return p
}

// Snapshot is the pool now.
func (p *Pool) Snapshot() *Snapshot { return p.snap.Load() }

// Update makes specs the pool's backends. Who stays, by name and address, keeps its Live; who leaves is returned,
// takes no more leases, and finishes those it has: wait by Drained. Settings or a Build of nil stay as they are. An
// equal configuration changes nothing.
func (p *Pool) Update(specs []Spec, set *Settings, build Build) (left []*Backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.snap.Load()
	if set == nil {
		set = old.Settings
	}
	if build != nil {
		p.build = build
	}
	gone := make(map[string]*Backend, len(old.All))
	for _, b := range old.All {
		gone[b.Name] = b
	}
	all := make([]*Backend, 0, len(specs))
	for _, s := range specs {
		if s.Name == "" {
			s.Name = s.Addr.String()
		}
		b := &Backend{Spec: s}
		if o := gone[s.Name]; o != nil && o.Addr == s.Addr {
			b.Live = o.Live
			delete(gone, s.Name)
		} else {
			b.Live = newLive(p)
			b.cold = len(old.All) > 0
		}
		all = append(all, b)
	}
	p.publish(all, set)

	// Only now do those who left refuse: a request that they turn away finds the new snapshot.
	for _, b := range old.All {
		if gone[b.Name] == b {
			b.setWanted(Out, false)
			p.retry.gone(b)
			left = append(left, b)
		}
	}
	return left
}

// publish makes the snapshot of all that may be sent to, the one place that decides who may. The caller holds p.mu.
//
// A backend is ready when it is wanted in, has a weight, is not ejected, and was seen up. One that nobody has looked
// at yet counts only while none is up: where there are no active checks, at their start, and when all others are
// down; not when it joins others that were checked.
//
// When by that nobody is ready, those are who are only suspected of something: it is better to send requests to
// backends that fail some than to fail all of them here. Whoever is known to be dead is left out even then.
func (p *Pool) publish(all []*Backend, set *Settings) {
	s := &Snapshot{All: make([]*Backend, 0, len(all)), Settings: set}
	fit, up, rest := make([]*Backend, 0, len(all)), make([]*Backend, 0, len(all)), make([]*Backend, 0)
	for _, b := range all {
		b = &Backend{Spec: b.Spec, Live: b.Live, index: -1} // its place may have changed
		s.All = append(s.All, b)
		life := b.Life()
		if life.Wanted != In || b.Weight <= 0 || life.dead() {
			continue
		}
		if !life.Ejected.IsZero() {
			rest = append(rest, b)
			continue
		}
		fit = append(fit, b)
		if life.Probed == Up {
			up = append(up, b)
		}
	}
	s.Ready = up
	if len(up) == 0 {
		s.Ready = fit
	}
	if len(s.Ready) == 0 && len(rest) > 0 {
		s.Ready, s.Panic = rest, true
	}
	for i, b := range s.Ready {
		b.index = i
	}
	if len(s.Ready) > 0 {
		s.pick = p.build(s.Ready)
		s.obs, _ = s.pick.(Observer)
		if h, ok := s.pick.(Holder); ok && s.queueBound() > 0 && set.QueueLen >= 0 && set.QueueTimeout > 0 {
			s.hold = h
		}
	}
	for _, b := range s.All {
		b.stand()
	}
	p.startRamps(s)
	p.snap.Store(s)
	p.ramped() // who ramps may have joined, and who ramped may have left
	if p.Waiting() > 0 {
		p.freed(0, 0)
	}
}

// Acquire chooses a backend for s and counts a lease on it.
//
// A snapshot may be old by the time its backends are asked. So when all of them refuse, the pool is looked at again,
// and only who is refused by the newest snapshot gets ErrNoBackend: all backends can be replaced at once without a
// request lost. While others wait for a backend, only their turn, a retry, or room for all of them gives a lease.
func (p *Pool) Acquire(s *Selection) (Lease, error) {
	a := p.attention.Load()
	s.ramping, s.asked, s.waiting = a&ramping != 0, a&explaining != 0, a&waiters
	if s.Kind != 0 && p.waits.has(s.Kind) {
		s.Stream = true
	}
	if a&waiters != 0 {
		if l, ok := p.aside(s); ok {
			return l, nil
		}
		return p.acquireQueued(s)
	}
	snap := p.snap.Load()
	l, ok := snap.acquire(s)
	if ok && !s.refused {
		return l, nil
	}
	return p.chooseAgain(s, snap, l, ok)
}

// aside gives a request that has just come a backend past all who wait: one that it prefers, and they are not sent to, as it
// drains or has weight 0, or nobody else can serve the request; or any, if it takes none of the places that they wait for, as
// streams do where the strategy alone limits them. Who waits has asked for that before.
func (p *Pool) aside(s *Selection) (Lease, bool) {
	if s.waiter != nil {
		return Lease{}, false
	}
	snap := p.snap.Load()
	if s.Stream && s.leases == 0 && snap.Held() {
		l, err := p.choose(s)
		return l, err == nil
	}
	if s.Prefer == nil {
		return Lease{}, false
	}
	if b := snap.current(s.Prefer); b == nil || b.index >= 0 && !s.Bound {
		return Lease{}, false
	}
	return snap.prefer(s)
}

// choose is Acquire for a request whose turn it is.
func (p *Pool) choose(s *Selection) (Lease, error) {
	s.waiting = p.Waiting()
	snap := p.snap.Load()
	l, ok := snap.acquire(s)
	return p.chooseAgain(s, snap, l, ok)
}

// chooseAgain goes on after what snap gave s.
func (p *Pool) chooseAgain(s *Selection, snap *Snapshot, l Lease, ok bool) (Lease, error) {
	for !ok {
		now := p.snap.Load()
		if now == snap {
			break
		}
		snap = now
		l, ok = snap.acquire(s)
	}
	if s.refused {
		s.forgive()
		if ok {
			s.mark(l.b.Live)
		}
	}
	if !ok {
		err := snap.refusal(s)
		if s.asked {
			p.tell(snap, s, nil, 0, 0, err)
		}
		return Lease{}, err
	}
	return l, nil
}

// refusal is why s gets nothing from n.
func (n *Snapshot) refusal(s *Selection) error {
	for _, b := range n.Ready {
		if !s.Has(b.Live) {
			return ErrBusy
		}
	}
	if len(n.Ready) > 0 {
		return ErrTried
	}
	return ErrNoBackend
}

// repicks is how often a strategy is asked again because the load it went by has changed. Each time, some other loop
// got its lease; after so many the difference that one request makes is not worth the time.
const repicks = 3

func (n *Snapshot) acquire(s *Selection) (Lease, bool) {
	if s.Prefer != nil {
		if l, ok := n.prefer(s); ok {
			return l, true
		}
	}
	if n.pick == nil {
		return Lease{}, false
	}
	s.mayWait = n.hold != nil
	for again := 0; ; {
		s.saw, s.note, s.said = false, 0, saidNothing
		b := n.pick.Pick(s)
		if b == nil {
			return Lease{}, false
		}
		var load Load
		var ok, stale bool
		if s.saw && again < repicks {
			if load, ok, stale = b.admitAt(s.seen, s.unit(), b.MaxInflight); stale {
				again++
				continue
			}
		} else {
			load, ok = b.admit(s.unit(), b.MaxInflight)
		}
		if !ok {
			s.pass(b.Live)
			continue
		}
		var told *ending
		if s.asked {
			told = b.pool.tell(n, s, b, load-s.unit(), again, nil)
		}
		l := n.lease(b, s, load, n.obs)
		l.told = told
		return l, true
	}
}

// lease is that of a request which b has admitted, and by that has load.
func (n *Snapshot) lease(b *Backend, s *Selection, load Load, obs Observer) Lease {
	s.mark(b.Live)
	st := b.Stats(s.Loop)
	st.Picks.Inc()
	if n.Panic {
		st.FailOpen.Inc()
	}
	if s.leases > 0 {
		st.Retries.Inc()
	}
	s.leases++
	unit := s.unit()
	l := Lease{
		b: b, obs: obs, start: s.Now, loop: int16(s.Loop), ahead: uint16(min((load - unit).Active(), math.MaxUint16)), kind: s.Kind,
		note: s.note, unit: unit,
	}
	if obs != nil {
		obs.Sent(b, l)
	}
	return l
}

// prefer gives the lease of the backend that s prefers.
func (n *Snapshot) prefer(s *Selection) (Lease, bool) {
	b := n.current(s.Prefer)
	if b == nil || s.Has(b.Live) {
		return Lease{}, false
	}
	limit := b.MaxInflight
	if s.Bound {
		limit = 0
	}
	load, ok := b.admit(s.unit(), limit)
	if !ok {
		return Lease{}, false
	}
	obs := n.obs
	if b.index < 0 { // the strategy does not know it
		obs = nil
	}
	s.note = 0
	var told *ending
	if s.asked {
		s.said = saidPreferred
		told = b.pool.tell(n, s, b, load-s.unit(), 0, nil)
	}
	l := n.lease(b, s, load, obs)
	l.told = told
	return l, true
}

// current is b, which may be of another snapshot, as n has it; nil when it has left the pool.
func (n *Snapshot) current(b *Backend) *Backend {
	if i := b.index; i >= 0 && i < len(n.Ready) && n.Ready[i].Live == b.Live {
		return n.Ready[i]
	}
	for _, o := range n.All {
		if o.Live == b.Live {
			return o
		}
	}
	return nil
}

// SetWanted says what is wanted of b: Draining makes it finish what it has, In takes it back. A backend that left the
// pool stays out.
func (p *Pool) SetWanted(b *Backend, w Wanted) {
	p.change(b, func(l *Life) { l.Wanted, l.Sessions = w, false })
}

// StartDraining is SetWanted(b, Draining), but what b has are its sessions, too, if Settings.DrainSessions says so: they go
// on until EndSessions.
func (p *Pool) StartDraining(b *Backend) {
	sessions := p.Snapshot().Settings.DrainSessions > 0
	p.change(b, func(l *Life) {
		if l.Wanted == In {
			l.Wanted, l.Sessions = Draining, sessions
		}
	})
}

// EndSessions makes a draining b take nothing any more, also not what is bound to it.
func (p *Pool) EndSessions(b *Backend) {
	p.change(b, func(l *Life) { l.Sessions = false })
}

// SetProbed says what active checks think of b.
func (p *Pool) SetProbed(b *Backend, v Probed) {
	p.change(b, func(l *Life) { l.Probed = v })
}

// SetEjected keeps b out of the pool, as long as others are ready, until it is called again with the zero time. The
// pool has no clock: the time is for people to see.
func (p *Pool) SetEjected(b *Backend, until time.Time) {
	p.change(b, func(l *Life) { l.Ejected, l.Dead = until, false })
}

// SetDead is SetEjected for a backend that refuses connections: it is kept out even when nobody else is ready.
func (p *Pool) SetDead(b *Backend, until time.Time) {
	p.change(b, func(l *Life) { l.Ejected, l.Dead = until, !until.IsZero() })
}

func (p *Pool) change(b *Backend, set func(*Life)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b.mu.Lock()
	was := b.life
	is := was
	set(&is)
	if was.Wanted == Out || is == was {
		b.mu.Unlock()
		return
	}
	b.life = is
	b.mu.Unlock()
	if is.ends() && !was.ends() {
		b.era.Add(1)
	}
	switch {
	case was.Ejected.IsZero() && !is.Ejected.IsZero():
		b.ejections.Add(1)
	case !was.Ejected.IsZero() && is.Ejected.IsZero():
		b.returns.Add(1)
	}
	if was.Wanted != In && is.Wanted == In {
		b.setWanted(In, false) // before others may choose it
	}
	snap := p.snap.Load()
	p.publish(snap.All, snap.Settings)
	if is.Wanted != In {
		b.setWanted(is.Wanted, is.Sessions) // after nobody chooses it any more
	}
}

// setWanted sets the fact and, with it, whether leases are refused: not while sessions go on.
func (l *Live) setWanted(w Wanted, sessions bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.life.Wanted, l.life.Sessions = w, sessions
	if w == In {
		l.load.And(^uint64(draining))
		if l.drained != nil && !l.isEmpty {
			close(l.drained) // nobody waits for what does not come any more
		}
		l.drained, l.isEmpty = nil, false
		return
	}
	if l.drained == nil {
		l.drained = make(chan struct{})
	}
	if sessions {
		return
	}
	if l.load.Or(uint64(draining)) == 0 { // else the last lease to end sees the bit
		l.isEmpty = true
		close(l.drained)
	}
}

// Drained is closed when the backend takes no new leases and the last one is done, tunnels included; or when it is taken
// back before that. It is nil, which blocks for ever, while the backend is wanted in.
func (l *Live) Drained() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.drained
}

// ErrTakenBack means that a backend was wanted in again before it had drained.
var ErrTakenBack = errors.New("backend was taken back before it had drained")

// AwaitDrained waits until the last lease of a backend that drains is done, it is taken back, which is ErrTakenBack, also when
// it has been before, or ctx ends, whose error it returns.
func AwaitDrained(ctx context.Context, b *Backend) error {
	done := b.Drained()
	if done == nil {
		return ErrTakenBack
	}
	select {
	case <-done:
	case <-ctx.Done():
		select {
		case <-done: // both, and that it is empty is the better news
		default:
			return ctx.Err()
		}
	}
	if !b.Draining() {
		return ErrTakenBack
	}
	return nil
}
