package server

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"lb/admin"
	"lb/config"
	"lb/upstream"
)

// leaveOver is over which time the clients of a backend that goes are told to connect again, when nobody says how
// soon it has to be empty: all at once, they would come back as a storm.
const leaveOver = 30 * time.Second

// letGo closes what keeps a backend that gets nothing new from ending: idle connections at once, so that Node's
// server.close() returns, and tunnels over the given time. What is busy is closed after its answer. If the backend keeps
// its sessions, then for the other time at most.
func (s *Server) letGo(b *upstream.Backend, over, sessions time.Duration) {
	s.proxy.Forget([]*upstream.Backend{b})
	if s.checks.hurry > 0 {
		over = min(over, s.checks.hurry)
	}
	s.proxy.Leave(b, over)
	if b.Life().Sessions {
		s.keepSessions(b, sessions)
	}
}

// Drain takes a backend out of use and waits until it has done what it had, or ctx ends. It stays out of use in both
// cases, also over reloads, until TakeBack. The error is an admin.ErrUnknown, admin.ErrTakenBack or admin.ErrNotNow.
func (s *Server) Drain(ctx context.Context, pool, backend string) (admin.Drained, error) {
	done, err := s.inTurn(ctx)
	if err != nil {
		return admin.Drained{}, err
	}
	p, b, err := s.find(pool, backend)
	if err != nil {
		done()
		return admin.Drained{}, err
	}
	p.StartDraining(b)
	s.overrule(p, b)
	done()
	over, sessions := overOf(ctx), p.Snapshot().Settings.DrainSessions
	if at, ok := ctx.Deadline(); ok && time.Until(at) > 0 {
		sessions = min(sessions, time.Until(at)*3/4) // and time for what they are about
	}
	s.note(ctx, b, "draining", "told to")
	s.letGo(b, over, sessions)
	d, err := s.awaitEmpty(ctx, b)
	switch {
	case err != nil:
	case d.Empty:
		s.note(ctx, b, "drained", "")
	default:
		s.log.Warn("backend is not empty yet", "pool", d.Pool, "backend", d.Backend, "requests", d.Requests, "tunnels", d.Tunnels)
	}
	return d, err
}

// TakeBack takes a backend into use again, and waits until it gets requests or ctx ends. The process behind it may be
// another by now, or not there yet: unless now is set, nothing that was known about it counts, and its check has to pass
// first. The error is an admin.ErrUnknown, or an admin.ErrNotNow.
func (s *Server) TakeBack(ctx context.Context, pool, backend string, now bool) (admin.Readied, error) {
	done, err := s.inTurn(ctx)
	if err != nil {
		return admin.Readied{}, err
	}
	p, b, err := s.find(pool, backend)
	if err != nil {
		done()
		return admin.Readied{}, err
	}
	begin := time.Now()
	if b.Life().Wanted != upstream.In {
		if !now {
			s.recheck(p, b)
		}
		s.rollouts.forget(b.Live)
		p.SetWanted(b, upstream.In)
		done()
		s.tellBefore(b)
		s.note(ctx, b, "taken back", "told to")
	} else {
		done()
	}
	r, err := s.awaitReady(ctx, p, b.Name, begin)
	if err == nil && !r.Ready && s.upgrades.hasHanded() {
		return r, errHanded
	}
	return r, err
}

// awaitReady waits until a backend gets requests, or ctx ends.
func (s *Server) awaitReady(ctx context.Context, p *pool, name string, begin time.Time) (admin.Readied, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		unasked := s.unasked(p, name) // first: its check may fail while we look
		st := s.backendStatus(p, name)
		if st == nil {
			return admin.Readied{}, fmt.Errorf("backend %q of pool %q is %w any more", name, p.Name, admin.ErrUnknown)
		}
		if st.State == admin.Ready && (unasked || s.unasked(p, name)) {
			// Nobody else is there, so requests would go to it all the same. That is no reason to say that it is well.
			st.State, st.Why = admin.Unchecked, "no check has passed yet"
		}
		r := admin.Readied{Pool: p.Name, Backend: name, Ready: st.State == admin.Ready, State: st.State, Why: st.Why, Took: time.Since(begin)}
		if r.Ready || st.State == admin.Draining || st.State == admin.Resting || ctx.Err() != nil {
			return r, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		case <-s.gone:
			return r, nil
		}
	}
}

// note logs what a person did, and keeps it with the events of health.
func (s *Server) note(ctx context.Context, b *upstream.Backend, what, why string) {
	by := admin.By(ctx)
	s.checks.events.put(admin.Event{Time: time.Now(), Pool: b.Pool().Name, Backend: b.Name, Event: what, Why: why, By: by})
	attrs := []any{"pool", b.Pool().Name, "backend", b.Name}
	if why != "" && why != "told to" {
		attrs = append(attrs, "why", why)
	}
	if by != "" {
		attrs = append(attrs, "by", by)
	}
	s.log.Info("backend "+what, attrs...)
}

// find is the backend of a pool, by its name, its address, or its port where only one has it.
func (s *Server) find(inPool, backend string) (*pool, *upstream.Backend, error) {
	p, err := s.findPool(inPool)
	if err != nil {
		return nil, nil, err
	}
	var names []string
	for _, b := range p.Snapshot().All {
		if b.Name == backend {
			return p, b, nil
		}
		names = append(names, b.Name)
	}
	if at, err := upstream.ParseAddr(backend); err == nil {
		for _, b := range p.Snapshot().All {
			if b.Addr.Is(at) {
				return p, b, nil
			}
		}
	}
	if port, err := strconv.ParseUint(backend, 10, 16); err == nil {
		var at []*upstream.Backend
		names := names[:0:0]
		for _, b := range p.Snapshot().All {
			if b.Addr.Path == "" && b.Addr.AddrPort.Port() == uint16(port) {
				at, names = append(at, b), append(names, b.Name)
			}
		}
		switch {
		case len(at) == 1:
			return p, at[0], nil
		case len(at) > 1:
			return nil, nil, fmt.Errorf("backend %q of pool %q is %w: port %d is that of %s", backend, inPool, admin.ErrUnknown, port, some(names))
		}
	}
	return nil, nil, fmt.Errorf("backend %q of pool %q is %w%s", backend, inPool, admin.ErrUnknown, config.DidYouMean(backend, names))
}

func (s *Server) findPool(name string) (*pool, error) {
	p := s.pool(name)
	if p == nil {
		var names []string
		for _, p := range *s.pools.Load() {
			names = append(names, p.Name)
		}
		return nil, fmt.Errorf("pool %q is %w%s", name, admin.ErrUnknown, config.DidYouMean(name, names))
	}
	return p, nil
}

// some names the first few of many.
func some(names []string) string {
	if n := len(names); n > 10 {
		return strings.Join(names[:9], ", ") + fmt.Sprintf(" and %d more", n-9)
	}
	return strings.Join(names, ", ")
}
