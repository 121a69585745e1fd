package strategy

import (
	"math"
	"math/rand/v2"

	"lb/upstream"
)

// hash sends equal keys to the same backend: the one with the highest score for that key (rendezvous hashing, Thaler
// and Ravishankar 1998). A backend that joins takes its share of the keys and one that leaves hands out its own; no
// other key moves. The next attempt goes to the second highest, and so to the same one each time too. Scores come from
// names, not addresses or places, so all balancers with the same configuration agree.
//
// Keys are not alike: thousands of clients may come from one address. So a backend that has bound times as many
// requests in flight as the pool's mean, by weight, gives way to the next highest (Mirrokni, Thorup and Zadimoghaddam
// 2018). The next is the same for each request of that key, so that few backends share a key that is too much for one.
//
// Without a key there is nothing to keep together, and least_conn chooses.
type hash struct {
	*leastConn
	seeds []uint64
	bound float64 // in flight over the mean; 0: no bound
	total float64 // of all weights
}

const (
	// DefaultBound is above what keys that are alike come to by chance.
	DefaultBound = 2
	// boundFrom is how many requests in flight a backend may have whatever the mean: the parallel requests of one
	// browser are no load that is worth a session.
	boundFrom = 10
	// gaveWay is what a lease notes of a choice that was not the key's own: see upstream.Lease.Note.
	gaveWay = 1
)

// NewHash is New for "hash" with a bound of its own: how many times the mean of requests in flight a backend may have
// before others take requests of its keys; 0: any.
func NewHash(bound float64) upstream.Build {
	seed := rand.Uint64()
	return func(r []*upstream.Backend) upstream.Strategy { return newHash(r, seed, bound) }
}

func newHash(ready []*upstream.Backend, seed uint64, bound float64) *hash {
	h := &hash{leastConn: newLeastConn(ready, seed), seeds: make([]uint64, len(ready)), bound: bound}
	for i, b := range ready {
		h.seeds[i] = upstream.KeyOf([]byte(b.Name))
		h.total += float64(b.Weight)
	}
	return h
}

func (h *hash) Pick(s *upstream.Selection) *upstream.Backend {
	if !s.HasKey {
		return h.leastConn.Pick(s)
	}
	best, _ := h.top(s, math.Inf(-1))
	if best == nil || h.bound <= 0 || best.Load().Active() < boundFrom {
		if s.Tried() > 0 {
			s.Note(gaveWay)
		}
		return best
	}
	return h.bounded(s, best)
}

// bounded is best, or the first after it that is not above the bound.
func (h *hash) bounded(s *upstream.Selection, best *upstream.Backend) *upstream.Backend {
	active := int64(1)
	for _, b := range h.ready {
		active += b.Load().Active()
	}
	mean := h.bound * float64(active) / h.total
	at := math.Inf(-1)
	for range h.ready {
		b, x := h.top(s, at)
		if b == nil {
			break
		}
		at = x
		if n := b.Load().Active(); n < boundFrom || float64(n+1) <= mean*float64(b.Weight) {
			if b != best || s.Tried() > 0 {
				s.Note(gaveWay)
			}
			return b
		}
	}
	return best // as Tried or slow starts have it; the mean itself is above nobody's bound
}

// top is the backend with the best score for the key among those whose score is worse than after, and its score, of
// which less is better. Two backends have the same score once in 2^53 keys.
func (h *hash) top(s *upstream.Selection, after float64) (best *upstream.Backend, score float64) {
	fresh := s.Tried() == 0
	score = math.Inf(1)
	if h.even && !s.Ramping() {
		for i, b := range h.ready {
			if x := 1 - unit(mix(s.Key^h.seeds[i])); x > after && (x < score || best == nil) && (fresh || !s.Has(b.Live)) {
				best, score = b, x
			}
		}
		return best, score
	}
	// By weight: a uniform u in (0,1) becomes an exponential -ln(u)/weight, and the least of exponentials is each with
	// a probability in proportion to its weight. As -ln(u) >= 1-u, most need no logarithm to be ruled out.
	// While a backend ramps its weight grows, and keys go to it one by one, each once.
	for i, b := range h.ready {
		if !fresh && s.Has(b.Live) {
			continue
		}
		u := (float64(mix(s.Key^h.seeds[i])>>11) + .5) / (1 << 53)
		if (1-u)*h.inv[i] > score {
			continue
		}
		x := -math.Log(u) * h.inv[i]
		if s.Ramping() {
			x /= b.Share(s.Now)
		}
		if x > after && (best == nil || x < score) {
			best, score = b, x
		}
	}
	return best, score
}
