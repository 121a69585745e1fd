package sim

import (
	"math"
	"time"
)

// Two ways to send requests that no load balancer has, because they know what only the simulation knows. The better of
// them is the bound that strategies are measured by. They pay for the network, but nothing waits for it.
const (
	// OneQueue is one queue in front of all workers: whoever is idle takes the first request (M/G/k).
	OneQueue = "one queue"
	// LeastWork knows how long each request takes and each backend still has to work, and sends to who ends first.
	LeastWork = "least work"
)

type oracle struct {
	w      *world
	least  bool
	queue  []*request
	inWork []int
}

func newOracle(w *world) *oracle {
	if w.Strategy != OneQueue && w.Strategy != LeastWork {
		return nil
	}
	return &oracle{w: w, least: w.Strategy == LeastWork, inWork: make([]int, len(w.Backends))}
}

func (o *oracle) arrive(r *request) {
	if o.least {
		o.send(r, o.first(r))
		return
	}
	o.queue = append(o.queue, r)
	o.serve()
}

func (o *oracle) ended(i int) {
	o.inWork[i]--
	o.serve()
}

func (o *oracle) send(r *request, i int) {
	o.inWork[i]++
	r.send(i)
}

// serve gives what waits to the fastest idle backends.
func (o *oracle) serve() {
	for len(o.queue) > 0 {
		best, least := -1, math.Inf(1)
		for i := range o.w.Backends {
			if o.there(i) && o.inWork[i] < len(o.w.free[i]) {
				if c := o.cost(i); c < least {
					best, least = i, c
				}
			}
		}
		if best < 0 {
			return
		}
		r := o.queue[0]
		o.queue = o.queue[1:]
		o.send(r, best)
	}
}

func (o *oracle) there(i int) bool { return int64(o.w.Backends[i].Join) <= o.w.now-epoch }

// cost is the time that backend i takes for a mean request, ns.
func (o *oracle) cost(i int) float64 {
	b := &o.w.Backends[i]
	at := time.Duration(o.w.now - epoch)
	c := float64(b.Service)
	if b.Slow != nil {
		c *= b.Slow(at)
	}
	for _, s := range b.Stops {
		if s.From <= at && at < s.To {
			c += 1e12
		}
	}
	if b.Fails != nil && b.Fails(at) > .5 {
		c += 1e15
	}
	return c
}

// first is who would be done with r first.
func (o *oracle) first(r *request) int {
	best, least := -1, math.Inf(1)
	for i := range o.w.Backends {
		if !o.there(i) {
			continue
		}
		idle := int64(math.MaxInt64)
		for _, at := range o.w.free[i] {
			idle = min(idle, at)
		}
		c := float64(max(0, idle-o.w.now)+o.w.later[i]) + o.cost(i)*r.demand.CPU
		if c < least {
			best, least = i, c
		}
	}
	return best
}
