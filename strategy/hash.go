package strategy

import (
	"math"

	"lb/upstream"
)

// hash sends equal keys to the same backend: the one with the highest score for that key (rendezvous hashing, Thaler
// and Ravishankar 1998). A backend that joins takes its share of the keys and one that leaves hands out its own; no
// other key moves. The next attempt goes to the second highest, and so to the same one each time too. Scores come from
// names, not addresses or places, so all balancers with the same configuration agree.
//
// Without a key there is nothing to keep together, and least_conn chooses.
type hash struct {
	*leastConn
	seeds []uint64
}

func newHash(ready []*upstream.Backend, seed uint64) *hash {
	h := &hash{newLeastConn(ready, seed), make([]uint64, len(ready))}
	for i, b := range ready {
		h.seeds[i] = upstream.KeyOf([]byte(b.Name))
	}
	return h
}

// Keyed implements upstream.Keyed.
func (h *hash) Keyed() {}

func (h *hash) Pick(s *upstream.Selection) *upstream.Backend {
	if !s.HasKey {
		return h.leastConn.Pick(s)
	}
	fresh := s.Tried() == 0
	var best *upstream.Backend
	if h.even && !s.Ramping() {
		high := uint64(0)
		for i, b := range h.ready {
			if x := mix(s.Key ^ h.seeds[i]); (x >= high) && (fresh || !s.Has(b.Live)) {
				best, high = b, x
			}
		}
		return best
	}
	// By weight: a uniform u in (0,1) becomes an exponential -ln(u)/weight, and the least of exponentials is each with
	// a probability in proportion to its weight. As -ln(u) >= 1-u, most need no logarithm to be ruled out.
	// While a backend ramps its weight grows, and keys go to it one by one, each once.
	least := math.Inf(1)
	for i, b := range h.ready {
		if !fresh && s.Has(b.Live) {
			continue
		}
		u := (float64(mix(s.Key^h.seeds[i])>>11) + .5) / (1 << 53)
		if (1-u)*h.inv[i] > least {
			continue
		}
		x := -math.Log(u) * h.inv[i]
		if s.Ramping() {
			x /= b.Share(s.Now)
		}
		if best == nil || x < least {
			best, least = b, x
		}
	}
	return best
}
