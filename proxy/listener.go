package proxy

import (
	"net"

	"lb/loop"
	"lb/upstream"
)

// Listener is an address that clients connect to.
type Listener struct {
	name   string
	addr   net.Addr
	inner  *loop.Listener
	shards []listenerShard
}

// ListenerStats counts what came by a listener.
type ListenerStats struct {
	Accepted uint64 // connections
	Open     int64  // connections, tunnels included
	Requests uint64
	Paused   uint64 // times accepting stopped for want of descriptors
	BytesIn  uint64 // of request bodies
	BytesOut uint64 // of response bodies
	Answers  [reasons]uint64
}

// listenerShard is one loop's counters, kept off the other loops' cache lines.
type listenerShard struct {
	_        [64]byte
	accepted upstream.Counter
	open     upstream.Gauge
	requests upstream.Counter
	bytesIn  upstream.Counter
	bytesOut upstream.Counter
	answers  [reasons]upstream.Counter
	_        [64]byte
}

// Name is the listener's name in the configuration.
func (l *Listener) Name() string { return l.name }

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return l.addr }

// Close stops accepting; connections that were accepted go on.
func (l *Listener) Close() error { return l.inner.Close() }

// Stats sums the loops' counters.
func (l *Listener) Stats() ListenerStats {
	s := ListenerStats{Paused: l.inner.Paused()}
	for i := range l.shards {
		sh := &l.shards[i]
		s.Accepted += sh.accepted.Load()
		s.Open += sh.open.Load()
		s.Requests += sh.requests.Load()
		s.BytesIn += sh.bytesIn.Load()
		s.BytesOut += sh.bytesOut.Load()
		for r := range sh.answers {
			s.Answers[r] += sh.answers[r].Load()
		}
	}
	return s
}
