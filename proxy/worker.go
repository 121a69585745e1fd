package proxy

import (
	crand "crypto/rand"
	"math/rand/v2"
	"time"

	"lb/loop"
	"lb/upstream"
)

const (
	// bodyBuffer is the size of the buffers that bodies pass through: large enough that the cost of a system
	// call is small beside that of copying, small enough to stay in the processor's second-level cache.
	bodyBuffer = 64 << 10
	// trimEvery is how often a worker gives back buffers that nobody needs.
	trimEvery = 2 * time.Second
	// A connection that lb closes is read on, so that the client gets to see the answer: closing a socket with
	// unread bytes resets it, and many clients read only when they have sent all. It is read for lingerMax, if
	// the client never pauses for lingerFor; in a shutdown, for lingerStop.
	lingerFor  = 2 * time.Second
	lingerMax  = 30 * time.Second
	lingerStop = 500 * time.Millisecond
)

// worker is one loop's part of the proxy. Everything in it belongs to that loop.
type worker struct {
	proxy *Proxy
	loop  *loop.Loop
	index int

	clients   client // head of the circular list of client connections, tunnels included
	exchanges loop.Pool[*exchange]
	buffers   loop.Pool[[]byte]
	idle      []idleList // by Live.ID
	random    *rand.ChaCha8
	asking    int // exchanges in askAgain
	trim      loop.Timer

	drained func()      // called once there is no client left; set when stopping
	grace   *loop.Timer // when idle clients are closed in a shutdown
}

func newWorker(p *Proxy, l *loop.Loop) *worker {
	w := &worker{proxy: p, loop: l, index: l.Index()}
	w.clients.next, w.clients.prev = &w.clients, &w.clients
	var seed [32]byte
	crand.Read(seed[:])
	w.random = rand.NewChaCha8(seed)
	return w
}

func (w *worker) armTrim() {
	w.loop.AfterFunc(&w.trim, w.loop.Now()+int64(trimEvery), func() {
		w.exchanges.Trim()
		w.buffers.Trim()
		w.armTrim()
	})
}

// takeBuffer takes a buffer of bodyBuffer bytes.
func (w *worker) takeBuffer() []byte {
	if b, ok := w.buffers.Get(); ok {
		return b
	}
	return make([]byte, bodyBuffer)
}

func (w *worker) giveBuffer(b []byte) {
	if cap(b) == bodyBuffer {
		w.buffers.Put(b[:bodyBuffer])
	}
}

func (w *worker) accept(ln *Listener, conn *loop.Conn) {
	c := &client{w: w, conn: conn, ln: ln}
	sh := &ln.shards[w.index]
	sh.accepted.Inc()
	sh.open.Inc()
	c.next, c.prev = &w.clients, w.clients.prev
	c.prev.next, c.next.prev = c, c
	set := w.proxy.settings.Load()
	conn.SetStallTimeout(int64(set.WriteTimeout))
	switch ok, answer := w.proxy.limits.enter(set, c); {
	case ok:
		c.rest(set)
	case answer:
		w.loop.Go((*turnAway)(c), conn)
	default:
		sh.answers[TooManyConnections].Inc()
		c.abort()
	}
}

// drain lets the clients go: see Proxy.Shutdown.
func (w *worker) drain(done func(), most time.Duration) {
	w.drained = done
	if w.proxy.mover.Load() == nil {
		w.leaveAll(most)
	} else {
		// They go to another process when they are quiet. Who has not been for so long is told to connect again.
		w.loop.AfterFunc(new(loop.Timer), w.loop.Now()+int64(most/2), func() { w.leaveAll(most / 2) })
	}
	w.grace = new(loop.Timer)
	w.loop.AfterFunc(w.grace, w.loop.Now()+int64(idleGrace), w.closeIdle)
	for c := w.clients.next; c != &w.clients; c = c.next {
		switch x := c.x; {
		case c.linger != 0:
			c.hurry()
		case x != nil && x.reading():
			x.hurryHead()
			c.conn.SetReadDeadline(x.headBy)
		}
	}
	w.checkDrained()
}

// leaveAll tells the clients of all tunnels to connect again, within the given time.
func (w *worker) leaveAll(most time.Duration) {
	ts := w.tunnels(nil)
	w.leave(ts, min(most, time.Duration(len(ts)*len(w.proxy.workers))*leavePace), w.index)
}

func (w *worker) closeIdle() {
	for c := w.clients.next; c != &w.clients; {
		next := c.next
		if c.resting {
			c.close()
		}
		c = next
	}
	w.checkDrained()
}

func (w *worker) checkDrained() {
	if w.drained == nil || w.clients.next != &w.clients {
		return
	}
	w.loop.Stop(w.grace)
	for i := range w.idle {
		w.idle[i].clear(w)
	}
	w.drained()
	w.drained = nil
}

// cut ends what is left of a shutdown.
func (w *worker) cut() {
	for c := w.clients.next; c != &w.clients; {
		next := c.next
		c.cut()
		c = next
	}
}

// forget closes the idle connections to a backend.
func (w *worker) forget(b *upstream.Backend) {
	if b.ID < len(w.idle) && w.idle[b.ID].live == b.Live {
		w.idle[b.ID].clear(w)
	}
}
