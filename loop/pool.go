package loop

// Pool keeps things for use again on one loop, most recent first, as those are still in the processor's
// cache. Trim lets go of what was not needed since the last Trim, so that a burst is not held for ever.
type Pool[T any] struct {
	Drop func(T) // called for each thing let go; may be nil
	free []T
	low  int // least len(free) since the last Trim
}

// Get takes the thing put back last.
func (p *Pool[T]) Get() (T, bool) {
	n := len(p.free) - 1
	if n < 0 {
		var zero T
		return zero, false
	}
	v := p.free[n]
	var zero T
	p.free[n] = zero
	p.free = p.free[:n]
	if n < p.low {
		p.low = n
	}
	return v, true
}

// Put gives a thing back.
func (p *Pool[T]) Put(v T) { p.free = append(p.free, v) }

// Len is the number of things kept.
func (p *Pool[T]) Len() int { return len(p.free) }

// Trim lets go of half of what has not been used since the last Trim.
func (p *Pool[T]) Trim() {
	drop := (p.low + 1) / 2
	p.cut(drop)
	p.low = len(p.free)
}

// Clear lets go of everything.
func (p *Pool[T]) Clear() {
	p.cut(len(p.free))
	p.low = 0
}

// cut drops the n oldest.
func (p *Pool[T]) cut(n int) {
	if n == 0 {
		return
	}
	if p.Drop != nil {
		for _, v := range p.free[:n] {
			p.Drop(v)
		}
	}
	rest := copy(p.free, p.free[n:])
	clear(p.free[rest:])
	p.free = p.free[:rest]
	if cap(p.free) > 64 && rest < cap(p.free)/4 {
		p.free = append(make([]T, 0, 2*rest), p.free...)
	}
}
