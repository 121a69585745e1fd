package strategy

import (
	"sync/atomic"

	"lb/upstream"
)

// roundRobin gives each backend its turns in order. All loops share one cursor, which outlives snapshots and reloads,
// so the shares are exact over any whole cycle, whatever comes on which connection.
type roundRobin struct {
	ready  []*upstream.Backend
	turns  []int32
	cursor *atomic.Uint64
}

func buildRoundRobin(ready []*upstream.Backend) upstream.Strategy {
	cursor := ready[0].Pool().Recall("round_robin", func() any { return new(atomic.Uint64) }).(*atomic.Uint64)
	return &roundRobin{ready, schedule(ready), cursor}
}

func (r *roundRobin) Pick(s *upstream.Selection) *upstream.Backend {
	n := uint64(len(r.turns))
	if s.Ramping() {
		top := topShare(r.ready, s.Now)
		for range n {
			turn := r.cursor.Add(1) - 1
			b := r.ready[r.turns[turn%n]]
			if !s.Has(b.Live) && unit(mix(turn)) < shareOf(b, s.Now, top) { // else its turn goes to the next
				return b
			}
		}
	}
	if s.Tried() == 0 {
		return r.ready[r.turns[(r.cursor.Add(1)-1)%n]]
	}
	// A retry takes a turn of its own. If it went to whoever is next without that, the neighbour of a backend that
	// fails would serve two shares.
	for range n {
		if b := r.ready[r.turns[(r.cursor.Add(1)-1)%n]]; !s.Has(b.Live) {
			return b
		}
	}
	for _, b := range r.ready { // other loops took the turns in between
		if !s.Has(b.Live) {
			return b
		}
	}
	return nil
}
