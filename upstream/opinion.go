package upstream

// Judge is a Strategy that measures its backends and can say what it thinks of them, for people to see. Judge is called
// from any goroutine, seldom, and changes nothing.
type Judge interface {
	Judge(b *Backend) Opinion
}

// Opinion is what a strategy thinks of a backend.
type Opinion struct {
	Limit  int64   // requests in work from which on others wait in the pool's queue; 0: none
	Slow   float64 // how long it takes against the mean of its pool, 1 being as long; 0: not measured
	Excess float64 // share of requests that it fails above the pool's share and what chance explains
}

// Opinion is what the pool's strategy thinks of b, which belongs to n. Limit is the least of what the strategy wants and
// MaxInflight allows; for a backend that is not ready, and under a strategy that does not measure, it is MaxInflight.
func (n *Snapshot) Opinion(b *Backend) Opinion {
	var o Opinion
	if j, ok := n.pick.(Judge); ok && b.index >= 0 {
		o = j.Judge(b)
		if n.hold == nil {
			o.Limit = 0 // nothing may wait
		}
	}
	if b.MaxInflight > 0 && (o.Limit == 0 || b.MaxInflight < o.Limit) {
		o.Limit = b.MaxInflight
	}
	return o
}
