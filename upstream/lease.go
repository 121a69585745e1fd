package upstream

import (
	"errors"
	"syscall"
)

// Selection is one exchange's wish for a backend, and what it has tried. The caller keeps one per exchange and resets
// it: passed through an interface it would otherwise be allocated for each request.
type Selection struct {
	Now    int64  // ns on the process's monotonic clock
	Loop   int    // who asks: one loop is one goroutine at a time
	Key    uint64 // what the hash strategy goes by, see KeyOf
	HasKey bool
	Tunnel bool // the request asks for an upgrade: it goes where the fewest tunnels are

	// Prefer is who serves this client already: it gets the request if it takes any, before the strategy is asked. It may
	// be one that is not ready, as it has weight 0 or drains. Whoever asks again after a failure leaves it out.
	Prefer  *Backend
	Bound   bool // nobody but Prefer can serve the request, so that MaxInflight does not hold there
	Session bool // the request begins a session that lasts: it goes where the fewest sessions and tunnels are
	Stream  bool // the answer is a stream of events or the like: it goes where the fewest of these are, and is parked at once

	// Kind is asked about where Snapshot.Holds, for requests that are no Stream by what they say: they may be known to wait.
	Kind Kind

	Of Asker // which request it is, for those who ask; Reset leaves it

	leases int // given to this exchange
	tried
	before  tried // what was tried before this Acquire, once somebody refused
	refused bool  // in this Acquire

	waiter *Waiter // its place in the queue, if it has one

	waiting int64 // requests in the queue, those included that are on their way out of it
	seen    Load
	saw     bool
	ramping bool
	mayWait bool
	asked   bool // somebody wants to know how it is answered
	note    uint8
	said    uint8
	drawn   [2]int32
}

// tried is a set of backends.
type tried struct {
	n    int
	bits [4]uint64
	more []uint64 // IDs from 256
}

// Reset makes s a new exchange's, seen by loop at time now.
func (s *Selection) Reset(now int64, loop int) {
	s.Now, s.Loop, s.Key, s.HasKey, s.Tunnel = now, loop, 0, false, false
	s.Prefer, s.Bound, s.Session, s.Stream, s.Kind = nil, false, false, false, 0
	s.leases = 0
	s.Forget()
}

// Forget makes s free to go to backends again that it has tried.
func (s *Selection) Forget() {
	if s.n > 0 {
		s.n = 0
		s.bits = [4]uint64{}
		clear(s.more)
	}
}

// unit is what a lease for s is counted as.
func (s *Selection) unit() Load {
	if s.Stream {
		return parked
	}
	return one
}

// Lasts reports whether the request begins something that lasts, so that what lasts already decides where it goes.
func (s *Selection) Lasts() bool { return s.Tunnel || s.Session || s.Stream }

// Tried is the number of backends that had their chance: by a lease, or, within one Acquire, by refusing one.
func (s *Selection) Tried() int { return s.n }

// Ramping reports whether the Share of some backend is reduced.
func (s *Selection) Ramping() bool { return s.ramping }

// Waiting is the number of requests in the pool's queue, this one included if it is among them.
func (s *Selection) Waiting() int64 { return s.waiting }

// MayWait reports whether a request that a Holder refuses can wait for its turn.
func (s *Selection) MayWait() bool { return s.mayWait }

// Note gives the lease of the choice that a Pick is about to return something to remember, see Lease.Note.
func (s *Selection) Note(n uint8) { s.note = n }

// Has reports whether b has had its chance; a strategy passes over it.
func (s *Selection) Has(b *Live) bool {
	if s.n == 0 {
		return false
	}
	w := b.ID >> 6
	if w < len(s.bits) {
		return s.bits[w]>>(b.ID&63)&1 != 0
	}
	w -= len(s.bits)
	return w < len(s.more) && s.more[w]>>(b.ID&63)&1 != 0
}

// pass marks a backend that refused until forgive is called: who is full or drains now need not be when the exchange
// asks again.
func (s *Selection) pass(b *Live) {
	if !s.refused {
		s.refused = true
		more := append(s.before.more[:0], s.more...)
		s.before = s.tried
		s.before.more = more
	}
	s.mark(b)
}

// forgive takes back what pass did.
func (s *Selection) forgive() {
	s.tried, s.before = s.before, s.tried
	s.refused = false
}

func (s *Selection) mark(b *Live) {
	s.n++
	w := b.ID >> 6
	if w < len(s.bits) {
		s.bits[w] |= 1 << (b.ID & 63)
		return
	}
	w -= len(s.bits)
	for w >= len(s.more) {
		s.more = append(s.more, 0)
	}
	s.more[w] |= 1 << (b.ID & 63)
}

// Saw tells Acquire at which load the strategy found its choice best. When the load has changed until the lease is
// counted, Acquire asks the strategy again: two loops do not both take the last idle backend unawares. A strategy that
// does not go by load does not call it.
func (s *Selection) Saw(l Load) { s.seen, s.saw = l, true }

// ParkAfter is how old a request must be to be parked, in ns.
const ParkAfter = 500e6

// Lease is one admitted attempt: it is counted on its backend until Done. It is a value; all calls on it are made
// by the loop that acquired it.
type Lease struct {
	b     *Backend
	obs   Observer
	start int64
	loop  int16
	ahead uint16 // 65535 stands for more
	kind  Kind
	note  uint8
	unit  Load    // what it is counted as; 0 after Done
	told  *ending // who asked about the decision, and wants to know how it ends; mostly nil
}

// Backend is whom the request goes to; it can be asked for after Done too.
func (l *Lease) Backend() *Backend { return l.b }

// Loop is who acquired it.
func (l *Lease) Loop() int { return int(l.loop) }

// Start is when the lease was given, ns.
func (l *Lease) Start() int64 { return l.start }

// Ahead is the number of requests that the backend had in flight before this one, without parked ones.
func (l *Lease) Ahead() int64 { return int64(l.ahead) }

// Note is what the strategy noted when it chose, else 0.
func (l *Lease) Note() uint8 { return l.note }

// AdoptTunnel gives a lease for a tunnel that another process made to the backend of that name and address. It reports
// false when there is no such backend, or it takes nothing new.
func (p *Pool) AdoptTunnel(name, addr string, loop int, now int64) (Lease, bool) {
	for _, b := range p.snap.Load().All {
		if b.Name != name || b.Addr.String() != addr {
			continue
		}
		if Load(b.load.Add(uint64(tunnel))).Draining() {
			b.drop(tunnel)
			return Lease{}, false
		}
		return Lease{b: b, start: now, loop: int16(loop), unit: tunnel}, true
	}
	return Lease{}, false
}

// Active reports whether the request counts as active: it has not become a tunnel, and is not parked.
func (l *Lease) Active() bool { return l.unit == one }

// Parked reports whether the request counts as parked.
func (l *Lease) Parked() bool { return l.unit == parked }

// Tunnel says that the request has become a tunnel: it is no longer in flight, but counts as a tunnel until Done.
func (l *Lease) Tunnel() {
	if l.unit != tunnel {
		l.b.move(l.unit, tunnel)
		l.unit = tunnel
		if p := l.b.pool; p.Waiting() > 0 {
			p.freed(0, 0)
		}
	}
}

// Park counts the request as parked if it should be: it is older than ParkAfter, and a request that the backend got
// later has been answered, so it waits for something else than the backend's attention (a long poll, an SSE stream, a
// slow query). Parked requests do not make a backend look busy. Park reports whether the request is parked now.
//
// Nothing in upstream keeps lists of leases or timers. The proxy calls Park when it looks at an old request anyway:
// when a timer of the exchange fires, and when a piece of the response body arrives. It costs two comparisons before
// ParkAfter, and a read of each loop's Stats after.
func (l *Lease) Park(now int64) bool {
	if l.unit != one {
		return l.unit == parked
	}
	if now-l.start < ParkAfter || !l.Overtaken() {
		return false
	}
	l.park(now)
	return true
}

// Stream says that the answer is a stream of events: it is parked, however young.
func (l *Lease) Stream(now int64) {
	switch l.unit {
	case one:
		l.park(now)
	case parked:
		l.learnWaits()
	}
}

func (l *Lease) park(now int64) {
	l.b.move(one, parked)
	l.unit = parked
	l.learnWaits()
	if p := l.b.pool; p.Waiting() > 0 {
		p.freed(now, 0)
	}
}

// Overtaken reports whether a request that the backend got after this one has been answered.
func (l *Lease) Overtaken() bool {
	for _, s := range l.b.shards {
		if s.newest.Load() > l.start {
			return true
		}
	}
	return false
}

// Outcome is how a lease ended.
type Outcome struct {
	Now     int64 // when, ns
	Latency int64 // ns from Acquire to the first byte of the response head; <= 0: nothing came
	Status  int   // of the final response, 0 when there was none
	Fault   Fault
}

// Fault is what went wrong with an attempt, and by that whose fault it was.
type Fault uint8

// The faults.
const (
	FaultNone      Fault = iota
	FaultConnect         // no connection to the backend
	FaultRefused         // the backend refused the connection: nobody listens there
	FaultTimeout         // the backend was silent for too long
	FaultReset           // the connection ended in the middle
	FaultMalformed       // the response made no sense
	FaultStatus          // a status that counts as failure, such as 503
	FaultClient          // the client went away or sent nonsense: no blame for the backend
	Faults               // the number of them
)

func (f Fault) String() string {
	return [...]string{"none", "connect", "refused", "timeout", "reset", "malformed", "status", "client"}[f]
}

// ConnectFault is the fault of a connection that could not be made for err.
func ConnectFault(err error) Fault {
	// A unix socket whose process has ended is either still there, or has been removed.
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
		return FaultRefused
	}
	return FaultConnect
}

// Blames reports whether the fault is the backend's.
func (f Fault) Blames() bool { return f != FaultNone && f != FaultClient }

// Done ends the lease, exactly once: it panics when called again.
func (l *Lease) Done(o Outcome) {
	unit := l.unit
	if unit == 0 {
		panic("upstream: Lease.Done called twice")
	}
	s := l.b.Stats(int(l.loop))
	class := o.Status / 100
	if class < 0 || class >= len(s.Requests) {
		class = 0
	}
	s.Requests[class].Inc()
	if o.Fault != FaultNone {
		s.Faults[o.Fault].Inc()
		l.b.pool.blame(l.b, o)
	}
	if unit != tunnel {
		s.Latency.Observe(o.Now - l.start)
	}
	if l.kind != 0 {
		l.learnEnd(o)
	}
	if o.Latency > 0 {
		if d := l.start - s.newest.Load(); d > 0 {
			s.newest.Add(d)
		}
	}
	// The strategy hears of it before the count falls: another loop that sees the backend idle also sees what was
	// learned.
	if l.obs != nil {
		l.obs.Done(l.b, *l, o)
	}
	if l.told != nil {
		l.told.tell(o, o.Now-l.start)
		l.told = nil
	}
	l.unit = 0
	p := l.b.pool
	l.b.drop(unit)
	if p.Waiting() > 0 {
		p.freedBy(l.b, o)
	}
}
