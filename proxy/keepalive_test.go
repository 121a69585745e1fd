package proxy

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lb/upstream"
)

// echo answers each request with its method, its path and its body, in the order they come.
func echo(p *peer) {
	for {
		head, err := p.br.Peek(1)
		if len(head) == 0 || err != nil {
			return
		}
		h := p.head()
		body := ""
		if field(h, "Transfer-Encoding") == "chunked" {
			body, _ = p.chunked()
		} else if n := field(h, "Content-Length"); n != "" {
			var size int
			fmt.Sscan(n, &size)
			body = p.take(size)
		}
		line := strings.SplitN(h, " ", 3)
		if p.trySend(ok(line[0]+" "+line[1]+" "+body)) != nil {
			return
		}
	}
}

func TestPipelinedInOnePacket(t *testing.T) {
	o := newOrigin(t, echo)
	l := newLab(t, []string{o.addr})
	c := l.client()
	c.send(get("/1") + request("POST", "/2", "two") + get("/3") +
		"PUT /4 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nfou\r\n1\r\nr\r\n0\r\nA: b\r\n\r\n" +
		get("/5", "Connection: close") + get("/never"))
	for _, want := range []string{"GET /1 ", "POST /2 two", "GET /3 ", "PUT /4 four", "GET /5 "} {
		if got := c.status(200); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	if rest := c.rest(); rest != "" {
		t.Fatalf("after the last answer: %q", rest)
	}
	o.only(1)
}

// Every split of a stream of requests means the same.
func TestPipelinedSplitAnywhere(t *testing.T) {
	o := newOrigin(t, echo)
	l := newLab(t, []string{o.addr})
	stream := get("/1") + request("POST", "/2", "two") +
		"PUT /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nthr\r\n2\r\nee\r\n0\r\nA: b\r\n\r\n\r\n" + get("/4")
	c := l.client()
	for i := range len(stream) + 1 {
		c.send(stream[:i])
		// What came first may be read on its own or not: both must do. An answer shows that it has been.
		if i > len(get("/1")) {
			if got := c.status(200); got != "GET /1 " {
				t.Fatalf("split at %d: %q", i, got)
			}
		}
		c.send(stream[i:])
		for _, want := range []string{"GET /1 ", "POST /2 two", "PUT /3 three", "GET /4 "} {
			if want == "GET /1 " && i > len(get("/1")) {
				continue
			}
			if got := c.status(200); got != want {
				t.Fatalf("split at %d: got %q, want %q", i, got, want)
			}
		}
	}
}

func TestPipelinedByteByByte(t *testing.T) {
	o := newOrigin(t, echo)
	l := newLab(t, []string{o.addr})
	c := l.client()
	stream := request("POST", "/1", "one") + "PUT /2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"
	for i := range stream {
		c.send(stream[i : i+1])
	}
	if a, b := c.status(200), c.status(200); a != "POST /1 one" || b != "PUT /2 two" {
		t.Fatalf("%q, %q", a, b)
	}
}

// A chunked body that fills the buffer of the head to the last bytes, with requests behind it.
func TestChunkedBodyFillsTheBuffer(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single)
	head := "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
	in := Defaults().MaxHeaderBytes + 1
	var b *peer
	for _, room := range []int{-3, -1, 0, 1, 2, 100} {
		c := l.client()
		size := in - room - len(head) - len("4000\r\n")
		first := fmt.Sprintf("%04x\r\n", size) + strings.Repeat("x", size)
		c.send(head + first)
		if b == nil {
			b = o.accept()
		}
		b.head()
		b.expect(first)
		second := "\r\n" + "8000\r\n" + strings.Repeat("y", 0x8000) + "\r\n0\r\n\r\n"
		c.send(second + get("/next") + get("/last"))
		b.expect(second)
		b.send(ok("1"))
		b.head()
		b.send(ok("2"))
		b.head()
		b.send(ok("3"))
		if a, b, c := c.status(200), c.status(200), c.status(200); a+b+c != "123" {
			t.Fatalf("room for %d: %q %q %q", room, a, b, c)
		}
	}
	o.only(1)
}

func TestBackendConnectionIsKept(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single)
	c := l.client()
	c.send(get("/1"))
	b := o.accept()
	for i := 1; i <= 5; i++ {
		if h := b.head(); !strings.HasPrefix(h, fmt.Sprintf("GET /%d HTTP/1.1\r\n", i)) || field(h, "Connection") != "" {
			t.Fatalf("%q", h)
		}
		b.send(ok(fmt.Sprint(i)))
		if got := c.status(200); got != fmt.Sprint(i) {
			t.Fatalf("%q", got)
		}
		l.idle(1)
		c.send(get(fmt.Sprintf("/%d", i+1)))
	}
	b.head()
	b.send(ok(""))
	c.status(200)
	l.idle(1)
	o.only(1)
	if n := l.sum(0, func(s *upstream.Stats) uint64 { return s.ConnsReused.Load() }); n != 5 {
		t.Errorf("%d counted as reused", n)
	}
	if n := l.sum(0, func(s *upstream.Stats) uint64 { return s.ConnsOpened.Load() }); n != 1 {
		t.Errorf("%d counted as opened", n)
	}
}

// The connection used last is used next; the other one is left to time out.
func TestKeptConnectionsLastInFirstOut(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single)
	c1, c2 := l.client(), l.client()
	c1.send(get("/1"))
	b1 := o.accept()
	b1.head()
	c2.send(get("/2"))
	b2 := o.accept()
	b2.head()
	b2.send(ok("2"))
	c2.status(200)
	l.idleOf(1)
	b1.send(ok("1")) // now the first is the one used last
	c1.status(200)
	l.idle(2)
	for range 3 {
		c2.send(get("/3"))
		b1.head()
		b1.send(ok("3"))
		c2.status(200)
		l.idle(2)
	}
	o.only(2)
}

// idleOf waits until n connections are idle, whatever others do.
func (l *lab) idleOf(n int64) {
	l.t.Helper()
	eventually(l.t, fmt.Sprintf("%d idle", n), func() bool {
		_, idle := conns(l.pool.Snapshot().All[0])
		return idle == n
	})
}

func TestIdleBackendConnections(t *testing.T) {
	t.Run("close after the pool's timeout", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, single, func(p *plan) { p.pool.IdleTimeout = 20 * time.Millisecond })
		c := l.client()
		c.send(get("/"))
		b := o.accept()
		b.head()
		b.send(ok(""))
		c.status(200)
		b.closed()
		l.idle(0)
	})
	t.Run("close before the backend does", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, single)
		c := l.client()
		c.send(get("/"))
		b := o.accept()
		b.head()
		b.send(ok("", "Keep-Alive: timeout=1, max=5"))
		if h, _ := c.answer(); field(h, "Keep-Alive") != "" {
			t.Errorf("Keep-Alive passed on: %q", h)
		}
		b.closed()
		l.idle(0)
	})
	for name, end := range map[string]func(b *peer){
		"FIN":   (*peer).close,
		"RST":   (*peer).reset,
		"bytes": func(b *peer) { b.send("x") },
		"408":   func(b *peer) { b.send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"); b.close() },
	} {
		t.Run("are let go at "+name, func(t *testing.T) {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr}, single)
			c := l.client()
			c.send(get("/1"))
			b := o.accept()
			b.head()
			b.send(ok("1"))
			c.status(200)
			l.idle(1)
			end(b)
			l.idle(0)
			c.send(request("POST", "/2", "x")) // not to be sent twice, and need not be
			b = o.accept()
			b.head()
			b.take(1)
			b.send(ok("2"))
			if got := c.status(200); got != "2" {
				t.Fatalf("%q", got)
			}
		})
	}
	t.Run("are no more than the pool allows", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, single, func(p *plan) { p.pool.MaxIdle = 2 })
		var cs, bs []*peer
		for range 5 {
			c := l.client()
			c.send(get("/"))
			b := o.accept()
			b.head()
			cs, bs = append(cs, c), append(bs, b)
		}
		for i, b := range bs {
			b.send(ok(""))
			cs[i].status(200)
		}
		l.idle(2)
		for _, b := range bs[2:] {
			b.closed()
		}
	})
}

func TestBackendConnectionIsNotKept(t *testing.T) {
	for name, answer := range map[string]string{
		"close":                 ok("", "Connection: close"),
		"HTTP/1.0":              "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		"bytes behind":          ok("abc") + "d",
		"bytes behind none":     "HTTP/1.1 204 No Content\r\n\r\nd",
		"bytes behind chunks":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nd",
		"two answers":           ok("abc") + ok("evil"),
		"a body in spite of it": "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc",
	} {
		t.Run(name, func(t *testing.T) {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr}, single)
			c := l.client()
			for range 2 {
				c.send(get("/", "If-None-Match: x"))
				b := o.accept()
				b.head()
				b.send(answer)
				if h := c.head(); field(h, "Connection") != "" {
					t.Errorf("%q", h)
				} else if strings.Contains(h, "chunked") {
					c.expect("0\r\n\r\n")
				} else if strings.HasPrefix(h, "HTTP/1.1 200") && field(h, "Content-Length") == "3" {
					c.expect("abc")
				}
				b.closed()
			}
			l.idle(0)
			if n := l.faults(0, upstream.FaultMalformed); n != 0 {
				t.Errorf("%d faults counted", n)
			}
		})
	}
	t.Run("Keep-Alive of HTTP/1.0 is understood", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, single)
		c := l.client()
		c.send(get("/"))
		b := o.accept()
		for range 3 {
			b.head()
			b.send("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx")
			h, _ := c.answer()
			if !strings.HasPrefix(h, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n") {
				t.Fatalf("%q", h)
			}
			l.idle(1)
			c.send(get("/"))
		}
		b.head()
		b.send(ok(""))
		c.status(200)
		o.only(1)
	})
	t.Run("the pool says so", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, single, func(p *plan) { p.pool.Reuse = false })
		c := l.client()
		for range 2 {
			c.send(get("/"))
			b := o.accept()
			if h := b.head(); field(h, "Connection") != "close" {
				t.Fatalf("%q", h)
			}
			b.send(ok(""))
			c.status(200)
			b.closed()
		}
		l.idle(0)
	})
}

// Row 9 of the table of faults: the backend closes a kept connection as a request goes out on it.
func TestStaleConnection(t *testing.T) {
	for _, end := range []func(*peer){(*peer).close, (*peer).reset} {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "POST", "PATCH"} {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr}, single)
			c := l.client()
			c.send(get("/"))
			b := o.accept()
			b.head()
			b.send(ok(""))
			c.status(200)
			l.idle(1)
			c.send(request(method, "/2", ""))
			b.head() // the backend saw it and went away without a word
			end(b)
			if method == "POST" || method == "PATCH" { // may have been done
				c.status(502)
				o.only(1)
			} else {
				b = o.accept()
				if h := b.head(); !strings.HasPrefix(h, method+" /2 ") {
					t.Fatalf("%q", h)
				}
				b.send(ok("", "A: b"))
				if h := c.head(); field(h, "A") != "b" {
					t.Fatalf("%q", h)
				}
				l.idle(1)
			}
			for f := range upstream.Faults {
				if n := l.faults(0, f); n != 0 {
					t.Errorf("%s: %d faults of kind %s counted", method, n, f)
				}
			}
		}
	}
}

// TestBlame: a kept connection that ends at once is nobody's fault, one that ends later, or a new one, is the backend's.
func TestBlame(t *testing.T) {
	for _, c := range []struct {
		f     failure
		after int64
		want  upstream.Fault
	}{
		{failure{reason: BackendClosed, stale: true}, 0, upstream.FaultNone},
		{failure{reason: BackendClosed, stale: true}, staleFor - 1, upstream.FaultNone},
		{failure{reason: BackendClosed, stale: true}, staleFor, upstream.FaultReset},
		{failure{reason: BackendClosed}, 0, upstream.FaultReset},
		{failure{reason: ConnectFailed, fault: upstream.FaultRefused}, 0, upstream.FaultRefused},
		{failure{reason: ClientGone}, 0, upstream.FaultClient},
	} {
		if got := c.f.blame(c.after); got != c.want {
			t.Errorf("%+v after %d: %s, want %s", c.f, c.after, got, c.want)
		}
	}
}

// The backend closes its connections 20 ms after an answer, with requests coming at about that time: none fails.
func TestStaleConnectionsUnderLoad(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		for {
			p.conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if _, err := p.br.Peek(1); err != nil {
				return
			}
			p.conn.SetReadDeadline(time.Now().Add(patience))
			p.head()
			p.trySend(ok("x"))
		}
	})
	l := newLab(t, []string{o.addr})
	done := make(chan error)
	for range 4 {
		c := l.client()
		go func() {
			for i := range 40 {
				c.trySend(get("/"))
				want := ok("x")
				b := make([]byte, len(want))
				for n := 0; n < len(b); {
					k, err := c.conn.Read(b[n:])
					if n += k; err != nil {
						done <- fmt.Errorf("request %d: %q %v", i, b[:n], err)
						return
					}
				}
				if string(b) != want {
					done <- fmt.Errorf("request %d: %q", i, b)
					return
				}
				time.Sleep(18*time.Millisecond + time.Duration(i)*100*time.Microsecond)
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Who refuses a connection is about to end, and may wait for the idle ones to be closed: on all loops.
func TestRefusalClosesTheIdle(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr})
	p, q := l.client(), l.client() // the second is on the other loop
	p.send(get("/1", "Connection: keep-alive"))
	b := o.accept()
	b.head()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	p.status(200)
	l.idle(1)
	o.ln.Close()
	q.send(get("/2", "Connection: keep-alive"))
	q.status(502)
	b.closed()
	l.idle(0)
}

// hangUps counts what a pool's watcher is told.
type hangUps struct{ n atomic.Int64 }

func (h *hangUps) Fault(*upstream.Backend, upstream.Outcome) {}
func (h *hangUps) Waiting()                                  {}
func (h *hangUps) HungUp(*upstream.Live)                     { h.n.Add(1) }

// That a backend closes a kept connection is told, not that lb does; nor that one does which is asked not to keep it.
func TestHungUp(t *testing.T) {
	lab := func(idle time.Duration) (l *lab, h *hangUps, c *peer, serve func(...string) *peer) {
		o := newOrigin(t, nil)
		l = newLab(t, []string{o.addr}, single, func(p *plan) { p.pool.IdleTimeout = idle })
		h = new(hangUps)
		l.pool.SetWatcher(h)
		c = l.client()
		return l, h, c, func(header ...string) *peer {
			c.send(get("/", "Connection: keep-alive"))
			b := o.accept()
			b.head()
			b.send(ok("", header...))
			c.status(200)
			return b
		}
	}
	l, h, _, serve := lab(50 * time.Millisecond)
	serve("Connection: close").close()
	serve().closed() // by the idle timeout
	l.idle(0)
	if n := h.n.Load(); n != 0 {
		t.Errorf("told %d times without a reason", n)
	}
	l, h, c, serve := lab(time.Minute)
	for i, end := range []func(*peer){(*peer).close, (*peer).reset} {
		end(serve())
		eventually(t, "the pool is told", func() bool { return h.n.Load() == int64(i+1) })
		l.idle(0)
	}
	b := serve() // and when it happens as a request goes out
	c.send(request("POST", "/", "body", "Connection: keep-alive"))
	b.head()
	b.close()
	c.status(502)
	if n := h.n.Load(); n != 3 {
		t.Errorf("told %d times, want 3", n)
	}
}
