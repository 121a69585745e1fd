package proxy

import (
	"io"
	"time"

	"lb/affinity"
	"lb/loop"
	"lb/upstream"
)

// tunnel is a WebSocket: bytes pass both ways until the backend ends, or the client does and has had the time to hear
// the rest. While nothing moves it holds neither a task nor a buffer.
type tunnel struct {
	w      *worker
	client *client
	bc     *backendConn
	lease  upstream.Lease
	idle   int64 // ns, 0 is for ever
	moved  int64 // when something last moved
	out    way   // from the client to the backend
	back   way
	ended  bool
	entry  *entry // for the access log, nil without one

	sticky  *affinity.Affinity // of the session, nil for none
	session uint64

	frames  frames     // of what goes to the client
	leaving bool       // the client is to be told to connect again, between two frames
	told    bool       // it has been; what the backend still says is dropped
	close   loop.Timer // ends the tunnel if nobody else does
	over    bool       // the backend has ended: the client gets to read what it was sent
	broke   failure    // how writing to the backend failed
}

// way is one direction of a tunnel.
type way struct {
	t        *tunnel
	from, to *loop.Conn
	busy     bool // a task moves bytes
	done     bool // the side it comes from has ended
	bytes    int64
}

// upgrade passes the 101 on and leaves both connections to a tunnel. In x.back, [:head] is the head and the
// rest, up to have, the first bytes of the new protocol.
func (x *exchange) upgrade(head, have int) failure {
	x.freeOut()
	x.out = x.appendResponseHead(x.out[:0], x.back[:head], 0, "Connection: Upgrade\r\nUpgrade: websocket\r\n")
	x.out = append(x.visited(x.out), "\r\n"...)
	x.status = 101
	x.answered = true
	if err := x.c.conn.Writev(x.out, x.back[head:have]); err != nil {
		return x.clientFailure(err)
	}
	early := x.in[x.body.end:x.have]
	if len(early) > 0 {
		if _, err := x.bc.conn.Write(early); err != nil {
			return failure{reason: BackendCut}
		}
	}
	x.c.conn.Watch(nil, false)
	now := x.w.loop.Now()
	t := &tunnel{w: x.w, client: x.c, bc: x.bc, lease: x.lease, idle: int64(x.snap.Settings.TunnelIdle), moved: now}
	t.out = way{t: t, from: x.c.conn, to: x.bc.conn, bytes: int64(len(early))}
	t.back = way{t: t, from: x.bc.conn, to: x.c.conn, bytes: int64(have - head)}
	t.frames.feed(x.back[head:have])
	t.entry = x.entry()
	t.lease.Tunnel()
	t.moveOn(t.lease.Backend())
	if t.session = x.visit.Session(); t.session != 0 {
		t.sticky = x.visit.Affinity()
	}
	x.leased, x.bc = false, nil
	x.c.tunnel = t
	t.begin()
	return failure{}
}

// begin waits for what comes from either side.
func (t *tunnel) begin() {
	t.back.busy = true // lest it is taken for quiet in between
	t.out.await()
	t.back.await()
}

func (d *way) await() {
	d.busy = false
	if d.t.move() {
		return
	}
	by := int64(0)
	if d.t.idle > 0 {
		by = d.t.moved + d.t.idle
	}
	d.from.SetReadDeadline(by)
	d.from.Await(d)
}

// Ready begins to move what has come.
func (d *way) Ready(_ *loop.Conn, timeout bool) {
	t := d.t
	if timeout && t.w.loop.Now() >= t.moved+t.idle && !t.out.busy && !t.back.busy {
		t.end(failure{})
		return
	}
	if timeout && !d.from.Readable() {
		if t.out.busy || t.back.busy {
			t.moved = t.w.loop.Now() // the other direction is at work on a slow peer
		}
		d.await()
		return
	}
	d.busy = true
	t.w.loop.Go(d, t.client.conn)
}

// Run moves bytes until there are none.
func (d *way) Run() {
	t := d.t
	defer func() {
		if d.busy { // a panic
			t.end(failure{reason: BackendCut})
		}
	}()
	b := t.w.takeBuffer()
	for !t.ended {
		n, err := d.from.TryRead(b)
		if n == 0 && err == nil {
			d.await()
			break
		}
		if err != nil && d == &t.back {
			d.done = true
			t.backendEnded(err)
			break
		}
		if err == io.EOF {
			d.busy, d.done = false, true
			t.clientEnded()
			break
		}
		if err != nil {
			d.busy = false
			t.end(d.failure())
			break
		}
		t.moved = t.w.loop.Now()
		send := b[:n]
		if d == &t.back {
			send = t.before(send)
		}
		d.bytes += int64(len(send))
		if _, err = d.to.Write(send); err == nil && d == &t.back {
			err = t.goodbye()
		}
		if err != nil && d == &t.out && d.to.Gone(false) && !t.ended {
			// The other direction sees that too, once it has passed on what the backend said before.
			d.busy, d.done = false, true
			t.broke = d.failure()
			t.endSoon()
			break
		}
		if err != nil {
			d.busy = false
			t.end(d.failure())
			break
		}
	}
	d.busy = false
	t.w.giveBuffer(b)
}

// clientEnded passes the end of the client on. What the backend still says reaches it, for a while.
func (t *tunnel) clientEnded() {
	if t.bc.conn.CloseWrite() != nil {
		t.end(failure{})
		return
	}
	t.endSoon()
}

// endSoon ends the tunnel after a while, one of whose sides has ended. WebSockets do not go on in one direction (RFC 6455
// 7.1.1), and a side that does not notice would be counted for as long as a tunnel may be idle.
func (t *tunnel) endSoon() {
	if !t.leaving { // else it is about to end
		t.w.loop.AfterFunc(&t.close, t.w.loop.Now()+int64(lastWords), func() { t.end(t.broke) })
	}
}

// backendEnded ends the tunnel, by err, which is io.EOF where the backend ended in order. A client that has got no close
// frame is told to connect again, unless it is in the middle of another frame: there it sees that something is missing.
func (t *tunnel) backendEnded(err error) {
	why := t.broke
	if err != io.EOF && !why.failed() {
		why = t.back.failure()
	}
	listens := !t.out.done || t.broke.failed()
	if listens && !t.told && t.frames.between() && !t.frames.closed {
		t.told = true
		t.client.conn.Write(restart) // if that fails there is nobody to tell
	}
	t.over = true
	t.back.busy = false
	t.end(why)
}

func (d *way) failure() failure {
	t := d.t
	if t.client.conn.Gone(false) {
		return failure{reason: ClientGone}
	}
	return failure{reason: BackendCut}
}

const (
	// goodbyeFor is how long a client that was told to go may take.
	goodbyeFor = 2 * time.Second
	// lastWords is how long a backend may take to end whose client has: longer than a garbage collection, or a loop of
	// Node.js that is busy.
	lastWords = 5 * time.Second
)

// leave tells the client to connect again, as soon as the backend has finished what it says, and then ends the tunnel.
func (t *tunnel) leave() {
	if t.leaving || t.ended {
		return
	}
	t.leaving = true
	t.w.loop.AfterFunc(&t.close, t.w.loop.Now()+int64(goodbyeFor), func() { t.end(failure{}) })
	if t.back.busy {
		return // its task sees to it
	}
	t.back.busy = true
	t.back.from.Await(nil) // nobody else writes to the client meanwhile
	t.w.loop.Go(leaver{t}, t.client.conn)
}

// leaver says goodbye on a tunnel on which the backend is silent.
type leaver struct{ t *tunnel }

func (l leaver) Run() {
	t := l.t
	if err := t.goodbye(); err != nil {
		t.back.busy = false
		t.end(failure{})
		return
	}
	if !t.ended {
		t.back.await()
	}
}

// before is what of b still goes to the client: all, or when the client is about to be told to go, whole frames only.
func (t *tunnel) before(b []byte) []byte {
	if t.told {
		return nil
	}
	between := t.frames.between()
	whole := t.frames.feed(b)
	switch {
	case !t.leaving:
		return b
	case whole > 0:
		t.frames = frames{closed: t.frames.closed} // what follows is dropped
		return b[:whole]
	case between:
		t.frames = frames{}
		return nil
	}
	return b
}

// goodbye sends the close frame if it is time for it.
func (t *tunnel) goodbye() error {
	if !t.leaving || t.told || t.ended || !t.frames.between() || t.frames.closed {
		return nil
	}
	t.told = true
	_, err := t.client.conn.Write(restart)
	return err
}

// abort ends the tunnel from outside.
func (t *tunnel) abort() { t.end(failure{reason: Stopped}) }

// end closes both sides.
func (t *tunnel) end(why failure) {
	if t.ended {
		return
	}
	t.ended = true
	t.w.loop.Stop(&t.close)
	t.bc.stats.BytesSent.Add(uint64(t.out.bytes))
	t.bc.stats.BytesReceived.Add(uint64(t.back.bytes))
	sh := t.client.stats()
	sh.bytesIn.Add(uint64(t.out.bytes))
	sh.bytesOut.Add(uint64(t.back.bytes))
	t.lease.Done(upstream.Outcome{Now: t.w.loop.Now(), Status: 101, Fault: answers[why.reason].fault})
	if why.failed() {
		sh.answers[why.reason].Inc()
	}
	if t.sticky != nil {
		t.sticky.Ended(t.session, t.w.loop.Now())
	}
	t.entry.write(t.w, t.out.bytes, t.back.bytes, why)
	t.bc.close()
	if t.over {
		t.client.tunnel = nil
		t.client.endWithin(lingerFor)
		return
	}
	t.client.close()
}
