package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"testing"
)

// Out of file descriptors, lb stops accepting for a moment and serves whom it has; when clients leave, everybody is
// served again. It never ends, and never leaves a client without an answer. (Row 31.)
func TestOutOfDescriptors(t *testing.T) {
	const limit = 80
	apps := startApps(t, 1, "express.mjs")
	l := startLBWith(t, setup{backends: apps}, func(args ...string) *exec.Cmd {
		return exec.Command("sh", append([]string{"-c", fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, limit), lbBinary}, args...)...)
	})
	if got := l.metrics().sum("process_max_fds"); got != limit { // and the connection to the admin server is made
		t.Fatalf("lb may have %v descriptors", got)
	}
	traffic := startLoad(t, l.addr, 4, 100, nil)
	traffic.goesOn(t, 50)

	for range 3 {
		// Twice as many clients as there is room for. The kernel makes connections that lb has not accepted.
		var idle []net.Conn
		for range 2 * limit {
			c, err := net.Dial("tcp", l.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			idle = append(idle, c)
		}
		paused := l.metrics().sum("lb_listener_pauses_total")
		eventually(t, "lb pauses accepting", func() bool { return l.metrics().sum("lb_listener_pauses_total") > paused })
		from := traffic.count()
		traffic.goesOn(t, 100)
		failed := 0
		for _, s := range traffic.since(from) {
			switch {
			case s.ok():
			case s.err == nil && s.status == 503: // no descriptor for a connection to the app
				failed++
			default:
				t.Errorf("%s: %s", s.path, s.String())
			}
		}
		if failed > 50 {
			t.Errorf("clients that lb had were refused %d of 100 times: it had connections to the app", failed)
		}
		for _, c := range idle {
			c.Close()
		}
		c := &conn{addr: l.addr}
		if a := c.do("GET", "/work/fresh", ""); !a.ok() { // waits in the kernel's queue until lb has come to it
			t.Errorf("a new client after the others had left: %s", a.String())
		}
		c.close()
		l.reaches(4, "lb_listener_connections")
		from = traffic.count()
		traffic.goesOn(t, 100)
		allOK(t, traffic.since(from+4))
	}
	all := traffic.end()
	l.settled()
	l.stop(0)
	if got := len(readLog(t, l.logPath)); got != len(all)+3 {
		t.Errorf("the log has %d lines for %d requests", got, len(all)+3)
	}
}
