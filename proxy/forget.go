package proxy

import "lb/upstream"

// Forget closes the idle connections to backends that left their pool, so that an app that stops listening and waits
// for its connections to end, as Node's server.close() does, is not kept waiting. Connections in use are closed after
// their answer, as those of every draining backend are.
func (p *Proxy) Forget(left []*upstream.Backend) {
	if len(left) == 0 {
		return
	}
	for _, w := range p.workers {
		w.loop.Post(func() {
			for _, b := range left {
				w.forget(b)
			}
		})
	}
}
