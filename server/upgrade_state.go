package server

import (
	"slices"

	"lb/admin"
	"lb/health"
	"lb/upstream"
)

// state is what a process that takes over is told, so that it goes on where this one is. Its JSON goes from one version
// of lb to another: fields may be added, none changes its meaning.
type state struct {
	Upgrades uint64        `json:"upgrades"` // that succeeded before this one
	Failed   uint64        `json:"failed"`
	Pools    []poolState   `json:"pools"`
	Events   []admin.Event `json:"events,omitempty"`
}

type poolState struct {
	Name     string         `json:"name"`
	Backends []backendState `json:"backends"`
}

type backendState struct {
	Name     string `json:"name"`
	Address  string `json:"address"`
	Draining bool   `json:"draining,omitempty"`
	Ramps    bool   `json:"ramps,omitempty"`
	health.Standing
}

// state is what is known now.
func (s *Server) stateNow() *state {
	n := s.upgrades.count()
	st := &state{Upgrades: n.Succeeded, Failed: n.Failed, Events: s.checks.events.list()}
	for _, p := range *s.pools.Load() {
		ps := poolState{Name: p.Name}
		s.checks.mu.Lock()
		m := s.checks.of[p.Pool]
		s.checks.mu.Unlock()
		for _, b := range p.Snapshot().All {
			bs := backendState{Name: b.Name, Address: b.Addr.String(), Draining: b.Life().Wanted != upstream.In, Ramps: b.Ramps()}
			if m != nil {
				bs.Standing = m.Standing(b)
			}
			ps.Backends = append(ps.Backends, bs)
		}
		st.Pools = append(st.Pools, ps)
	}
	return st
}

// adopt makes st what this process knows, before it looks for itself. Backends are known by name and address.
func (s *Server) adopt(st *state) {
	s.upgrades.mu.Lock()
	s.upgrades.n.Succeeded, s.upgrades.n.Failed = st.Upgrades+1, st.Failed
	s.upgrades.mu.Unlock()
	for _, e := range st.Events {
		s.checks.events.put(e)
	}
	for _, ps := range st.Pools {
		p := s.pool(ps.Name)
		if p == nil {
			continue
		}
		for _, bs := range ps.Backends {
			for _, b := range p.Snapshot().All {
				if b.Name != bs.Name || b.Addr.String() != bs.Address {
					continue
				}
				if bs.Draining {
					p.SetWanted(b, upstream.Draining)
				}
				if bs.Ramps {
					p.StartRamp(b)
				}
			}
		}
	}
}

// known gives what the process before knew of backends, to a monitor that begins; nil: nothing.
func (s *Server) known(p *upstream.Pool) func(*upstream.Backend) (health.Standing, bool) {
	if s.before == nil || s.state.Load() != starting {
		return nil
	}
	at := slices.IndexFunc(s.before.state.Pools, func(ps poolState) bool { return ps.Name == p.Name })
	if at < 0 {
		return nil
	}
	all := s.before.state.Pools[at].Backends
	return func(b *upstream.Backend) (health.Standing, bool) {
		for _, bs := range all {
			if bs.Name == b.Name && bs.Address == b.Addr.String() {
				return bs.Standing, true
			}
		}
		return health.Standing{}, false
	}
}
