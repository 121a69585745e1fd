package proxy

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"lb/upstream"
)

func TestRequestBodiesAsTheyAre(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 10_000)
	for _, c := range []struct{ name, framing, body string }{
		{"length", "Content-Length: 5\r\n", "hello"},
		{"length 0", "Content-Length: 0\r\n", ""},
		{"large", fmt.Sprintf("Content-Length: %d\r\n", len(large)), large},
		{"chunks", "Transfer-Encoding: chunked\r\nTrailer: T\r\n", "3;a=\"b;c\";d\r\nabc\r\n0002\r\nde\r\n00\r\nT: u\r\nV:\r\n\r\n"},
		{"no chunks", "Transfer-Encoding: Chunked\r\n", "0\r\n\r\n"},
		{"large chunks", "Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n1\r\nx\r\n%X\r\n%s\r\n0\r\n\r\n", len(large), large, len(large), large)},
		{"small chunks", "Transfer-Encoding: chunked\r\n", strings.Repeat("1\r\nx\r\n", 20_000) + "0\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr}, single)
			p := l.client()
			go p.trySend("POST /p HTTP/1.1\r\nHost: x\r\nA: 1\r\n" + c.framing + "B: 2\r\n\r\n" + c.body + get("/next"))
			b := o.accept()
			h := b.head()
			if !strings.HasPrefix(h, "POST /p HTTP/1.1\r\nHost: x\r\nA: 1\r\n"+c.framing+"B: 2\r\nX-Forwarded-For: ") {
				t.Fatalf("%q", h)
			}
			b.expect(c.body)
			b.send(ok("1"))
			if got := p.status(200); got != "1" {
				t.Fatalf("%q", got)
			}
			b.head()
			b.send(ok("2"))
			if got := p.status(200); got != "2" {
				t.Fatalf("%q", got)
			}
			o.only(1)
		})
	}
}

func TestContinue(t *testing.T) {
	body := strings.Repeat("x", 100_000)
	post := "POST / HTTP/1.1\r\nHost: x\r\n" + expect + "\r\n"
	long, chunked := fmt.Sprintf("%sContent-Length: %d\r\n\r\n", post, len(body)), post+"Transfer-Encoding: chunked\r\n\r\n"
	for name, c := range map[string]struct{ head, body string }{
		"length":  {long, body},
		"chunked": {chunked, fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)},
	} {
		t.Run("100, then the answer, "+name, func(t *testing.T) {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr}, single)
			p := l.client()
			p.send(c.head)
			b := o.accept()
			if h := b.head(); field(h, "Expect") != "100-continue" {
				t.Fatalf("%q", h)
			}
			b.send("HTTP/1.1 100 Continue\r\nA: b\r\n\r\n")
			p.expect("HTTP/1.1 100 Continue\r\nA: b\r\n\r\n")
			go p.trySend(c.body + get("/next"))
			b.expect(c.body)
			b.send(ok("done"))
			p.expect(ok("done"))
			b.head()
			b.send(ok("next"))
			p.expect(ok("next"))
			o.only(1)
		})
		t.Run("refused at once, "+name, func(t *testing.T) {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr})
			p := l.client()
			p.send(c.head)
			b := o.accept()
			b.head()
			b.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")
			p.expect("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
			if rest := p.rest(); rest != "" {
				t.Fatalf("then %q", rest)
			}
			b.closed() // it cannot know whether a body comes
		})
		t.Run("the client does not wait, "+name, func(t *testing.T) {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr})
			p := l.client()
			go p.trySend(c.head + c.body)
			b := o.accept()
			b.head()
			b.expect(c.body)
			b.send(ok("done"))
			p.expect(ok("done"))
		})
		t.Run("no 100 and the client gets tired, "+name, func(t *testing.T) {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr})
			p := l.client()
			p.send(c.head)
			b := o.accept()
			b.head()
			p.send(c.body[:50_000])
			b.expect(c.body[:50_000])
			p.send(c.body[50_000:])
			b.expect(c.body[50_000:])
			b.send(ok("done"))
			p.expect(ok("done"))
		})
		t.Run("a slow 100, "+name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr}, func(p *plan) { p.BodyTimeout = steady })
			p := l.client()
			p.send(c.head)
			b := o.accept()
			b.head()
			time.Sleep(2 * pause) // the client may not be blamed for waiting
			b.send("HTTP/1.1 100 Continue\r\n\r\n")
			p.expect("HTTP/1.1 100 Continue\r\n\r\n")
			go p.trySend(c.body)
			b.expect(c.body)
			b.send(ok("done"))
			p.expect(ok("done"))
		})
		t.Run("after 100 the client sends nothing, "+name, func(t *testing.T) {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr}, func(p *plan) { p.BodyTimeout = 20 * time.Millisecond })
			p := l.client()
			p.send(c.head)
			b := o.accept()
			b.head()
			b.send("HTTP/1.1 100 Continue\r\n\r\n")
			p.expect("HTTP/1.1 100 Continue\r\n\r\n")
			p.status(408)
			b.closed()
		})
		t.Run("neither 100 nor an answer, "+name, func(t *testing.T) {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr}, func(p *plan) { p.pool.ResponseTimeout = 50 * time.Millisecond })
			p := l.client()
			p.send(c.head)
			b := o.accept()
			b.head()
			p.status(504)
			b.closed()
		})
		// Time that the upload takes is no time of the backend's.
		t.Run("no 100 and a slow upload, "+name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr}, func(p *plan) { p.pool.ResponseTimeout = steady })
			p := l.client()
			p.send(c.head)
			b := o.accept()
			b.head()
			for i := range 2 {
				p.send(c.body[i*1000 : i*1000+1000])
				b.expect(c.body[i*1000 : i*1000+1000])
				time.Sleep(pause)
			}
			p.send(c.body[2000:])
			b.expect(c.body[2000:])
			b.send(ok("done"))
			p.expect(ok("done"))
		})
	}
}

// An answer that comes while the request is still being sent reaches the client whole.
func TestEarlyAnswer(t *testing.T) {
	for _, size := range []int{3, 1 << 20} {
		answer := "HTTP/1.1 413 Too Large\r\nContent-Length: " + fmt.Sprint(size) + "\r\n"
		body := strings.Repeat("n", size)
		t.Run(fmt.Sprintf("%d bytes, client goes on and on", size), func(t *testing.T) {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr})
			p := l.client()
			p.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
			b := o.accept()
			b.head()
			stop := make(chan struct{})
			go func() {
				defer close(stop)
				for p.trySend(strings.Repeat("x", 10_000)) == nil {
				}
			}()
			b.take(100_000)
			go b.trySend(answer + "\r\n" + body)
			p.expect(answer + "Connection: close\r\n\r\n")
			if got := p.take(size); got != body {
				t.Fatal("not what was sent")
			}
			p.close()
			<-stop
			b.broken()
		})
		t.Run(fmt.Sprintf("%d bytes, client stops at the answer", size), func(t *testing.T) {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr})
			p := l.client()
			p.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
			b := o.accept()
			b.head()
			b.expect("5\r\nhello\r\n")
			b.send(answer + "\r\n" + body)
			p.expect(answer + "Connection: close\r\n\r\n")
			if got := p.take(size); got != body {
				t.Fatal("not what was sent")
			}
			if rest := p.rest(); rest != "" {
				t.Fatalf("then %q", rest)
			}
			b.closed()
		})
		// A client that first sends all and then reads: what it sends within reason is taken from it.
		t.Run(fmt.Sprintf("%d bytes, client sends all before it reads", size), func(t *testing.T) {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr})
			p := l.client()
			const all = 20 << 20
			p.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", all))
			b := o.accept()
			b.head()
			go b.trySend(answer + "\r\n" + body)
			go io.Copy(io.Discard, b.br)
			for range all >> 16 {
				p.send(strings.Repeat("x", 1<<16))
			}
			p.expect(answer + "Connection: close\r\n\r\n")
			if got := p.take(size); got != body {
				t.Fatal("not what was sent")
			}
			if rest := p.rest(); rest != "" {
				t.Fatalf("then %q", rest)
			}
		})
	}
	t.Run("both ways for long", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr})
		p := l.client()
		p.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
		b := o.accept()
		b.head()
		b.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		p.head()
		for i := range 100 {
			s := fmt.Sprintf("3\r\n%03d\r\n", i)
			p.send(s)
			b.expect(s)
			b.send(s)
			p.expect(s)
		}
		p.send("0\r\n\r\n")
		b.expect("0\r\n\r\n")
		b.send("0\r\n\r\n")
		p.expect("0\r\n\r\n")
		if rest := p.rest(); rest != "" {
			t.Fatalf("then %q", rest)
		}
	})
}

// The response timeout begins when the request has been sent, however long that took.
func TestResponseTimeoutAfterSlowUpload(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, func(p *plan) { p.pool.ResponseTimeout = 100 * time.Millisecond })
	p, q := l.client(), l.client()
	p.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
	b := o.accept()
	b.head()
	b.expect("hello")
	// Others are answered meanwhile: the request counts as parked.
	q.send(get("/"))
	b2 := o.accept()
	b2.head()
	b2.send(ok(""))
	q.status(200)
	time.Sleep(2 * upstream.ParkAfter) // and the response timeout several times, in which nothing is to happen
	p.send("world")
	b.expect("world")
	p.status(504)
	b.closed()
}
