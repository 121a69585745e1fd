package loop

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// TestBackPressure has a writer that is held back by a reader: what is under way never exceeds what the
// sockets' buffers hold, and all arrives.
func TestBackPressure(t *testing.T) {
	const total, most = 192 << 20, 64 << 20
	var written atomic.Int64
	g := group(t, 1, Options{})
	const piece = 256 << 10
	pattern := make([]byte, 2*piece) // twice, so that what is read may begin anywhere
	for i := range pattern {
		pattern[i] = byte(i >> 10)
	}
	c := pair(t, g, func(c *Conn) {
		defer c.Close()
		for written.Load() < total {
			if _, err := c.Write(pattern[:piece]); err != nil {
				t.Errorf("write: %v", err)
				return
			}
			written.Add(piece)
		}
	})
	b := make([]byte, 64<<10)
	for read := int64(0); ; {
		c.SetReadDeadline(time.Now().Add(20 * time.Second)) // anew: how long all of it takes is up to the machine
		n, err := c.Read(b)
		if !bytes.Equal(b[:n], pattern[read%piece:][:n]) {
			t.Fatalf("bytes %d to %d are not what was sent", read, read+int64(n))
		}
		read += int64(n)
		if ahead := written.Load() - read; ahead > most {
			t.Fatalf("%d bytes were written ahead of the reader", ahead)
		}
		if err == io.EOF && read == total {
			return
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", read, err)
		}
	}
}

func TestHalfCloseByPeer(t *testing.T) {
	g := group(t, 1, Options{})
	c := pair(t, g, func(c *Conn) {
		defer c.Close()
		b := make([]byte, 100)
		var got []byte
		for {
			n, err := c.Read(b)
			got = append(got, b[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Errorf("read: %v", err)
				return
			}
		}
		if n, err := c.Read(b); n != 0 || err != io.EOF {
			t.Errorf("read after the end: %d, %v", n, err)
		}
		if !c.Gone(true) || c.Gone(false) {
			t.Error("the peer ended its side, no more")
		}
		c.Write(append([]byte("answer to "), got...))
	})
	io.WriteString(c, "question")
	c.CloseWrite()
	got, err := io.ReadAll(c)
	if string(got) != "answer to question" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestHalfCloseByUs(t *testing.T) {
	g := group(t, 1, Options{})
	got := make(chan string, 1)
	c := pair(t, g, func(c *Conn) {
		defer c.Close()
		if err := c.Queue([]byte("first "), []byte("and last")); err != nil {
			t.Error(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Error(err)
		}
		var all []byte
		b := make([]byte, 100)
		for {
			n, err := c.Read(b)
			all = append(all, b[:n]...)
			if err != nil {
				if err != io.EOF {
					t.Error(err)
				}
				break
			}
		}
		if _, err := c.Write([]byte("x")); err == nil {
			t.Error("a write after FIN succeeded")
		}
		got <- string(all)
	})
	all, err := io.ReadAll(c)
	if string(all) != "first and last" || err != nil {
		t.Fatalf("%q, %v", all, err)
	}
	io.WriteString(c, "still heard")
	c.CloseWrite()
	if s := within(t, got); s != "still heard" {
		t.Errorf("%q", s)
	}
}

// TestQueueKeepsOrder mixes all ways to write, with pieces larger than the socket's buffer.
func TestQueueKeepsOrder(t *testing.T) {
	piece := func(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }
	g := group(t, 1, Options{})
	c := pair(t, g, func(c *Conn) {
		defer c.Close()
		for _, err := range []error{
			c.Queue(piece('a', 10), nil),
			c.Queue(piece('b', 8<<20), piece('c', 3)),
			c.Queue(nil, piece('d', 5)),
			c.Writev(piece('e', 7), piece('f', 8<<20)),
			c.Writev(nil, nil),
			c.Queue(piece('g', 1), piece('h', 1)),
			c.Flush(),
			c.Flush(),
		} {
			if err != nil {
				t.Error(err)
			}
		}
		if c.Pending() {
			t.Error("something is left after Flush")
		}
	})
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for len(all) > 0 {
		n := len(all) - len(bytes.TrimLeft(all, string(all[:1])))
		got.WriteString(string(all[:1]) + " ")
		for want := range map[int]bool{10: true, 8 << 20: true, 3: true, 5: true, 7: true, 1: true} {
			if n == want {
				n = -want
			}
		}
		if n > 0 {
			t.Errorf("%d times %c", n, all[0])
		}
		all = all[max(n, -n):]
	}
	if got.String() != "a b c d e f g h " {
		t.Error(got.String())
	}
}

func TestAbortResets(t *testing.T) {
	g := group(t, 1, Options{})
	c := pair(t, g, func(c *Conn) {
		c.Read(make([]byte, 1)) // so that the peer has connected
		if err := c.Abort(); err != nil {
			t.Error(err)
		}
		if err := c.Abort(); err != ErrClosed {
			t.Errorf("second: %v", err)
		}
		if err := c.Close(); err != ErrClosed {
			t.Errorf("Close after: %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); err != ErrClosed {
			t.Errorf("read: %v", err)
		}
		if _, err := c.Write(make([]byte, 1)); err != ErrClosed {
			t.Errorf("write: %v", err)
		}
		if _, err := c.TryRead(make([]byte, 1)); err != ErrClosed {
			t.Errorf("try: %v", err)
		}
		if err := c.CloseWrite(); err != ErrClosed {
			t.Errorf("CloseWrite: %v", err)
		}
		c.SetReadDeadline(1)
		if !c.Closed() || !c.Gone(false) || c.Pending() || c.timer.Armed() {
			t.Error("a closed connection has things to do")
		}
	})
	io.WriteString(c, "x")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, not a reset", err)
	}
}

func TestCloseEndsCleanly(t *testing.T) {
	g := group(t, 1, Options{})
	c := pair(t, g, func(c *Conn) {
		c.Write([]byte("all"))
		c.Close()
	})
	if got, err := io.ReadAll(c); string(got) != "all" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestCloseWakesThoseWhoWait(t *testing.T) {
	g := group(t, 1, Options{})
	errs := make(chan error, 2)
	pair(t, g, func(c *Conn) {
		l := c.Loop()
		l.Go(runFunc(func() {
			_, err := c.Read(make([]byte, 1))
			errs <- err
		}), nil)
		l.Go(runFunc(func() {
			_, err := c.Write(make([]byte, 64<<20))
			errs <- err
		}), nil)
		for c.reader == nil || c.writer == nil || c.writable {
			l.Yield()
		}
		c.Close()
	})
	for range 2 {
		if err := within(t, errs); err != ErrClosed {
			t.Error(err)
		}
	}
}

// TestResetIsNoEnd has a send find the reset before a read does: the read must not take what follows for the end of
// the stream.
func TestResetIsNoEnd(t *testing.T) {
	g := group(t, 1, Options{})
	now, done := make(chan bool), make(chan bool)
	errs := make(chan error, 3)
	c := pair(t, g, func(c *Conn) {
		defer c.Close()
		now <- true
		<-done // in the way of the loop, so that the write comes first
		_, err := c.Write([]byte("x"))
		errs <- err
		for range 2 {
			_, err := c.Read(make([]byte, 10))
			errs <- err
		}
	})
	<-now
	reset(c)
	done <- true
	werr := within(t, errs)
	for range 2 {
		if err := within(t, errs); err == nil || err == io.EOF {
			t.Errorf("a read after a reset returned %v; the write %v", err, werr)
		}
	}
}

func TestTryRead(t *testing.T) {
	g := group(t, 1, Options{})
	result := make(chan string, 1)
	c := pair(t, g, func(c *Conn) {
		defer c.Close()
		b := make([]byte, 10)
		if n, err := c.TryRead(b); n != 0 || err != nil {
			t.Errorf("nothing there: %d, %v", n, err)
		}
		c.Write([]byte("go"))
		if err := c.Wait(); err != nil || !c.Readable() {
			t.Error(err)
		}
		n, err := c.TryRead(b)
		if err != nil {
			t.Error(err)
		}
		s := string(b[:n])
		c.Write([]byte("go"))
		for err == nil {
			if n, err = c.TryRead(b); n == 0 && err == nil {
				c.Loop().Yield()
			}
		}
		result <- s + " " + err.Error()
	})
	b := make([]byte, 2)
	io.ReadFull(c, b)
	io.WriteString(c, "hi")
	io.ReadFull(c, b)
	c.CloseWrite()
	if s := within(t, result); s != "hi EOF" {
		t.Error(s)
	}
}

// TestInterruptedFlushDropsItsBuffers: after Flush the buffers are the caller's again, whatever it returned.
func TestInterruptedFlushDropsItsBuffers(t *testing.T) {
	g := group(t, 1, Options{})
	stop := errors.New("stop")
	ready, filled := make(chan bool), make(chan bool)
	c := pair(t, g, func(c *Conn) {
		defer c.Close()
		t1 := c.Loop().Current()
		b := bytes.Repeat([]byte{'a'}, 64<<20)
		c.Loop().Go(runFunc(func() {
			for c.writable || !c.pending() {
				c.Loop().Yield()
			}
			t1.Interrupt(stop)
		}), nil)
		if _, err := c.Write(b); err != stop {
			t.Errorf("write: %v", err)
		}
		for i := range b {
			b[i] = 'b'
		}
		t1.ClearInterrupt()
		if _, err := c.Write([]byte("c")); err != stop {
			t.Errorf("write after: %v", err)
		}
		ready <- true
		<-filled
	})
	<-ready
	filled <- true
	all, _ := io.ReadAll(c)
	if n := len(bytes.TrimLeft(all, "a")); n != 0 {
		t.Errorf("%d bytes of %d were sent after Flush had returned", n, len(all))
	}
}

// TestConnSize: a hundred thousand idle connections are to fit into tens of MB, and 256 bytes is a size class of the
// allocator's: one word more costs 32 bytes each.
func TestConnSize(t *testing.T) {
	if size := unsafe.Sizeof(Conn{}); unsafe.Sizeof(uintptr(0)) == 8 && !portable && size > 256 {
		t.Errorf("a Conn takes %d bytes", size)
	}
}
