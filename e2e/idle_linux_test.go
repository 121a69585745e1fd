package e2e

import (
	"net"
	"sync"
	"testing"
)

// Thousands of clients that have had an answer and stay connected cost lb a few KiB each, and others do not notice them.
// (Row 30.)
func TestIdleClients(t *testing.T) {
	const n, each = 4000, 20 << 10 // bytes of memory
	apps := startApps(t, 2, "express.mjs")
	l := startLB(t, setup{backends: apps, log: `path = "/dev/null"`})
	allOK(t, flood(l.addr, 16, 2000, func(c *conn, i int) sample { return work(c, i) })) // until lb has its size
	before := l.memory("VmRSS")
	var mu sync.Mutex
	var idle []net.Conn
	t.Cleanup(func() {
		for _, c := range idle {
			c.Close()
		}
	})
	all := flood(l.addr, 32, n, func(c *conn, i int) sample {
		s := work(c, i)
		mu.Lock()
		defer mu.Unlock()
		idle = append(idle, c.Conn)
		c.Conn = nil // the next one brings another
		return s
	})
	allOK(t, all)
	l.reaches(n, "lb_listener_connections")
	after := l.memory("VmRSS")
	t.Logf("%d idle clients: %.1f MiB, %.1f before, %.1f KiB each", n, after, before, (after-before)*1024/n)
	if after-before > n*each/(1<<20) {
		t.Errorf("lb grew from %.1f to %.1f MiB for %d idle clients", before, after, n)
	}
	if got := l.metrics()["go_goroutines"]; got > 200 {
		t.Errorf("%v goroutines", got)
	}
	allOK(t, flood(l.addr, 16, 2000, func(c *conn, i int) sample { return work(c, i) }))
	for _, c := range idle {
		c.Close()
	}
	idle = nil
	l.reaches(0, "lb_listener_connections")
	l.stop(0)
}
