//go:build !linux || lb_portable

package loop

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
)

// socket is a net.Conn with a goroutine that reads ahead of the loop and one that writes behind it, the latter
// from the first time on that the socket does not take all.
type socket struct {
	nc       net.Conn
	in       input
	queue    chan []byte  // to the writer; nil until there is one
	left     atomic.Int64 // bytes that the writer has not written
	finished bool         // FIN is sent
}

// input is what was read ahead.
type input struct {
	mu   sync.Mutex
	room sync.Cond // has changed: there is room, or nobody wants more
	buf  []byte
	err  error // after buf
	lost error // what a write said broke the stream; the system says it once, then calls it an end
	shut bool
}

// readAhead is how much is read before anybody asks: enough to see the end of a stream behind the small
// things that wait unread.
const readAhead = 16 << 10

func (l *Loop) register(nc net.Conn, remote netip.AddrPort) *Conn {
	c := &Conn{loop: l, socket: socket{nc: nc}, writable: true, remote: remote}
	c.timer.target = c
	c.in.room.L = &c.in.mu
	l.live[c] = struct{}{}
	l.conns++
	l.helpers.Add(1)
	go c.readLoop()
	return c
}

// readLoop ends with the stream: a reset after FIN is seen by writes alone.
func (c *Conn) readLoop() {
	defer c.loop.helpers.Done()
	b := make([]byte, readAhead)
	for {
		n := c.room()
		if n == 0 {
			return
		}
		n, err := c.nc.Read(b[:n])
		c.deliver(b[:n], err)
		if err != nil {
			return
		}
	}
}

// room waits until there is some and returns how much; 0 when the connection was closed.
func (c *Conn) room() int {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	for len(c.in.buf) == readAhead && !c.in.shut {
		c.in.room.Wait()
	}
	if c.in.shut {
		return 0
	}
	return readAhead - len(c.in.buf)
}

func (c *Conn) deliver(b []byte, err error) {
	if err != nil && err != io.EOF {
		err = plain(err)
	}
	c.in.mu.Lock()
	c.in.buf = append(c.in.buf, b...)
	c.in.err = err
	c.in.mu.Unlock()
	c.loop.Post(func() {
		if c.closed {
			return
		}
		if err != nil {
			c.over(err)
			c.tellWatcher()
		}
		c.hasInput()
	})
}

// over notes that the stream ended with err. A read may meet the end before what deliver posted is done.
func (c *Conn) over(err error) {
	c.ended = true
	c.broken = c.broken || err != io.EOF || c.finished
}

// plain is the system's error without the net package's words around it, as the epoll version returns it.
func plain(err error) error {
	if e := syscall.Errno(0); errors.As(err, &e) {
		return e
	}
	return err
}

func (c *Conn) recv(b []byte) (int, error) {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	n := copy(b, c.in.buf)
	c.in.buf = append(c.in.buf[:0], c.in.buf[n:]...)
	c.in.room.Signal()
	if n > 0 || len(b) == 0 {
		if len(c.in.buf) == 0 && c.in.err == nil {
			c.readable = false
		}
		return n, nil
	}
	if c.in.err != nil {
		c.over(c.in.err)
		if c.in.err == io.EOF && c.in.lost != nil {
			return 0, c.in.lost
		}
		return 0, c.in.err
	}
	c.readable = false
	return 0, errAgain
}

// send gives the socket what it takes, and the rest to the writer, which says that all was sent by calling sent.
func (c *Conn) send() bool {
	for i, b := range c.out {
		if len(b) == 0 {
			continue
		}
		n, err := tryWrite(c.nc, b)
		c.given += uint32(n)
		if err != nil {
			c.broken = true
			if err := plain(err); err != syscall.EPIPE { // which says that there was an end, not that one was lost
				c.in.mu.Lock()
				c.in.lost = err
				c.in.mu.Unlock()
			}
			c.fail(plain(err))
			return false
		}
		if c.out[i] = b[n:]; n < len(b) {
			break
		}
	}
	if !c.pending() {
		return true
	}
	if c.queue == nil {
		c.queue = make(chan []byte, 1)
		c.loop.helpers.Add(1)
		go c.writeLoop(c.queue)
	}
	// A copy, since Close lets the caller have the buffers back at once, and the writer may not notice as soon.
	b := append(append(make([]byte, 0, len(c.out[0])+len(c.out[1])), c.out[0]...), c.out[1]...)
	c.left.Store(int64(len(b)))
	c.given += uint32(len(b)) // as good as taken
	c.writable = false
	c.queue <- b // empty: a connection has one output at a time
	c.stalled()
	return false
}

func (c *Conn) writeLoop(queue chan []byte) {
	defer c.loop.helpers.Done()
	for b := range queue {
		var err error
		for len(b) > 0 && err == nil {
			var n int
			// Small pieces, so that a slow peer's progress can be seen.
			n, err = c.nc.Write(b[:min(len(b), 4<<10)])
			b = b[n:]
			c.left.Add(-int64(n))
		}
		if err != nil && !errors.Is(err, syscall.EPIPE) {
			c.in.mu.Lock()
			c.in.lost = plain(err)
			c.in.mu.Unlock()
		}
		c.loop.Post(func() {
			if c.closed || c.werr != nil {
				return
			}
			c.writable = true
			if err != nil {
				c.broken = true
				c.fail(plain(err))
				return
			}
			c.sent()
		})
	}
}

// untaken is how many bytes the system has not taken. (What the peer has not, the net package does not tell: a
// very slow one with a stall timeout shorter than its share of the system's buffer is cut.)
func (c *Conn) untaken() int32 { return int32(c.left.Load()) }

// Missed reports whether it is certain that the peer's program got nothing of what was written since Given was n: here, that
// the system never had it.
func (c *Conn) Missed(n uint32) (yes, maybe bool) { return c.given == n, false }

func (c *Conn) finish() error {
	w, ok := c.nc.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	if err := w.CloseWrite(); err != nil {
		return plain(err)
	}
	c.finished = true
	if c.ended {
		c.broken = true
		c.tellWatcher()
	}
	return nil
}

func (c *Conn) shut() error {
	delete(c.loop.live, c)
	c.in.mu.Lock()
	c.in.shut = true
	unread := len(c.in.buf) > 0
	c.in.room.Signal()
	c.in.mu.Unlock()
	if unread { // the kernel would send a reset had we left it there
		c.resetOnClose()
	}
	if c.queue != nil {
		close(c.queue)
	}
	return c.nc.Close()
}

func (c *Conn) resetOnClose() {
	if tcp, ok := c.nc.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
}

// enroll and enrollSoon have nothing to do here: who waits reads.
func (c *Conn) enroll()     {}
func (c *Conn) enrollSoon() {}

// Detaches says whether Detach ever does.
const Detaches = false

// CanDetach reports whether Detach would take the connection off its loop.
func (c *Conn) CanDetach() bool { return false }

// Detach takes the connection off its loop, where that is possible. It is not here: others read ahead.
func (c *Conn) Detach() (fd int, ok bool) { return -1, false }
