package strategy

import (
	"math"

	"lb/upstream"
)

// leastConn sends a request where (in flight + 1) / weight is least. It looks at all backends: at the sizes of a pool
// that costs tens of ns and beats two random choices by far. Parked requests and tunnels do not count; a new tunnel
// goes where the tunnels are fewest.
//
// When the whole pool is idle, backends take turns by weight, where the formula would send everything to the heaviest:
// then nobody is slowed by another's request, and caches stay warm everywhere.
type leastConn struct{ scan }

// scan goes over the ready backends from a place that rotates.
type scan struct {
	ready   []*upstream.Backend
	inv     []float64 // 1/weight
	turns   []int32   // where to start: by weight
	strides []int32   // how to go on
	even    bool      // all weights are the same
	dice    dice
}

func newScan(ready []*upstream.Backend, seed uint64) scan {
	even := true
	for _, b := range ready {
		even = even && b.Weight == ready[0].Weight
	}
	return scan{ready, inverse(ready), schedule(ready), strides(len(ready)), even, diceOf(ready, seed)}
}

// start is the first place to look at and the distance to the next.
func (c *scan) start(loop int) (at, stride int) {
	k := c.dice[loop].next()
	n := uint64(len(c.turns))
	if len(c.strides) == 1 {
		return int(c.turns[k%n]), 1
	}
	return int(c.turns[k%n]), int(c.strides[k/n%uint64(len(c.strides))])
}

func newLeastConn(ready []*upstream.Backend, seed uint64) *leastConn {
	return &leastConn{newScan(ready, seed)}
}

func (l *leastConn) Pick(s *upstream.Selection) *upstream.Backend {
	if s.Lasts() {
		return l.fewestLasting(s)
	}
	if s.Ramping() {
		return l.pickRamping(s)
	}
	at, stride := l.start(s.Loop)
	n := len(l.ready)
	fresh := s.Tried() == 0
	var best, first *upstream.Backend
	var load, idle upstream.Load // of best, of first
	busy := int64(0)
	least := math.MaxFloat64
	for range n {
		b := l.ready[at]
		if fresh || !s.Has(b.Live) {
			w := b.Load()
			a := w.Active()
			if a == 0 && l.even {
				s.Saw(w)
				return b
			}
			if first == nil {
				first, idle = b, w
			}
			busy += a
			if c := float64(a+1) * l.inv[at]; c < least {
				best, load, least = b, w, c
			}
		}
		if at += stride; at >= n {
			at -= n
		}
	}
	if busy == 0 {
		best, load = first, idle
	}
	s.Saw(load)
	return best
}

// pickRamping is Pick while a backend has only a share of its weight.
func (l *leastConn) pickRamping(s *upstream.Selection) *upstream.Backend {
	if b := l.warmUp(s); b != nil {
		return b
	}
	at, stride := l.start(s.Loop)
	n := len(l.ready)
	top := topShare(l.ready, s.Now)
	var best, first *upstream.Backend
	var load, idle upstream.Load // of best, of first
	busy := int64(0)
	least := math.MaxFloat64
	for range n {
		if b := l.ready[at]; !s.Has(b.Live) {
			w := b.Load()
			share := shareOf(b, s.Now, top)
			if first == nil && share == 1 {
				first, idle = b, w
			}
			busy += w.Active()
			if c := float64(w.Active()+1) * l.inv[at] / share; c < least {
				best, load, least = b, w, c
			}
		}
		if at += stride; at >= n {
			at -= n
		}
	}
	if busy == 0 && first != nil {
		best, load = first, idle
	}
	s.Saw(load)
	return best
}

// topShare is the largest share of any of the backends.
func topShare(ready []*upstream.Backend, now int64) float64 {
	top := 0.
	for _, b := range ready {
		top = max(top, b.Share(now))
	}
	return top
}

// shareOf is the backend's share against the largest. Those that came back nearly together are alike.
func shareOf(b *upstream.Backend, now int64, top float64) float64 {
	share := b.Share(now) / top
	if share > .95 {
		return 1
	}
	return share
}

// warmUp gives a ramping backend that is idle its share by chance. By load alone it would get nothing until the others
// have many times as much, and everything once they do; what it is to get used to are single requests.
func (c *scan) warmUp(s *upstream.Selection) *upstream.Backend {
	u := c.dice[s.Loop].unit() * float64(len(c.ready))
	top := topShare(c.ready, s.Now)
	for i, b := range c.ready {
		share := shareOf(b, s.Now, top)
		if share == 1 {
			continue
		}
		if w := b.Load(); w.Active() == 0 && !s.Has(b.Live) {
			if u -= share / c.inv[i]; u < 0 {
				s.Saw(w)
				s.Say(upstream.SaidWarmUp)
				return b
			}
		}
	}
	return nil
}

// fewestLasting chooses for what lasts. Between equals, the rotation decides.
func (c *scan) fewestLasting(s *upstream.Selection) *upstream.Backend {
	at, stride := c.start(s.Loop)
	n := len(c.ready)
	var best *upstream.Backend
	var load upstream.Load
	least := math.MaxFloat64
	for range n {
		b := c.ready[at]
		if !s.Has(b.Live) {
			w := b.Load()
			x := float64(lasting(b, w, s)+1) * c.inv[at]
			if s.Ramping() {
				x /= b.Share(s.Now)
			}
			if x < least {
				best, load, least = b, w, x
			}
		}
		if at += stride; at >= n {
			at -= n
		}
	}
	s.Saw(load)
	return best
}

// lasting is what a backend has by which s, which lasts, goes: the tunnels, the sessions in use that have none, and the
// requests in flight, among which are the upgrades under way. For a stream the parked requests count as well, which are
// streams and long polls; for the others they do not, as those of sessions are counted there.
func lasting(b *upstream.Backend, w upstream.Load, s *upstream.Selection) int64 {
	n := w.Tunnels() + w.Active() + b.Sessions()
	if s.Stream {
		n += w.Parked()
	}
	return n
}
