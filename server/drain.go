package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"lb/admin"
	"lb/upstream"
)

// leaveOver is over which time the clients of a backend that goes are told to connect again, when nobody says how
// soon it has to be empty: all at once, they would come back as a storm.
const leaveOver = 30 * time.Second

// letGo closes what keeps a backend that gets nothing new from ending: idle connections at once, so that Node's
// server.close() returns, and tunnels over the given time. What is busy is closed after its answer.
func (s *Server) letGo(b *upstream.Backend, over time.Duration) {
	s.proxy.Forget([]*upstream.Backend{b})
	if s.checks.hurry > 0 {
		over = min(over, s.checks.hurry)
	}
	s.proxy.Leave(b, over)
}

// Drain takes a backend out of use and waits until it has done what it had, or ctx ends. It stays out of use in both
// cases, also over reloads, until TakeBack. The error is an admin.ErrUnknown, or admin.ErrTakenBack.
func (s *Server) Drain(ctx context.Context, pool, backend string) (admin.Drained, error) {
	p, b, err := s.find(pool, backend)
	if err != nil {
		return admin.Drained{}, err
	}
	begin := time.Now()
	p.SetWanted(b, upstream.Draining)
	over := leaveOver
	if at, ok := ctx.Deadline(); ok {
		if left := time.Until(at); left > 0 {
			over = min(over, left/2) // and time for them to go
		}
	}
	s.note(b, "draining", "told to")
	s.letGo(b, over)
	err = p.Drain(ctx, b)
	d := admin.Drained{
		Pool: p.Name, Backend: b.Name, Empty: err == nil, Requests: b.Inflight(), Tunnels: b.Tunnels(),
		Others: len(p.Snapshot().Ready), Took: time.Since(begin),
	}
	switch {
	case errors.Is(err, upstream.ErrTakenBack):
		return d, admin.ErrTakenBack
	case err != nil:
		s.log.Warn("backend is not empty yet", "pool", d.Pool, "backend", d.Backend, "requests", d.Requests, "tunnels", d.Tunnels)
	default:
		s.note(b, "drained", "")
	}
	return d, nil
}

// TakeBack takes a backend into use again.
func (s *Server) TakeBack(pool, backend string) error {
	p, b, err := s.find(pool, backend)
	if err != nil {
		return err
	}
	if b.Life().Wanted == upstream.In {
		return nil
	}
	p.SetWanted(b, upstream.In)
	s.note(b, "taken back", "told to")
	return nil
}

// note logs what a person did, and keeps it with the events of health.
func (s *Server) note(b *upstream.Backend, what, why string) {
	s.checks.events.add(time.Now(), b.Pool().Name, b.Name, what, why, time.Time{})
	s.log.Info("backend "+what, "pool", b.Pool().Name, "backend", b.Name)
}

// find is the backend of a pool, by its name or its address.
func (s *Server) find(inPool, backend string) (*pool, *upstream.Backend, error) {
	p := s.pool(inPool)
	if p == nil {
		var names []string
		for _, p := range *s.pools.Load() {
			names = append(names, p.Name)
		}
		return nil, nil, fmt.Errorf("pool %q is %w; there is %s", inPool, admin.ErrUnknown, some(names))
	}
	var names []string
	for _, b := range p.Snapshot().All {
		if b.Name == backend {
			return p, b, nil
		}
		names = append(names, b.Name)
	}
	for _, b := range p.Snapshot().All {
		if b.Addr.String() == backend {
			return p, b, nil
		}
	}
	return nil, nil, fmt.Errorf("backend %q of pool %q is %w; there is %s", backend, inPool, admin.ErrUnknown, some(names))
}

// some names the first few of many.
func some(names []string) string {
	if n := len(names); n > 10 {
		return strings.Join(names[:9], ", ") + fmt.Sprintf(" and %d more", n-9)
	}
	return strings.Join(names, ", ")
}
