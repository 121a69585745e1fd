package proxy

import (
	"io"
	"net/netip"
	"time"

	"lb/loop"
)

// client is a connection of a client's. Between requests it is all that the connection holds: no task, no
// buffer.
type client struct {
	w          *worker
	conn       *loop.Conn
	ln         *Listener
	next, prev *client // in the worker's list

	x       *exchange  // being served; nil between requests
	tunnel  *tunnel    // after an upgrade
	resting bool       // waits for the first byte of a request
	gone    bool       // closed and off the list
	owner   netip.Addr // whom the connection counts for, if that is limited
	linger  int64      // until when it is read on, after lb closed its side
}

func (c *client) stats() *listenerShard { return &c.ln.shards[c.w.index] }

// rest waits for the next request.
func (c *client) rest(set *Settings) {
	if c.move() {
		return
	}
	if c.w.grace != nil && !c.w.grace.Armed() { // lb stops, and those at rest have been closed
		c.close()
		return
	}
	c.resting = true
	c.conn.SetReadDeadline(c.w.loop.Now() + int64(set.IdleTimeout))
	c.conn.Await(c)
}

// Ready begins to serve what has come.
func (c *client) Ready(_ *loop.Conn, timeout bool) {
	c.resting = false
	if timeout {
		c.close()
		return
	}
	c.w.loop.Go(c, c.conn)
}

// Run serves requests until there is none in hand.
func (c *client) Run() {
	x := c.w.takeExchange(c)
	defer x.release()
	for {
		switch x.read() {
		case gotNothing:
			x.leave(c.rest)
			return
		case gotClosed:
			x.leave(nil)
			return
		}
		x.serve()
		if !x.finish() {
			x.leave(nil)
			return
		}
	}
}

// close closes the connection. Bytes that the client sent and nobody read would turn that into a reset, which
// may overtake the last answer: where that can be, use end.
func (c *client) close() {
	c.conn.Close()
	c.forget()
}

// abort closes the connection so that the client can tell that something is missing.
func (c *client) abort() {
	c.conn.Abort()
	c.forget()
}

// forget takes the connection off the worker's books.
func (c *client) forget() {
	if c.gone {
		return
	}
	c.gone = true
	c.w.proxy.limits.exit(c)
	c.stats().open.Dec()
	c.prev.next, c.next.prev = c.next, c.prev
	c.w.checkDrained()
}

// end closes lb's side and reads on for a while, so that the client sees the answer before it sees a reset.
func (c *client) end() { c.endWithin(lingerMax) }

func (c *client) endWithin(most time.Duration) {
	if c.conn.CloseWrite() != nil {
		c.close()
		return
	}
	now := c.w.loop.Now()
	c.linger = now + int64(most)
	if c.w.drained != nil {
		c.hurry()
	}
	c.conn.SetReadDeadline(min(now+int64(lingerFor), c.linger))
	c.conn.Await((*lingerer)(c))
}

// hurry is for a client that is read on when a shutdown has begun, which it shall not hold up.
func (c *client) hurry() { c.linger = min(c.linger, c.w.loop.Now()+int64(lingerStop)) }

// lingerer is a client whose answer has been sent, and whose bytes nobody wants.
type lingerer client

func (l *lingerer) Ready(conn *loop.Conn, timeout bool) {
	c := (*client)(l)
	now := c.w.loop.Now()
	if timeout || now >= c.linger {
		c.close()
		return
	}
	b := c.w.takeBuffer()
	defer c.w.giveBuffer(b)
	for range 4 { // what is left of more is looked at in the next round
		n, err := conn.TryRead(b)
		if err != nil {
			c.close()
			return
		}
		if n == 0 {
			break
		}
		conn.SetReadDeadline(min(now+int64(lingerFor), c.linger))
	}
	conn.Await(l)
}

// cut ends the connection, whatever it does.
func (c *client) cut() {
	switch {
	case c.tunnel != nil:
		c.tunnel.abort()
	case c.x != nil:
		c.x.task.Interrupt(errStopped)
	default:
		c.close()
	}
}

type got int

const (
	gotRequest got = iota
	gotNothing     // the client rests
	gotClosed      // it is gone, or got an answer that ends the connection
)

// read reads a request head. What had come with the one before is already there.
func (x *exchange) read() got {
	x.begin()
	conn := x.c.conn
	timed := false
	for {
		if x.have > 0 {
			n, err := x.req.Parse(x.in[:x.have], &x.limits)
			if err != nil {
				x.start = x.w.loop.Now()
				x.refuse(badRequest(err))
				return gotClosed
			}
			if n > 0 {
				x.head = n
				return gotRequest
			}
			if !timed {
				timed = true
				x.headBy = x.w.loop.Now() + int64(x.set.HeaderTimeout)
				if x.w.grace != nil {
					x.hurryHead()
				}
				conn.SetReadDeadline(x.headBy)
			}
		}
		var n int
		var err error
		if x.have == 0 {
			if n, err = conn.TryRead(x.in); n == 0 && err == nil {
				return gotNothing
			}
		} else {
			n, err = conn.Read(x.in[x.have:])
		}
		if err != nil {
			switch {
			case err == loop.ErrTimeout:
				x.start = x.w.loop.Now()
				if x.hurried {
					x.refuse(failure{reason: Stopped})
				} else {
					x.refuse(failure{reason: HeaderTimeout})
				}
			case err == io.EOF && x.have == 0:
				x.c.close()
			default:
				x.c.abort()
			}
			return gotClosed
		}
		x.have += n
	}
}

// reading reports whether a part of a request head has come, and the rest is waited for.
func (x *exchange) reading() bool { return x.head == 0 && x.have > 0 && !x.left }

// hurryHead is for a request head that has begun when a shutdown does: a client that does not go on with it is as good as
// silent, and shall not hold up the end for all of the header timeout.
func (x *exchange) hurryHead() {
	if by := x.w.loop.Now() + int64(idleGrace); by < x.headBy {
		x.headBy, x.hurried = by, true
	}
}
