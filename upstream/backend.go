// Package upstream is who requests can be sent to: pools of backends, the snapshot of a pool that a request sees, and
// the lease that counts it on one backend.
//
// Two things hold throughout. A Snapshot never changes: whoever read one can go on with it, and every change of a pool
// publishes another through one pointer. And a lease counts first and looks second, so that a backend that drains
// waits for exactly those that it admitted.
package upstream

import (
	"sync"
	"sync/atomic"
	"time"
)

// Spec is what the configuration says of a backend.
type Spec struct {
	Name        string // unique in its pool; empty means the address
	Addr        Addr
	Weight      int   // its share of requests against the others', in parts of Unit; 0: gets nothing new
	Unit        int   // what a weight of 1 is, the same for all backends of a pool; 0: 1
	MaxInflight int64 // requests at a time, parked ones included, tunnels not; 0: no limit
}

// Weighs is the weight as people write it.
func (s *Spec) Weighs() float64 { return float64(s.Weight) / float64(max(1, s.Unit)) }

// Backend is one instance of a pool as one snapshot has it. What is learned about the instance is in Live.
type Backend struct {
	Spec
	*Live
	index int
}

// Index is the backend's place in Ready of the snapshot that it belongs to, -1 when it is not ready.
func (b *Backend) Index() int { return b.index }

// Live is the part of a backend that survives reloads: it goes by pool and name, as long as the address stays.
// Everything that refers to a Live keeps its ID from being given to another.
type Live struct {
	ID int // small, dense, process-wide; an index for tables by backend

	// Memory is where the pool's strategy keeps what it learned about this backend.
	Memory

	pool   *Pool
	shards []*shard

	ramp    atomic.Int64 // since when its share grows, ns; 0: it is whole; rampPending: from the next look on
	rampFor atomic.Int64 // ns

	ejections atomic.Uint64
	returns   atomic.Uint64
	checks    [2]atomic.Uint64 // active checks that failed, and that passed

	era      atomic.Uint64                // see Era
	sessions atomic.Pointer[atomic.Int64] // nil: nobody counts them

	cold bool // guarded by Pool.mu: it was away, or joined a pool that was at work

	mu      sync.Mutex
	life    Life          // guarded by mu, and by Pool.mu for writing
	drained chan struct{} // guarded by mu; made by drain, closed when nothing is left
	isEmpty bool          // guarded by mu: drained is closed
	stands  standing      // guarded by mu
	since   time.Time     // guarded by mu; when stands became what it is

	_    [64]byte
	load atomic.Uint64 // a Load; alone on its line, every loop writes it
	_    [64]byte
}

func newLive(p *Pool) *Live {
	l := &Live{pool: p, shards: make([]*shard, p.loops)}
	for i := range l.shards {
		l.shards[i] = new(shard)
	}
	identify(l)
	return l
}

// Pool is the pool that the backend is or was in.
func (l *Live) Pool() *Pool { return l.pool }

// Load is what is on the backend now.
func (l *Live) Load() Load { return Load(l.load.Load()) }

// Inflight is the number of requests on the backend, parked ones included, tunnels not.
func (l *Live) Inflight() int64 { return l.Load().requests() }

// Tunnels is the number of upgraded connections to the backend.
func (l *Live) Tunnels() int64 { return l.Load().Tunnels() }

// Era changes when the backend can no longer be trusted to remember anything: when it was found dead or down, or has been
// drained. It mostly is another process then.
func (l *Live) Era() uint64 { return l.era.Load() }

// Sessions is about how many sessions in use the backend has that are not tunnels; 0 where nobody counts them.
func (l *Live) Sessions() int64 {
	if n := l.sessions.Load(); n != nil {
		return max(0, n.Load())
	}
	return 0
}

// CountSessions says where the sessions of the backend are counted.
func (l *Live) CountSessions(n *atomic.Int64) { l.sessions.Store(n) }

// Draining reports whether the backend refuses new leases: it left its pool or is about to.
func (l *Live) Draining() bool { return l.Load().Draining() }

// Stats are the counters that loop writes for this backend; for others they are there to be read.
func (l *Live) Stats(loop int) *Stats { return &l.shards[loop].Stats }

// Ejections is how often passive checks took the backend out, and Returns how often they let it in again.
func (l *Live) Ejections() uint64 { return l.ejections.Load() }

// Returns is described at Ejections.
func (l *Live) Returns() uint64 { return l.returns.Load() }

// Checked counts an active check.
func (l *Live) Checked(passed bool) {
	i := 0
	if passed {
		i = 1
	}
	l.checks[i].Add(1)
}

// Checks is how many active checks passed, and how many failed.
func (l *Live) Checks() (passed, failed uint64) { return l.checks[1].Load(), l.checks[0].Load() }

// Loops is the number of Stats.
func (l *Live) Loops() int { return len(l.shards) }

// move counts a lease as another kind.
func (l *Live) move(from, to Load) { l.load.Add(uint64(to - from)) }

// drop takes a lease off the count and closes drained when it was the last of a draining backend.
func (l *Live) drop(unit Load) {
	if Load(l.load.Add(uint64(-unit))) == draining {
		l.emptied()
	}
}

func (l *Live) emptied() {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Asked again under the lock: meanwhile the backend may have been taken back. A lease that comes and is refused
	// may get here a second time.
	if l.drained != nil && !l.isEmpty && l.Draining() {
		l.isEmpty = true
		close(l.drained)
	}
}

// admit counts a lease as unit, then looks whether it may be. A drain that comes later waits for it; one that came earlier
// shows in the count itself.
//
// Where there is a limit, nothing is counted that is refused: otherwise the count would be above the limit for a
// moment, and who looks for a free place just then would find none.
func (l *Live) admit(unit Load, limit int64) (Load, bool) {
	if limit > 0 {
		for {
			if n, ok, stale := l.admitAt(l.Load(), unit, limit); !stale {
				return n, ok
			}
		}
	}
	n := Load(l.load.Add(uint64(unit)))
	if n.Draining() {
		l.drop(unit)
		return 0, false
	}
	return n, true
}

// admitAt is admit for a choice that was made at load seen: it refuses, by stale, when the load is another by now.
func (l *Live) admitAt(seen, unit Load, limit int64) (n Load, ok, stale bool) {
	n = seen + unit
	if n.Draining() || limit > 0 && n.requests() > limit {
		return 0, false, false
	}
	if !l.load.CompareAndSwap(uint64(seen), uint64(n)) {
		return 0, false, true
	}
	return n, true, false
}

// Wanted is what configuration, discovery and people want of a backend.
type Wanted uint8

// What may be wanted of a backend.
const (
	In       Wanted = iota // it takes part
	Draining               // it finishes what it has
	Out                    // it left its pool
)

func (w Wanted) String() string { return [...]string{"in", "draining", "out"}[w] }

// Probed is what active checks saw of a backend.
type Probed uint8

// What active checks can say.
const (
	Unknown Probed = iota
	Up
	Down
)

func (p Probed) String() string { return [...]string{"unknown", "up", "down"}[p] }

// Life is three facts about a backend, each with one writer. Whether it is ready follows from them in one place,
// Pool.publish.
type Life struct {
	Wanted  Wanted    // written by configuration, discovery and the admin interface
	Probed  Probed    // written by active checks
	Ejected time.Time // written by passive checks: until when; zero when it is not
	Dead    bool      // with Ejected: it refuses connections, which is proof rather than suspicion

	Sessions bool // with Draining: the sessions that it has go on for a while, see EndSessions
}

// ends reports whether what clients have at the backend is over.
func (l *Life) ends() bool { return l.dead() || l.Wanted != In && !l.Sessions }

// dead reports whether it is known that the backend answers nobody: then it is not used even when nobody else is left.
func (l *Life) dead() bool { return l.Probed == Down || l.Dead }

// Life is what is known about the backend's fitness.
func (l *Live) Life() Life {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.life
}

// standing is what people are told of a backend's fitness in one word.
type standing struct {
	wanted                      Wanted
	dead, ejected, rests, waits bool
}

// stand notes since when the backend, of a snapshot about to be published, stands as it does.
func (b *Backend) stand() {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := &b.life
	is := standing{wanted: l.Wanted, dead: l.dead(), ejected: !l.Ejected.IsZero(), rests: b.Weight <= 0}
	is.waits = is == standing{} && b.index < 0
	if is != b.stands || b.since.IsZero() {
		b.stands, b.since = is, time.Now()
	}
}

// Since is when the backend became what it is: ready, draining, down, ejected, without weight, or not yet checked.
func (l *Live) Since() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.since
}

// Memory holds what a strategy learned, under its name, so that it outlives the snapshot it was learned with. The
// zero Memory is ready to use.
type Memory struct {
	mu sync.Mutex
	m  map[string]any
}

// Recall returns what is kept under name, made by make when there is nothing. It is meant for a Build, not for a Pick.
func (m *Memory) Recall(name string, make func() any) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.m[name]
	if !ok {
		v = make()
		if m.m == nil {
			m.m = map[string]any{}
		}
		m.m[name] = v
	}
	return v
}
