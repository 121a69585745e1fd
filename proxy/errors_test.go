package proxy

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"lb/route"
	"lb/upstream"
)

// own checks an answer of lb's own: its form, and that nothing of the request is in it.
func own(t *testing.T, head, body string, status int, closes bool) {
	t.Helper()
	text := fmt.Sprintf("%d %s", status, http.StatusText(status))
	want := "HTTP/1.1 " + text + "\r\nContent-Type: text/plain; charset=utf-8\r\n" +
		fmt.Sprintf("Content-Length: %d\r\n", len(text)+1)
	if status == 503 {
		want += "Retry-After: 1\r\n"
	}
	if closes {
		want += "Connection: close\r\n"
	}
	if head != want+"\r\n" || body != text+"\n" {
		t.Errorf("got %q %q\nwant %q", head, body, want)
	}
}

// nobody is an origin that must not be asked.
func nobody(t *testing.T) *origin {
	return newOrigin(t, func(p *peer) { t.Errorf("the backend got %q", p.head()) })
}

func TestBadRequests(t *testing.T) {
	l := newLab(t, []string{nobody(t).addr})
	const h = "Host: x\r\n"
	requests := 0
	for _, c := range []struct {
		status  int
		request string
	}{
		{400, "GET\r\n\r\n"},
		{400, "GET /\r\n\r\n"},
		{400, "GET  / HTTP/1.1\r\n" + h + "\r\n"},
		{400, "GET / HTTP/1.1 \r\n" + h + "\r\n"},
		{400, "GET /reflected\x01 HTTP/1.1\r\n" + h + "\r\n"},
		{400, "GET /a b HTTP/1.1\r\n" + h + "\r\n"},
		{400, "GET reflected HTTP/1.1\r\n" + h + "\r\n"},
		{400, "GET / http/1.1\r\n" + h + "\r\n"},
		{400, "GET / HTTP/1.1\n" + h + "\n"},
		{400, "GET / HTTP/1.1\r\n\r\n"},
		{400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"},
		{400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"},
		{400, "GET / HTTP/1.1\r\nHost:\r\n\r\n"},
		{400, "GET http://reflected/ HTTP/1.1\r\nHost: b\r\n\r\n"},
		{400, "GET / HTTP/1.1\r\n" + h + "A : b\r\n\r\n"},
		{400, "GET / HTTP/1.1\r\n" + h + "A: b\r\n c\r\n\r\n"},
		{400, "GET / HTTP/1.1\r\n" + h + "A: b\x00\r\n\r\n"},
		{400, "GET / HTTP/1.1\r\n" + h + "A: b\rc\r\n\r\n"},
		{400, "GET / HTTP/1.1\r\n" + h + "A\r\n\r\n"},
		{400, "GET / HTTP/1.1\r\n" + h + "\xc3\xa4: b\r\n\r\n"},
		{400, "GET / HTTP/1.1\r\n" + h + "Connection: Content-Length\r\n\r\n"},
		{400, "POST / HTTP/1.1\r\n" + h + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{400, "POST / HTTP/1.1\r\n" + h + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"},
		{400, "POST / HTTP/1.1\r\n" + h + "Content-Length: 3, 3\r\n\r\nabc"},
		{400, "POST / HTTP/1.1\r\n" + h + "Content-Length: +3\r\n\r\nabc"},
		{400, "POST / HTTP/1.1\r\n" + h + "Content-Length: 0x3\r\n\r\nabc"},
		{400, "POST / HTTP/1.1\r\n" + h + "Content-Length: 99999999999999999999\r\n\r\nabc"},
		{400, "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"},
		{400, "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{400, "POST / HTTP/1.0\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{400, "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n"},
		{400, "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n3\nabc"},
		{400, "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n"},
		{400, "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n3;\x01\r\nabc\r\n0\r\n\r\n"},
		{400, "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\n\r\n"},
		{400, "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n"},
		{417, "POST / HTTP/1.1\r\n" + h + "Expect: reflected\r\n\r\n"},
		{501, "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
		{501, "CONNECT reflected:443 HTTP/1.1\r\nHost: reflected:443\r\n\r\n"},
		{501, "CONNECT / HTTP/1.1\r\n" + h + "\r\n"},
		{505, "GET / HTTP/1.2\r\n" + h + "\r\n"},
		{505, "GET / HTTP/2.0\r\n" + h + "\r\n"},
		{505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
		{400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"},
		{414, "GET /" + strings.Repeat("a", 20_000) + " HTTP/1.1\r\n" + h + "\r\n"},
		{431, "GET / HTTP/1.1\r\n" + h + "A: " + strings.Repeat("b", 20_000) + "\r\n\r\n"},
		{431, "GET / HTTP/1.1\r\n" + h + strings.Repeat("A: b\r\n", 200) + "\r\n"},
	} {
		requests++
		for _, more := range []string{"", get("/smuggled")} {
			t.Run(fmt.Sprintf("%d %.60q %d", c.status, c.request, len(more)), func(t *testing.T) {
				p := l.client()
				p.trySend(c.request + more)
				head, body := p.answer()
				own(t, head, body, c.status, true)
				if rest := p.rest(); rest != "" {
					t.Fatalf("then %q", rest)
				}
			})
		}
	}
	l.answered(BadRequest, uint64(2*requests))
}

// A request that breaks off is not passed on, nor is one whose connection speaks no HTTP.
func TestHalfRequests(t *testing.T) {
	l := newLab(t, []string{nobody(t).addr})
	for _, s := range []string{"", "G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: x\r\n", "\r\n"} {
		p := l.client()
		p.send(s)
		p.finish()
		p.closed()
		p = l.client()
		p.send(s)
		p.reset()
	}
	eventually(t, "all are gone", func() bool { return l.ln.Stats().Open == 0 })
}

func TestLimits(t *testing.T) {
	o := newOrigin(t, patient(echo))
	l := newLab(t, []string{o.addr}, func(p *plan) {
		p.MaxHeaderBytes, p.MaxHeaderFields, p.MaxBody = 1000, 10, 100
	})
	const first = "GET / HTTP/1.1\r\nHost: x\r\n"
	head := func(size int) string {
		return first + "A: " + strings.Repeat("b", size-len(first)-len("A: \r\n\r\n")) + "\r\n\r\n"
	}
	body := func(size int) string { return request("POST", "/", strings.Repeat("x", size)) }
	chunked := func(size, piece int) string {
		s := "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
		for n := 0; n < size; n += piece {
			k := min(piece, size-n)
			s += fmt.Sprintf("%x\r\n%s\r\n", k, strings.Repeat("x", k))
		}
		return s + "0\r\n\r\n"
	}
	for _, c := range []struct {
		name    string
		status  int
		request string
	}{
		{"head below", 200, head(999)},
		{"head at", 200, head(1000)},
		{"head above", 431, head(1001)},
		{"target above", 414, "GET /" + strings.Repeat("a", 1000) + " HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"fields at", 200, first + strings.Repeat("A: b\r\n", 9) + "\r\n"},
		{"fields above", 431, first + strings.Repeat("A: b\r\n", 10) + "\r\n"},
		{"length below", 200, body(99)},
		{"length at", 200, body(100)},
		{"length above", 413, body(101)},
		{"length far above", 413, body(1_000_000)},
		{"only told", 413, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9223372036854775807\r\n\r\n"},
		{"chunks below", 200, chunked(99, 100)},
		{"chunks at", 200, chunked(100, 100)},
		{"small chunks at", 200, chunked(100, 1)},
		{"chunks above", 413, chunked(101, 1)},
		{"chunks far above", 413, chunked(1_000_000, 10_000)},
	} {
		for _, slow := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, slow), func(t *testing.T) {
				p := l.client()
				go func() {
					if slow && len(c.request) < 10_000 {
						for i := range c.request {
							if p.trySend(c.request[i:i+1]) != nil {
								return
							}
						}
						return
					}
					p.trySend(c.request)
				}()
				head, body := p.answer()
				if c.status == 200 {
					if !strings.HasPrefix(head, "HTTP/1.1 200 ") {
						t.Fatalf("%q", head)
					}
					return
				}
				own(t, head, body, c.status, true)
				if rest := p.rest(); rest != "" {
					t.Fatalf("then %q", rest)
				}
			})
		}
	}
}

// Who goes on sending sees the answer all the same.
func TestRefusalIsSeen(t *testing.T) {
	l := newLab(t, []string{nobody(t).addr}, func(p *plan) { p.MaxBody = 100 })
	for _, head := range []string{
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nHost: y\r\nContent-Length: 30000000\r\n\r\n",
	} {
		p := l.client()
		p.send(head)
		for range 30 {
			p.send(strings.Repeat("x", 1_000_000))
		}
		if s := p.rest(); !strings.HasPrefix(s, "HTTP/1.1 4") || !strings.Contains(s, "Connection: close\r\n") {
			t.Fatalf("%q", s)
		}
	}
}

func TestClientTimeouts(t *testing.T) {
	short := 100 * time.Millisecond
	t.Run("head", func(t *testing.T) {
		l := newLab(t, []string{nobody(t).addr}, func(p *plan) { p.HeaderTimeout = short })
		p := l.client()
		stop := make(chan struct{})
		go func() { // one byte after the other, for ever
			defer close(stop)
			p.trySend("GET / HTTP/1.1\r\nHost: x\r\nA: ")
			for p.trySend("b") == nil {
				time.Sleep(10 * time.Millisecond)
			}
		}()
		head, body := p.answer()
		own(t, head, body, 408, true)
		if rest := p.rest(); rest != "" {
			t.Fatalf("then %q", rest)
		}
		p.close()
		<-stop
		l.answered(HeaderTimeout, 1)
	})
	t.Run("second head", func(t *testing.T) {
		o := newOrigin(t, echo)
		l := newLab(t, []string{o.addr}, func(p *plan) { p.HeaderTimeout = short })
		p := l.client()
		p.send(get("/") + "GET / HTTP")
		p.status(200)
		p.status(408)
		p.rest()
	})
	for name, framing := range map[string]string{"length": "Content-Length: 100", "chunked": "Transfer-Encoding: chunked"} {
		t.Run("body, "+name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr}, func(p *plan) { p.BodyTimeout = steady })
			p := l.client()
			p.send("POST / HTTP/1.1\r\nHost: x\r\n" + framing + "\r\n\r\n5\r\n")
			b := o.accept()
			b.head()
			b.expect("5\r\n")
			for range 2 { // the time between two reads counts, not that of the whole body
				time.Sleep(pause)
				p.send("x")
				b.expect("x")
			}
			head, body := p.answer()
			own(t, head, body, 408, true)
			if rest := p.rest(); rest != "" {
				t.Fatalf("then %q", rest)
			}
			b.closed()
			l.answered(BodyTimeout, 1)
			if n := l.faults(0, upstream.FaultClient); n != 1 {
				t.Errorf("%d faults", n)
			}
			l.idle(0)
		})
	}
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		o := newOrigin(t, echo)
		l := newLab(t, []string{o.addr}, func(p *plan) { p.IdleTimeout = steady / 2 }) // it counts before the first request, too
		p, q := l.client(), l.client()
		p.send(get("/"))
		p.status(200)
		if rest := p.rest(); rest != "" {
			t.Fatalf("then %q", rest)
		}
		if rest := q.rest(); rest != "" { // it never said a word
			t.Fatalf("%q", rest)
		}
		eventually(t, "all are gone", func() bool { return l.ln.Stats().Open == 0 })
	})
	t.Run("no deadline of a client's while the backend thinks", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, func(p *plan) {
			p.IdleTimeout, p.HeaderTimeout, p.BodyTimeout = short, short, short
		})
		p := l.client()
		p.send(request("POST", "/", "x"))
		b := o.accept()
		b.head()
		b.take(1)
		time.Sleep(3 * short) // in which nothing is to happen
		b.send(ok("x"))
		p.expect(ok("x"))
	})
}

func TestStalledReader(t *testing.T) {
	const size = 64 << 20
	large := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
	o := newOrigin(t, func(p *peer) {
		p.head()
		p.trySend(large)
		for n := 0; n < size && p.trySend(strings.Repeat("x", 1<<20)) == nil; n += 1 << 20 {
		}
	})
	t.Run("is cut", func(t *testing.T) {
		l := newLab(t, []string{o.addr}, func(p *plan) { p.WriteTimeout = 100 * time.Millisecond })
		p := l.client()
		p.send(get("/"))
		l.answered(ClientStalled, 1)
		if got, reset := p.broken(); len(got) >= size || !reset {
			t.Fatalf("%d bytes, reset %v", len(got), reset)
		}
		l.idle(0)
		if n := l.faults(0, upstream.FaultClient); n != 1 {
			t.Errorf("%d faults", n)
		}
	})
	t.Run("is not cut while it reads slowly", func(t *testing.T) {
		if portable {
			t.Skip("nobody knows what it has read")
		}
		l := newLab(t, []string{o.addr}, func(p *plan) { p.WriteTimeout = steady })
		p := l.client()
		p.send(get("/"))
		p.head()
		for range 3 { // the kernel's buffers hold more than that, so lb waits all the time
			p.take(256 << 10)
			time.Sleep(pause)
		}
		for range size>>20 - 1 {
			p.take(1 << 20)
		}
	})
}

func TestNoRoute(t *testing.T) {
	o := newOrigin(t, echo)
	var table *route.Table
	l := newLab(t, []string{o.addr})
	table, err := route.New([]route.Rule{{Name: "api", Host: "*.example", Path: "/api", Pool: l.pool}})
	if err != nil {
		t.Fatal(err)
	}
	set := *l.proxy.Settings()
	set.Table = table
	l.proxy.Update(&set)
	p := l.client()
	p.send(get("/api/x") + get("/apix") + request("POST", "/", "body") + get("/api", "Connection: close"))
	if got := p.status(200); got != "GET /api/x " {
		t.Fatalf("%q", got)
	}
	head, body := p.answer()
	own(t, head, body, 404, false)
	head, body = p.answer()
	own(t, head, body, 404, false)
	if got := p.status(200); got != "GET /api " {
		t.Fatalf("%q", got)
	}
	p.rest()
	p = l.client()
	p.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel") // no route, and not all there
	head, body = p.answer()
	own(t, head, body, 404, true)
	p.rest()
	p = l.client()
	p.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n")
	if h := p.head(); field(h, "Content-Length") != "14" {
		t.Fatalf("%q", h)
	}
	if h, _ := p.answer(); !strings.HasPrefix(h, "HTTP/1.1 404") || field(h, "Connection") != "keep-alive" {
		t.Fatalf("%q", h)
	}
	if h, _ := p.answer(); !strings.HasPrefix(h, "HTTP/1.1 404") || field(h, "Connection") != "close" {
		t.Fatalf("%q", h)
	}
	p.rest()
	l.answered(NoRoute, 6)
}

// Row 41: a panic costs the request that it happened in.
func TestPanic(t *testing.T) {
	o := newOrigin(t, nil)
	panics := make(chan any, 10)
	l := newLab(t, []string{o.addr}, single, func(p *plan) { p.panicked = func(v any, _ []byte) { panics <- v } })
	other := l.client()
	other.send(get("/other"))
	b := o.accept()
	b.head()
	set := *l.proxy.Settings()
	broken := set
	broken.Table = nil // which makes Match panic
	l.proxy.Update(&broken)
	p := l.client()
	p.send(get("/"))
	p.closed()
	if v := <-panics; v == nil {
		t.Error("not told of the panic")
	} else if _, ok := v.(runtime.Error); !ok {
		t.Errorf("%v", v)
	}
	l.answered(InternalError, 1)
	l.proxy.Update(&set)
	b.send(ok("other"))
	other.expect(ok("other"))
	p = l.client()
	p.send(get("/"))
	b.head()
	b.send(ok("x"))
	p.expect(ok("x"))
}

// A backend may say so much before its answer, and no more: at the limit and above.
func TestInformedWithoutEnd(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr})
	for _, over := range []int{0, 1} {
		p := l.client()
		p.send(get("/", "Connection: keep-alive"))
		b := o.accept()
		b.head()
		b.send(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", maxInformed+over) + "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		for range maxInformed {
			p.expect("HTTP/1.1 102 Processing\r\n\r\n")
		}
		p.status([]int{200, 502}[over])
	}
	l.answered(BadResponse, 1)
}
