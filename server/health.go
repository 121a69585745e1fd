package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"lb/admin"
	"lb/config"
	"lb/health"
	"lb/upstream"
)

// checks is the monitors of all pools, and what they had to tell.
type checks struct {
	mu   sync.Mutex
	of   map[*upstream.Pool]*health.Monitor // guarded by mu
	over bool                               // guarded by mu: lb stops

	news   chan struct{} // has room for one: something was heard
	events events

	hurry time.Duration // over which tunnels are told to go at most; 0: as long as it takes. For tests
}

// watch has the backends of all pools in force checked as cfg says. What is known about them stays.
func (s *Server) watch(cfg *config.Config) {
	c := &s.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	gone := c.of
	c.of = map[*upstream.Pool]*health.Monitor{}
	for i := range cfg.Pools {
		check, passive := poolChecks(&cfg.Pools[i])
		p := s.pool(cfg.Pools[i].Name).Pool
		m := gone[p]
		delete(gone, p)
		if m == nil {
			m = health.New(p, check, passive, health.Options{Log: s.log, OnEvent: s.heard, Known: s.known(p)})
		} else {
			m.Update(check, passive)
		}
		c.of[p] = m
	}
	for _, m := range gone {
		m.Close()
	}
}

// unwatch ends all checks, for good.
func (s *Server) unwatch() {
	c := &s.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	for _, m := range c.of {
		m.Close()
	}
	c.of = nil
}

// firstChecks is how long the first requests wait for the first checks. On this machine those take a millisecond;
// whoever has not answered by then is not waited for.
const firstChecks = time.Second

// awaitChecks returns when every backend has been checked once: the first requests would run into those that are not
// there.
func (s *Server) awaitChecks(ctx context.Context) {
	late := time.NewTimer(firstChecks)
	defer late.Stop()
	for !s.checked() {
		select {
		case <-s.checks.news:
		case <-late.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) checked() bool {
	cfg := s.Config()
	for i := range cfg.Pools {
		if cfg.Pools[i].Health.Kind == "off" {
			continue
		}
		for _, b := range s.pool(cfg.Pools[i].Name).Snapshot().All {
			if b.Life().Probed == upstream.Unknown {
				return false
			}
		}
	}
	return true
}

// heard is told of what the monitors find, after they have acted on it. It must not wait for checks.mu.
func (s *Server) heard(e health.Event) {
	s.checks.events.add(e.Time, e.Pool, e.Backend, e.What.String(), e.Why, e.Until)
	select {
	case s.checks.news <- struct{}{}:
	default:
	}
	b := s.backend(e.Pool, e.Backend)
	if b == nil {
		return
	}
	switch e.What {
	case health.Drains:
		s.letGo(b, leaveOver, b.Pool().Snapshot().Settings.DrainSessions)
	case health.WentDown, health.Ejected:
		// A process on its way out waits for its connections, and one that hangs is not better on an old one.
		s.proxy.Forget([]*upstream.Backend{b})
	}
}

// backend is the backend of those names, nil when there is none.
func (s *Server) backend(pool, name string) *upstream.Backend {
	if p := s.pool(pool); p != nil {
		for _, b := range p.Snapshot().All {
			if b.Name == name {
				return b
			}
		}
	}
	return nil
}

// poolStatus is the pool as the admin interface shows it.
func (s *Server) poolStatus(p *pool) admin.Pool {
	out := admin.PoolStatus(p.Pool, p.strategy)
	out.Affinity = affinityStatus(p)
	out.Rollout = s.rolloutStatus(p)
	s.addRecent(&out)
	s.addDeviations(&out)
	defer s.addReasons(&out)
	s.checks.mu.Lock()
	m := s.checks.of[p.Pool]
	s.checks.mu.Unlock()
	if m == nil {
		return out
	}
	found := map[string]*upstream.Backend{}
	for _, b := range p.Snapshot().All {
		found[b.Name] = b
	}
	for i := range out.Backends {
		if b := found[out.Backends[i].Name]; b != nil {
			out.Backends[i].Health = backendHealth(m.Status(b))
			if b.Life().Wanted == upstream.Draining {
				out.Backends[i].Why = "" // it is not what the last check said
			}
			if why := s.rollouts.whyOut(b.Live); why != "" {
				out.Backends[i].Why = why
			}
		}
	}
	return out
}

// addReasons says of each backend that gets no requests why, where health does not know.
func (s *Server) addReasons(p *admin.Pool) {
	for i := range p.Backends {
		b := &p.Backends[i]
		switch {
		case b.State == admin.Draining && b.Why != "": // a rollout's doing
		case b.State == admin.Draining:
			if e := s.checks.events.last(p.Name, b.Name, "draining"); e != nil {
				if b.Why = e.Why; e.By != "" {
					b.Why += " by " + e.By
				}
			}
		case b.Why != "":
		case b.State == admin.Resting:
			b.Why = "its weight is 0"
		case b.State == admin.Unchecked:
			b.Why = "no check has passed yet"
		}
	}
}

// backendStatus is the backend of that name as the admin interface shows it, nil when there is none.
func (s *Server) backendStatus(p *pool, name string) *admin.Backend {
	st := s.poolStatus(p)
	for i := range st.Backends {
		if st.Backends[i].Name == name {
			return &st.Backends[i]
		}
	}
	return nil
}

// recheck has b asked anew, as one that has just joined.
func (s *Server) recheck(p *pool, b *upstream.Backend) {
	s.checks.mu.Lock()
	defer s.checks.mu.Unlock()
	if m := s.checks.of[p.Pool]; m != nil {
		m.Recheck(b)
	}
}

// unasked reports whether the first check of a backend is still to come, in a pool that has checks.
func (s *Server) unasked(p *pool, name string) bool {
	b := s.backend(p.Name, name)
	s.checks.mu.Lock()
	m := s.checks.of[p.Pool]
	s.checks.mu.Unlock()
	return b != nil && m != nil && m.Asks() && b.Life().Probed == upstream.Unknown
}

// overrule makes the drain of b a person's, who alone ends it, also when b had asked for one.
func (s *Server) overrule(p *pool, b *upstream.Backend) {
	s.checks.mu.Lock()
	defer s.checks.mu.Unlock()
	if m := s.checks.of[p.Pool]; m != nil {
		m.Overrule(b)
	}
}

func backendHealth(st health.Status) (h admin.Health) {
	h.Why = st.Why
	if !st.Ejected.IsZero() {
		until := st.Ejected.UTC().Truncate(time.Millisecond)
		h.Until = &until
	}
	if st.Checked.IsZero() {
		return h
	}
	h.Check = &admin.Check{
		Time: st.Checked.UTC().Truncate(time.Millisecond), Passed: st.Err == nil || errors.Is(st.Err, health.ErrDrain),
		Took: float64(st.Took.Microseconds()) / 1e3, Streak: st.Streak,
	}
	if st.Err != nil {
		h.Check.Said = st.Err.Error()
		if h.Why == "" {
			h.Why = h.Check.Said
		}
	}
	return h
}

// events is the last of what happened to backends.
type events struct {
	mu   sync.Mutex
	ring [200]admin.Event // guarded by mu; the next goes to n % len(ring)
	n    int              // guarded by mu; ever added
	told func()           // called after each, if not nil
}

func (r *events) add(at time.Time, pool, backend, what, why string, until time.Time) {
	e := admin.Event{Time: at, Pool: pool, Backend: backend, Event: what, Why: why}
	if !until.IsZero() {
		until = until.UTC().Truncate(time.Millisecond)
		e.Until = &until
	}
	r.put(e)
}

func (r *events) put(e admin.Event) {
	e.Time = e.Time.UTC().Truncate(time.Millisecond)
	r.mu.Lock()
	r.ring[r.n%len(r.ring)] = e
	r.n++
	r.mu.Unlock()
	if r.told != nil {
		r.told()
	}
}

// last is the last event of that kind of a backend, nil when it is too long ago.
func (r *events) last(pool, backend, what string) *admin.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := r.n - 1; i >= max(0, r.n-len(r.ring)); i-- {
		if e := &r.ring[i%len(r.ring)]; e.Pool == pool && e.Backend == backend && e.Event == what {
			c := *e
			return &c
		}
	}
	return nil
}

// list gives them, the oldest first.
func (r *events) list() []admin.Event {
	all, _ := r.after(0)
	return all
}

// after gives those after the first n ever that are left, and how many there ever were.
func (r *events) after(n int) ([]admin.Event, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]admin.Event, 0, len(r.ring))
	for i := max(n, r.n-len(r.ring)); i < r.n; i++ {
		all = append(all, r.ring[i%len(r.ring)])
	}
	return all, r.n
}
