package proxy

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"lb/upstream"
)

func hold(queue, hold time.Duration) option {
	return func(p *plan) { p.pool.QueueTimeout, p.pool.HoldTimeout = queue, hold }
}

func (l *lab) waiting(n int64) {
	l.t.Helper()
	eventually(l.t, fmt.Sprintf("%d requests wait", n), func() bool { return l.pool.Waiting() == n })
}

// capped gives every backend of the lab one place.
func (l *lab) capped(o *origin, queueLen int) {
	ss := specs(l.t, []string{o.addr})
	ss[0].MaxInflight = 1
	set := *l.pool.Snapshot().Settings
	set.QueueLen = queueLen
	l.pool.Update(ss, &set, nil)
}

func TestRequestsWaitForAPlace(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, hold(time.Minute, time.Minute), single)
	l.capped(o, 2)
	var ps []*peer
	first := l.client()
	first.send(get("/first"))
	b := o.accept()
	b.head()
	for i := range 2 {
		p := l.client()
		p.send(get(fmt.Sprintf("/%d", i)))
		l.waiting(int64(i + 1))
		ps = append(ps, p)
	}
	last := l.client()
	last.send(get("/too-many"))
	last.status(503)
	l.answered(Overloaded, 1)

	b.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nf")
	if got := first.status(200); got != "f" {
		t.Fatalf("%q", got)
	}
	for i, p := range ps { // in the order in which they came
		if got, want := b.head(), fmt.Sprintf("GET /%d HTTP/1.1\r\n", i); got[:len(want)] != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		b.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", i))
		if got := p.status(200); got != fmt.Sprint(i) {
			t.Fatalf("%q", got)
		}
	}
}

func TestQueueTimeout(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, hold(50*time.Millisecond, time.Minute), single)
	l.capped(o, 2)
	first := l.client()
	first.send(get("/first"))
	b := o.accept()
	b.head()
	p := l.client()
	p.send(get("/"))
	p.status(503)
	l.answered(Overloaded, 1)
	l.waiting(0)
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	first.status(200)
}

func TestClientLeavesTheQueue(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, hold(time.Minute, time.Minute), single)
	l.capped(o, 9)
	first := l.client()
	first.send(get("/first"))
	b := o.accept()
	b.head()
	gone, stays := l.client(), l.client()
	gone.send(get("/gone"))
	l.waiting(1)
	stays.send(get("/stays"))
	l.waiting(2)
	gone.reset()
	l.waiting(1)
	l.answered(ClientGone, 1)
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	first.status(200)
	b.head()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	stays.status(200)
}

// While everybody is known to be dead requests wait, and go out in order when somebody comes back.
func TestHold(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, hold(time.Minute, time.Minute), single)
	only := l.pool.Snapshot().All[0]
	l.pool.SetDead(only, time.Now().Add(time.Hour))
	var ps []*peer
	for i := range 3 {
		p := l.client()
		p.send(get(fmt.Sprintf("/%d", i)))
		l.waiting(int64(i + 1))
		ps = append(ps, p)
	}
	l.pool.SetDead(only, time.Time{})
	for range ps {
		b := o.accept()
		b.head()
		b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	}
	for _, p := range ps {
		p.status(200)
	}
}

// A backend that refuses and that nobody checks is asked again until it accepts.
func TestHoldWithoutChecks(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	l := newLab(t, []string{addr}, hold(time.Minute, time.Minute), single)
	p := l.client()
	p.send(request("POST", "/", "body"))
	eventually(t, "it is tried more than once", func() bool {
		return l.sum(0, func(s *upstream.Stats) uint64 { return s.ConnErrors.Load() }) >= 2
	})
	if ln, err = net.Listen("tcp", addr); err != nil {
		t.Skip("somebody else took the port:", err)
	}
	defer ln.Close()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b := newPeer(t, "origin", c, t.Fatalf)
	b.head()
	b.expect("body")
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	p.status(200)
	c.Close()
}

func TestHoldTimeout(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, hold(time.Minute, 50*time.Millisecond))
	only := l.pool.Snapshot().All[0]
	l.pool.SetDead(only, time.Now().Add(time.Hour))
	p := l.client()
	p.send(get("/"))
	p.status(503)
	l.answered(NoBackend, 1)
	l.pool.SetDead(only, time.Time{})
}

// An instance that goes away answers 503 and closes: another one answers instead, and the client does not notice.
func TestUnreadyElsewhere(t *testing.T) {
	a, b := newOrigin(t, nil), newOrigin(t, nil)
	l := newLab(t, []string{a.addr, b.addr})
	p := l.client()
	for _, method := range []string{"GET", "POST"} {
		p.send(request(method, "/", ""))
		oa := a.accept()
		oa.head()
		oa.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwait")
		if method == "POST" { // which may have done something
			if got := p.status(503); got != "wait" {
				t.Fatalf("%q", got)
			}
			return
		}
		ob := b.accept()
		ob.head()
		ob.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
		if got := p.status(200); got != "ok" {
			t.Fatalf("%q", got)
		}
		if n := l.faults(0, upstream.FaultStatus); n != 1 {
			t.Errorf("%d faults", n)
		}
	}
}

// A 503 whose connection ends anyway is the application's word: where connections are not kept, or not announced to end.
func TestUnreadyIsNotEveryClose(t *testing.T) {
	for name, c := range map[string]struct {
		option option
		answer string
	}{
		"without reuse": {func(p *plan) { p.pool.Reuse = false }, "HTTP/1.1 503 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"},
		"HTTP/1.0":      {func(*plan) {}, "HTTP/1.0 503 No\r\nContent-Length: 2\r\n\r\nno"},
		"until close":   {func(*plan) {}, "HTTP/1.1 503 No\r\n\r\nno"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newOrigin(t, nil), newOrigin(t, nil)
			l := newLab(t, []string{a.addr, b.addr}, c.option)
			p := l.client()
			p.send(get("/", "Connection: close"))
			o := a.accept()
			o.head()
			o.send(c.answer)
			o.close()
			if h := p.head(); !strings.HasPrefix(h, "HTTP/1.1 503 No\r\n") {
				t.Errorf("%q", h)
			}
			if n := l.sum(1, func(s *upstream.Stats) uint64 { return s.Picks.Load() }); n != 0 {
				t.Error("the other backend was asked, too")
			}
			p.close()
		})
	}
}

// A request that waits for a pool which a reload takes away goes where the new routes say.
func TestWaitingAcrossAReload(t *testing.T) {
	gone, stays := newOrigin(t, nil), newOrigin(t, nil)
	l := newLab(t, []string{gone.addr}, hold(time.Minute, time.Minute))
	l.pool.SetDead(l.pool.Snapshot().All[0], time.Now().Add(time.Hour))
	p := l.client()
	p.send(get("/"))
	l.waiting(1)
	other := newLab(t, []string{stays.addr})
	set := *l.proxy.Settings()
	set.Table = other.proxy.Settings().Table
	l.proxy.Update(&set)
	b := stays.accept()
	b.head()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	p.status(200)
	l.waiting(0)
	other.idle(0) // it is closed before the proxy that has the connection
}

// oneEach is a strategy that gives each backend one request, of whatever kind, and lets others wait.
type oneEach struct{ ready []*upstream.Backend }

func (o oneEach) Pick(s *upstream.Selection) *upstream.Backend {
	for _, b := range o.ready {
		if !s.Has(b.Live) && b.Inflight() == 0 {
			return b
		}
	}
	return nil
}

func (o oneEach) Room(_, _ int64, s *upstream.Selection) (n int64, limited bool) {
	for _, b := range o.ready {
		if (s == nil || !s.Has(b.Live)) && b.Inflight() == 0 {
			n++
		}
	}
	return n, true
}

// TestHeldForLong: a request that the strategy holds back waits for longer than queue_timeout, as it would with the backend;
// but not in a queue that does not end. Who is left when that is short again is served.
func TestHeldForLong(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, hold(50*time.Millisecond, time.Minute), single)
	l.pool.Update(specs(t, []string{o.addr}), nil, func(r []*upstream.Backend) upstream.Strategy { return oneEach{r} })
	first := l.client()
	first.send(get("/"))
	b := o.accept()
	b.head()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	first.status(200)
	l.idle(1) // now it is known that such a request takes a place
	first.send(get("/"))
	b.head()
	var ps []*peer
	for i := range 3 {
		p := l.client()
		p.send(get("/"))
		l.waiting(int64(i + 1))
		ps = append(ps, p)
	}
	l.waiting(1)
	l.answered(Overloaded, 2)
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	first.status(200)
	b.head()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	served := 0
	for _, p := range ps {
		if head := p.head(); strings.HasPrefix(head, "HTTP/1.1 200 ") {
			served++
		}
	}
	if served != 1 {
		t.Errorf("%d of those that waited were served", served)
	}
}

// A request that was sent as often as it may be, since the process that got it was ending each time, still waits for the
// next one when nobody listens: nothing of it was sent then.
func TestHoldAfterRetries(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, hold(time.Minute, time.Minute), single)
	p := l.client()
	p.send(get("/"))
	for i := range l.pool.Snapshot().Settings.Retries {
		b := o.accept()
		b.head()
		if i == 1 {
			o.ln.Close()
		}
		b.reset()
	}
	refused := func() uint64 { return l.sum(0, func(s *upstream.Stats) uint64 { return s.ConnErrors.Load() }) }
	eventually(t, "it is refused more than once", func() bool { return refused() >= 3 || l.ln.Stats().Answers[ConnectFailed] > 0 })
	ln, err := net.Listen("tcp", o.addr)
	if err != nil {
		t.Skip("somebody else took the port:", err)
	}
	next := serveOrigin(t, ln, o.addr, nil)
	b := next.accept()
	b.head()
	b.send(ok("well"))
	if got := p.status(200); got != "well" {
		t.Errorf("%q", got)
	}
}
