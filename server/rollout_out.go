package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"lb/admin"
	"lb/upstream"
)

// outside is a backend that a rollout has taken out.
type outside struct {
	by  *rollout // nil: it is over
	how string   // an admin.Out...
	why string   // it is bad
}

// sweep forgets what was taken back or left its pool. The caller holds mu.
func (ro *rollouts) sweep() {
	for l := range ro.out {
		if l.Life().Wanted != upstream.Draining {
			delete(ro.out, l)
		}
	}
}

// take notes what is done with b. The caller holds mu.
func (ro *rollouts) take(b *upstream.Backend, o *outside) {
	if ro.out == nil {
		ro.out = map[*upstream.Live]*outside{}
	}
	ro.out[b.Live] = o
}

// whyOut says that a rollout has l out, and why.
func (ro *rollouts) whyOut(l *upstream.Live) string {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	o := ro.out[l]
	switch {
	case o == nil || l.Life().Wanted != upstream.Draining:
		return ""
	case o.how == admin.OutBad:
		return "left out by a rollout: " + o.why
	case o.how == admin.OutRestarting:
		return "a rollout restarts it"
	}
	return "a rollout takes it out"
}

// how is why a rollout has l out, an admin.Out... or "", and why it is bad.
func (ro *rollouts) how(l *upstream.Live) (how string, is *bad) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	o := ro.out[l]
	switch {
	case o == nil || l.Life().Wanted != upstream.Draining:
		return "", nil
	case o.how == admin.OutBad:
		return o.how, &bad{o.why}
	}
	return o.how, nil
}

// inherit makes what a rollout of the lb before has out this one's: the next rollout begins with it.
func (ro *rollouts) inherit(b *upstream.Backend, how string, is *bad) *outside {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	o := &outside{how: how}
	if is != nil {
		o.how, o.why = admin.OutBad, is.Why
	}
	ro.take(b, o)
	return o
}

// rolloutReturns is how long a rollout of the lb before has to go on with this one: whoever carries it out looks for lb
// for 20 s.
const rolloutReturns = 30 * time.Second

// awaitRollout puts back what a rollout of the lb before has out, unless it goes on with this one, or another takes it out:
// nobody else would, if whoever carried it out has died meanwhile.
func (s *Server) awaitRollout(pool string, left []*outside) {
	if s.before != nil {
		select {
		case <-s.before.yours:
		case <-s.gone:
			return
		}
	}
	t := time.NewTimer(cmp.Or(s.rollouts.returns, rolloutReturns))
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.gone:
		return
	}
	done, err := s.inTurn(context.Background())
	if err != nil {
		return // the next lb does the same
	}
	defer done()
	s.rollouts.mu.Lock()
	said := s.putBack(pool, left)
	s.rollouts.mu.Unlock()
	for _, say := range said {
		say(context.Background())
	}
}

// forget is for a backend that somebody took back.
func (ro *rollouts) forget(l *upstream.Live) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	delete(ro.out, l)
}

// dropRollout ends r and leaves everything as it is.
func (s *Server) dropRollout(r *rollout) {
	s.rollouts.mu.Lock()
	defer s.rollouts.mu.Unlock()
	s.rollouts.drop(r)
}

// drop gives what r had out, which is nobody's from now on. The caller holds mu.
func (ro *rollouts) drop(r *rollout) (left []*outside) {
	ro.all = slices.DeleteFunc(ro.all, func(o *rollout) bool { return o == r })
	for _, o := range ro.out {
		if o.by == r {
			o.by = nil
			left = append(left, o)
		}
	}
	return left
}

// putBack puts back those of left that are still out and not bad. What was about to be restarted comes back when it
// passes its checks: nobody knows how far that went. The caller holds s.rollouts.mu, so that nobody takes one back
// meanwhile, or out again, and calls what is returned when it does not any more.
func (s *Server) putBack(pool string, left []*outside) (said []func(context.Context)) {
	p, ro := s.pool(pool), &s.rollouts
	if p == nil {
		return nil
	}
	for _, b := range p.Snapshot().All {
		o := ro.out[b.Live]
		if o == nil || o.how == admin.OutBad || b.Life().Wanted != upstream.Draining || !slices.Contains(left, o) {
			continue
		}
		delete(ro.out, b.Live)
		why := "its rollout was interrupted"
		if o.how == admin.OutRestarting {
			s.recheck(p, b)
			why += " while it was being restarted: its check has to pass first"
		}
		p.SetWanted(b, upstream.In)
		said = append(said, func(ctx context.Context) {
			s.tellBefore(b)
			s.note(ctx, b, "put back", why)
		})
	}
	return said
}

// takeOut makes b one that r has out. It never takes the last one that is in use; one that is down is not.
func (s *Server) takeOut(r *rollout, p *pool, b *upstream.Backend) error {
	ro := &s.rollouts
	ro.mu.Lock()
	defer ro.mu.Unlock()
	wanted, was := b.Life().Wanted, ro.out[b.Live]
	switch {
	case wanted == upstream.Draining && was == nil:
		return fmt.Errorf("%w: somebody else has", admin.ErrNotOut)
	case wanted == upstream.In && !othersReady(p, b) && admin.StateOf(b) != admin.Down:
		return admin.ErrLastReady
	}
	ro.take(b, &outside{by: r, how: admin.OutDraining})
	if wanted == upstream.In {
		p.StartDraining(b)
		s.overrule(p, b)
	}
	return nil
}

func othersReady(p *pool, b *upstream.Backend) bool {
	snap := p.Snapshot()
	return !snap.Panic && slices.ContainsFunc(snap.Ready, func(o *upstream.Backend) bool { return o.Live != b.Live })
}

// outBy gives what r has out, with mu held until done is called.
func (s *Server) outBy(r *rollout, b *upstream.Backend) (o *outside, done func(), err error) {
	s.rollouts.mu.Lock()
	if !slices.Contains(s.rollouts.all, r) { // in another lb it may go on
		s.rollouts.mu.Unlock()
		return nil, nil, admin.ErrRolloutOver
	}
	o = s.rollouts.out[b.Live]
	if o == nil || o.by != r || b.Life().Wanted != upstream.Draining {
		s.rollouts.mu.Unlock()
		return nil, nil, fmt.Errorf("%s: %w: a reload gave it another address, or somebody took it back", b.Name, admin.ErrNotOut)
	}
	return o, s.rollouts.mu.Unlock, nil
}
