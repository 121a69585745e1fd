package proxy

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"lb/upstream"
)

// relayed are answers of a backend and what the client of a request gets for them, to the last byte of its
// connection or up to the answer to the next request.
func TestAnswers(t *testing.T) {
	const (
		h11  = " HTTP/1.1\r\nHost: x\r\n\r\n"
		h10  = " HTTP/1.0\r\nHost: x\r\n\r\n"
		keep = " HTTP/1.0\r\nHost: x\r\nConnection: Keep-Alive\r\n\r\n"
	)
	for _, c := range []struct {
		name, request, answer string
		closes                bool // the backend closes after the answer
		want                  string
		ends                  bool // the client's connection ends after it
	}{
		{"length", "GET /" + h11, "HTTP/1.1 200 Fine, thanks\r\nA: b\r\nContent-Length: 2\r\n\r\nhi", false,
			"HTTP/1.1 200 Fine, thanks\r\nA: b\r\nContent-Length: 2\r\n\r\nhi", false},
		{"no reason", "GET /" + h11, "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", false,
			"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", false},
		{"unknown status", "GET /" + h11, "HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n", false,
			"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n", false},
		{"chunks as they are", "GET /" + h11, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3;a=\"b;c\";d\r\nabc\r\n00\r\nT: u\r\n\r\n", false,
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3;a=\"b;c\";d\r\nabc\r\n00\r\nT: u\r\n\r\n", false},
		{"until close", "GET /" + h11, "HTTP/1.1 200 OK\r\nA: b\r\n\r\nhello", true,
			"HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false},
		{"until close, empty", "GET /" + h11, "HTTP/1.1 200 OK\r\n\r\n", true,
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
		{"HTTP/1.0 until close", "GET /" + h11, "HTTP/1.0 200 OK\r\nA: b\r\n\r\nhello", true,
			"HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false},
		{"HTTP/1.0 with length", "GET /" + h11, "HTTP/1.0 404 Not here\r\nContent-Length: 1\r\n\r\nx", true,
			"HTTP/1.1 404 Not here\r\nContent-Length: 1\r\n\r\nx", false},
		{"HTTP/1.0 without reason", "GET /" + h11, "HTTP/1.0 204\r\n\r\n", true, "HTTP/1.1 204 \r\n\r\n", false},
		{"HEAD with length", "HEAD /" + h11, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", false,
			"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", false},
		{"HEAD with chunks", "HEAD /" + h11, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false,
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false},
		{"HEAD without", "HEAD /" + h11, "HTTP/1.1 200 OK\r\n\r\n", false, "HTTP/1.1 200 OK\r\n\r\n", false},
		{"204", "GET /" + h11, "HTTP/1.1 204 No Content\r\n\r\n", false, "HTTP/1.1 204 No Content\r\n\r\n", false},
		{"304 with length", "GET /" + h11, "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n", false,
			"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n", false},
		{"close is the backend's", "GET /" + h11, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", true,
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false},
		{"client closes", "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false,
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", true},
		{"client closes, until close", "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nhi", true,
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\n\r\n", true},

		{"1.0 client, length", "GET /" + h10, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false,
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", true},
		{"1.0 client, kept", "GET /" + keep, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false,
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi", false},
		{"1.0 client, chunks", "GET /" + keep, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3;x\r\nabc\r\n1\r\nd\r\n0\r\nT: u\r\n\r\n", false,
			"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcd", true},
		{"1.0 client, no chunks", "GET /" + keep, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false,
			"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", true},
		{"1.0 client, HEAD of chunks", "HEAD /" + keep, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false,
			"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", false},
		{"1.0 client, until close", "GET /" + keep, "HTTP/1.1 200 OK\r\n\r\nhello", true,
			"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", true},
		{"1.0 client, 304", "GET /" + keep, "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", false,
			"HTTP/1.1 304 Not Modified\r\nETag: x\r\nConnection: keep-alive\r\n\r\n", false},
		{"1.0 client hears of no 1xx", "GET /" + keep, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", false,
			"HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n", false},

		{"103", "GET /" + h11, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false,
			"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false},
		{"100 that nobody asked for", "GET /" + h11, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false,
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false},
		{"hop-by-hop", "GET /" + h11, "HTTP/1.1 200 OK\r\nA: 1\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nB:2\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nTE: x\r\nProxy-Authenticate: x\r\nContent-Length: 0\r\nC: \t 3 \r\n\r\n", false,
			"HTTP/1.1 200 OK\r\nA: 1\r\nB:2\r\nContent-Length: 0\r\nC: \t 3 \r\n\r\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr}, single)
			p := l.client()
			p.send(c.request)
			b := o.accept()
			b.head()
			b.send(c.answer)
			if c.closes {
				b.close()
			}
			p.expect(c.want)
			if c.ends {
				if rest := p.rest(); rest != "" {
					t.Fatalf("then %q", rest)
				}
				return
			}
			l.idleOrNone(!c.closes)
			p.send(get("/next"))
			if c.closes {
				b = o.accept()
			}
			b.head()
			b.send(ok("next"))
			p.expect(ok("next"))
		})
		// Whatever the answer, it is the same when it comes byte by byte.
		t.Run(c.name+", slowly", func(t *testing.T) {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr}, single)
			p := l.client()
			p.send(c.request)
			b := o.accept()
			b.head()
			for i := range c.answer {
				b.send(c.answer[i : i+1])
			}
			if c.closes {
				b.close()
			}
			if !strings.Contains(c.want, "\r\n\r\n5\r\nhello") && !strings.Contains(c.want, "2\r\nhi\r\n0") {
				p.expect(c.want) // else the chunks may be smaller
			} else {
				p.head()
				p.chunked()
			}
			if c.ends {
				if rest := p.rest(); rest != "" {
					t.Fatalf("then %q", rest)
				}
			}
		})
	}
}

func (l *lab) idleOrNone(one bool) {
	if one {
		l.idle(1)
	} else {
		l.idle(0)
	}
}

// What is neither a length nor chunked ends with the connection, and must not seem to have ended when it broke off.
func TestBrokenAnswers(t *testing.T) {
	const h11, h10 = " HTTP/1.1\r\nHost: x\r\n\r\n", " HTTP/1.0\r\nHost: x\r\n\r\n"
	const chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
	for _, c := range []struct {
		name, request, answer string
		end                   func(*peer)
		want                  string // what the client has got, at most
		reason                Reason
	}{
		{"short", "GET /" + h11, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", (*peer).close, "hello", BackendCut},
		{"short, reset", "GET /" + h11, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", (*peer).reset, "hello", BackendCut},
		{"no last chunk", "GET /" + h11, chunks, (*peer).close, "5\r\nhello\r\n", BackendCut},
		{"no last chunk, reset", "GET /" + h11, chunks, (*peer).reset, "5\r\nhello\r\n", BackendCut},
		{"no end of the last chunk", "GET /" + h11, chunks + "0\r\n", (*peer).close, "5\r\nhello\r\n0\r\n", BackendCut},
		{"no last chunk, HTTP/1.0", "GET /" + h10, chunks, (*peer).close, "hello", BackendCut},
		{"until close, reset", "GET /" + h11, "HTTP/1.1 200 OK\r\n\r\nhello", (*peer).reset, "5\r\nhello", BackendCut},
		{"until close, reset, HTTP/1.0", "GET /" + h10, "HTTP/1.1 200 OK\r\n\r\nhello", (*peer).reset, "hello", BackendCut},
		{"bad chunk", "GET /" + h11, chunks, func(b *peer) { b.send("xyz\r\n") }, "5\r\nhello\r\n", BadResponse},
		{"bad chunk, HTTP/1.0", "GET /" + h10, chunks, func(b *peer) { b.send("xyz\r\n") }, "hello", BadResponse},
		{"stalled", "GET /" + h11, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", func(*peer) {}, "hello", BackendStalled},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr, o.addr + "0"}[:1], func(p *plan) {
				if c.reason == BackendStalled {
					p.pool.ReadTimeout = 50 * time.Millisecond
				}
			})
			p := l.client()
			p.send(c.request)
			b := o.accept()
			b.head()
			b.send(c.answer)
			p.head()
			p.expect(c.want) // so that the end does not overtake it
			c.end(b)
			if rest, reset := p.broken(); rest != "" || !reset {
				t.Errorf("then %q, reset %v", rest, reset)
			}
			l.answered(c.reason, 1)
			if n := l.faults(0, answers[c.reason].fault); n != 1 {
				t.Errorf("%d faults counted", n)
			}
			b.closed()
			l.idle(0)
			o.only(1)
		})
	}
}

// Responses that make no sense are a 502, and their connection is not used again.
func TestMalformedAnswers(t *testing.T) {
	const line = "HTTP/1.1 200 OK\r\n"
	for _, answer := range []string{
		"hello\r\n\r\n",
		"HTTP/2.0 200 OK\r\n\r\n",
		"HTTP/1.1 20 OK\r\n\r\n",
		"HTTP/1.1 999 OK\r\n\r\n",
		"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"\r\nHTTP/1.1 200 OK\r\n\r\n",
		line + "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
		line + "Content-Length: 1, 1\r\n\r\nx",
		line + "Content-Length: +1\r\n\r\nx",
		line + "Content-Length: -1\r\n\r\n",
		line + "Content-Length: 99999999999999999999\r\n\r\n",
		line + "Content-Length:\r\n\r\n",
		line + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		line + "Transfer-Encoding: gzip\r\n\r\n",
		line + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		line + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		line + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		line + "A : b\r\n\r\n",
		line + "A: b\r\n c\r\n\r\n",
		line + " A: b\r\n\r\n",
		line + "A: b\x00\r\n\r\n",
		line + "A: b\rc\r\n\r\n",
		line + "A\r\n\r\n",
		line + ": b\r\n\r\n",
		line + "(A): b\r\n\r\n",
		line + "Connection: Content-Length\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 xxx\r\n\r\n",
		line + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
		line + "Transfer-Encoding: chunked\r\n\r\n-1\r\n",
		line + "Transfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n",
		line + strings.Repeat("A: b\r\n", 1001) + "\r\n",
		line + "A: " + strings.Repeat("b", 70_000) + "\r\n\r\n",
	} {
		t.Run(cutShort(answer)[:min(len(answer), 60)], func(t *testing.T) {
			o := newOrigin(t, func(p *peer) {
				p.head()
				p.trySend(answer)
				io.Copy(io.Discard, p.br)
			})
			l := newLab(t, []string{o.addr}, single)
			c := l.client()
			for i := range 2 {
				c.send(get("/"))
				h := c.head()
				for strings.HasPrefix(h, "HTTP/1.1 103") {
					h = c.head()
				}
				if !strings.HasPrefix(h, "HTTP/1.1 502 ") || field(h, "Connection") != "" {
					t.Fatalf("%q", h)
				}
				c.expect("502 Bad Gateway\n")
				o.only(int64(i + 1))
			}
			l.answered(BadResponse, 2)
			if n := l.faults(0, upstream.FaultMalformed); n != 2 {
				t.Errorf("%d faults counted", n)
			}
			l.idle(0)
		})
	}
}

// Row 11: the memory that a head without end may take is bounded.
func TestAnswerHeadWithoutEnd(t *testing.T) {
	for _, piece := range []string{"A: " + strings.Repeat("b", 1000) + "\r\n", strings.Repeat("b", 1000)} {
		sent := make(chan int, 1)
		o := newOrigin(t, func(p *peer) {
			p.head()
			n := 0
			p.trySend("HTTP/1.1 200 OK\r\nA: ")
			for n < 2<<20 && p.trySend(piece) == nil {
				n += len(piece)
			}
			sent <- n
			io.Copy(io.Discard, p.br)
		})
		l := newLab(t, []string{o.addr})
		c := l.client()
		c.send(get("/"))
		c.status(502)
		l.answered(BadResponse, 1)
		<-sent
		if n := l.sum(0, func(s *upstream.Stats) uint64 { return s.BytesReceived.Load() }); n > bodyBuffer {
			t.Errorf("read %d bytes of it", n)
		}
		if n := l.faults(0, upstream.FaultMalformed); n != 1 {
			t.Errorf("%d faults counted", n)
		}
	}
}

const expect = "Expect: 100-continue"

// Events reach the client one by one, each before the backend says the next.
func TestStream(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr})
	for _, c := range []struct{ head, format string }{
		{"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", "chunked"},
		{"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", ""},
		{"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", "length"},
	} {
		p := l.client()
		p.send(get("/events"))
		b := o.accept()
		b.head()
		b.send(c.head)
		p.head()
		for i := range 50 {
			event := fmt.Sprintf("data: %02d\n\n", i)
			framed := fmt.Sprintf("%x\r\n%s\r\n", len(event), event)
			switch c.format {
			case "chunked":
				b.send(framed)
				p.expect(framed)
			case "":
				b.send(event)
				if i > 0 {
					p.expect("\r\n")
				}
				p.expect(strings.TrimSuffix(framed, "\r\n"))
			case "length":
				b.send(event)
				p.expect(event)
			}
		}
		p.reset()
		b.closed()
	}
	l.answered(ClientGone, 3)
	l.idle(0)
}

// Row 8: a backend is given the read timeout anew after each piece, whatever its size: a piece may fill the buffer to the last byte.
func TestPauseAfterFullBuffer(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single)
	p := l.client()
	p.send(get("/"))
	b := o.accept()
	b.head()
	const pieces = 3
	b.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", pieces*bodyBuffer))
	p.head()
	want := strings.Repeat("x", bodyBuffer)
	for range pieces {
		b.send(want)
		if got := p.take(bodyBuffer); got != want {
			t.Fatal("not what was sent")
		}
		time.Sleep(time.Duration(upstream.ParkAfter) + 50*time.Millisecond) // the request is old enough to be parked while it waits
	}
	l.idle(1)
}

// What is counted of a backend's bytes is all that goes over its connections, heads too.
func TestBytesOfABackend(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single)
	c := l.client()
	c.send(request("POST", "/", "body"))
	b := o.accept()
	sent := len(b.head()) + len(b.take(4))
	head, body := "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", "1234567"
	b.send(head + body[:3])
	c.expect(head + body[:3])
	b.send(body[3:])
	c.expect(body[3:])
	l.idle(1)
	got := func(of func(*upstream.Stats) *upstream.Counter) uint64 {
		return l.sum(0, func(s *upstream.Stats) uint64 { return of(s).Load() })
	}
	if n := got(func(s *upstream.Stats) *upstream.Counter { return &s.BytesSent }); n != uint64(sent) {
		t.Errorf("%d bytes sent, it got %d", n, sent)
	}
	if n := got(func(s *upstream.Stats) *upstream.Counter { return &s.BytesReceived }); n != uint64(len(head+body)) {
		t.Errorf("%d bytes received, it sent %d", n, len(head+body))
	}
}
