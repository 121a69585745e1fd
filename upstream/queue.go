package upstream

import (
	"errors"
	"sync"
	"sync/atomic"
)

// Waiter is an exchange that waits until a backend of a pool can take it. Its owner keeps it, sets Wake once, and uses
// it for one wait after the other:
//
//	l, err := p.Acquire(s)
//	if err is ErrBusy or ErrNoBackend and p.Wait(w, s) {
//		for err is ErrBusy or ErrNoBackend {
//			wait for Wake; at the deadline, or when the client goes: p.Leave(w, …) and give up
//			l, err = p.Acquire(s)
//		}
//	}
//
// From Wait until Acquire succeeds or says ErrTried, or Leave is called, s belongs to the wait: it must not be Reset.
type Waiter struct {
	// Wake says that it is the waiter's turn to Acquire. It is called from any goroutine, also from within Wait, with
	// locks of the pool held: it only passes the news on, as Loop.Post does, and calls nothing of the pool. It may
	// have been called before Leave and arrive after it.
	Wake func()

	Size int64 // bytes of memory that the waiter holds, against Settings.HoldBytes

	// All below is guarded by queue.mu, except that sel does not change while the waiter is in the queue.
	sel        *Selection
	ticket     uint64 // order of arrival
	since      int64  // ns
	next, prev *Waiter
	state      waitState
}

type waitState uint8

const (
	notWaiting waitState = iota
	queued
	woken // out of the list, on its way to Acquire
)

// burst is how many requests at a time a backend without MaxInflight is given from the queue to begin with; with each
// of them that ends, two more go. A process that has just begun to listen takes connections only as fast as its main
// thread runs, and Linux drops those above its backlog (Node asks for 511), which costs them a second.
const burst = 256

// heldRequests may wait because the strategy wants them to, if nothing else is said: they would be with a backend otherwise,
// where nothing bounds their number. What they cost here is bounded by HoldBytes.
const heldRequests = 1 << 16

// queue is the waiters of a pool in order of arrival.
//
// Three things make it exact. Whoever frees a slot, publishes a snapshot or takes a place in the queue does that
// first and looks at the other side second, all by sequentially consistent atomics, so that one of the two sees the
// other. Whoever has been woken is owed a slot until it has acquired one: it is subtracted from the free ones when
// others are considered, newcomers included. And a waiter that finds nothing goes back to its place by its ticket.
type queue struct {
	mu      sync.Mutex
	first   *Waiter
	last    *Waiter
	listed  int    // in the list
	owed    int64  // slots promised: to woken waiters, and to newcomers between pass and passed
	size    int64  // sum of Waiter.Size
	tickets uint64 // given so far
	now     int64  // ns, the latest time that anybody came with
	swift   int64  // ns, when the queue was last empty, short or quick, see Overdue
	lost    int64  // ns, when a client last lost patience, see hopeless

	waits    atomic.Uint64
	timeouts atomic.Uint64
	full     atomic.Uint64
	waited   atomic.Int64 // ns, of all waits that are over
}

// QueueStats is what became of the requests that had to wait for a backend.
type QueueStats struct {
	Waiting  int64  // now
	Waits    uint64 // begun
	Timeouts uint64 // ended by their deadline
	Full     uint64 // refused because the queue was full
	Waited   int64  // ns, the sum of all waits that are over
}

// Queue is what the pool's queue did so far.
func (p *Pool) Queue() QueueStats {
	return QueueStats{p.Waiting(), p.queue.waits.Load(), p.queue.timeouts.Load(), p.queue.full.Load(), p.queue.waited.Load()}
}

// Waiting is the number of requests that wait for a backend, those included that have been woken and not come yet.
func (p *Pool) Waiting() int64 { return p.attention.Load() & waiters }

// The parts of Pool.attention.
const (
	waiters = 1<<32 - 1 // the number of waiters
	ramping = 1 << 32   // some backend's share is reduced, see ramp.go

	explaining = 1 << 33 // somebody asks how requests are answered, see explain.go
)

// Wait puts w at the end of the queue, on behalf of s, which Acquire has just refused. It returns false when the queue
// is full: then there is no point in waiting. What comes free between Acquire and Wait is seen.
//
// How many may wait is Settings.HoldRequests while nobody is ready, or a backend without limit is; otherwise waiting
// is for one of MaxInflight places, and Settings.QueueLen is the bound. For those that a strategy holds back it is
// Settings.QueueLen if that is set, else heldRequests.
//
// A request that waits while nobody is ready may be sent to whoever is ready first, also if it has been there: what it
// has tried is forgotten.
func (p *Pool) Wait(w *Waiter, s *Selection) bool {
	q := &p.queue
	q.mu.Lock()
	if w.state != notWaiting {
		q.mu.Unlock()
		panic("upstream: Pool.Wait called twice")
	}
	snap := p.snap.Load()
	if p.Waiting() >= snap.queueBound() || snap.Settings.HoldBytes > 0 && w.Size > 0 && q.size+w.Size > snap.Settings.HoldBytes {
		q.mu.Unlock()
		q.full.Add(1)
		return false
	}
	if len(snap.Ready) == 0 {
		s.Forget()
	}
	if p.Waiting() == 0 {
		q.swift = s.Now
	}
	q.tickets++
	w.sel, w.ticket, w.since, s.waiter = s, q.tickets, s.Now, w
	q.size += w.Size
	q.waits.Add(1)
	q.insert(w)
	p.attention.Add(1) // first, so that whoever frees something from now on looks here
	p.dispatch(s.Now, 0)
	q.mu.Unlock()
	if watch := p.watcher.Load(); watch != nil && len(p.snap.Load().Ready) == 0 {
		(*watch).Waiting()
	}
	return true
}

// Leave takes w out of the queue without a backend, timedOut by its deadline or because the client went. If it had
// been woken already, the next is woken in its place. It does nothing when w does not wait.
func (p *Pool) Leave(w *Waiter, timedOut bool, now int64) {
	q := &p.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	switch w.state {
	case notWaiting:
		return
	case queued:
		q.remove(w)
	case woken:
		q.owed--
	}
	if timedOut {
		q.timeouts.Add(1)
	} else if snap := p.snap.Load(); q.listed >= backlog*len(snap.Ready) && now-w.since > int64(snap.Settings.QueueTimeout)/5 {
		q.lost = now
	}
	p.left(w, now)
	p.dispatch(now, 0)
}

// left ends a wait. The caller holds q.mu and has taken w out of the list or of owed.
func (p *Pool) left(w *Waiter, now int64) {
	q := &p.queue
	q.size -= w.Size
	q.waited.Add(max(0, now-w.since))
	w.state, w.sel.waiter, w.sel = notWaiting, nil, nil
	p.attention.Add(-1)
}

// acquireQueued is Acquire while somebody waits.
func (p *Pool) acquireQueued(s *Selection) (Lease, error) {
	q := &p.queue
	w := s.waiter
	q.mu.Lock()
	switch {
	case w != nil && w.state == queued: // not its turn
		err := p.snap.Load().refusal(s)
		if errors.Is(err, ErrTried) { // who was left to try has gone
			q.remove(w)
			p.left(w, s.Now)
		}
		q.mu.Unlock()
		return Lease{}, err
	case w == nil && s.leases == 0:
		// A newcomer goes ahead only if all who wait have been woken and more is free than they are owed.
		if snap := p.snap.Load(); q.listed > 0 || p.taken(snap, s) {
			err := snap.refusal(s)
			q.mu.Unlock()
			return Lease{}, err
		}
		q.owed++
	case w == nil: // a retry came before all who wait
		q.owed++
	}
	q.mu.Unlock()

	l, err := p.choose(s)

	q.mu.Lock()
	defer q.mu.Unlock()
	q.owed--
	switch {
	case w == nil:
	case err == nil || errors.Is(err, ErrTried):
		p.left(w, s.Now)
	default:
		q.insert(w)
	}
	p.dispatch(s.Now, 0)
	return l, err
}

// taken reports whether all that is free is owed to others than s, a newcomer. The caller holds q.mu.
func (p *Pool) taken(snap *Snapshot, s *Selection) bool {
	if snap.hold != nil {
		if n, limited := snap.hold.Room(s.Now, p.Waiting(), nil); limited {
			return n-p.queue.owed <= 0
		}
	}
	return !snap.unlimited() && snap.free()-p.queue.owed <= 0
}

// freed is called when something became free while somebody waits: extra waiters may go beyond burst. now is 0 where the
// time is not at hand.
func (p *Pool) freed(now, extra int64) {
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	p.dispatch(now, extra)
}

// dispatch wakes waiters, the first first, as many as there is room for. The caller holds q.mu.
func (p *Pool) dispatch(now, extra int64) {
	q := &p.queue
	q.now = max(q.now, now)
	snap := p.snap.Load()
	if q.first == nil || q.listed < backlog*len(snap.Ready) || q.now-q.first.since < int64(snap.Settings.QueueTimeout) {
		q.swift = q.now
	}
	if q.listed == 0 {
		return
	}
	if snap.hold != nil {
		if n, limited := snap.hold.Room(q.now, p.Waiting(), nil); limited {
			p.wake(n-q.owed, func(s *Selection) bool { return snap.placeable(s, q.now, p.Waiting()) })
			return
		}
	}
	p.wake(max(snap.free()-q.owed, extra), func(s *Selection) bool { return snap.canServe(s, extra > 0) })
}

// wake wakes the first n waiters that can be served, or when the queue is hopeless the last. The caller holds q.mu.
func (p *Pool) wake(n int64, can func(*Selection) bool) {
	q := &p.queue
	w, reverse := q.first, false
	if n > 0 && q.hopeless(p.snap.Load(), q.now) {
		w, reverse = q.last, true
	}
	for w != nil && n > 0 {
		next := w.next
		if reverse {
			next = w.prev
		}
		if can(w.sel) {
			q.remove(w)
			w.state = woken
			q.owed++
			n--
			w.Wake()
		}
		w = next
	}
}

// backlog is how many requests for each ready backend make a queue that is not that of a few slow ones.
const backlog = 2

// Holds reports whether the strategy may have requests wait.
func (n *Snapshot) Holds() bool { return n.hold != nil }

// Held reports whether requests wait because the strategy wants them to, who may otherwise be sent to a backend at any
// time. Such a wait takes the place of the one in the backend's own queue, which counts as part of its response time.
func (n *Snapshot) Held() bool { return n.hold != nil && n.unlimited() }

// Overdue reports whether w should give up at time now, although its own deadline has not come: more is asked of the pool
// than it can do, and somebody has to. A burst is served however long it takes. But when those who are first in a queue that
// is not short have waited for more than QueueTimeout, and that for as long as twice QueueTimeout without a pause, the
// queue does not end by itself; who has waited for more than QueueTimeout leaves it then, and those that are served are served
// soon. (As CoDel does, K. Nichols and V. Jacobson 2012.) Who waits asks now and then, which also is when the queue is looked
// at if nothing happens in the pool.
func (p *Pool) Overdue(w *Waiter, now int64) bool {
	q := &p.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	snap := p.snap.Load()
	if w.state == queued && snap.Held() && now-w.since >= int64(snap.Settings.QueueTimeout) && q.endless(snap, now) {
		return true
	}
	p.dispatch(now, 0) // a strategy may give more with time alone
	return false
}

// endless reports whether a queue does not end by itself. The caller holds q.mu.
func (q *queue) endless(snap *Snapshot, now int64) bool {
	return now-q.swift >= 2*int64(snap.Settings.QueueTimeout)
}

// hopeless reports whether who is last in a queue of those held back should be first. That is so when the queue does not end
// by itself, and when clients lose patience: in order of arrival all would wait for as long as clients do, and be served when
// nobody waits for the answer any more. So most are served at once, and some not at all. The caller holds q.mu.
func (q *queue) hopeless(snap *Snapshot, now int64) bool {
	most := int64(snap.Settings.QueueTimeout)
	return snap.Held() && q.listed >= backlog*len(snap.Ready) && (q.endless(snap, now) || q.lost > 0 && now-q.lost < most)
}

// free is how many requests from the queue the ready backends could take now.
func (n *Snapshot) free() int64 {
	sum := int64(0)
	for _, b := range n.Ready {
		sum += b.Room()
	}
	return sum
}

// unlimited reports whether a ready backend takes any number of requests.
func (n *Snapshot) unlimited() bool {
	for _, b := range n.Ready {
		if b.MaxInflight <= 0 && !b.Draining() {
			return true
		}
	}
	return false
}

// Room is how many requests from the queue the backend could take now, if its strategy has no limit.
func (b *Backend) Room() int64 {
	l := b.Load()
	switch {
	case l.Draining():
		return 0
	case b.MaxInflight > 0:
		return max(0, b.MaxInflight-l.requests())
	}
	return max(0, burst-l.Active())
}

// canServe reports whether a ready backend that s has not tried has room, or is without limit when beyond is set; or
// s has tried all of them, so that there is nothing more to wait for.
func (n *Snapshot) canServe(s *Selection, beyond bool) bool {
	untried := false
	for _, b := range n.Ready {
		if s.Has(b.Live) {
			continue
		}
		if b.Room() > 0 || beyond && b.MaxInflight <= 0 && !b.Draining() {
			return true
		}
		untried = true
	}
	return !untried
}

// placeable is canServe where the strategy has a limit.
func (n *Snapshot) placeable(s *Selection, now, waiting int64) bool {
	if s.Tried() == 0 {
		return true // as the others that Room has counted
	}
	room, _ := n.hold.Room(now, waiting, s)
	return room > 0 || n.refusal(s) == ErrTried
}

// queueBound is how many may wait.
func (n *Snapshot) queueBound() int64 {
	places := int64(0)
	for _, b := range n.Ready {
		if b.MaxInflight <= 0 {
			switch {
			case n.hold != nil && n.Settings.QueueLen > 0:
				return int64(n.Settings.QueueLen)
			case n.hold != nil:
				return max(int64(n.Settings.HoldRequests), heldRequests)
			}
			return int64(n.Settings.HoldRequests)
		}
		places += b.MaxInflight
	}
	switch {
	case len(n.Ready) == 0:
		return int64(n.Settings.HoldRequests)
	case n.Settings.QueueLen == 0:
		return 2 * places
	}
	return int64(max(0, n.Settings.QueueLen))
}

// insert puts w into the list where its ticket belongs: at the end when it is new, near the front when it comes back.
func (q *queue) insert(w *Waiter) {
	w.state = queued
	q.listed++
	if q.last == nil || q.last.ticket < w.ticket {
		w.prev, w.next = q.last, nil
		if q.last == nil {
			q.first = w
		} else {
			q.last.next = w
		}
		q.last = w
		return
	}
	at := q.first
	if q.last.ticket-w.ticket < w.ticket-q.first.ticket && q.first.ticket < w.ticket { // from the nearer end
		for at = q.last; at.prev.ticket > w.ticket; at = at.prev {
		}
	}
	for at.ticket < w.ticket {
		at = at.next
	}
	w.prev, w.next = at.prev, at
	if at.prev == nil {
		q.first = w
	} else {
		at.prev.next = w
	}
	at.prev = w
}

func (q *queue) remove(w *Waiter) {
	q.listed--
	if w.prev == nil {
		q.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.next, w.prev = nil, nil
}

// freedBy is freed for an attempt that ended on b. An answer shows that b keeps up, which lets it have more; not others,
// when it is on its way out.
func (p *Pool) freedBy(b *Backend, o Outcome) {
	extra := int64(0)
	if b.MaxInflight <= 0 && !o.Fault.Blames() && p.snap.Load().isReady(b.Live) {
		extra = 2
	}
	p.freed(o.Now, extra)
}

func (n *Snapshot) isReady(l *Live) bool {
	for _, b := range n.Ready {
		if b.Live == l {
			return true
		}
	}
	return false
}
