package proxy

import (
	"net"
	"slices"
	"sync/atomic"

	"lb/loop"
	"lb/upstream"
)

// Listener is an address that clients connect to.
type Listener struct {
	p      *Proxy
	name   atomic.Pointer[string]
	addr   net.Addr
	inner  *loop.Listener
	shards []listenerShard // those of the name: a listener that moves goes on counting
	paused uint64          // times accepting paused, of those before it
	closed atomic.Bool
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

// Open takes ln over, under the given name. Connections wait in the kernel until Serve, which cannot fail.
func (p *Proxy) Open(name string, ln net.Listener) (*Listener, error) {
	inner, err := p.group.Take(ln)
	if err != nil {
		ln.Close()
		return nil, err
	}
	l := &Listener{p: p, addr: ln.Addr(), inner: inner}
	l.name.Store(&name)
	ln.Close() // inner has a descriptor of its own
	return l, nil
}

// Serve takes connections until the Listener or the proxy is closed. It counts on from where another of its name is
// or was, if there still are connections of that one.
func (l *Listener) Serve() {
	p := l.p
	p.mu.Lock()
	for _, o := range p.listeners {
		if o.Name() == l.Name() {
			l.shards, l.paused = o.shards, o.Stats().Paused
		}
	}
	if l.shards == nil {
		l.shards = make([]listenerShard, p.group.Len())
	}
	p.listeners = append(p.listeners, l)
	p.mu.Unlock()
	l.inner.Start(func(c *loop.Conn) {
		w := p.workers[c.Loop().Index()]
		w.accept(l, c)
	})
}

// Listen is Open and Serve.
func (p *Proxy) Listen(name string, ln net.Listener) (*Listener, error) {
	l, err := p.Open(name, ln)
	if err == nil {
		l.Serve()
	}
	return l, err
}

// Listeners are those that are served, in the order in which they were opened, and those that were closed and still
// have connections; in a shutdown, all that there were when it began. No two share their counters.
func (p *Proxy) Listeners() []*Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopping.Load() {
		p.prune()
	}
	// One that moves is here twice for a moment; the later one is left.
	seen := map[*listenerShard]bool{}
	var all []*Listener
	for _, l := range slices.Backward(p.listeners) {
		if key := &l.shards[0]; !seen[key] {
			seen[key] = true
			all = append(all, l)
		}
	}
	slices.Reverse(all)
	return all
}

// prune forgets closed listeners that have no connections, or whose counters another one goes on with. The caller
// holds mu.
func (p *Proxy) prune() {
	served := map[*listenerShard]bool{}
	for _, l := range p.listeners {
		if !l.closed.Load() {
			served[&l.shards[0]] = true
		}
	}
	p.listeners = slices.DeleteFunc(p.listeners, func(l *Listener) bool {
		return l.closed.Load() && (served[&l.shards[0]] || l.Stats().Open == 0)
	})
}

// Name is the listener's name in the configuration.
func (l *Listener) Name() string { return *l.name.Load() }

// Rename gives the listener another name, for the connections that it has, too.
func (l *Listener) Rename(name string) { l.name.Store(&name) }

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return l.addr }

// Closed reports whether the listener only has the connections that it accepted before it was closed.
func (l *Listener) Closed() bool { return l.closed.Load() }

// Close stops accepting; connections that were accepted go on.
func (l *Listener) Close() error {
	err := l.inner.Close()
	l.closed.Store(true)
	return err
}

// Suspend stops accepting until Resume: see loop.Listener, as for what follows.
func (l *Listener) Suspend() { l.inner.Suspend() }

// Resume goes on after Suspend.
func (l *Listener) Resume() { l.inner.Resume() }

// SetShared says whether another process holds the socket as well.
func (l *Listener) SetShared(is bool) { l.inner.SetShared(is) }

// Adopt serves a connection that another process moved here: see Proxy.Move.
func (l *Listener) Adopt(fd int) { l.inner.Adopt(fd) }

// Control calls f with the descriptor of the socket.
func (l *Listener) Control(f func(fd uintptr) error) error { return l.inner.Control(f) }

// Stats sums the loops' counters.
func (l *Listener) Stats() ListenerStats {
	s := ListenerStats{Paused: l.paused + l.inner.Paused()}
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
