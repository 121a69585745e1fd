package proxy

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lb/upstream"
)

// heap is what is in use after a collection.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Bodies of any size pass through the same few buffers.
func TestFlatMemory(t *testing.T) {
	size := int64(256 << 20)
	if raceEnabled { // which takes its time; what is allowed is much less all the same
		size /= 4
	}
	allowed := uint64(4 << 20)
	if portable {
		allowed = 32 << 20
	}
	piece := make([]byte, 1<<20)
	pour := func(w io.Writer, chunked bool) error {
		for range size / int64(len(piece)) {
			if chunked {
				if _, err := fmt.Fprintf(w, "%x\r\n", len(piece)); err != nil {
					return err
				}
			}
			if _, err := w.Write(piece); err != nil {
				return err
			}
			if chunked {
				if _, err := io.WriteString(w, "\r\n"); err != nil {
					return err
				}
			}
		}
		if chunked {
			_, err := io.WriteString(w, "0\r\n\r\n")
			return err
		}
		return nil
	}
	framing := func(chunked bool) (string, int64) {
		if chunked {
			return "Transfer-Encoding: chunked", size + size/int64(len(piece))*int64(len("100000\r\n\r\n")) + int64(len("0\r\n\r\n"))
		}
		return fmt.Sprintf("Content-Length: %d", size), size
	}
	// drain reads n bytes of a peer, and looks at the memory on the way.
	drain := func(from, other *peer, n int64, before uint64) {
		for i := range int64(4) {
			for _, p := range []*peer{from, other} { // how long all of it takes is up to the machine
				p.conn.SetDeadline(time.Now().Add(patience))
			}
			part := n / 4
			if i == 3 {
				part = n - 3*part
			}
			if _, err := io.CopyN(io.Discard, from.br, part); err != nil {
				t.Errorf("part %d: %v", i, err)
				return
			}
			if now := heap(); now > before+allowed {
				t.Errorf("the heap grew by %d bytes", now-before)
			}
		}
	}
	for _, chunked := range []bool{false, true} {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, single)
		frame, n := framing(chunked)
		c := l.client()
		before := heap()
		c.send("POST / HTTP/1.1\r\nHost: x\r\n" + frame + "\r\n\r\n")
		b := o.accept()
		b.head()
		sent := make(chan error, 1)
		go func() { sent <- pour(c.conn, chunked) }()
		drain(b, c, n, before)
		if err := <-sent; err != nil {
			t.Error(err)
		}
		b.send("HTTP/1.1 200 OK\r\n" + frame + "\r\n\r\n")
		go func() { sent <- pour(b.conn, chunked) }()
		c.head()
		drain(c, b, n, before)
		if err := <-sent; err != nil {
			t.Error(err)
		}
		l.idle(1)
		if got := l.ln.Stats(); got.BytesIn != uint64(size) || got.BytesOut != uint64(size) { // without the framing
			t.Errorf("%d bytes in, %d out", got.BytesIn, got.BytesOut)
		}
	}
}

// counter counts what could be written to a connection.
func pourInto(c net.Conn, n *atomic.Int64) {
	piece := make([]byte, 1<<16)
	for {
		k, err := c.Write(piece)
		n.Add(int64(k))
		if err != nil {
			return
		}
	}
}

// settled waits until n stops growing, and returns it.
func settled(t *testing.T, n *atomic.Int64) int64 {
	t.Helper()
	last, since := int64(-1), time.Now()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if now := n.Load(); now != last {
			last, since = now, time.Now()
		} else if time.Since(since) > 300*time.Millisecond {
			return last
		}
	}
	t.Fatal("no back-pressure")
	return 0
}

// bufferMax is how far the kernel lets a socket's buffer grow.
func bufferMax(name string, usual int64) int64 {
	b, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
	if f := strings.Fields(string(b)); err == nil && len(f) == 3 {
		if n, err := strconv.ParseInt(f[2], 10, 64); err == nil {
			return n
		}
	}
	return usual
}

// Row 26: who does not read makes the other side's writes stop, and what lb holds meanwhile is one buffer.
func TestBackPressure(t *testing.T) {
	kernel := 2 * (bufferMax("tcp_wmem", 4<<20) + bufferMax("tcp_rmem", 6<<20)) // of two connections
	t.Run("of a client", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, single)
		c := l.client()
		c.send(get("/"))
		b := o.accept()
		b.head()
		b.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
		before := heap()
		var n atomic.Int64
		go pourInto(b.conn, &n)
		if got := settled(t, &n); got > kernel {
			t.Errorf("the backend could write %d bytes", got)
		}
		if now := heap(); now > before+1<<20 {
			t.Errorf("the heap grew by %d bytes", now-before)
		}
		first := n.Load()
		if _, err := io.CopyN(io.Discard, c.br, first+1<<20); err != nil { // and goes on when there is room
			t.Error(err)
		}
		c.reset()
	})
	t.Run("of a backend", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, single)
		c := l.client()
		c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n")
		b := o.accept()
		b.head()
		before := heap()
		var n atomic.Int64
		go pourInto(c.conn, &n)
		if got := settled(t, &n); got > kernel {
			t.Errorf("the client could write %d bytes", got)
		}
		if now := heap(); now > before+1<<20 {
			t.Errorf("the heap grew by %d bytes", now-before)
		}
		first := n.Load()
		if _, err := io.CopyN(io.Discard, b.br, first+1<<20); err != nil {
			t.Error(err)
		}
		b.reset()
		c.reset()
	})
	t.Run("of many clients", func(t *testing.T) {
		o := newOrigin(t, func(p *peer) {
			p.head()
			var n atomic.Int64
			p.trySend("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
			pourInto(p.conn, &n)
		})
		l := newLab(t, []string{o.addr}, single)
		const clients = 20
		var cs []*peer
		before := heap()
		for range clients {
			c := l.client()
			c.send(get("/"))
			c.head()
			cs = append(cs, c)
		}
		received := func(s *upstream.Stats) uint64 { return s.BytesReceived.Load() }
		last := uint64(0)
		eventually(t, "lb reads no more", func() bool {
			was := last
			time.Sleep(200 * time.Millisecond)
			last = l.sum(0, received)
			return was == last
		})
		// Each costs a buffer of the body and one of the head in lb; the rest is this test's own.
		if now := heap(); now > before+clients*256<<10 {
			t.Errorf("the heap grew by %d bytes for each client", (now-before)/clients)
		}
		for _, c := range cs {
			c.reset()
		}
	})
}
