// Package affinity is who served this client before. It reads a request and names the backend that should have it, and
// reads the answer to learn for the next time. What it names is a preference: who is dead or ejected is not named, and a
// pool is free to send the request elsewhere.
//
// There are three ways for a client to be known again. By a cookie of lb's own, which names the backend and which any lb
// with the same keys understands; nothing is remembered. By a cookie of the application, or by the session ID of
// Socket.IO, of which lb remembers who issued it; that takes memory, of fixed size, and does not survive the process but
// by Save and Load. And by a hash of something in the request, which the pool's hash strategy turns into a backend;
// nothing is remembered there either.
//
// A request's life with an Affinity is a Visit: Begin when its head has been read, Prefer and HashKey before a backend is
// acquired, Answer when the head of the answer has come, SetCookie and Feed with what is in it, End. A Visit belongs to
// one loop and is kept for use again. All that is shared between loops is read and written without locks; the one lock is
// for when the pool has changed, and then it is tried, not waited for.
package affinity

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"lb/upstream"
)

// Kind is how a pool's clients are known again.
type Kind uint8

// The kinds.
const (
	None      Kind = iota
	Cookie         // lb sets a cookie
	AppCookie      // the application does
	Hash           // part of the request says it
)

// Options are what is configured for one pool.
type Options struct {
	Kind Kind

	Cookie    CookieOptions // of kind Cookie
	AppCookie string        // of kind AppCookie: its name
	Hash      HashKey       // of kind Hash

	SocketIO bool // beside Kind: Socket.IO sessions stay where they began

	Sessions int           // the most that is remembered, a power of two; 0: DefaultSessions
	TTL      time.Duration // after which an unused session is forgotten; 0: DefaultTTL
}

// Defaults of Options.
const (
	// DefaultSessions is for Socket.IO and for application cookies each. When all are in use they take 2.5 MB.
	DefaultSessions = 1 << 16
	// DefaultTTL is far longer than Socket.IO is silent (25 s between two pings), and than what a session of an
	// application that does not ask lb takes to return for.
	DefaultTTL = 10 * time.Minute
	// inUse is how long after its last request a session counts as load. Those of Socket.IO that poll ask every 25 s.
	inUse = 90 * time.Second
	// maxSessions bounds what a slip of the pen allocates.
	maxSessions = 1 << 24
)

// Affinity is one pool's. It may be used by all loops at once.
type Affinity struct {
	pool    *upstream.Pool
	opt     Options
	fields  cookieFields
	memory  *memory
	sids    *table // nil: no Socket.IO
	learned *table // of kind AppCookie
	view    atomic.Pointer[view]
	shards  []shard

	// tokens are the cookie values of backends by name, the first for setting. Guarded by memory.mu.
	tokens map[string][]token
}

// memory is what outlives a change of Options.
type memory struct {
	mu   sync.Mutex // held for a change of the pool or of the Options
	refs map[string]*ref

	shards  []shard
	secret  secret
	sids    *table
	learned *table
	name    string // of the application's cookie whose values are learned
}

// view is what follows from one snapshot of the pool.
type view struct {
	snap   *upstream.Snapshot
	refs   map[string]*ref // of the backends in snap
	tokens tokenTable
}

// ref stands for the backend of a name, whether there is one now or not, as long as it can be trusted to be the same
// process. One that was dead gets another ref: nobody has a session with it.
type ref struct {
	name  string
	place atomic.Pointer[place] // nil: not in the pool, or not that process any more
	bound atomic.Int64          // about how many sessions in use tables have of it: see Sweep
	seen  atomic.Int64          // ns, about when a client last brought lb's cookie of it, or got one

	// Guarded by memory.mu. Of a ref that was read from a saved state, live is nil until the backend is met.
	live *upstream.Live
	era  uint64
}

// place is what the pool's newest snapshot says of a backend.
type place struct {
	b     *upstream.Backend
	state state
}

type state uint8

const (
	away   state = iota // nobody is to be sent there
	closed              // it takes nothing new, as it drains or has weight 0, but who has a session there
	ready
)

// maxGone is how many backends that left are known by name, so that who comes with a cookie of theirs counts as moved.
const maxGone = 256

// New makes the affinity of a pool whose requests are served by the given number of loops. With old, which may be nil, it
// knows what that one knew; old may still be used by requests that began with it. now is the time of the loops, as in Request.
func New(pool *upstream.Pool, loops int, now int64, o Options, old *Affinity) (*Affinity, error) {
	if o.Sessions == 0 {
		o.Sessions = DefaultSessions
	}
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	switch {
	case o.Sessions < 0 || o.Sessions > maxSessions:
		return nil, fmt.Errorf("affinity: %d sessions, want 1 to %d", o.Sessions, maxSessions)
	case o.TTL < 0:
		return nil, errors.New("affinity: a time is negative")
	case o.Kind == AppCookie && !isToken(o.AppCookie):
		return nil, fmt.Errorf("affinity: %q is no name of a cookie", o.AppCookie)
	}
	a := &Affinity{pool: pool, opt: o, tokens: map[string][]token{}}
	if o.Kind == Cookie {
		f, err := o.Cookie.fields()
		if err != nil {
			return nil, err
		}
		a.fields = f
	}
	a.memory = &memory{refs: map[string]*ref{}, secret: newSecret(), shards: make([]shard, max(1, loops))}
	if old != nil && old.pool == pool && len(old.shards) == max(1, loops) {
		a.memory = old.memory
	}
	a.shards = a.memory.shards
	a.sids, a.learned = a.memory.tables(&o, now)
	a.memory.mu.Lock()
	defer a.memory.mu.Unlock()
	a.rebuild(now)
	return a, nil
}

// tables makes the tables that o asks for, and keeps those that are there. Requests on their way keep the one they
// began with: what it learns after its size has changed is lost.
func (m *memory) tables(o *Options, now int64) (sids, learned *table) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o.SocketIO {
		m.sids = m.fit(m.sids, o, now)
		sids = m.sids
	} else {
		m.sids = nil
	}
	if o.Kind == AppCookie {
		if m.name != o.AppCookie {
			m.name, m.learned = o.AppCookie, nil
		}
		m.learned = m.fit(m.learned, o, now)
		learned = m.learned
	} else {
		m.learned = nil
	}
	return sids, learned
}

func (m *memory) fit(old *table, o *Options, now int64) *table {
	t := newTable(o.Sessions, int64(o.TTL), m.secret)
	if old == nil {
		return t
	}
	if old.capacity() == t.capacity() {
		old.ttl.Store(int64(o.TTL))
		return old
	}
	t.evicted.Store(old.evicted.Load())
	old.each(now, func(e *entry) { t.putUsed(e.key, e.ref, e.used.Load(), now) })
	return t
}

// look is the pool as it is now, or, while another loop is about to see to that, as it was a moment ago.
func (a *Affinity) look(now int64) *view {
	v := a.view.Load()
	if v.snap != a.pool.Snapshot() && a.memory.mu.TryLock() {
		v = a.rebuild(now)
		a.memory.mu.Unlock()
	}
	return v
}

// rebuild makes the view of the newest snapshot. The caller holds memory.mu.
func (a *Affinity) rebuild(now int64) *view {
	m := a.memory
	snap := a.pool.Snapshot()
	if v := a.view.Load(); v != nil && v.snap == snap {
		return v
	}
	v := &view{snap: snap, refs: make(map[string]*ref, len(snap.All))}
	for _, b := range snap.All {
		r := m.refs[b.Name]
		era := b.Era()
		if r != nil && r.live != nil && (r.live != b.Live || r.era != era) {
			r.place.Store(nil)
			r = nil
		}
		if r == nil {
			r = &ref{name: b.Name}
			m.refs[b.Name] = r
			if r.seen.Store(now); a.view.Load() != nil {
				r.seen.Store(now - int64(inUse)) // it joins, or is another process: nobody has a session with it
			}
		}
		r.live, r.era = b.Live, era
		b.CountSessions(&r.bound)
		v.refs[b.Name] = r
		r.place.Store(&place{b, stateOf(b)})
	}
	gone := 0
	for name, r := range m.refs {
		if v.refs[name] == nil {
			gone++
			r.place.Store(nil)
		}
	}
	if gone > maxGone {
		for name := range m.refs {
			if v.refs[name] == nil {
				delete(m.refs, name)
				delete(a.tokens, name)
			}
		}
	}
	if a.opt.Kind == Cookie {
		v.tokens = a.tokenTable()
	}
	a.view.Store(v)
	return v
}

func stateOf(b *upstream.Backend) state {
	if b.Index() >= 0 {
		return ready
	}
	life := b.Life()
	switch {
	case life.Probed == upstream.Down || !life.Ejected.IsZero():
		return away
	case life.Wanted == upstream.Draining && life.Sessions, life.Wanted == upstream.In && b.Weight <= 0:
		return closed
	}
	return away
}

// able is the backend if it can be sent what is bound to it, and whether it takes nothing else.
func able(r *ref) (b *upstream.Backend, only bool) {
	p := r.place.Load()
	if p == nil || p.state == away {
		return nil, false
	}
	return p.b, p.state == closed
}

// Concerns reports whether a request with that query has anything to do with a. Most have not, where there is Socket.IO alone.
func (a *Affinity) Concerns(query []byte) bool {
	if a.opt.Kind != None {
		return true
	}
	if a.sids == nil || len(query) == 0 {
		return false
	}
	_, ok := engineIO(query)
	return ok
}

// Kind is that of the Options.
func (a *Affinity) Kind() Kind { return a.opt.Kind }

// SocketIO is that of the Options.
func (a *Affinity) SocketIO() bool { return a.sids != nil }

// Quiet reports whether no session of the backend of that name is in use: none that is remembered, as of the last Sweep, and
// nobody has come with lb's cookie of it for as long as a session counts as in use. Of those clients only that much is known, and
// when lb has just begun not even that.
func (a *Affinity) Quiet(backend string, now int64) bool {
	r := a.view.Load().refs[backend]
	return r == nil || r.bound.Load() <= 0 && (a.opt.Kind != Cookie || now-r.seen.Load() >= int64(inUse))
}

// see notes that a client of r's is there. The time is rounded as in touch.
func (r *ref) see(now int64) {
	if now-r.seen.Load() > int64(inUse)/16 {
		r.seen.Store(now)
	}
}

// refOf is the ref of a backend that a request was sent to, nil when it has left the pool meanwhile.
func (a *Affinity) refOf(b *upstream.Backend, now int64) *ref {
	r := a.view.Load().refs[b.Name]
	if r == nil {
		r = a.look(now).refs[b.Name]
	}
	return r
}

// Sweep forgets the sessions that have expired, and counts those in use, so that Sessions is right. Memory is bounded
// without it. It takes some milliseconds when much is remembered, so it is for an ordinary goroutine, now and then.
func (a *Affinity) Sweep(now int64) {
	left := map[*ref]int64{}
	a.memory.mu.Lock()
	a.rebuild(now)
	a.memory.mu.Unlock()
	for _, t := range []*table{a.sids, a.learned} {
		if t != nil {
			t.sweep(now, left)
		}
	}
	for _, r := range a.view.Load().refs {
		r.bound.Store(left[r])
	}
}

// Sessions is how many sessions of the backend of that name have sent a request of late, those left out that have become
// a tunnel: as many as at the last Sweep, and what came and was pushed out since.
func (a *Affinity) Sessions(backend string) int64 {
	if r := a.view.Load().refs[backend]; r != nil {
		return max(0, r.bound.Load())
	}
	return 0
}

// Ended says that the tunnel of a session (see Visit.Session) has ended, and with it the session, unless its upgrade failed:
// then it is in use again with its next request.
func (a *Affinity) Ended(session uint64, now int64) {
	if a.sids != nil {
		a.sids.rest(session, now)
	}
}

// Evicted is how many sessions were forgotten because more were in use than Options.Sessions.
func (a *Affinity) Evicted() (n uint64) {
	for _, t := range []*table{a.sids, a.learned} {
		if t != nil {
			n += t.evicted.Load()
		}
	}
	return n
}
