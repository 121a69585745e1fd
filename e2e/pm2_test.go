package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// pm2 is a PM2 of its own, whose daemon does not outlive the test.
type pm2 struct {
	t    testing.TB
	home string
}

func startPM2(t testing.TB) *pm2 {
	t.Helper()
	p := &pm2{t: t, home: t.TempDir()}
	t.Cleanup(func() {
		if out, err := p.command("kill").CombinedOutput(); err != nil {
			t.Errorf("pm2 kill: %v\n%s", err, out)
		}
	})
	return p
}

func (p *pm2) command(args ...string) *exec.Cmd {
	cmd := exec.Command("node_modules/.bin/pm2", args...)
	cmd.Dir = "apps"
	cmd.Env = append(os.Environ(), "PM2_HOME="+p.home, "PM2_DISCRETE_MODE=true")
	return cmd
}

func (p *pm2) run(args ...string) string {
	p.t.Helper()
	out, err := p.command(args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("pm2 %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// start has PM2 run an instance of a script in fork mode.
func (p *pm2) start(name, script, port string) {
	p.t.Helper()
	file := filepath.Join(p.home, name+".config.cjs")
	dir, err := filepath.Abs("apps")
	if err != nil {
		p.t.Fatal(err)
	}
	text := fmt.Sprintf("module.exports = { apps: [{ name: %q, script: %q, cwd: %q, env: { PORT: %q, NAME: %q } }] }\n", name, script, dir, port, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.run("start", file)
}

// pm2 restart of an app that is a single instance, under 500 requests a second: not one fails.
func TestPM2Restart(t *testing.T) {
	p := startPM2(t)
	port := freePorts(t, 1)[0]
	p.start("app", "express.mjs", port)
	eventually(t, "the app listens", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	l := startLB(t, setup{backends: []*app{{process: &process{name: "app"}, port: port}}, pool: "hold = \"30s\""})
	traffic := startLoad(t, l.addr, 32, 500, func(c *conn, n int64) sample {
		if n%5 == 0 {
			c.close() // and comes again on a new connection
		}
		if n%7 == 0 {
			return sample{"/sum", c.do("POST", "/sum", "some body", fmt.Sprint("Idempotency-Key: ", n))}
		}
		return work(c, int(n))
	})
	for i := range 3 {
		traffic.goesOn(t, 250)
		out := p.run("restart", "app")
		if !strings.Contains(out, "✓") {
			t.Errorf("restart %d: %s", i, out)
		}
	}
	traffic.goesOn(t, 250)
	all := traffic.end()
	allOK(t, all)
	m := l.settled()
	t.Logf("%d requests over 3 restarts; %v waited", len(all), m.sum("lb_pool_waits_total"))
	if got := m.sum("lb_listener_requests_total"); got != float64(len(all)) {
		t.Errorf("lb counts %v requests, clients %d", got, len(all))
	}
	if got := m.sum("lb_listener_failed_requests_total"); got != 0 {
		t.Errorf("lb counts %v requests that failed", got)
	}
	l.stop(0)
}

// Four workers that end one second after their first request, and are started again at once: at 100 requests a second, not
// one fails, although all of them are away at a time now and then.
func TestWorkersThatExit(t *testing.T) {
	t.Parallel() // it is about time, not load
	var apps []*app
	for i, port := range freePorts(t, 4) {
		a := startProgram(t, "exits.mjs", string(rune('a'+i)))
		a.kill()
		a.port = port
		apps = append(apps, a)
	}
	l := startLB(t, setup{backends: apps, pool: "hold = \"30s\""})
	stop := make(chan struct{})
	var supervisor sync.WaitGroup
	var ends atomic.Int64
	for _, a := range apps {
		supervisor.Go(func() {
			for {
				a.launch(t, a.name)
				select {
				case <-stop:
					return
				case <-a.done:
					ends.Add(1)
				}
			}
		})
	}
	traffic := startLoad(t, l.addr, 16, 100, nil)
	eventually(t, "workers have ended and come back often", func() bool { return ends.Load() >= 20 })
	all := traffic.end()
	close(stop)
	supervisor.Wait()
	allOK(t, all)
	m := l.settled()
	t.Logf("%d requests, %d workers ended; %v requests waited, %v were tried again", len(all), ends.Load(), m.sum("lb_pool_waits_total"), m.sum("lb_backend_retries_total"))
	if got := m.sum("lb_listener_failed_requests_total"); got != 0 || m.sum("lb_listener_requests_total") != float64(len(all)) {
		t.Errorf("lb counts %v requests, %v of them failed; clients saw %d", m.sum("lb_listener_requests_total"), got, len(all))
	}
	if len(shares(all)) != 4 {
		t.Errorf("answers came from %v", shares(all))
	}
	l.stop(0)
	holdsAgainst(t, readLog(t, l.logPath), all)
}
