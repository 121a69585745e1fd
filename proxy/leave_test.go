package proxy

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"lb/upstream"
)

// A client that has begun a request and does not go on holds up a shutdown no longer than a silent one. One that does go
// on is served.
func TestShutdownOfHalfHeads(t *testing.T) {
	o := newOrigin(t, echo)
	l := newLab(t, []string{o.addr}, func(p *plan) { p.HeaderTimeout = time.Hour })
	stuck, late, second := l.client(), l.client(), l.client()
	stuck.send("GET /stuck HTTP/1.1\r\nHo")
	late.send("GET /late HTTP/1.1\r\n")
	second.send(get("/first", "Connection: keep-alive") + "GET /second HTT")
	second.status(200)
	o2 := newOrigin(t, nil) // holds a request, so that the shutdown goes on for longer than what is tested
	l.pool.Update(specs(t, []string{o2.addr}), nil, nil)
	busy := l.client()
	busy.send(get("/busy"))
	b := o2.accept()
	b.head()
	done := l.shutdown(context.Background())
	late.send("Host: x\r\n\r\n")
	lb := o2.accept()
	lb.head()
	for _, p := range []*peer{stuck, second} {
		head, body := p.answer()
		own(t, head, body, 503, true)
		if rest := p.rest(); rest != "" {
			t.Errorf("then %q", rest)
		}
		p.close()
	}
	l.answered(Stopped, 2)
	lb.send(ok("late"))
	if head, body := late.answer(); !strings.HasPrefix(head, "HTTP/1.1 200 ") || body != "late" || field(head, "Connection") != "close" {
		t.Errorf("%q %q", head, body)
	}
	running(t, done)
	b.send(ok("busy"))
	busy.status(200)
	late.close()
	busy.close()
	if err := wait(t, done); err != nil {
		t.Fatal(err)
	}
}

// Requests that wait in a pool's queue when a shutdown begins get their turn, and their answers say that the connection
// ends; those whose turn does not come are told so at the end of the grace. None is dropped.
func TestShutdownOfTheQueue(t *testing.T) {
	t.Run("their turn comes", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, hold(time.Minute, time.Minute), single)
		l.capped(o, 10)
		first := l.client()
		first.send(get("/first"))
		b := o.accept()
		b.head()
		var ps []*peer
		for i := range 3 {
			p := l.client()
			p.send(request("POST", fmt.Sprintf("/%d", i), "body"))
			l.waiting(int64(i + 1))
			ps = append(ps, p)
		}
		done := l.shutdown(context.Background())
		b.send(ok("first"))
		first.status(200)
		for i, p := range ps {
			if i == 0 {
				running(t, done)
			}
			b = nextOf(t, o, b, fmt.Sprintf("POST /%d ", i))
			b.expect("body")
			b.send(ok(fmt.Sprint(i)))
			head, body := p.answer()
			if !strings.HasPrefix(head, "HTTP/1.1 200 ") || body != fmt.Sprint(i) || field(head, "Connection") != "close" {
				t.Errorf("%q %q", head, body)
			}
			p.close()
		}
		first.close()
		if err := wait(t, done); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("the grace ends", func(t *testing.T) {
		l := newLab(t, []string{refusing(t)}, hold(time.Minute, time.Minute))
		p := l.client()
		p.send(get("/"))
		eventually(t, "it waits", func() bool {
			return l.sum(0, func(s *upstream.Stats) uint64 { return s.ConnErrors.Load() }) > 0
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := l.shutdown(ctx)
		running(t, done)
		cancel()
		head, body := p.answer()
		own(t, head, body, 503, true)
		p.close()
		if err := wait(t, done); err != context.Canceled {
			t.Fatal(err)
		}
		l.answered(Stopped, 1)
	})
}

// nextOf is the connection on which the origin gets a request next: the one that it has, or a new one.
func nextOf(t *testing.T, o *origin, b *peer, want string) *peer {
	t.Helper()
	heads := make(chan string, 1)
	go func() {
		if _, err := b.br.Peek(1); err == nil {
			heads <- b.head()
		}
	}()
	head := ""
	select {
	case head = <-heads:
	case c := <-o.conns:
		b = c
		head = b.head()
	case <-time.After(patience):
		t.Fatal("no request comes")
	}
	if !strings.HasPrefix(head, want) {
		t.Fatalf("got %q, want %q", head, want)
	}
	return b
}

// Row 41 for what runs in tasks of its own, beside the one of the request: an upload and the two directions of a tunnel.
func TestPanicInTasks(t *testing.T) {
	begin := func(t *testing.T) (*origin, *lab, chan any) {
		o := newOrigin(t, nil)
		panics := make(chan any, 10)
		return o, newLab(t, []string{o.addr}, single, func(p *plan) { p.panicked = func(v any, _ []byte) { panics <- v } }), panics
	}
	// breaks runs f on the loop, with the only client that there is.
	breaks := func(l *lab, f func(c *client)) {
		done := make(chan struct{})
		w := l.proxy.workers[0]
		w.loop.Post(func() {
			f(w.clients.next)
			close(done)
		})
		<-done
	}
	lives := func(t *testing.T, o *origin, l *lab, panics chan any) {
		t.Helper()
		select {
		case v := <-panics:
			if v == nil {
				t.Error("a panic of nothing")
			}
		case <-time.After(patience):
			t.Fatal("not told of the panic")
		}
		p := l.client()
		p.send(get("/next"))
		b := o.accept()
		b.head()
		b.send(ok("next"))
		if got := p.status(200); got != "next" {
			t.Errorf("%q", got)
		}
		p.close()
		eventually(t, "nothing is in flight", func() bool {
			b := l.pool.Snapshot().All[0]
			return b.Inflight()+b.Tunnels() == 0
		})
		eventually(t, "all clients are gone", func() bool { return l.ln.Stats().Open == 0 })
	}
	t.Run("upload", func(t *testing.T) {
		o, l, panics := begin(t)
		p := l.client()
		p.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
		b := o.accept()
		b.head()
		b.expect("hello")
		breaks(l, func(c *client) { c.x.up.x = nil })
		p.send("w") // step looks at what is no longer there
		if got, _ := p.broken(); strings.HasPrefix(got, "HTTP/1.1 2") {
			t.Errorf("got %q", got)
		}
		if got, _ := b.broken(); got == "world" {
			t.Errorf("the backend got %q", got)
		}
		l.answered(InternalError, 1)
		lives(t, o, l, panics)
	})
	for name, toClient := range map[string]bool{"tunnel, from the client": false, "tunnel, to the client": true} {
		t.Run(name, func(t *testing.T) {
			o, l, panics := begin(t)
			p := l.client()
			p.send("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			b := o.accept()
			b.head()
			b.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			p.head()
			eventually(t, "it is a tunnel", func() bool { return l.pool.Snapshot().All[0].Tunnels() == 1 })
			breaks(l, func(c *client) {
				if toClient {
					c.tunnel.back.to = nil
				} else {
					c.tunnel.out.to = nil
				}
			})
			if toClient {
				b.send("x")
			} else {
				p.send("x")
			}
			if got, _ := p.broken(); got != "" {
				t.Errorf("the client got %q", got)
			}
			if got, _ := b.broken(); got != "" {
				t.Errorf("the backend got %q", got)
			}
			lives(t, o, l, panics)
		})
	}
}
