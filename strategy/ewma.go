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
//
// At a light load the least cost alone would settle on one of equal backends. A Node process is faster the more it runs:
// its code is compiled and in the caches. So whoever gets most is fastest, and gets all. While most backends are idle, these
// take turns, and each turn is taken with a chance that goes by the square of the speed: see calm.
type ewma struct {
	scan
	est   []*estimate // by Backend.Index
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

	// calm is the share of backends, one more than the idle ones, from which on these take turns: nobody waits for anybody. With less, several
	// lbs that each see a part of the load would take it for light.
	//
	// The exponent of the speed is 2: if being used makes a process faster by more than the root of its share, that still
	// settles on one. Measured of Node, and with floor, a seventh of the share costs the logarithm of latency some .4 of
	// what it costs that of the share. And a backend that takes six times as long gets less than 1 % among four.
	calm = .9

	tick = 100e6 // ns between refreshes of estimates that got no answers
)

func newEWMA(ready []*upstream.Backend, seed uint64) *ewma {
	e := &ewma{scan: newScan(ready, seed)}
	e.fleet = ready[0].Pool().Recall("ewma", func() any { return newFleet() }).(*fleet)
	e.fleet.builds++
	for _, b := range ready {
		est := b.Recall("ewma", func() any { return newEstimate(b.Loops()) }).(*estimate)
		if e.fleet.builds > 1 && est.build != e.fleet.builds-1 {
			est.join() // it was not in the set before
		}
		est.build = e.fleet.builds
		e.est = append(e.est, est)
	}
	return e
}

func (e *ewma) Pick(s *upstream.Selection) *upstream.Backend {
	if s.Lasts() {
		return e.fewestLasting(s)
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
	b, load := e.least(s, at, stride, true)
	if b == nil { // all that are left are joining
		b, load = e.least(s, at, stride, false)
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

// least scans from at for the least cost, or draws among the idle ones, with or without the limit of backends that join.
func (e *ewma) least(s *upstream.Selection, at, stride int, ramp bool) (best *upstream.Backend, load upstream.Load) {
	n := len(e.ready)
	fresh, shares := s.Tried() == 0, s.Ramping()
	gap := e.fleet.gap.get()
	least, seen, idle := math.MaxFloat64, 0, 0
	for k, i := 0, at; k < n; k++ {
		b := e.ready[i]
		est := e.est[i]
		if i += stride; i >= n {
			i -= n
		}
		if !fresh && s.Has(b.Live) {
			continue
		}
		w := b.Load()
		a := w.Active()
		if ramp && a > est.good.Load() {
			continue
		}
		c := est.cost(s.Now, a, gap, e.inv[b.Index()])
		if shares {
			c /= b.Share(s.Now)
		}
		if c < least*margin {
			best, load, least = b, w, c
		}
		if seen++; a == 0 {
			idle++
		}
	}
	if idle >= 2 && float64(idle+1) > calm*float64(seen) {
		return e.draw(s, at, stride, best, load)
	}
	return best, load
}

// draw takes one of the idle backends, or best. It begins where the scan did and takes each with the chance that it has
// against the fastest: so equal ones go strictly by turns, as schedule has them by weight.
func (e *ewma) draw(s *upstream.Selection, at, stride int, best *upstream.Backend, load upstream.Load) (*upstream.Backend, upstream.Load) {
	n := len(e.ready)
	least := e.speed(best, load)
	top := 1.
	if s.Ramping() {
		top = topShare(e.ready, s.Now)
	}
	for range 4 * n {
		b := e.ready[at]
		if at += stride; at >= n {
			at -= n
		}
		w := b.Load()
		switch {
		case b != best && w.Active() > 0, s.Has(b.Live):
			continue
		case s.Ramping() && shareOf(b, s.Now, top) < 1: // warmUp gave it its chance
			continue
		}
		x := least / e.speed(b, w)
		if x >= margin || e.dice[s.Loop].unit() < x*x {
			return b, w
		}
	}
	return best, load
}

// speed is the cost of b without weight.
func (e *ewma) speed(b *upstream.Backend, w upstream.Load) float64 {
	est := e.est[b.Index()]
	return est.slow.get()*float64(1+w.Active()) + excessCost*est.excess.get()
}

// Sent implements upstream.Observer.
func (e *ewma) Sent(b *upstream.Backend, l upstream.Lease) {
	if !l.Parked() { // else its answer is not due soon
		e.est[b.Index()].sent(l.Start(), l.Ahead(), e.fleet.gap.get())
	}
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
