package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// reload changes lb's configuration to s and waits until lb says done, for the n-th time.
func (l *lb) reload(s setup, done string, n int) {
	l.t.Helper()
	s.write(l.t, l.config, l.logPath)
	l.signal(syscall.SIGHUP)
	eventually(l.t, done, func() bool {
		k := 0
		for _, line := range l.stderr() {
			if strings.Contains(line, done) {
				k++
			}
		}
		return k == n
	})
}

// Twenty reloads under load lose no request, refuse no connection, and keep the counters of who stays. (Row 37.)
func TestReloadUnderLoad(t *testing.T) {
	apps := startApps(t, 4, "express.mjs")
	l := startLB(t, setup{backends: apps})
	traffic := startLoad(t, l.addr, 16, 500, func(c *conn, n int64) sample {
		s := work(c, int(n))
		if n%5 == 0 {
			c.close() // and comes again on a new connection
		}
		return s
	})
	kept := startWaiters(t, l, apps, 8, "/gate/g") // on instances that leave, too
	last := 0.0
	for i := range 20 {
		s := setup{backends: apps[i%3:]}
		if i%2 == 1 {
			s.pool = `strategy = "round_robin"`
			s.server = `max_body = "1MB"`
		}
		l.reload(s, "msg=reloaded", i+1)
		at := traffic.count()
		traffic.goesOn(t, 60)
		for _, a := range traffic.since(at + 16) {
			if a.instance != "" && a.instance[0] < byte('a'+i%3) {
				t.Errorf("%s was answered by %s, which had left", a.path, a.instance)
			}
		}
		if got := l.metrics().sum("lb_backend_requests_total", "backend=d"); got < last {
			t.Errorf("the count of one who stays fell from %v to %v", last, got)
		} else {
			last = got
		}
	}
	l.reload(setup{backends: apps}, "msg=reloaded", 21)
	for _, a := range apps {
		a.order("open", "g")
	}
	for _, a := range kept.end() {
		if !a.ok() {
			t.Errorf("a request under way across the reloads: %s", a.String())
		}
	}
	all := traffic.end()
	allOK(t, all)
	m := l.settled()
	if got := m.sum("lb_backend_faults_total"); got != 0 {
		t.Errorf("lb counts %v faults", got)
	}
	if got := m.sum("lb_listener_requests_total"); got != float64(len(all)+8) {
		t.Errorf("lb counts %v requests, clients %d", got, len(all)+8)
	}
	l.stop(0)
}

// A broken file changes nothing, and lb says what is wrong with it. (Row 38.)
func TestReloadBroken(t *testing.T) {
	apps := startApps(t, 2, "express.mjs")
	l := startLB(t, setup{backends: apps[:1]})
	traffic := startLoad(t, l.addr, 4, 100, nil)
	traffic.goesOn(t, 20)
	l.reload(setup{backends: apps[:1], pool: `strateggy = "x"`}, "not reloaded, all goes on as before", 1)
	l.event(`level=ERROR msg="not reloaded.*config.toml:\d+:1: pool.app.strateggy: unknown key`)
	if code, out, _ := run(t, lbBinary, "check", l.config); code != 1 || !strings.Contains(out, "strateggy") {
		t.Errorf("check ended with %d: %s", code, out)
	}
	l.reload(setup{backends: apps[:1], more: "[listen.more]\naddress = \"127.0.0.1:0\""}, "not reloaded, all goes on as before", 2)
	l.event(`level=ERROR msg="not reloaded.*restart needed`)
	if err := os.Remove(l.config); err != nil {
		t.Fatal(err)
	}
	l.signal(syscall.SIGHUP)
	l.event(`level=ERROR msg="not reloaded.*no such file`)
	l.reload(setup{backends: apps[1:]}, "msg=reloaded", 1) // and a good one works
	at := traffic.count()
	eventually(t, "the other instance answers", func() bool {
		now := traffic.since(at)
		return len(now) > 0 && now[len(now)-1].instance == "b"
	})
	all := traffic.end()
	allOK(t, all)
	l.stop(0)
}
