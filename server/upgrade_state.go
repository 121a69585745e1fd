package server

import (
	"slices"
	"time"

	"lb/admin"
	"lb/config"
	"lb/health"
	"lb/history"
	"lb/loop"
	"lb/upstream"
)

// state is what a process that takes over is told, so that it goes on where this one is. Its JSON goes from one version
// of lb to another: fields may be added, none changes its meaning.
type state struct {
	Upgrades uint64        `json:"upgrades"` // that succeeded before this one
	Failed   uint64        `json:"failed"`
	Pools    []poolState   `json:"pools"`
	Events   []admin.Event `json:"events,omitempty"`

	History []history.Kept `json:"history,omitempty"`
}

type poolState struct {
	Name     string         `json:"name"`
	Sessions []byte         `json:"sessions,omitempty"` // as affinity.Save has them
	Backends []backendState `json:"backends"`

	Requests uint64 `json:"requests,omitempty"` // of late, which decide how many may be tried again
	Retries  uint64 `json:"retries,omitempty"`  // in the same time
}

type backendState struct {
	Name     string `json:"name"`
	Address  string `json:"address"`
	Draining bool   `json:"draining,omitempty"`
	Sessions bool   `json:"sessions,omitempty"` // it drains, and keeps its sessions
	Ramps    bool   `json:"ramps,omitempty"`
	Out      string `json:"out,omitempty"` // why a rollout has it out, an admin.Out...
	Bad      *bad   `json:"bad,omitempty"` // nil: no rollout left it out
	health.Standing
}

// bad is what a rollout said of a backend that it left out.
type bad struct {
	Why string `json:"why"`
}

// state is what is known now.
func (s *Server) stateNow() *state {
	n := s.upgrades.count()
	st := &state{Upgrades: n.Succeeded, Failed: n.Failed, Events: s.checks.events.list(), History: s.history.Keep()}
	for _, p := range *s.pools.Load() {
		ps := poolState{Name: p.Name}
		ps.Requests, ps.Retries = p.Retried(loop.Clock())
		if p.affinity != nil {
			ps.Sessions = p.affinity.Save(loop.Clock())
		}
		s.checks.mu.Lock()
		m := s.checks.of[p.Pool]
		s.checks.mu.Unlock()
		for _, b := range p.Snapshot().All {
			bs := backendState{Name: b.Name, Address: b.Addr.String(), Draining: b.Life().Wanted != upstream.In, Sessions: b.Life().Sessions, Ramps: b.Ramps()}
			bs.Out, bs.Bad = s.rollouts.how(b.Live)
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
	s.history.Restore(st.History)
	for _, e := range st.Events {
		s.checks.events.put(e)
	}
	for _, ps := range st.Pools {
		p := s.pool(ps.Name)
		if p == nil {
			continue
		}
		if p.affinity != nil && ps.Sessions != nil {
			if err := p.affinity.Load(ps.Sessions, loop.Clock()); err != nil {
				s.log.Warn("what was known of sessions is lost", "pool", p.Name, "err", err)
			}
		}
		p.InheritRetries(loop.Clock(), ps.Requests, ps.Retries)
		var left []*outside
		for _, bs := range ps.Backends {
			for _, b := range p.Snapshot().All {
				if b.Name != bs.Name || b.Addr.String() != bs.Address {
					continue
				}
				switch {
				case bs.Sessions:
					p.StartDraining(b)
					s.keepSessions(b, p.Snapshot().Settings.DrainSessions)
				case bs.Draining:
					p.SetWanted(b, upstream.Draining)
				}
				if bs.Draining && s.before != nil {
					s.before.drains.drainsThere(b)
				}
				if bs.Out != "" || bs.Bad != nil {
					left = append(left, s.rollouts.inherit(b, bs.Out, bs.Bad))
				}
				if bs.Ramps {
					p.StartRamp(b)
				}
			}
		}
		if len(left) > 0 {
			s.tasks.Go(func() { s.awaitRollout(ps.Name, left) })
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

// handedDeviation is a deviation on its way to another process.
type handedDeviation struct {
	Pool    string          `json:"pool"`
	Name    string          `json:"name"`
	File    *config.Backend `json:"file,omitempty"`
	Added   *upstream.Spec  `json:"added,omitempty"`
	Gone    bool            `json:"gone,omitempty"`
	Percent int             `json:"percent,omitempty"`
	Weight  int             `json:"weight"`
	By      string          `json:"by,omitempty"`
	At      time.Time       `json:"at"`
}

func (s *Server) handDeviations() (all []handedDeviation) {
	of := s.deviations.load()
	for _, pool := range *s.pools.Load() {
		for _, name := range sortedNames(of[pool.Name]) {
			d := of[pool.Name][name]
			all = append(all, handedDeviation{pool.Name, d.name, d.file, d.added, d.gone, d.percent, d.weight, d.by, d.at})
		}
	}
	return all
}

func takeDeviations(all []handedDeviation) map[string]map[string]*deviation {
	of := map[string]map[string]*deviation{}
	for _, h := range all {
		if of[h.Pool] == nil {
			of[h.Pool] = map[string]*deviation{}
		}
		of[h.Pool][h.Name] = &deviation{name: h.Name, file: h.File, added: h.Added, gone: h.Gone, percent: h.Percent, weight: h.Weight, by: h.By, at: h.At}
	}
	return of
}
