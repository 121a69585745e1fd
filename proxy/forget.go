package proxy

import (
	"time"

	"lb/upstream"
)

// Leave tells the clients of the tunnels to a backend to connect again, spread over the given time so that they do not
// come back all at once, and then ends the tunnels. WebSocket clients get a close frame with 1012.
func (p *Proxy) Leave(b *upstream.Backend, over time.Duration) {
	for i, w := range p.workers {
		w.loop.Post(func() {
			w.leave(w.tunnels(b.Live), over, i)
		})
	}
}

// LeaveSome is Leave for n of the tunnels to a backend, those first that have been there longest.
func (p *Proxy) LeaveSome(b *upstream.Backend, n int, over time.Duration) {
	share := float64(n) / float64(max(b.Tunnels(), 1))
	for i, w := range p.workers {
		w.loop.Post(func() {
			ts := w.tunnels(b.Live)
			// The rest of the division goes to one or the other by chance.
			mine := int(share*float64(len(ts)) + float64(w.random.Uint64()>>11)/(1<<53))
			w.leave(ts[:min(mine, len(ts))], over, i)
		})
	}
}

// leavePace is how long apart the tunnels' clients are told to go in a shutdown: so that few tunnels do not hold it
// up, and many do not come back as a storm.
const leavePace = 10 * time.Millisecond

// tunnels are those to the given backend, nil for all.
func (w *worker) tunnels(to *upstream.Live) (ts []*tunnel) {
	for c := w.clients.next; c != &w.clients; c = c.next {
		if c.tunnel != nil && (to == nil || c.tunnel.bc.live == to) {
			ts = append(ts, c.tunnel)
		}
	}
	return ts
}

// leave ends tunnels one after the other over the given time, in step with the other workers.
func (w *worker) leave(ts []*tunnel, over time.Duration, turn int) {
	step := int64(over) / int64(len(ts)+1)
	now := w.loop.Now() + step*int64(turn)/int64(len(w.proxy.workers))
	for i, t := range ts {
		if t.leaving || t.ended {
			continue
		}
		w.loop.AfterFunc(&t.close, now+step*int64(i), t.leave)
	}
}

// forgetRefused closes what connections to b are idle: it no longer listens. A Node process that is to end waits for
// them after it has stopped listening.
func (x *exchange) forgetRefused(b *upstream.Backend) {
	for i := range b.Loops() {
		if b.Stats(i).ConnsIdle.Load() > 0 {
			x.w.proxy.Forget([]*upstream.Backend{b})
			return
		}
	}
}

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
