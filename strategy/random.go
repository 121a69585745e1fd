package strategy

import "lb/upstream"

// random draws a backend by weight and looks at nothing. It is there to compare with.
type random struct{ draw }

// draw draws from backends by weight, in constant time: a turn of the schedule is as likely as any other.
type draw struct {
	ready []*upstream.Backend
	turns []int32
	dice  dice
}

func newDraw(ready []*upstream.Backend, seed uint64) draw {
	return draw{ready, schedule(ready), diceOf(ready, seed)}
}

func newRandom(ready []*upstream.Backend, seed uint64) *random { return &random{newDraw(ready, seed)} }

// one draws among those that s has not tried, nil when there is none.
func (d *draw) one(s *upstream.Selection) *upstream.Backend {
	die := &d.dice[s.Loop]
	at := die.below(len(d.turns))
	b := d.ready[d.turns[at]]
	if s.Ramping() {
		top := topShare(d.ready, s.Now)
		for range 16 {
			if !s.Has(b.Live) && die.unit() < shareOf(b, s.Now, top) {
				return b
			}
			at = die.below(len(d.turns))
			b = d.ready[d.turns[at]]
		}
	}
	if s.Tried() == 0 || !s.Has(b.Live) {
		return b
	}
	// A few more draws keep the shares of the others; after that anybody will do.
	for range 8 {
		at = die.below(len(d.turns))
		if b = d.ready[d.turns[at]]; !s.Has(b.Live) {
			return b
		}
	}
	at = die.below(len(d.ready))
	for range d.ready {
		if b = d.ready[at]; !s.Has(b.Live) {
			return b
		}
		if at++; at == len(d.ready) {
			at = 0
		}
	}
	return nil
}

func (r *random) Pick(s *upstream.Selection) *upstream.Backend { return r.one(s) }
