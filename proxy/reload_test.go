package proxy

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lb/upstream"
)

// Row 37: backends come and go under load, and no request fails, whatever its method.
func TestReloadUnderLoad(t *testing.T) {
	var addrs []string
	for range 4 {
		addrs = append(addrs, newOrigin(t, echo).addr)
	}
	l := newLab(t, addrs[:2])
	const clients = 8
	var stop atomic.Bool
	bad := make(chan string, clients)
	for i := range clients {
		p := l.client()
		p.fatal = func(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
		go func() {
			defer func() {
				if v := recover(); v != nil {
					bad <- fmt.Sprint(v)
				}
			}()
			for n := 0; !stop.Load(); n++ {
				method := []string{"GET", "POST"}[n%2]
				body := strings.Repeat("b", n%2*(n%50)*100)
				p.send(request(method, fmt.Sprintf("/%d/%d", i, n), body))
				if got, want := p.status(200), fmt.Sprintf("%s /%d/%d %s", method, i, n, body); got != want {
					bad <- fmt.Sprintf("got %.100q, want %.100q", got, want)
					return
				}
			}
			bad <- ""
		}()
	}
	var left []*upstream.Backend
	for i := range 40 {
		gone := l.pool.Update(specs(t, []string{addrs[i%4], addrs[(i+1)%4]}), nil, nil)
		left = append(left, gone...)
		l.proxy.Forget(gone)
		set := *l.proxy.Settings()
		set.MaxHeaderBytes = 8000 + i*1000
		l.proxy.Update(&set)
		time.Sleep(5 * time.Millisecond) // of traffic under each configuration
	}
	stop.Store(true)
	for range clients {
		if s := <-bad; s != "" {
			t.Error(s)
		}
	}
	eventually(t, "those that left have nothing any more", func() bool {
		for _, b := range left {
			if open, idle := conns(b); open != 0 || idle != 0 || b.Inflight() != 0 {
				return false
			}
		}
		return true
	})
}

// A raised limit holds for requests of connections that are busy, too.
func TestRaisedHeaderLimit(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single)
	p := l.client()
	second := get("/2", "A: "+strings.Repeat("x", 40_000))
	p.send(get("/1"))
	b := o.accept()
	b.head()
	p.send(second[:100]) // comes while the first is served
	set := *l.proxy.Settings()
	set.MaxHeaderBytes = 64 << 10
	l.proxy.Update(&set)
	b.send(ok("1"))
	p.status(200)
	p.send(second[100:])
	if h := b.head(); len(h) < 40_000 {
		t.Fatalf("%d bytes", len(h))
	}
	b.send(ok("2"))
	p.status(200)
	lowered := set
	lowered.MaxHeaderBytes = 1000
	l.proxy.Update(&lowered)
	p.send(second)
	p.status(431)
	p.rest()
}

// What was sent together with a handshake, and with its answer, may be more than any buffer holds.
func TestTunnelWithMuchAhead(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single)
	ahead := strings.Repeat("0123456789", 50_000)
	p := l.client()
	go p.trySend(handshake + ahead)
	b := o.accept()
	b.head()
	go b.trySend(switched + ahead)
	p.expect(switched)
	if got := p.take(len(ahead)); got != ahead {
		t.Error("not what was sent back")
	}
	if got := b.take(len(ahead)); got != ahead {
		t.Error("not what was sent")
	}
	p.close()
	b.close()
	l.tunnels(0)
}

// The backend's word about how long it keeps connections goes before the pool's, within reason.
func TestKeepAliveHint(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single, func(p *plan) { p.pool.IdleTimeout = 50 * time.Millisecond })
	p := l.client()
	p.send(get("/"))
	b := o.accept()
	b.head()
	b.send(ok("", "Keep-Alive: timeout=30"))
	p.status(200)
	time.Sleep(200 * time.Millisecond) // the pool's timeout has passed, and nothing is to happen
	l.idle(1)
	p.send(get("/"))
	b.head()
	b.send(ok(""))
	p.status(200)
	l.idle(0)
}
