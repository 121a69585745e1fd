package proxy

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"

	"lb/accesslog"
	"lb/loop"
)

// limits counts connections against Settings.MaxConns and MaxConnsPerClient, for all loops together.
type limits struct {
	open   atomic.Int64
	shards [16]struct {
		mu sync.Mutex
		n  map[netip.Addr]int
		_  [40]byte
	}
	seed maphash.Seed
}

// owner is who a connection counts for: an IPv4 address, or an IPv6 network of the size that one customer gets.
func owner(a netip.Addr) netip.Addr {
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// enter counts a connection. It reports whether the connection may be served, and whether there is room at least to
// say that it may not.
func (l *limits) enter(set *Settings, c *client) (ok, answer bool) {
	n := l.open.Add(1)
	if set.MaxConns > 0 && n > int64(set.MaxConns) {
		return false, n <= 2*int64(set.MaxConns)
	}
	if set.MaxConnsPerClient == 0 {
		return true, true
	}
	a := c.conn.RemoteAddr().Addr().Unmap().WithZone("")
	if !a.IsValid() || set.trusts(a) { // a proxy's connections are many clients'
		return true, true
	}
	c.owner = owner(a)
	s := &l.shards[maphash.Comparable(l.seed, c.owner)%uint64(len(l.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = map[netip.Addr]int{}
	}
	s.n[c.owner]++
	n = int64(s.n[c.owner])
	return n <= int64(set.MaxConnsPerClient), n <= 2*int64(set.MaxConnsPerClient)
}

// exit uncounts it.
func (l *limits) exit(c *client) {
	l.open.Add(-1)
	if !c.owner.IsValid() {
		return
	}
	s := &l.shards[maphash.Comparable(l.seed, c.owner)%uint64(len(l.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n[c.owner]--; s.n[c.owner] == 0 {
		delete(s.n, c.owner)
	}
}

// turnAway is a client that one limit or another keeps out: it is told so, without having been asked anything.
type turnAway client

func (t *turnAway) Run() {
	c := (*client)(t)
	c.stats().answers[TooManyConnections].Inc()
	if log := c.w.proxy.settings.Load().Log; log.On() {
		log.Append(c.w.index, &accesslog.Record{
			Time: loop.WallTime(c.w.loop.Now()), Client: c.conn.RemoteAddr().Addr().Unmap(), Listener: c.ln.Name(),
			Status: answers[TooManyConnections].status, Reason: TooManyConnections.String(), Connect: -1, FirstByte: -1,
		})
	}
	if _, err := c.conn.Write(appendAnswer(nil, 503, "Connection: close\r\n", false)); err != nil {
		c.close()
		return
	}
	c.end()
}

var _ loop.Runner = (*turnAway)(nil)
