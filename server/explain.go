package server

import (
	"context"
	"time"

	"lb/admin"
	"lb/loop"
	"lb/upstream"
)

// asked are the pools that somebody asks about: one, or with "" all.
func (s *Server) asked(name string) ([]*pool, error) {
	if name == "" {
		return *s.pools.Load(), nil
	}
	p, err := s.findPool(name)
	return []*pool{p}, err
}

// Explain gives decisions of a pool, or with "" of all, to each as they are made, at most one of a pool every gap, until
// ctx ends or each returns an error, which it returns. Who is slow misses some. The pools are those of the beginning.
func (s *Server) Explain(ctx context.Context, name string, gap time.Duration, each func(admin.Decision) error) error {
	pools, err := s.asked(name)
	if err != nil {
		return err
	}
	told := make(chan admin.Decision, 256)
	for _, p := range pools {
		stop := p.Record(gap, func(d upstream.Decision) {
			select {
			case told <- admin.NewDecision(&d, p.strategy):
			default: // loops wait for nobody
			}
		})
		defer stop()
	}
	for {
		select {
		case d := <-told:
			if err := each(d); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-s.gone:
			return nil
		}
	}
}

// View is how the strategies of pools see their backends now, without a request.
func (s *Server) View(name string) (all []admin.Decision, err error) {
	pools, err := s.asked(name)
	if err != nil {
		return nil, err
	}
	for _, p := range pools {
		d := p.View(loop.Clock())
		all = append(all, admin.NewDecision(&d, p.strategy))
	}
	return all, nil
}
