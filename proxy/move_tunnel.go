package proxy

import (
	"bytes"
	"syscall"
	"time"

	"lb/accesslog"
	"lb/loop"
	"lb/upstream"
)

// Moved is what is known of a tunnel that goes to another process. Its JSON goes from one version of lb to another: fields
// may be added, none changes its meaning.
type Moved struct {
	Pool    string            `json:"pool"`
	Backend string            `json:"backend"`
	Address string            `json:"address"`
	Out     int64             `json:"out"`              // bytes from the client
	Back    int64             `json:"back"`             // bytes to the client
	Silent  time.Duration     `json:"silent"`           // since something last moved
	Head    []byte            `json:"head,omitempty"`   // of the frame to the client that is under way
	Left    uint64            `json:"left,omitempty"`   // of its payload
	Closed  bool              `json:"closed,omitempty"` // the client has got a close frame
	Age     time.Duration     `json:"age"`              // since the request
	Record  *accesslog.Record `json:"record,omitempty"` // what the log will say; nil without one
}

// quiet reports whether nothing of the tunnel is on its way through this process, and both sides go on.
func (t *tunnel) quiet() bool {
	return !t.ended && !t.leaving && !t.out.busy && !t.back.busy && !t.out.done && !t.back.done &&
		t.client.conn.CanDetach() && t.bc.conn.CanDetach()
}

// move takes a quiet tunnel to another process, if there is one. What either side sends meanwhile waits in the sockets.
func (t *tunnel) move() bool {
	c := t.client
	if !c.moves() || !t.quiet() {
		return false
	}
	now := t.w.loop.Now()
	b := t.lease.Backend()
	m := &Moved{
		Pool: b.Pool().Name, Backend: b.Name, Address: b.Addr.String(), Out: t.out.bytes, Back: t.back.bytes,
		Silent: time.Duration(now - t.moved), Head: bytes.Clone(t.frames.head[:t.frames.n]), Left: t.frames.left,
		Closed: t.frames.closed,
	}
	if t.entry != nil {
		m.Age, m.Record = time.Duration(now-t.entry.start), &t.entry.record
	}
	client, _ := c.conn.Detach()
	backend, _ := t.bc.conn.Detach()
	t.ended = true
	t.w.loop.Stop(&t.close)
	t.bc.stats.ConnsOpen.Dec()
	t.lease.Done(upstream.Outcome{Now: now, Status: 101})
	c.w.proxy.mover.Load().Tunnel(c.ln, m, client, backend)
	c.forget()
	return true
}

// AdoptTunnel goes on with a tunnel of another process's whose client came by the same listener. When there is no such
// backend in p, which may be nil, or it takes nothing new, the client is told to connect again.
func (l *Listener) AdoptTunnel(p *upstream.Pool, m *Moved, clientFD, backendFD int) {
	if p == nil || len(m.Head) > len(frames{}.head) {
		l.p.RefuseTunnel(m, clientFD, backendFD)
		return
	}
	l.inner.AdoptPair(clientFD, backendFD, func(conn, other *loop.Conn) {
		w := l.p.workers[conn.Loop().Index()]
		now := w.loop.Now()
		lease, ok := p.AdoptTunnel(m.Backend, m.Address, w.index, now)
		if !ok {
			m.entry(w).write(w, m.Out, m.Back, failure{})
			if m.between() {
				conn.Queue(restart, nil)
			}
			// After what was queued has been sent, at the end of this round.
			end := new(loop.Timer)
			w.loop.AfterFunc(end, now+int64(time.Millisecond), func() {
				conn.Close()
				other.Close()
			})
			return
		}
		c := &client{w: w, conn: conn, ln: l}
		l.shards[w.index].open.Inc()
		c.next, c.prev = &w.clients, w.clients.prev
		c.prev.next, c.next.prev = c, c
		set := w.proxy.settings.Load()
		w.proxy.limits.enter(set, c) // it is there, whatever the limit says
		conn.SetStallTimeout(int64(set.WriteTimeout))
		other.SetStallTimeout(int64(set.WriteTimeout))
		b := lease.Backend()
		bc := &backendConn{w: w, conn: other, live: b.Live, stats: b.Stats(w.index)}
		bc.stats.ConnsOpen.Inc()
		t := &tunnel{w: w, client: c, bc: bc, lease: lease, idle: int64(p.Snapshot().Settings.TunnelIdle), moved: now - int64(m.Silent)}
		t.out = way{t: t, from: conn, to: other, bytes: m.Out}
		t.back = way{t: t, from: other, to: conn, bytes: m.Back}
		t.frames.n, t.frames.left = uint8(copy(t.frames.head[:], m.Head)), m.Left
		t.frames.closed = m.Closed
		t.entry = m.entry(w)
		c.tunnel = t
		t.begin()
	})
}

// entry is what the access log will say; nil when there is no log. It is called on w's loop.
func (m *Moved) entry(w *worker) *entry {
	set := w.proxy.settings.Load()
	if m.Record == nil || set.Log == nil || !set.Log.On() {
		return nil
	}
	return &entry{log: set.Log, start: w.loop.Now() - int64(m.Age), record: *m.Record}
}

// RefuseTunnel ends a tunnel of another process's that nobody here can go on with: the client is told to connect again.
func (p *Proxy) RefuseTunnel(m *Moved, client, backend int) {
	if m.between() {
		syscall.Write(client, restart) // its buffer has room, or the client does not read
	}
	syscall.Close(client)
	syscall.Close(backend)
	w := p.workers[0]
	w.loop.Post(func() { m.entry(w).write(w, m.Out, m.Back, failure{}) })
}

// between reports whether the client's stream stands between two frames, with more to come.
func (m *Moved) between() bool { return len(m.Head) == 0 && m.Left == 0 && !m.Closed }
