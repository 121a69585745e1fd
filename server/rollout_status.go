package server

import (
	"context"
	"slices"
	"time"

	"lb/admin"
	"lb/upstream"
)

// rolloutKept is for how long people see that a rollout is over. One that left a backend out is seen for as long as that
// is out.
const rolloutKept = 10 * time.Minute

// rolloutSeen is what people see of a rollout: what lb knows by the orders it gets, and what it is told beside.
type rolloutSeen struct {
	told   bool
	said   admin.RolloutProgress
	under  []admin.RolloutUnder
	back   []string // were restarted and put back, as far as lb knows
	bad    []admin.RolloutReason
	asked  bool // it was told to end, and did not just go away
	ended  time.Time
	result admin.RolloutTotals // at its end
}

// at notes which step a backend is at.
func (v *rolloutSeen) at(backend, step string) {
	u := admin.RolloutUnder{Backend: backend, Step: step, Since: time.Now().UTC().Truncate(time.Millisecond)}
	i := slices.IndexFunc(v.under, func(u admin.RolloutUnder) bool { return u.Backend == backend })
	switch {
	case i < 0:
		v.under = append(v.under, u)
	case v.under[i].Step != step:
		v.under[i] = u
	}
}

// step is where a backend is; "" when nothing is done with it.
func (v *rolloutSeen) step(backend string) string {
	for _, u := range v.under {
		if u.Backend == backend {
			return u.Step
		}
	}
	return ""
}

func (v *rolloutSeen) leave(backend string) {
	v.under = slices.DeleteFunc(v.under, func(u admin.RolloutUnder) bool { return u.Backend == backend })
}

// putBack notes that a backend is in use again, restarted or as it was.
func (v *rolloutSeen) putBack(backend string) {
	if s := v.step(backend); (s == admin.StepRestarting || s == admin.StepChecking) && !slices.Contains(v.back, backend) {
		v.back = append(v.back, backend)
	}
	v.leave(backend)
}

func (v *rolloutSeen) isBad(backend, why string) {
	v.leave(backend)
	v.bad = append(v.bad, admin.RolloutReason{Backend: backend, Why: why})
}

// tell takes what whoever carries it out says.
func (v *rolloutSeen) tell(p admin.RolloutProgress) {
	v.told, v.said = true, p
	for _, b := range p.Warming {
		if s := v.step(b); s == "" || s == admin.StepWarming {
			v.at(b, admin.StepWarming)
		}
	}
	v.under = slices.DeleteFunc(v.under, func(u admin.RolloutUnder) bool {
		return u.Step == admin.StepWarming && !slices.Contains(p.Warming, u.Backend)
	})
}

// ending is how it ended, by what is known.
func (v *rolloutSeen) ending() string {
	switch {
	case v.said.Ending != "":
		return v.said.Ending
	case len(v.bad) > 0:
		return "bad"
	case v.asked && !v.told:
		return "finished"
	}
	return "interrupted"
}

// status is r for people. The caller holds mu of the rollouts.
func (r *rollout) status(totals admin.RolloutTotals) *admin.RolloutStatus {
	v := &r.seen
	st := &admin.RolloutStatus{
		Rollout: r.Rollout, Of: v.said.Of, Waits: v.said.Waits, Why: v.said.Why, Requests: totals.Requests, Failed: totals.Lost(),
		Done: append([]string{}, v.back...), Under: append([]admin.RolloutUnder{}, v.under...), Bad: append([]admin.RolloutReason{}, v.bad...),
	}
	if v.told {
		st.Done = append([]string{}, v.said.Done...)
	}
	if !v.ended.IsZero() {
		at := v.ended.UTC().Truncate(time.Millisecond)
		st.Ended, st.Ending, st.Waits, st.Under = &at, v.ending(), "", []admin.RolloutUnder{}
	}
	return st
}

// keep has people see that r is over. The caller holds mu.
func (ro *rollouts) keep(r *rollout, p *pool) {
	r.seen.ended = time.Now()
	if p != nil {
		r.seen.result = r.tally.totals(p.Pool)
	}
	if ro.last == nil {
		ro.last = map[string]*rollout{}
	}
	ro.last[r.Pool] = r
}

// rolloutStatus is the rollout of p that runs, or that is over and still of interest; nil when there is none.
func (s *Server) rolloutStatus(p *pool) *admin.RolloutStatus {
	ro := &s.rollouts
	ro.mu.Lock()
	defer ro.mu.Unlock()
	for _, r := range ro.all {
		if r.Pool == p.Name {
			return r.status(r.tally.totals(p.Pool))
		}
	}
	r := ro.last[p.Name]
	if r == nil {
		return nil
	}
	if time.Since(r.seen.ended) > rolloutKept && !ro.leftOut(r, p) {
		delete(ro.last, p.Name)
		return nil
	}
	return r.status(r.seen.result)
}

// leftOut reports whether a backend that r left out still is. The caller holds mu.
func (ro *rollouts) leftOut(r *rollout, p *pool) bool {
	for _, b := range p.Snapshot().All {
		o := ro.out[b.Live]
		if o != nil && o.how == admin.OutBad && b.Life().Wanted == upstream.Draining &&
			slices.ContainsFunc(r.seen.bad, func(x admin.RolloutReason) bool { return x.Backend == b.Name }) {
			return true
		}
	}
	return false
}

// see changes what people see of r, and has pages show it.
func (s *Server) see(r *rollout, change func(v *rolloutSeen)) {
	s.rollouts.mu.Lock()
	change(&r.seen)
	s.rollouts.mu.Unlock()
	s.live.News()
}

func (s *Server) rolloutProgress(_ context.Context, id string, p admin.RolloutProgress) error {
	r, _, err := s.runningRollout(id)
	if r == nil {
		return err
	}
	s.see(r, func(v *rolloutSeen) { v.tell(p) })
	return nil
}
