// Package upstreamtest has what the tests of several packages need of a pool.
package upstreamtest

import "lb/upstream"

// InOrder is the simplest strategy there is: it takes the first ready backend that has not been tried.
type InOrder []*upstream.Backend

// BuildInOrder makes an InOrder for a pool.
func BuildInOrder(ready []*upstream.Backend) upstream.Strategy { return InOrder(ready) }

func (o InOrder) Pick(s *upstream.Selection) *upstream.Backend {
	for _, b := range o {
		if !s.Has(b.Live) {
			return b
		}
	}
	return nil
}
