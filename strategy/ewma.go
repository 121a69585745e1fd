package strategy

import (
	"math"
	"sync/atomic"

	"lb/upstream"
)

// ewma sends a request where it will be answered soonest, judged by how long answers took. The cost of a backend, in
// units of one answer of an average backend, is
//
//	slow × (1 + in flight + age) / weight + 100 × excess
//
// with slow (how slow it is against the fleet), excess (how much more it fails than the fleet) and age (how much
// longer than usual it has been silent) from estimate. Latency alone would send everybody to whoever was last seen
// fast, until it is not; so it is multiplied by the queue there, and divided by the queue that an answer had to wait
// in.
//
// Speed needs no weights here: it is measured. A weight is a preference on top of it.
//
// Differences within noise do not decide: see margin. Upgrades go where the tunnels are fewest.
type ewma struct {
	scan
	est   []*estimate // by Backend.Index
	alike []float64   // inverse weights as if all were the same
	fleet *fleet
}

const (
	excessCost = 100
	ageCap     = 50

	// margin is what a candidate must be better by: two standard errors of slow (128 samples whose logarithms have a
	// deviation of 1). Without it an idle pool of equal backends sends most to the one with the luckiest past. In
	// simulation at 10 % load .8 lowers the largest share from 2.5 to 1.3 times the mean, and p99 at 70 to 85 % load
	// stays where it is; from .7 on it rises.
	margin = .8

	tick = 100e6 // ns between refreshes of estimates that got no answers
)

func newEWMA(ready []*upstream.Backend, seed uint64) *ewma {
	e := &ewma{scan: newScan(ready, seed)}
	e.fleet = ready[0].Pool().Recall("ewma", func() any { return newFleet() }).(*fleet)
	e.fleet.builds++
	for _, b := range ready {
		e.alike = append(e.alike, 1)
		est := b.Recall("ewma", func() any { return newEstimate() }).(*estimate)
		if e.fleet.builds > 1 && est.build != e.fleet.builds-1 {
			est.join() // it was not in the set before
		}
		est.build = e.fleet.builds
		e.est = append(e.est, est)
	}
	return e
}

func (e *ewma) Pick(s *upstream.Selection) *upstream.Backend {
	if s.Tunnel {
		return e.fewestTunnels(s)
	}
	if e.fleet.due(s.Now) {
		e.refresh(s.Now)
	}
	return e.pick(s)
}

// pick is Pick for a request that is no upgrade.
func (e *ewma) pick(s *upstream.Selection) *upstream.Backend {
	if s.Ramping() {
		if b := e.warmUp(s); b != nil {
			return b
		}
	}
	at, stride := e.start(s.Loop)
	b, load, busy := e.least(s, at, stride, e.inv, true)
	if b == nil { // all that are left are joining
		b, load, busy = e.least(s, at, stride, e.inv, false)
	}
	if !busy && !e.even { // by turns, see leastConn
		b, load, _ = e.least(s, at, stride, e.alike, false)
	}
	s.Saw(load)
	return b
}

// refresh is done every tick.
func (e *ewma) refresh(now int64) {
	for _, est := range e.est {
		est.refresh(now, e.fleet)
	}
}

// least scans from at for the least cost with the given inverse weights, with or without the limit of backends that join, and
// reports whether any of them is busy.
func (e *ewma) least(s *upstream.Selection, at, stride int, inv []float64, ramp bool) (best *upstream.Backend, load upstream.Load, busy bool) {
	n := len(e.ready)
	fresh, shares := s.Tried() == 0, s.Ramping()
	gap := e.fleet.gap.get()
	least := math.MaxFloat64
	for range n {
		i := at
		if at += stride; at >= n {
			at -= n
		}
		b := e.ready[i]
		if !fresh && s.Has(b.Live) {
			continue
		}
		est := e.est[i]
		w := b.Load()
		a := w.Active()
		busy = busy || a > 0
		if ramp && a > est.good.Load() {
			continue
		}
		c := est.cost(s.Now, a, gap, inv[i])
		if shares {
			c /= b.Share(s.Now)
		}
		if c < least*margin {
			best, load, least = b, w, c
		}
	}
	return best, load, busy
}

// Sent implements upstream.Observer.
func (e *ewma) Sent(b *upstream.Backend, l upstream.Lease) {
	e.est[b.Index()].sent(l.Start(), l.Ahead(), e.fleet.gap.get())
}

// Done implements upstream.Observer.
func (e *ewma) Done(b *upstream.Backend, l upstream.Lease, o upstream.Outcome) {
	est := e.est[b.Index()]
	switch {
	case o.Fault.Blames():
		est.failed(l, o, e.fleet)
	case o.Fault == upstream.FaultNone && o.Latency > 0:
		est.answered(l, o, e.fleet)
	}
}

// Judge implements upstream.Judge.
func (e *ewma) Judge(b *upstream.Backend) upstream.Opinion {
	est := e.est[b.Index()]
	return upstream.Opinion{Slow: est.slow.get(), Excess: est.excess.get()}
}

// float is a float64 that is read and written at once by several loops.
type float struct{ bits atomic.Uint64 }

func (f *float) get() float64  { return math.Float64frombits(f.bits.Load()) }
func (f *float) set(x float64) { f.bits.Store(math.Float64bits(x)) }

// fade is exp(-dt/tau). Answers follow each other much faster than estimates forget, and there the first terms of the
// series do (error below 2e-7).
func fade(dt, tau float64) float64 {
	x := max(0, dt) / tau
	if x < .01 {
		return 1 - x + x*x/2
	}
	return math.Exp(-x)
}
