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

// outcomeWait is how long a decision is kept back so that what became of it can be told with it.
const outcomeWait = time.Second

// told is a decision, and what became of it once that is there.
type told struct {
	admin.Decision
	ended chan upstream.Ended // nil: there is nothing to wait for
}

// Explain gives decisions of a pool, or with "" of all, to each in their order, at most one of a pool every gap, until ctx
// ends or each returns an error, which it returns. Each comes with what became of it, if that was within outcomeWait. Who
// is slow misses some. The pools are those of the beginning.
func (s *Server) Explain(ctx context.Context, name string, gap time.Duration, each func(admin.Decision) error) error {
	pools, err := s.asked(name)
	if err != nil {
		return err
	}
	all := make(chan told, 256)
	for _, p := range pools {
		stop := p.Record(gap, func(d upstream.Decision) {
			t := told{Decision: admin.NewDecision(&d, p.strategy)}
			ended := make(chan upstream.Ended, 1)
			if d.Watch(func(e upstream.Ended) { ended <- e }) {
				t.ended = ended
			}
			select {
			case all <- t:
			default: // loops wait for nobody
			}
		})
		defer stop()
	}
	for {
		select {
		case t := <-all:
			s.awaitOutcome(ctx, &t)
			if err := each(t.Decision); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-s.gone:
			return nil
		}
	}
}

func (s *Server) awaitOutcome(ctx context.Context, t *told) {
	if t.ended == nil {
		return
	}
	late := time.NewTimer(time.Until(t.Time.Add(outcomeWait)))
	defer late.Stop()
	select {
	case e := <-t.ended:
		t.Ended = admin.NewEnded(&e)
	case <-late.C:
	case <-ctx.Done():
	case <-s.gone:
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
