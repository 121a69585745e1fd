package proxy

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lb/upstream"
)

// Row 15: backends that all fail are not sent everything three times. Attempts stay within the budget, each client
// gets its answer, and what the budget refused is counted.
func TestRetryStorm(t *testing.T) {
	var backends []string
	var origins []*origin
	for range 4 {
		o := newOrigin(t, func(p *peer) {
			p.head()
			time.Sleep(10 * time.Millisecond) // it fails at work
			p.reset()
		})
		origins, backends = append(origins, o), append(backends, o.addr)
	}
	l := newLab(t, backends, func(p *plan) { p.pool.RetryShare = .2 })
	const clients, each = 20, 25
	var all sync.WaitGroup
	var failed atomic.Int64
	for range clients {
		p := l.client()
		all.Go(func() {
			for i := range each {
				if p.trySend(get(fmt.Sprintf("/%d", i))) != nil {
					return
				}
				if head, body, err := tryAnswer(p); err == nil && strings.HasPrefix(head, "HTTP/1.1 502 ") && body == "502 Bad Gateway\n" {
					failed.Add(1)
				}
			}
		})
	}
	all.Wait()
	const n = clients * each
	if failed.Load() != n {
		t.Errorf("%d clients of %d got an answer", failed.Load(), n)
	}
	attempts := int64(0)
	for _, o := range origins {
		attempts += o.count.Load()
	}
	if most := int64(1.2*n) + 3; attempts > most || attempts < n+3 {
		t.Errorf("%d attempts for %d requests, want %d at most", attempts, n, most)
	}
	retries := uint64(0)
	for i := range origins {
		retries += l.sum(i, func(s *upstream.Stats) uint64 { return s.Retries.Load() })
	}
	if int64(retries) != attempts-n {
		t.Errorf("%d retries counted, %d attempts were made for %d requests", retries, attempts, n)
	}
	if l.pool.RetriesRefused() == 0 {
		t.Error("the budget refused nothing")
	}
	l.answered(BackendClosed, n)
}

// Row 17: under least_conn, a backend that takes ten times as long gets at most a fifth of its share, and the requests
// that others serve do not wait for it.
func TestSlowBackend(t *testing.T) {
	const clients, each = 16, 40
	release := make(chan struct{})
	var waiting atomic.Int64
	slow := newOrigin(t, func(p *peer) {
		for {
			if _, err := p.br.Peek(1); err != nil {
				return
			}
			p.head()
			waiting.Add(1)
			<-release
			p.trySend(ok("slow"))
		}
	})
	fast := patient(echo)
	l := newLab(t, []string{slow.addr, newOrigin(t, fast).addr, newOrigin(t, fast).addr, newOrigin(t, fast).addr}, func(p *plan) { p.strategy = "least_conn" })
	var all sync.WaitGroup
	var ended atomic.Int64
	for range clients {
		p := l.client()
		all.Go(func() {
			for i := range each {
				p.trySend(get(fmt.Sprintf("/%d", i), "Connection: keep-alive"))
				head, _, err := tryAnswer(p)
				if err != nil || !strings.HasPrefix(head, "HTTP/1.1 200 ") {
					t.Errorf("%q %v", head, err)
					return
				}
				ended.Add(1)
			}
		})
	}
	// While the slow one holds what it got, all other requests are served: nobody waits for it but its own.
	eventually(t, "all are served that are not with the slow one", func() bool {
		return ended.Load()+waiting.Load()*each >= clients*each && waiting.Load() < clients
	})
	got := l.sum(0, func(s *upstream.Stats) uint64 { return s.Picks.Load() })
	close(release)
	all.Wait()
	if fair := uint64(clients * each / 4); got > fair/5 {
		t.Errorf("the slow one got %d of %d requests while it was slow, a fair share is %d", got, clients*each, fair)
	}
	for i := range 4 {
		for f := range upstream.Fault(upstream.Faults) {
			if f != upstream.FaultNone && l.faults(i, f) > 0 {
				t.Errorf("backend %d: fault %v", i, f)
			}
		}
	}
}

// tryAnswer is peer.answer for goroutines other than the test's.
func tryAnswer(p *peer) (head, body string, err error) {
	var b strings.Builder
	for !strings.HasSuffix(b.String(), "\r\n\r\n") {
		c, err := p.br.ReadByte()
		if err != nil {
			return b.String(), "", err
		}
		b.WriteByte(c)
	}
	head = b.String()
	n := 0
	fmt.Sscan(field(head, "Content-Length"), &n)
	rest := make([]byte, n)
	for i := range rest {
		if rest[i], err = p.br.ReadByte(); err != nil {
			return head, string(rest[:i]), err
		}
	}
	return head, string(rest), nil
}
