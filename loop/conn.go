package loop

import (
	"net/netip"
	"syscall"
)

// Conn is a connection on a loop, accepted or dialed. Reads and writes park the task that calls them. At
// any time one task may read and one may write.
type Conn struct {
	loop *Loop
	socket

	readable bool // a read may find something; cleared by one that found less than it asked for
	writable bool // the socket took all that it was given last
	ended    bool // the peer sent FIN: reads go on to the end of the stream, whatever they find
	broken   bool // reset, or shut down in both directions
	closed   bool
	dirty    bool // on the loop's list of those to flush
	eager    bool // on the loop's list of those whose handler need not wait
	accepted bool // came by a listener
	enrolled bool // the poller tells of its events
	watchFIN bool
	reads    uint8 // in this round; see maxReads
	round    uint32

	handler Handler // told when readable, if no task reads
	reader  *Task
	writer  *Task
	watcher *Task // interrupted when the peer has gone

	out  [2][]byte // to be sent, in this order; belongs to the caller until sent
	werr error

	readBy  int64 // deadlines on the loop's clock; 0 is none
	writeBy int64 // of the output that waits, or of a dial
	timer   Timer // at or before the nearer deadline, or idle
	stall   int64 // ns that output may wait without the peer taking any of it; 0 is no limit
	unsent  int32 // what the peer had not taken when writeBy was set
	given   uint32
	remote  netip.AddrPort
}

// maxReads is how often one connection may read in one round before everybody else is let first.
const maxReads = 16

// errAgain says that there is nothing to read yet.
const errAgain = syscall.EAGAIN

// Loop returns the loop that the connection lives on.
func (c *Conn) Loop() *Loop { return c.loop }

// RemoteAddr is the peer's address; the zero AddrPort on a unix socket.
func (c *Conn) RemoteAddr() netip.AddrPort { return c.remote }

// hasInput tells who waits for it that a read may find something.
func (c *Conn) hasInput() {
	c.readable = true
	if c.reader != nil {
		c.reader.Wake()
	} else if c.handler != nil {
		c.tellHandler(false)
	}
}

// tellHandler hands the connection to its handler. A handler that panics loses the connection.
func (c *Conn) tellHandler(timeout bool) {
	h := c.handler
	c.handler = nil
	c.loop.blame = c
	h.Ready(c, timeout)
	c.loop.blame = nil
}

// Await lets h know when there is something to read, the stream has ended, or the read deadline has
// passed; once, in the next round at the earliest. Until then the connection holds neither a task nor a
// buffer. Await(nil) takes it back. Close takes it back, too: the handler is not told.
func (c *Conn) Await(h Handler) {
	c.handler = h
	if h == nil || c.closed {
		return
	}
	if c.readable {
		c.tellSoon() // it may be that everything has been read: then the handler's read says so at little cost
		return
	}
	c.enroll()
	c.schedule(c.readBy) // the timer may have fired when nobody waited
}

// tellSoon tells the handler in the next round.
func (c *Conn) tellSoon() {
	if !c.eager {
		c.eager = true
		c.loop.eager = append(c.loop.eager, c)
	}
}

// Watch interrupts the task with ErrPeerGone when the peer resets the connection, or, if fin is set,
// when it sends its last byte: at once if that has happened. nil ends the watch.
func (c *Conn) Watch(t *Task, fin bool) {
	c.watcher, c.watchFIN = t, fin
	if t != nil {
		c.enrollSoon()
	}
	c.tellWatcher()
}

func (c *Conn) tellWatcher() {
	if c.watcher != nil && (c.broken || c.ended && c.watchFIN) {
		c.watcher.Interrupt(ErrPeerGone)
	}
}

// Gone reports whether the peer has reset the connection, or with fin, ended its side of it, as far as is
// known without asking.
func (c *Conn) Gone(fin bool) bool { return c.broken || c.closed || fin && c.ended }

// Readable reports whether a read may find something without waiting.
func (c *Conn) Readable() bool { return c.readable }

// SetReadDeadline sets until when, on the loop's clock, a Read or an Await may wait; 0 is for ever.
func (c *Conn) SetReadDeadline(at int64) {
	c.readBy = at
	c.schedule(at)
}

// SetStallTimeout bounds how long, in ns, output may wait for a peer that takes nothing of it; 0 is for ever. A
// slow peer is not cut as long as it goes on reading.
func (c *Conn) SetStallTimeout(d int64) { c.stall = d }

// schedule makes sure that the timer fires no later than at. It is left alone when it fires before: most
// deadlines are moved away many times before the first of them would have passed.
func (c *Conn) schedule(at int64) {
	if at != 0 && !c.closed && (!c.timer.Armed() || c.timer.when > at) {
		c.loop.wheel.arm(&c.timer, at)
	}
}

func (c *Conn) fire(_ *Timer, now int64) {
	if c.readBy != 0 {
		if c.readBy > now {
			c.schedule(c.readBy)
		} else if c.reader != nil {
			c.reader.Wake()
		} else if c.handler != nil {
			c.tellHandler(true)
		}
	}
	if c.writeBy != 0 && !c.closed {
		if c.writeBy > now {
			c.schedule(c.writeBy)
		} else if c.pending() {
			c.checkStall()
		} else if c.writer != nil { // a dial
			c.writer.Wake()
		}
	}
}

// stalled begins the wait for the peer to make room.
func (c *Conn) stalled() {
	if c.stall != 0 {
		c.unsent = c.untaken()
		c.writeBy = c.loop.now + c.stall
		c.schedule(c.writeBy)
	}
}

// checkStall gives up on a peer that took nothing since stalled. The socket says that it has room only when
// a third of its buffer is free: a slow peer needs longer than the timeout to take megabytes, so it is asked
// what is left.
func (c *Conn) checkStall() {
	if c.writable {
		return // about to be sent
	}
	if n := c.untaken(); n < c.unsent && c.stall != 0 {
		c.unsent = n
		c.writeBy = c.loop.now + c.stall
		c.schedule(c.writeBy)
		return
	}
	c.fail(ErrTimeout)
}

// Read reads what there is, up to len(b) bytes, and waits until there is something. It returns io.EOF
// at the end of the stream, ErrTimeout at the read deadline, or what interrupted the task.
func (c *Conn) Read(b []byte) (int, error) {
	for {
		if c.closed {
			return 0, ErrClosed
		}
		if c.readable {
			if c.round != c.loop.round {
				c.round, c.reads = c.loop.round, 0
			}
			if c.reads++; c.reads > maxReads {
				c.reads = 0
				if err := c.loop.Yield(); err != nil {
					return 0, err
				}
				continue
			}
			n, err := c.recv(b)
			if err != errAgain {
				return n, err
			}
		}
		if err := c.waitReadable(); err != nil {
			return 0, err
		}
	}
}

// Wait waits until a Read may find something, so that a buffer need only be held once there is. It returns
// what Read would but for the end of the stream, which Read reports.
func (c *Conn) Wait() error {
	for !c.readable {
		if c.closed {
			return ErrClosed
		}
		if err := c.waitReadable(); err != nil {
			return err
		}
	}
	return nil
}

// TryRead is Read for code that must not wait: it returns 0 and nil when there is nothing.
func (c *Conn) TryRead(b []byte) (int, error) {
	if c.closed {
		return 0, ErrClosed
	}
	if !c.readable {
		return 0, nil
	}
	n, err := c.recv(b)
	if err == errAgain {
		return 0, nil
	}
	return n, err
}

func (c *Conn) waitReadable() error {
	t := c.loop.cur
	if t.intr != nil {
		return t.intr
	}
	if c.readBy != 0 && c.readBy <= c.loop.now {
		return ErrTimeout
	}
	if c.enroll(); c.readable {
		return nil
	}
	c.reader = t
	t.park()
	c.reader = nil
	if t.intr != nil {
		return t.intr
	}
	if !c.readable && !c.closed && c.readBy != 0 && c.readBy <= c.loop.now {
		return ErrTimeout
	}
	return nil
}

// Write sends b and waits until the socket has taken all of it. Sockets written in one round are flushed
// together at its end.
func (c *Conn) Write(b []byte) (int, error) {
	if err := c.Writev(b, nil); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Writev is Write of two pieces, one after the other.
func (c *Conn) Writev(a, b []byte) error {
	if err := c.Queue(a, b); err != nil {
		return err
	}
	return c.Flush()
}

// Queue is Writev without the wait: a and b go out at the end of the round or when the socket has room,
// and must stay as they are until Flush returns. What was queued before is waited for first.
func (c *Conn) Queue(a, b []byte) error {
	if c.pending() {
		if err := c.Flush(); err != nil {
			return err
		}
	}
	if c.werr != nil {
		return c.werr
	}
	if c.closed {
		return ErrClosed
	}
	c.out[0], c.out[1] = a, b
	if c.writable {
		c.markDirty()
	}
	return nil
}

// Flush waits until everything queued has been taken by the socket. If the task is interrupted, what was
// not taken is dropped, since its buffers may be used again, and nothing more can be written.
func (c *Conn) Flush() error {
	for c.pending() && c.werr == nil {
		t := c.loop.cur
		if t.intr == nil {
			c.writer = t
			t.park()
			c.writer = nil
		}
		if t.intr != nil {
			if c.pending() {
				c.fail(t.intr)
			}
			return t.intr
		}
	}
	return c.werr
}

// Given is how many bytes of output the socket has taken so far, modulo 4 GiB.
func (c *Conn) Given() uint32 { return c.given }

// Pending reports whether queued output has not yet been taken by the socket.
func (c *Conn) Pending() bool { return c.pending() }

func (c *Conn) pending() bool { return len(c.out[0])|len(c.out[1]) != 0 }

func (c *Conn) markDirty() {
	if !c.dirty {
		c.dirty = true
		c.loop.dirty = append(c.loop.dirty, c)
	}
}

// flush sends what the socket takes and wakes the writer when all is sent.
func (c *Conn) flush() {
	if c.closed || c.pending() && !c.send() {
		return
	}
	c.sent()
}

// sent is called when the socket has taken everything.
func (c *Conn) sent() {
	c.out = [2][]byte{}
	c.writeBy = 0
	if c.writer != nil {
		c.writer.Wake()
	}
}

// fail drops the output and lets the writer know why.
func (c *Conn) fail(err error) {
	if c.werr == nil {
		c.werr = err
	}
	c.out = [2][]byte{}
	c.writeBy = 0
	if c.writer != nil {
		c.writer.Wake()
	}
}

// CloseWrite sends FIN after what was written. The peer's bytes can still be read.
func (c *Conn) CloseWrite() error {
	if c.closed {
		return ErrClosed
	}
	if err := c.Flush(); err != nil {
		return err
	}
	return c.finish()
}

// Close closes the connection at once. Output not yet taken by the socket is dropped; whoever waits on the
// connection gets ErrClosed. If bytes of the peer's were left unread the kernel sends a reset.
func (c *Conn) Close() error {
	if c.closed {
		return ErrClosed
	}
	l := c.loop
	c.closed = true
	l.wheel.stop(&c.timer)
	l.conns--
	if c.accepted {
		l.accepted.Add(-1)
	}
	c.handler, c.watcher = nil, nil
	c.fail(ErrClosed)
	if c.reader != nil {
		c.reader.Wake()
	}
	return c.shut()
}

// Abort closes the connection with a reset, so that the peer can tell that what it got is not all. (A unix
// socket knows no reset: there it is Close.)
func (c *Conn) Abort() error {
	if c.closed {
		return ErrClosed
	}
	c.resetOnClose()
	return c.Close()
}

// Closed reports whether the connection was closed on this side.
func (c *Conn) Closed() bool { return c.closed }
