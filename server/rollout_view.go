package server

import (
	"sync"
	"time"

	"lb/admin"
	"lb/proxy"
	"lb/upstream"
)

func (s *Server) viewRollout(id string) (v admin.RolloutView, err error) {
	r, p, err := s.runningRollout(id)
	if err != nil {
		return v, err
	}
	_, set := s.monitor(p)
	v = admin.RolloutView{
		Rollout: r.Rollout, Now: time.Now().UTC(), SlowStart: p.Snapshot().Settings.SlowStart, Rise: set.Rise,
		Totals: r.tally.totals(p.Pool),
	}
	status := s.poolStatus(p)
	for i, b := range p.Snapshot().All {
		x := rolloutBackend(b)
		x.State = admin.StateOf(b)
		if i < len(status.Backends) && status.Backends[i].Name == b.Name && x.State != admin.Ready {
			x.Why = status.Backends[i].Why
		}
		if b.Life().Wanted == upstream.Draining {
			x.Out = admin.OutOther
			s.rollouts.mu.Lock()
			if o := s.rollouts.out[b.Live]; o != nil {
				x.Out = o.how
				x.Why = o.why
			}
			s.rollouts.mu.Unlock()
		}
		v.Backends = append(v.Backends, x)
	}
	return v, nil
}

func rolloutBackend(b *upstream.Backend) admin.RolloutBackend {
	load := b.Load()
	x := admin.RolloutBackend{
		Name: b.Name, Address: b.Addr.String(), Weight: b.Weighs(),
		Inflight: load.Active() + load.Parked(), Tunnels: load.Tunnels(), Latency: [][2]int64{},
	}
	var h upstream.HistogramSnapshot
	var faults, status uint64
	for loop := range b.Loops() {
		st := b.Stats(loop)
		for i := range st.Requests {
			x.Requests += st.Requests[i].Load()
		}
		x.Requests -= min(x.Requests, st.Faults[upstream.FaultClient].Load())
		x.Errors += st.Requests[5].Load()
		status += st.Faults[upstream.FaultStatus].Load()
		for f := range st.Faults {
			if f := upstream.Fault(f); f.Blames() && f != upstream.FaultStatus {
				faults += st.Faults[f].Load()
			}
		}
		h.Add(&st.Latency)
	}
	// A 502 to 504 of the app is among the answers of class 5 if it was passed on, and not if another backend was asked.
	x.Errors = max(x.Errors, status) + faults
	h.Cells(func(upper int64, n uint64) { x.Latency = append(x.Latency, [2]int64{upper, int64(n)}) })
	return x
}

// tally is what had become of a pool's requests when it was made.
type tally struct {
	requests uint64
	failed   [upstream.FailureKinds]uint64

	mu     sync.Mutex
	errors map[*upstream.Live]uint64 // guarded by mu: answers of status 5xx, of each backend when it was first seen
}

func newTally(p *upstream.Pool) *tally {
	t := &tally{requests: p.Requests(), failed: p.FailedBy(), errors: map[*upstream.Live]uint64{}}
	for _, b := range p.Snapshot().All {
		t.errors[b.Live] = errorsOf(b.Live)
	}
	return t
}

func errorsOf(l *upstream.Live) (n uint64) {
	for loop := range l.Loops() {
		n += l.Stats(loop).Requests[5].Load()
	}
	return n
}

// totals is what became of them since. A backend that left counts on with what it had.
func (t *tally) totals(p *upstream.Pool) admin.RolloutTotals {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := admin.RolloutTotals{Requests: p.Requests() - t.requests}
	for _, b := range p.Snapshot().All {
		if _, ok := t.errors[b.Live]; !ok {
			t.errors[b.Live] = 0 // it has joined since
		}
	}
	for l, was := range t.errors {
		sum.Errors += errorsOf(l) - was
	}
	for i, n := range p.FailedBy() {
		if n -= t.failed[i]; n > 0 && i < proxy.Reasons {
			if sum.Failed == nil {
				sum.Failed = map[string]uint64{}
			}
			sum.Failed[proxy.Reason(i).String()] = n
		}
	}
	return sum
}
