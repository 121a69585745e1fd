package proxy

import (
	"strings"
	"testing"

	"lb/upstream"
)

// Row 27: the backend's work for a client that has gone is cancelled at once, and it is not blamed.
func TestClientGone(t *testing.T) {
	for _, end := range []struct {
		name string
		do   func(*peer)
	}{{"FIN", (*peer).close}, {"half closed", (*peer).finish}, {"RST", (*peer).reset}} {
		for _, at := range []struct {
			name string
			do   func(p *peer, o *origin) *peer
		}{
			{"before the answer", func(p *peer, o *origin) *peer {
				p.send(get("/"))
				b := o.accept()
				b.head()
				return b
			}},
			{"before the answer to a POST", func(p *peer, o *origin) *peer {
				p.send(request("POST", "/", "body"))
				b := o.accept()
				b.head()
				b.expect("body")
				return b
			}},
			{"before the first of two answers", func(p *peer, o *origin) *peer {
				p.send(get("/1") + get("/2"))
				b := o.accept()
				b.head()
				return b
			}},
			{"in the answer", func(p *peer, o *origin) *peer {
				p.send(get("/"))
				b := o.accept()
				b.head()
				b.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
				p.head()
				p.expect("hello")
				return b
			}},
			{"in an answer without end", func(p *peer, o *origin) *peer {
				p.send(get("/"))
				b := o.accept()
				b.head()
				b.send("HTTP/1.1 200 OK\r\n\r\nhello")
				p.head()
				p.expect("5\r\nhello")
				return b
			}},
			{"in the upload", func(p *peer, o *origin) *peer {
				p.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
				b := o.accept()
				b.head()
				b.expect("hello")
				return b
			}},
			{"in a chunked upload", func(p *peer, o *origin) *peer {
				p.send("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
				b := o.accept()
				b.head()
				b.expect("5\r\nhello\r\n")
				return b
			}},
			{"before 100 Continue", func(p *peer, o *origin) *peer {
				p.send("POST / HTTP/1.1\r\nHost: x\r\n" + expect + "\r\nContent-Length: 10\r\n\r\n")
				b := o.accept()
				b.head()
				return b
			}},
			{"after 103", func(p *peer, o *origin) *peer {
				p.send(get("/"))
				b := o.accept()
				b.head()
				b.send("HTTP/1.1 103 Early Hints\r\n\r\n")
				p.head()
				return b
			}},
		} {
			t.Run(at.name+", "+end.name, func(t *testing.T) {
				o := newOrigin(t, nil)
				l := newLab(t, []string{o.addr, o.addr}[:1])
				p := l.client()
				b := at.do(p, o)
				end.do(p)
				b.closed()
				l.answered(ClientGone, 1)
				if n := l.faults(0, upstream.FaultClient); n != 1 {
					t.Errorf("%d faults", n)
				}
				l.idle(0)
				o.only(1)
				eventually(t, "the client's connection is closed", func() bool { return l.ln.Stats().Open == 0 })
			})
		}
	}
}

// The client goes while lb cannot write to it: the backend is not left waiting.
func TestClientGoneInDownload(t *testing.T) {
	for _, end := range []func(*peer){(*peer).close, (*peer).reset} {
		stopped := make(chan struct{})
		o := newOrigin(t, func(p *peer) {
			defer close(stopped)
			p.head()
			p.trySend("HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
			for p.trySend(strings.Repeat("x", 1<<16)) == nil {
			}
		})
		l := newLab(t, []string{o.addr})
		p := l.client()
		p.send(get("/"))
		p.take(1 << 20)
		end(p)
		<-stopped
		l.answered(ClientGone, 1)
		l.idle(0)
	}
}

func TestClientGoneInUpload(t *testing.T) {
	for _, end := range []func(*peer){(*peer).close, (*peer).reset} {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr})
		p := l.client()
		p.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n")
		b := o.accept()
		b.head()
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for p.trySend(strings.Repeat("x", 1<<16)) == nil {
			}
		}()
		b.take(1 << 20)
		end(p)
		<-stopped
		b.broken()
		l.answered(ClientGone, 1)
		l.idle(0)
	}
}

// Who said that this is the last request may close its sending side and wait for the answer; so may who did it
// before lb had looked.
func TestHalfClosedClient(t *testing.T) {
	for _, s := range []string{
		get("/", "Connection: close"),
		request("POST", "/", "body", "Connection: close"),
		"GET / HTTP/1.0\r\n\r\n",
	} {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, single)
		p := l.client()
		p.send(s)
		b := o.accept()
		b.head()
		p.finish()
		b.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
		p.head()
		p.expect("hello")
		b.send("world")
		if got := p.rest(); got != "world" {
			t.Fatalf("%q", got)
		}
		if portable {
			continue
		}
		// Its reset says that it is gone all the same.
		p = l.client()
		l.idle(1)
		p.send(s)
		b.head()
		p.finish()
		p.reset()
		b.broken()
		l.answered(ClientGone, 1)
	}
}

// A pile of clients that come and go at any point leaves nothing behind.
func TestClientsComeAndGo(t *testing.T) {
	o := newOrigin(t, patient(echo))
	l := newLab(t, []string{o.addr, refusing(t)})
	stream := get("/1") + request("POST", "/2", strings.Repeat("x", 100)) +
		"PUT /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
	for i := range len(stream) {
		p := l.client()
		p.send(stream[:i])
		if i%3 == 0 {
			p.reset()
		} else {
			p.close()
		}
	}
	eventually(t, "all are gone", func() bool { return l.ln.Stats().Open == 0 })
	eventually(t, "nothing in flight", func() bool {
		n := int64(0)
		for _, b := range l.pool.Snapshot().All {
			n += b.Inflight()
		}
		return n == 0
	})
	p := l.client()
	p.send(get("/"))
	if got := p.status(200); got != "GET / " {
		t.Fatalf("%q", got)
	}
}
