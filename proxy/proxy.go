// Package proxy is what becomes of a request: it reads it from the client, chooses a backend, passes the
// request there and the answer back, and tries again elsewhere when that can be done without the client
// noticing. A request that lb accepts is answered exactly once, or its connection is cut so that the
// client can tell.
//
// All of it runs on event loops. A worker is one loop's part: its clients, its idle connections to
// backends, its buffers. Workers share nothing but the Settings, which never change, and the counters of
// the pools.
package proxy

import (
	"context"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lb/accesslog"
	"lb/http1"
	"lb/loop"
	"lb/route"
)

// Settings is all that requests need to know. It is immutable and swapped whole.
type Settings struct {
	Table   *route.Table
	Trusted []netip.Prefix // of proxies in front, whose X-Forwarded-* are believed
	Log     *accesslog.Log // nil: none

	HeaderTimeout time.Duration // from the first byte of a request head to its last
	BodyTimeout   time.Duration // between two reads of a request body
	IdleTimeout   time.Duration // of a client's connection between requests
	WriteTimeout  time.Duration // that a peer may take nothing of what is sent to it

	MaxConns          int // clients' connections in all, 0: any
	MaxConnsPerClient int // of one address, trusted proxies apart; 0: any

	MaxHeaderBytes  int   // of a request head
	MaxHeaderFields int   // of a request head
	MaxBody         int64 // bytes of a request body, 0: any
}

// trusts reports whether a is the address of a trusted proxy.
func (s *Settings) trusts(a netip.Addr) bool {
	for _, p := range s.Trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Defaults are the Settings of a configuration that sets nothing.
func Defaults() Settings {
	return Settings{
		HeaderTimeout:   10 * time.Second,
		BodyTimeout:     30 * time.Second,
		IdleTimeout:     75 * time.Second,
		WriteTimeout:    30 * time.Second,
		MaxHeaderBytes:  http1.DefaultMaxBytes,
		MaxHeaderFields: http1.DefaultMaxFields,
	}
}

// idleGrace is how long clients' idle connections stay open in a shutdown: those that use theirs in this
// time are told to close it, and only the silent ones are closed on them.
const idleGrace = time.Second

// Proxy serves listeners on the loops of a group.
type Proxy struct {
	group    *loop.Group
	settings atomic.Pointer[Settings]
	workers  []*worker
	stopping atomic.Bool
	mover    atomic.Pointer[Mover] // nil: connections end with this process
	limits   limits

	mu        sync.Mutex
	listeners []*Listener // guarded by mu; in the order of their opening, with closed ones that have connections
}

// New makes a proxy on the loops of g.
func New(g *loop.Group, s *Settings) *Proxy {
	p := &Proxy{group: g}
	p.limits.seed = maphash.MakeSeed()
	p.settings.Store(s)
	for i := range g.Len() {
		w := newWorker(p, g.Loop(i))
		p.workers = append(p.workers, w)
		w.loop.Post(w.armTrim)
	}
	return p
}

// Update makes s the settings of all requests that come after.
func (p *Proxy) Update(s *Settings) { p.settings.Store(s) }

// Settings are those in force.
func (p *Proxy) Settings() *Settings { return p.settings.Load() }

// Shutdown stops accepting, tells clients to close their connections as they use them and those of tunnels to
// connect again, and waits until all requests and tunnels have ended. When ctx ends first it cuts what is left,
// and returns ctx.Err().
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.stopping.Store(true)
	p.mu.Lock()
	all := slices.Clone(p.listeners)
	p.mu.Unlock()
	var closing sync.WaitGroup
	for _, l := range all {
		closing.Go(func() { l.Close() })
	}
	closing.Wait()
	half := time.Hour
	if at, ok := ctx.Deadline(); ok {
		half = time.Until(at) / 2
	}
	var left sync.WaitGroup
	for _, w := range p.workers {
		left.Add(1)
		w.loop.Post(func() { w.drain(left.Done, half) })
	}
	done := make(chan struct{})
	go func() {
		left.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	for _, w := range p.workers {
		w.loop.Post(w.cut)
	}
	<-done
	return ctx.Err()
}
