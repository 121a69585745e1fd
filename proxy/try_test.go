package proxy

import (
	"io"
	"strings"
	"testing"
	"time"

	"lb/upstream"
)

const tryTimeout = 20 * time.Millisecond

// hasty gives up a silent backend soon, and the last one not before the end of the test.
func hasty(p *plan) {
	p.pool.TryTimeout = tryTimeout
	p.pool.ResponseTimeout = patience
	p.loops = 1
}

// mute is a backend that takes a request and never says anything.
func mute(t *testing.T) *origin {
	return newOrigin(t, patient(func(p *peer) { p.head(); io.Copy(io.Discard, p.br) }))
}

func TestTryTimeout(t *testing.T) {
	silent := mute(t)
	well := newOrigin(t, patient(func(p *peer) {
		for {
			if strings.HasPrefix(p.head(), "PUT") {
				p.expect("some body")
			}
			p.send(ok("well"))
		}
	}))
	l := newLab(t, []string{silent.addr, well.addr}, hasty)
	p := l.client()
	for _, r := range []string{get("/"), get("/"), request("PUT", "/", "some body"), request("PUT", "/", "some body")} {
		p.send(r)
		if head, body := p.answer(); !strings.HasPrefix(head, "HTTP/1.1 200 ") || body != "well" {
			t.Fatalf("%q %q", head, body)
		}
	}
	eventually(t, "the faults of the silent one", func() bool { return l.faults(0, upstream.FaultTimeout) > 0 })
	if n, m := silent.count.Load(), l.faults(0, upstream.FaultTimeout); uint64(n) != m {
		t.Errorf("%d requests were given up, %d faults", n, m)
	}
	if n := l.faults(1, upstream.FaultTimeout); n != 0 {
		t.Errorf("%d faults of the one that is well", n)
	}
}

// TestTryTimeoutOfBody gives up a backend that has got a body in pieces, of which the next one gets all.
func TestTryTimeoutOfBody(t *testing.T) {
	silent, well := newOrigin(t, nil), newOrigin(t, nil)
	l := newLab(t, []string{silent.addr, well.addr}, hasty)
	p := l.client()
	p.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nab")
	first := func() *peer { // whoever comes first is the silent one
		select {
		case o := <-silent.conns:
			return o
		case o := <-well.conns:
			silent, well = well, silent
			return o
		case <-time.After(patience):
			t.Fatal("lb does not connect")
			return nil
		}
	}()
	first.head()
	first.expect("ab")
	p.send("cdef")
	first.expect("cdef")
	p.send("gh")
	first.expect("gh")
	next := well.accept()
	next.head()
	next.expect("abcdefgh")
	next.send(ok("well"))
	if _, body := p.answer(); body != "well" {
		t.Fatalf("%q", body)
	}
}

// TestTryTimeoutOfTheLast waits for the last that may be tried, for what may not be repeated, and for those who have
// begun, however long it takes them.
func TestTryTimeoutOfTheLast(t *testing.T) {
	for name, c := range map[string]struct {
		backends int
		request  string
		begins   string // what comes of the answer at once
		rest     string
		change   func(*plan)
	}{
		"nobody else":     {1, get("/"), "", ok("late"), nil},
		"no retries":      {2, get("/"), "", ok("late"), func(p *plan) { p.pool.Retries = 0 }},
		"no budget":       {2, get("/"), "", ok("late"), func(p *plan) { p.pool.RetryShare = -1e9 }},
		"POST":            {2, request("POST", "/", "body"), "", ok("late"), nil},
		"head has begun":  {2, get("/"), "HTTP/1.1 2", ok("late")[10:], nil},
		"103":             {2, get("/"), "HTTP/1.1 103 Early Hints\r\n\r\n", ok("late"), nil},
		"longer than all": {2, get("/"), "", ok("late"), func(p *plan) { p.pool.TryTimeout = time.Hour }},
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan *peer, 8)
			serve := func(p *peer) {
				p.head()
				if c.begins != "" {
					p.send(c.begins)
				}
				asked <- p
				io.Copy(io.Discard, p.br)
			}
			var origins []*origin
			var addrs []string
			for range c.backends {
				origins = append(origins, newOrigin(t, patient(serve)))
				addrs = append(addrs, origins[len(origins)-1].addr)
			}
			if c.change == nil {
				c.change = func(*plan) {}
			}
			l := newLab(t, addrs, hasty, c.change)
			p := l.client()
			p.send(c.request)
			o := <-asked
			time.Sleep(5 * tryTimeout) // in which nothing is to happen
			if len(asked) > 0 {
				t.Fatal("another backend was asked")
			}
			o.send(c.rest)
			head := p.head()
			if strings.HasPrefix(head, "HTTP/1.1 103 ") {
				head = p.head()
			}
			if !strings.HasPrefix(head, "HTTP/1.1 200 ") {
				t.Fatalf("%q", head)
			}
			p.expect("late")
		})
	}
}

// TestTryTimeoutOfAll has nobody answer: the last one has until the response timeout, and the client hears of it.
func TestTryTimeoutOfAll(t *testing.T) {
	a, b, c := mute(t), mute(t), mute(t)
	l := newLab(t, []string{a.addr, b.addr, c.addr}, hasty, func(p *plan) { p.pool.ResponseTimeout = 200 * time.Millisecond })
	p := l.client()
	p.send(get("/"))
	head, body := p.answer()
	own(t, head, body, 504, false)
	if n := a.count.Load() + b.count.Load() + c.count.Load(); n != 3 {
		t.Errorf("%d backends were asked", n)
	}
	l.answered(ResponseTimeout, 1)
}

// Where no connection is used twice, a backend may be a port that several workers share: a request that may be sent
// again goes to the same backend on a new connection when its worker is silent or has gone, and there is nobody else.
func TestSharedPort(t *testing.T) {
	shared := func(p *plan) { p.pool.Reuse = false }
	alone := func(t *testing.T, options ...option) (*origin, *lab, *peer) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, append([]option{hasty}, options...)...)
		return o, l, l.client()
	}
	none := func(t *testing.T, o *origin) {
		t.Helper()
		time.Sleep(5 * tryTimeout) // in which nothing is to happen
		if len(o.conns) > 0 {
			t.Fatal("the backend was asked once more")
		}
	}
	t.Run("silent", func(t *testing.T) {
		o, l, p := alone(t, shared)
		for range 2 {
			p.send(request("PUT", "/", "some body"))
			o.accept().head() // and nothing ever comes
			o.accept().head()
			b := o.accept()
			b.head()
			b.expect("some body")
			none(t, o) // the last may take its time
			b.send(ok("well"))
			if got := p.status(200); got != "well" {
				t.Fatalf("%q", got)
			}
		}
		if n := l.faults(0, upstream.FaultTimeout); n != 4 {
			t.Errorf("%d timeouts counted, want 4", n)
		}
		if n := l.sum(0, func(s *upstream.Stats) uint64 { return s.Retries.Load() }); n != 4 {
			t.Errorf("%d retries counted, want 4", n)
		}
	})
	t.Run("gone", func(t *testing.T) {
		for _, end := range []func(*peer){(*peer).close, (*peer).reset} {
			o, _, p := alone(t, shared)
			p.send(get("/"))
			for range 2 {
				b := o.accept()
				b.head()
				end(b)
			}
			b := o.accept()
			b.head()
			b.send(ok("well"))
			p.status(200)
		}
	})
	t.Run("gone each time", func(t *testing.T) {
		o, _, p := alone(t, shared)
		p.send(get("/"))
		for range 3 {
			b := o.accept()
			b.head()
			b.close()
		}
		p.status(502)
		none(t, o)
	})
	t.Run("POST", func(t *testing.T) {
		o, _, p := alone(t, shared)
		p.send(request("POST", "/", "body"))
		b := o.accept()
		b.head()
		none(t, o)
		b.close()
		p.status(502)
		none(t, o)
	})
	t.Run("connections are kept", func(t *testing.T) {
		o, _, p := alone(t)
		p.send(get("/"))
		b := o.accept()
		b.head()
		none(t, o)
		b.send(ok("late"))
		p.status(200)
	})
	t.Run("no budget", func(t *testing.T) {
		o, _, p := alone(t, shared, func(p *plan) { p.pool.RetryShare = -1e9 })
		p.send(get("/"))
		b := o.accept()
		b.head()
		none(t, o)
		b.send(ok("late"))
		p.status(200)
	})
	t.Run("two ports", func(t *testing.T) { // the other one first
		a, b := newOrigin(t, nil), newOrigin(t, nil)
		l := newLab(t, []string{a.addr, b.addr}, hasty, shared)
		p := l.client()
		p.send(get("/"))
		count := map[*origin]int{}
		for range 3 {
			select {
			case c := <-a.conns:
				c.head()
				count[a]++
				if len(count) == 2 && count[a]+count[b] == 3 {
					c.send(ok("well"))
				}
			case c := <-b.conns:
				c.head()
				count[b]++
				if len(count) == 2 && count[a]+count[b] == 3 {
					c.send(ok("well"))
				}
			case <-time.After(patience):
				t.Fatal("nobody is asked")
			}
			if n := count[a] + count[b]; n == 2 && (count[a] != 1 || count[b] != 1) {
				t.Fatalf("the first two attempts went to one of them")
			}
		}
		p.status(200)
	})
}
