package e2e

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// waiters sends n requests, each on its own connection, that wait at a gate of the apps.
type waiters struct {
	all     sync.WaitGroup
	mu      sync.Mutex
	answers []answer
}

func startWaiters(t *testing.T, l *lb, apps []*app, n int, path string) *waiters {
	t.Helper()
	count := func() (sum int) {
		for _, a := range apps {
			k, _ := a.said("waiting")
			sum += k
		}
		return sum
	}
	w, want := &waiters{}, count()+n
	for range n {
		w.all.Go(func() {
			c := &conn{addr: l.addr}
			defer c.close()
			a := c.do("GET", path, "")
			w.mu.Lock()
			defer w.mu.Unlock()
			w.answers = append(w.answers, a)
		})
	}
	eventually(t, "requests wait in the apps", func() bool { return count() == want })
	return w
}

func (w *waiters) end() []answer {
	w.all.Wait()
	return w.answers
}

// A SIGTERM under load costs no request: lb says at once that it is not ready, takes no new connection, tells kept ones
// to close with their next answer, waits for what is slow, and ends with 0. (Row 35.)
func TestStopUnderLoad(t *testing.T) {
	apps := startApps(t, 2, "express.mjs")
	l := startLB(t, setup{backends: apps})
	var stopping atomic.Bool
	traffic := startLoad(t, l.addr, 16, 200, func(c *conn, n int64) sample {
		path := fmt.Sprintf("/work/%d", n)
		if stopping.Load() && c.Conn == nil {
			return sample{path: "none"} // this client was told to go elsewhere
		}
		return sample{path, c.do("GET", path, "")}
	})
	traffic.goesOn(t, 100)
	whole := startWaiters(t, l, apps, 8, "/gate/g")
	half := startWaiters(t, l, apps, 8, "/half/h")
	if status, _ := l.get("/-/ready"); status != 200 {
		t.Errorf("ready: %d", status)
	}

	stopping.Store(true)
	l.signal(syscall.SIGTERM)
	eventually(t, "lb is no longer ready", func() bool {
		status, _ := l.get("/-/ready")
		return status == 503
	})
	if status, _ := l.get("/-/healthy"); status != 200 {
		t.Errorf("while it stops, lb is healthy: %d", status)
	}
	eventually(t, "new connections are refused", func() bool {
		c, err := net.Dial("tcp", l.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	l.reaches(16, "lb_listener_connections") // the slow ones; the others have closed, as told
	for _, a := range apps {
		a.order("open", "g")
	}
	for _, a := range whole.end() {
		if !a.ok() || a.body != "passed g" || !a.closes {
			t.Errorf("a request that was slow: %s, closes %t", a.String(), a.closes)
		}
	}
	for _, a := range apps {
		a.order("open", "h")
	}
	for _, a := range half.end() {
		if !a.ok() || a.body != "first half, second half" {
			t.Errorf("an answer that was slow: %s", a.String())
		}
	}
	if code := l.wait(); code != 0 {
		t.Errorf("lb ended with %d", code)
	}
	var all []sample
	for _, s := range traffic.end() {
		if s.path != "none" {
			all = append(all, s)
		}
	}
	allOK(t, all)
	if got := len(readLog(t, l.logPath)); got != len(all)+16 {
		t.Errorf("the log has %d lines for %d requests", got, len(all)+16)
	}
}

// The second signal cuts, and so does the end of the grace; exit codes tell. (Row 36.)
func TestStopCuts(t *testing.T) {
	for _, c := range []struct {
		name, server string
		again        bool
		code         int
		event        string
	}{
		{"second signal", `grace = "10m"`, true, 1, `msg="second signal`},
		{"grace over", `grace = "300ms"`, false, 5, `msg="the grace was over`},
	} {
		t.Run(c.name, func(t *testing.T) {
			apps := startApps(t, 1, "express.mjs")
			l := startLB(t, setup{backends: apps, server: c.server})
			whole := startWaiters(t, l, apps, 4, "/gate/never")
			half := startWaiters(t, l, apps, 4, "/half/never")
			l.signal(syscall.SIGTERM)
			l.event(`msg=stopping .*requests=8`)
			if c.again {
				l.signal(syscall.SIGINT)
			}
			if code := l.wait(); code != c.code {
				t.Errorf("lb ended with %d, want %d", code, c.code)
			}
			l.sawEvent(c.event)
			for _, a := range whole.end() {
				if a.err != nil && a.begun || a.err == nil && a.status != 503 {
					t.Errorf("a request without an answer yet: %s", a.String())
				}
			}
			for _, a := range half.end() {
				if a.err == nil || a.body != "first half, " {
					t.Errorf("a client was not told that its answer was cut: %s", a.String())
				}
			}
			stopped := 0
			for _, r := range readLog(t, l.logPath) {
				if r.Reason == "stopped" {
					stopped++
				}
			}
			if stopped != 8 {
				t.Errorf("the log has %d requests that were stopped, want 8", stopped)
			}
		})
	}
}
