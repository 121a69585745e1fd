package proxy

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"lb/upstream"
	"lb/upstream/upstreamtest"
)

var methods = []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST", "PATCH", "REPORT"}

// An app that listens at "localhost" may be at ::1 alone.
func TestLocalhost(t *testing.T) {
	ln := upstreamtest.IPv6Only(t)
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	o := serveOrigin(t, ln, "localhost:"+port, echo)
	l := newLab(t, []string{o.addr}, single)
	p := l.client()
	p.send(get("/1"))
	if got := p.status(200); got != "GET /1 " {
		t.Errorf("%q", got)
	}
	if n := l.sum(0, func(s *upstream.Stats) uint64 { return s.ConnErrors.Load() }); n != 0 {
		t.Errorf("%d errors of connecting", n)
	}
	o.close()
	l.proxy.Forget(l.pool.Snapshot().All)
	l.idle(0)
	p.send(get("/2"))
	head, body := p.answer()
	own(t, head, body, 502, false)
	l.answered(ConnectFailed, 1)
	if n := l.faults(0, upstream.FaultRefused); n == 0 {
		t.Error("no fault counted")
	}
}

// Row 1: nothing was sent, so any request may go to the next backend, and does until one accepts.
func TestRefused(t *testing.T) {
	o := newOrigin(t, echo)
	var backends []string
	for range 5 {
		backends = append(backends, refusing(t))
	}
	l := newLab(t, append(backends, o.addr))
	for _, method := range methods {
		p := l.client()
		p.send(request(method, "/", "body", "Connection: close"))
		head := p.head()
		if !strings.HasPrefix(head, "HTTP/1.1 200 ") {
			t.Fatalf("%s: %q", method, head)
		}
		p = l.client() // with a body that is still on its way
		p.send(method + " / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbo")
		p.send("dy")
		if head := p.head(); !strings.HasPrefix(head, "HTTP/1.1 200 ") {
			t.Fatalf("%s: %q", method, head)
		}
	}
	for i := range backends {
		n := l.sum(i, func(s *upstream.Stats) uint64 { return s.ConnErrors.Load() })
		if f := l.faults(i, upstream.FaultRefused); n == 0 || f != n {
			t.Errorf("backend %d: %d connections refused, %d faults", i, n, f)
		}
	}
}

// Row 13: when nobody is there, that is said at once.
func TestAllRefuse(t *testing.T) {
	l := newLab(t, []string{refusing(t), refusing(t), refusing(t)})
	p := l.client()
	for _, method := range methods {
		p.send(request(method, "/", "body"))
		head := p.head()
		body := "502 Bad Gateway\n"
		if method != "HEAD" {
			p.expect(body)
		}
		own(t, head, body, 502, false)
	}
	l.answered(ConnectFailed, uint64(len(methods)))
}

func TestNoBackend(t *testing.T) {
	l := newLab(t, nil)
	p := l.client()
	p.send(get("/"))
	head, body := p.answer()
	own(t, head, body, 503, false)
	p.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
	head, body = p.answer()
	own(t, head, body, 503, true)
	p.rest()
	l.answered(NoBackend, 2)
}

// A backend at its limit refuses; its share goes to the others, and when all refuse the client hears 503.
func TestMaxInflight(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr})
	s := specs(t, []string{o.addr})
	s[0].MaxInflight = 1
	l.pool.Update(s, nil, nil)
	p, q := l.client(), l.client()
	p.send(get("/1"))
	b := o.accept()
	b.head()
	q.send(get("/2"))
	q.status(503)
	b.send(ok("1"))
	p.status(200)
	b.close()
	l.idle(0)
	q.send(get("/3"))
	b = o.accept()
	b.head()
	b.send(ok("3"))
	q.status(200)
}

// Row 3: a request that was sent is sent elsewhere only if that does no harm.
func TestGoneBeforeTheAnswer(t *testing.T) {
	for name, end := range map[string]func(*peer){
		"FIN":     func(p *peer) { p.head() },
		"RST":     func(p *peer) { p.head(); p.reset() },
		"unread":  func(p *peer) { p.peek(); p.reset() },
		"at once": (*peer).reset,
		"half":    func(p *peer) { p.head(); p.send("HTTP/1.1 200 OK\r\nA: b\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			bad := newOrigin(t, end)
			good := newOrigin(t, echo)
			l := newLab(t, []string{bad.addr, good.addr}, single)
			sent, failed := 0, uint64(0)
			for range 3 {
				for _, method := range methods {
					p := l.client()
					p.send(request(method, "/", "body"))
					head := p.head()
					sent++
					switch {
					case strings.HasPrefix(head, "HTTP/1.1 200 "):
					case strings.HasPrefix(head, "HTTP/1.1 502 ") && (method[0] == 'P' && method != "PUT" || method == "REPORT"):
						failed++
					default:
						t.Fatalf("%s: %q", method, head)
					}
					p.close()
				}
			}
			// A reset at once may come before lb has sent anything, which loses nothing.
			if failed == 0 && name != "at once" || l.ln.Stats().Answers[BackendClosed] != failed {
				t.Errorf("%d failed of %d", failed, sent)
			}
			// A reset may come before lb knows that it is connected.
			if n := l.faults(0, upstream.FaultReset) + l.faults(0, upstream.FaultConnect); n != uint64(bad.count.Load()) {
				t.Errorf("%d faults in %d connections", n, bad.count.Load())
			}
			if n := l.faults(1, upstream.FaultReset); n != 0 {
				t.Errorf("%d faults of the good one", n)
			}
		})
	}
	t.Run("all", func(t *testing.T) {
		o := newOrigin(t, func(p *peer) { p.head() })
		l := newLab(t, []string{o.addr})
		p := l.client()
		p.send(get("/"))
		head, body := p.answer()
		own(t, head, body, 502, false)
		o.only(1)
	})
	t.Run("retries are bounded", func(t *testing.T) {
		var os []*origin
		var addrs []string
		for range 6 {
			o := newOrigin(t, func(p *peer) { p.head() })
			os, addrs = append(os, o), append(addrs, o.addr)
		}
		l := newLab(t, addrs)
		p := l.client()
		p.send(get("/"))
		p.status(502)
		n := int64(0)
		for _, o := range os {
			n += o.count.Load()
		}
		if n != 3 {
			t.Errorf("%d attempts", n)
		}
	})
	t.Run("an Idempotency-Key allows it", func(t *testing.T) {
		bad := newOrigin(t, func(p *peer) { p.head() })
		good := newOrigin(t, echo)
		l := newLab(t, []string{bad.addr, good.addr})
		for range 2 {
			p := l.client()
			p.send(request("POST", "/", "body", "Idempotency-Key: 1"))
			if got := p.status(200); got != "POST / body" {
				t.Fatalf("%q", got)
			}
		}
		if bad.count.Load() == 0 {
			t.Error("the bad one was not asked")
		}
	})
	t.Run("an upload", func(t *testing.T) {
		body := strings.Repeat("0123456789", 1_000_000)
		bad := newOrigin(t, func(p *peer) { p.head(); p.take(100_000) })
		good := newOrigin(t, echo)
		l := newLab(t, []string{bad.addr, good.addr}, single)
		for range 4 {
			for _, method := range []string{"POST", "PUT"} {
				p := l.client()
				go p.trySend(request(method, "/", body))
				head, got := p.answer()
				switch {
				case strings.HasPrefix(head, "HTTP/1.1 502 "):
				case strings.HasPrefix(head, "HTTP/1.1 200 ") && got == method+" / "+body:
				default:
					t.Fatalf("%q", head)
				}
				p.close()
			}
		}
		if bad.count.Load() == 0 {
			t.Error("the bad one was not asked")
		}
	})
	// What was taken of the body can be sent again as long as it is held; nothing of it may be lost or doubled.
	t.Run("a small upload in pieces", func(t *testing.T) {
		for _, framing := range []string{"Content-Length: 15000", "Transfer-Encoding: chunked"} {
			body := strings.Repeat("abcde", 3000)
			wire := body
			if framing[0] == 'T' {
				wire = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
			}
			bad, good := newOrigin(t, nil), newOrigin(t, nil)
			l := newLab(t, []string{bad.addr, good.addr}, single)
			p := l.client()
			p.send("PUT / HTTP/1.1\r\nHost: x\r\n" + framing + "\r\n\r\n" + wire[:1000])
			b, other := bad, good
			select {
			case c := <-bad.conns:
				bad.conns <- c
			case c := <-good.conns:
				good.conns <- c
				b, other = good, bad
			case <-time.After(patience):
				t.Fatal("nobody asked")
			}
			c := b.accept()
			c.head()
			c.expect(wire[:1000])
			p.send(wire[1000:5000])
			c.expect(wire[1000:5000])
			b.ln.Close()
			c.close()
			var again *peer
			select {
			case again = <-other.conns:
			case <-time.After(patience):
				t.Fatal("nobody else asked")
			}
			p.send(wire[5000:] + get("/next"))
			again.head()
			again.expect(wire)
			again.send(ok("x"))
			p.expect(ok("x"))
			if h := again.head(); !strings.HasPrefix(h, "GET /next ") {
				t.Fatalf("%q", h)
			}
			again.send(ok("y"))
			p.expect(ok("y"))
		}
	})
}

// Row 4: a backend that got the request and stays silent is not followed by another.
func TestSilent(t *testing.T) {
	silent := func(p *peer) { p.head(); io.Copy(io.Discard, p.br) }
	a, b := newOrigin(t, silent), newOrigin(t, silent)
	l := newLab(t, []string{a.addr, b.addr}, func(p *plan) { p.pool.ResponseTimeout = 50 * time.Millisecond })
	p := l.client()
	p.send(get("/") + request("POST", "/", "body"))
	for range 2 {
		head, body := p.answer()
		own(t, head, body, 504, false)
	}
	if n := a.count.Load() + b.count.Load(); n != 2 {
		t.Errorf("%d backends asked", n)
	}
	l.answered(ResponseTimeout, 2)
	if n := l.faults(0, upstream.FaultTimeout) + l.faults(1, upstream.FaultTimeout); n != 2 {
		t.Errorf("%d faults", n)
	}
	l.idle(0)
}

// A head that comes byte by byte has the response timeout for all of it.
func TestSlowAnswerHead(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		p.head()
		for p.trySend("HTTP/1.1 103 Early Hints\r\n\r\n") == nil {
			time.Sleep(10 * time.Millisecond)
		}
	})
	l := newLab(t, []string{o.addr}, func(p *plan) { p.pool.ResponseTimeout = 100 * time.Millisecond })
	p := l.client()
	p.send(get("/"))
	for {
		if h := p.head(); strings.HasPrefix(h, "HTTP/1.1 504 ") {
			break
		} else if !strings.HasPrefix(h, "HTTP/1.1 103 ") {
			t.Fatalf("%q", h)
		}
	}
}

// Row 8: slow is not silent.
func TestSlowButSteady(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, func(p *plan) { p.pool.ReadTimeout = steady })
	p := l.client()
	p.send(get("/"))
	b := o.accept()
	b.head()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
	p.head()
	for i := range 3 {
		time.Sleep(pause)
		s := string(rune('a' + i))
		b.send(s)
		p.expect(s)
	}
	l.idle(1)
	for f := range upstream.Fault(upstream.Faults) {
		if n := l.faults(0, f); n != 0 {
			t.Errorf("%d faults of kind %s", n, f)
		}
	}
}

// Row 12: when a backend is killed only those fail that had bytes of an answer.
func TestKilledUnderLoad(t *testing.T) {
	bad := newOrigin(t, nil)
	good := newOrigin(t, echo)
	l := newLab(t, []string{bad.addr})
	const n = 50
	var cs, bs []*peer
	for i := range n {
		p := l.client()
		p.send(get(fmt.Sprintf("/%d", i)))
		b := bad.accept()
		b.head()
		if i%2 == 0 {
			b.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
			p.head()
			p.expect("hello")
		}
		cs, bs = append(cs, p), append(bs, b)
	}
	l.pool.Update(specs(t, []string{bad.addr, good.addr}), nil, nil)
	bad.ln.Close()
	for _, b := range bs {
		b.reset()
	}
	for i, p := range cs {
		if i%2 == 0 {
			if rest, reset := p.broken(); rest != "" || !reset {
				t.Errorf("%d: %q, reset %v", i, rest, reset)
			}
		} else if got := p.status(200); got != fmt.Sprintf("GET /%d ", i) {
			t.Errorf("%d: %q", i, got)
		}
	}
}

// Row 14: what the application says is its business.
func TestErrorsOfTheApplication(t *testing.T) {
	a, b := newOrigin(t, nil), newOrigin(t, nil)
	l := newLab(t, []string{a.addr, b.addr}, single)
	for _, status := range []string{"500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout", "429 Too Many Requests"} {
		p := l.client()
		p.send(get("/"))
		var o *peer
		select {
		case o = <-a.conns:
		case o = <-b.conns:
		case <-time.After(patience):
			t.Fatal("nobody asked")
		}
		o.head()
		answer := "HTTP/1.1 " + status + "\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 3\r\n\r\nown"
		o.send(answer)
		p.expect(strings.Replace(answer, "Connection: close\r\n", "", 1))
	}
	if n := l.faults(0, upstream.FaultStatus) + l.faults(1, upstream.FaultStatus); n != 3 {
		t.Errorf("%d faults", n)
	}
}

// A request that turns out to be malformed after its head has gone out.
func TestBadBodyInMidUpload(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, func(p *plan) { p.MaxBody = 1000 })
	for _, c := range []struct {
		rest   string
		status int
	}{{"xyz\r\n", 400}, {"0\r\nContent-Length: 5\r\n\r\n", 400}, {"3\r\nabcd\r\n", 400}, {"400\r\n" + strings.Repeat("x", 1024) + "\r\n0\r\n\r\n", 413}} {
		p := l.client()
		p.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		b := o.accept()
		b.head()
		b.expect("5\r\nhello\r\n")
		p.send(c.rest)
		head, body := p.answer()
		own(t, head, body, c.status, true)
		if rest := p.rest(); rest != "" {
			t.Errorf("then %q", rest)
		}
		if got, _ := b.broken(); strings.Contains(got, "0\r\n\r\n") {
			t.Errorf("the backend got %q", got) // and must not take it for a whole request
		}
	}
	l.idle(0)
	if n := l.faults(0, upstream.FaultClient); n != 4 {
		t.Errorf("%d faults", n)
	}
}

// Backends that leave the pool in mid-request finish, and their connections are not kept.
func TestBackendLeaves(t *testing.T) {
	old, fresh := newOrigin(t, nil), newOrigin(t, nil)
	l := newLab(t, []string{old.addr}, single)
	p, q := l.client(), l.client()
	p.send(get("/1"))
	b := old.accept()
	b.head()
	q.send(get("/2"))
	b2 := old.accept()
	b2.head()
	b2.send(ok("2"))
	q.status(200)
	l.idleOf(1)
	left := l.pool.Update(specs(t, []string{fresh.addr}), nil, nil)
	l.proxy.Forget(left)
	b2.closed()
	b.send(ok("1"))
	if got := p.status(200); got != "1" {
		t.Fatalf("%q", got)
	}
	b.closed()
	p.send(get("/3"))
	b = fresh.accept()
	b.head()
	b.send(ok("3"))
	p.status(200)
	if len(left) != 1 {
		t.Fatalf("%d left", len(left))
	}
	if open, idle := conns(left[0]); open != 0 || idle != 0 {
		t.Errorf("%d open, %d idle", open, idle)
	}
}
