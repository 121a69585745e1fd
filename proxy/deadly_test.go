package proxy

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A request that ends whatever process works on it does not end all of them: with two retries, three at most, although
// each time a connection that had served before was closed, which alone is nobody's fault.
func TestDeadlyRequest(t *testing.T) {
	const n = 6
	var addrs []string
	died := make(chan string, n)
	for range n {
		var o *origin
		ready := make(chan struct{})
		o = newOrigin(t, func(p *peer) {
			<-ready
			for {
				if _, err := p.br.Peek(1); err != nil {
					return
				}
				head := p.head()
				if strings.HasPrefix(head, "GET /crash ") {
					o.ln.Close()
					died <- o.addr
					return
				}
				p.trySend(ok("x"))
			}
		})
		close(ready)
		addrs = append(addrs, o.addr)
	}
	l := newLab(t, addrs, single)
	p := l.client()
	for range n { // so that a kept connection leads to each
		p.send(get("/"))
		p.status(200)
	}
	l.idle(n)
	p.send(get("/crash"))
	p.status(502)
	if got, most := len(died), 1+l.pool.Snapshot().Settings.Retries; got != most {
		t.Errorf("%d of %d ended, want %d", got, n, most)
	}
	if got := l.ln.Stats().Answers[BackendClosed]; got != 1 {
		t.Errorf("%d answers for %s", got, BackendClosed)
	}
	for range n {
		p.send(get("/"))
		p.status(200)
	}
}

// Instances that end together do not fail a request that may be repeated: those that it meets in that moment, it does not end.
func TestEndTogether(t *testing.T) {
	const n, together = 4, 50 * time.Millisecond
	var wave sync.Once
	var over time.Time
	var met atomic.Int64
	var addrs []string
	for range n {
		addrs = append(addrs, newOrigin(t, func(p *peer) {
			p.head()
			wave.Do(func() { over = time.Now().Add(together) })
			if time.Now().Before(over) {
				met.Add(1)
				return
			}
			p.trySend(ok("still there"))
		}).addr)
	}
	l := newLab(t, addrs, single)
	p := l.client()
	p.send(get("/"))
	if got := p.status(200); got != "still there" {
		t.Errorf("%q", got)
	}
	if got := met.Load(); got > 2 {
		t.Errorf("%d met their end", got)
	}
}
