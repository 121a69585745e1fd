package strategy

import "lb/upstream"

// p2c draws two backends by weight and takes the one with fewer in flight for its weight ("The power of two choices in
// randomized load balancing", Mitzenmacher 2001). It needs no look at the others, which pays in pools of many hundreds;
// below that least_conn is better.
type p2c struct {
	draw
	inv []float64
}

func newP2C(ready []*upstream.Backend, seed uint64) *p2c {
	return &p2c{newDraw(ready, seed), inverse(ready)}
}

func (p *p2c) Pick(s *upstream.Selection) *upstream.Backend {
	a := p.one(s)
	if a == nil {
		return nil
	}
	b := p.one(s)
	for range 4 { // two of the same would be one choice
		if b != a {
			break
		}
		b = p.one(s)
	}
	for i := 1; b == a && i < len(p.ready) && !s.Ramping(); i++ { // a ramp's share is that of the draws
		if next := p.ready[(a.Index()+i)%len(p.ready)]; !s.Has(next.Live) {
			b = next
		}
	}
	s.Drew(a.Index(), b.Index())
	la, lb := a.Load(), b.Load()
	if p.cost(b, lb, s) < p.cost(a, la, s) {
		a, la = b, lb
	}
	s.Saw(la)
	return a
}

func (p *p2c) cost(b *upstream.Backend, l upstream.Load, s *upstream.Selection) float64 {
	n := l.Active()
	if s.Lasts() {
		n = lasting(b, l, s)
	}
	return float64(n+1) * p.inv[b.Index()]
}
