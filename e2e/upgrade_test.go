package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// lineage is an lb and those that took over from it, one after the other. Their events are in one stream.
type lineage struct {
	*lb
	binary string // a copy of lb, which a test may replace
}

func startLineage(t *testing.T, s setup) *lineage {
	t.Helper()
	n := &lineage{binary: filepath.Join(t.TempDir(), "lb")}
	n.install(t, lbBinary)
	n.lb = startLBWith(t, s, func(args ...string) *exec.Cmd { return exec.Command(n.binary, args...) })
	n.dieWithTest()
	return n
}

// dieWithTest ends all that are left when the test ends: before the cleanup of process, which waits for the end of its output.
func (n *lineage) dieWithTest() {
	n.t.Cleanup(func() {
		for _, pid := range n.pids() {
			syscall.Kill(pid, syscall.SIGKILL)
			syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	})
}

// install replaces the binary as a package does.
func (n *lineage) install(t *testing.T, from string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(n.binary+".new", data, 0o755)
	}
	if err == nil {
		err = os.Rename(n.binary+".new", n.binary)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// script puts a shell script in the place of the binary.
func (n *lineage) script(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(n.binary+".sh", []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	n.install(t, n.binary+".sh")
	if err := os.Chmod(n.binary, 0o755); err != nil {
		t.Fatal(err)
	}
}

var readyPID = regexp.MustCompile(`msg=ready .*pid=(\d+)`)

// pids are the processes that ever were ready, the last one in charge unless it failed.
func (n *lineage) pids() (all []int) {
	for _, line := range n.stderr() {
		if m := readyPID.FindStringSubmatch(line); m != nil {
			pid, _ := strconv.Atoi(m[1])
			all = append(all, pid)
		}
	}
	return all
}

// upgrade runs lb upgrade.
func (n *lineage) upgrade(args ...string) (code int, stdout, stderr string) {
	n.t.Helper()
	return run(n.t, lbBinary, append([]string{"upgrade", n.config}, args...)...)
}

// kill0 reports whether a process is there and runs.
func kill0(pid int) bool {
	var status syscall.WaitStatus
	syscall.Wait4(pid, &status, syscall.WNOHANG, nil) // our children, since lb has them be its parent's
	return syscall.Kill(pid, 0) == nil
}

// end stops whoever is in charge, and waits until all have ended.
func (n *lineage) end() {
	n.t.Helper()
	for _, pid := range n.leave() {
		eventually(n.t, fmt.Sprint("process ", pid, " ends"), func() bool { return !kill0(pid) })
	}
	n.neverSaid("level=ERROR")
}

// stopAll is end that holds each to its exit code: nothing was cut. What was refused may be among their events.
func (n *lineage) stopAll() {
	n.t.Helper()
	for _, pid := range n.leave()[1:] {
		var status syscall.WaitStatus
		eventually(n.t, fmt.Sprint("process ", pid, " ends"), func() bool {
			got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
			return got == pid || err == syscall.ECHILD
		})
		if !status.Exited() || status.ExitStatus() != 0 {
			n.t.Errorf("process %d ended with %v %d", pid, status.Signal(), status.ExitStatus())
		}
	}
	if code := n.wait(); code != 0 { // who started it waits for it, and for the end of the output that all have
		n.t.Errorf("the first lb ended with %d", code)
	}
	n.neverSaid()
}

// leave tells whoever is in charge to stop, and returns all.
func (n *lineage) leave() []int {
	n.t.Helper()
	all := n.pids()
	if err := syscall.Kill(all[len(all)-1], syscall.SIGTERM); err != nil {
		n.t.Errorf("the last lb: %v", err)
	}
	return all
}

// rounds is how many upgrades a test does: LB_UPGRADES, else few.
func rounds(t *testing.T, few int) int {
	n, err := strconv.Atoi(os.Getenv("LB_UPGRADES"))
	if err != nil {
		return few
	}
	t.Logf("%d upgrades", n)
	return n
}

// Upgrades under load, one after the other: nobody is refused and nothing fails, whether a connection is kept, made for each
// request, or used seldom; bodies, event streams and WebSockets are among it.
func TestUpgradeUnderLoad(t *testing.T) {
	apps := startApps(t, 3, "chaos.mjs")
	n := startLineage(t, setup{backends: apps, server: `grace = "20s"`})
	all := rounds(t, 5)
	m := startMixed(t, n.addr, 300, 1, false)

	// Connections that are at rest when the processes change, and one for each request.
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var asked, made atomic.Int64
	failed := make(chan string, 1000)
	client := func(pause time.Duration, keep bool) {
		clients.Go(func() {
			c := &conn{addr: n.addr}
			defer c.close()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(pause):
				}
				method, path, body := "GET", fmt.Sprint("/work/", i), ""
				if i%2 == 1 {
					method, path, body = "POST", fmt.Sprint("/sum/", i), "a body that may not be sent twice"
				}
				a := c.do(method, path, body)
				asked.Add(1)
				if !a.ok() {
					select {
					case failed <- fmt.Sprintf("%s after %v: %s", method, pause, a.String()):
					default:
					}
				}
				if !keep {
					c.close()
				}
			}
		})
	}
	for i := range 20 {
		client(time.Duration(500+i*100)*time.Millisecond, true)
	}
	for range 4 {
		client(5*time.Millisecond, false)
	}
	eventually(t, "the load has begun", func() bool { return asked.Load() > 100 && m.sent.Load() > 100 })
	for i := range all {
		was := n.pids()
		if code, out, err := n.upgrade("--watch", "100ms"); code != 0 || !strings.Contains(out, "is in charge") {
			t.Fatalf("upgrade %d: %d %s%s", i, code, out, err)
		}
		made.Add(1)
		eventually(t, "one more process is ready", func() bool { return len(n.pids()) == len(was)+1 })
		before := asked.Load()
		eventually(t, "the load goes on", func() bool { return asked.Load() > before+50 })
	}
	if got := n.metrics().sum("lb_upgrades_total", "result=success"); got != float64(all) {
		t.Errorf("lb counts %v upgrades, want %d", got, all)
	}
	close(stop)
	clients.Wait()
	m.over()
	close(failed)
	lost := 0
	for why := range failed {
		if lost++; lost <= 5 {
			t.Error(why)
		}
	}
	moved := 0
	for _, s := range m.shots {
		if !s.ok() {
			if lost++; lost <= 10 {
				t.Error(s.String())
			}
		}
	}
	for _, k := range m.talks {
		if k.code == websocket.StatusServiceRestart {
			moved++
			continue
		}
		if lost++; lost <= 10 {
			t.Errorf("WebSocket %s: %d, %v", k.id, k.code, k.err)
		}
	}
	t.Logf("%d upgrades, %d requests and %d WebSockets: %d lost, %d WebSockets told to connect again",
		made.Load(), asked.Load()+m.sent.Load(), m.talked.Load(), lost, moved)
	n.end()
}

// whoAnswers says which process the admin address belongs to, by when it started.
func (n *lineage) started() string {
	return strconv.FormatFloat(n.metrics().sum("process_start_time_seconds"), 'f', 3, 64)
}

// Whatever is wrong with the new lb, the old one goes on, says why, and can be upgraded later.
func TestUpgradeFails(t *testing.T) {
	apps := startApps(t, 2, "express.mjs")
	n := startLineage(t, setup{backends: apps})
	good, err := os.ReadFile(n.config)
	if err != nil {
		t.Fatal(err)
	}
	traffic := startLoad(t, n.addr, 8, 200, func(c *conn, i int64) sample {
		s := work(c, int(i))
		if i%3 == 0 {
			c.close()
		}
		return s
	})
	started := n.started()
	first := n.pids()[0]
	// last is the process that was started last and told to be watched for long.
	last := func() int {
		t.Helper()
		eventually(t, "the new lb is ready", func() bool { return len(n.pids()) > 1 })
		all := n.pids()
		return all[len(all)-1]
	}
	during := func(f func()) (code int, out, errs string) {
		t.Helper()
		before := len(n.pids())
		done := make(chan struct{})
		go func() {
			defer close(done)
			code, out, errs = n.upgrade("--watch", "60s")
		}()
		eventually(t, "the new lb is ready", func() bool { return len(n.pids()) > before })
		f()
		<-done
		return code, out, errs
	}
	failures := 0.0
	for _, c := range []struct {
		name string
		do   func() (code int, out, errs string)
		says string
	}{
		{"no program", func() (int, string, string) {
			if err := os.Remove(n.binary); err != nil {
				t.Fatal(err)
			}
			return n.upgrade()
		}, "no such file"},
		{"ends at once", func() (int, string, string) {
			n.script(t, "exit 3\n")
			return n.upgrade()
		}, "ended before it was ready"},
		{"never ready", func() (int, string, string) {
			n.script(t, "exec sleep 1000\n")
			return n.upgrade("--wait", "300ms")
		}, "not ready within 300ms"},
		{"a program that is none", func() (int, string, string) { return n.upgrade("--binary", n.config) }, "permission denied"},
		{"mistakes in the file", func() (int, string, string) {
			n.install(t, lbBinary)
			if err := os.WriteFile(n.config, append(good, "[pool.app.health]\nintervall = \"1s\"\n"...), 0o600); err != nil {
				t.Fatal(err)
			}
			return n.upgrade()
		}, "pool.app.health.intervall: unknown key"},
		{"a port that is taken", func() (int, string, string) {
			taken, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer taken.Close()
			if err := os.WriteFile(n.config, append(good, fmt.Sprintf("[listen.more]\naddress = %q\n", taken.Addr().String())...), 0o600); err != nil {
				t.Fatal(err)
			}
			return n.upgrade()
		}, "listen.more.address: .* is taken"},
		{"it crashes as soon as it serves", func() (int, string, string) {
			if err := os.WriteFile(n.config, good, 0o600); err != nil {
				t.Fatal(err)
			}
			return during(func() { syscall.Kill(last(), syscall.SIGKILL) })
		}, "ended right after it had begun to serve"},
		{"it is told to stop", func() (int, string, string) {
			return during(func() { syscall.Kill(last(), syscall.SIGTERM) })
		}, "was told to stop"},
		{"it is too late to be the only one", func() (int, string, string) {
			var code int
			var out, errs string
			during(func() {
				code, out, errs = n.upgrade()
				syscall.Kill(last(), syscall.SIGTERM)
			})
			return code, out, errs
		}, "while lb takes over|another upgrade is under way"},
	} {
		at := traffic.count()
		code, out, errs := c.do()
		if code != 1 || out != "" || !regexp.MustCompile(c.says).MatchString(errs) || !strings.Contains(errs, "the lb that runs goes on") {
			t.Errorf("%s: exit code %d, %q, %q", c.name, code, out, errs)
		}
		traffic.goesOn(t, 30)
		eventually(t, c.name+": the first lb answers at its admin address", func() bool { return n.started() == started })
		failures++
		eventually(t, c.name+": all others have ended", func() bool {
			for _, pid := range n.pids()[1:] {
				if kill0(pid) {
					return false
				}
			}
			return true
		})
		if since := traffic.since(at); !strings.Contains(c.name, "crashes") {
			allOK(t, since)
		} else { // only what the process that crashed had
			lost := 0
			for _, s := range since {
				if !s.ok() {
					lost++
				}
				if s.dialing {
					t.Errorf("a connection was refused: %s", s.String())
				}
			}
			if lost > 8 {
				t.Errorf("%d requests on 8 connections were lost", lost)
			}
		}
		if code, _, errs := run(t, lbBinary, "reload", n.config); code != 0 && c.name != "mistakes in the file" {
			t.Errorf("%s: reload afterwards: %d %s", c.name, code, errs)
		}
	}
	if got := n.metrics().sum("lb_upgrades_total", "result=failure"); got != failures {
		t.Errorf("lb counts %v failures, want %v", got, failures)
	}
	// An event loop that hangs is noticed before the old one lets go.
	code, _, errs := func() (int, string, string) {
		defer func() {
			for _, pid := range n.pids()[1:] {
				syscall.Kill(pid, syscall.SIGCONT)
			}
		}()
		before := len(n.pids())
		done := make(chan struct{})
		var code int
		var errs string
		go func() {
			defer close(done)
			code, _, errs = n.upgrade("--watch", "300ms")
		}()
		eventually(t, "the new lb is ready", func() bool { return len(n.pids()) > before })
		syscall.Kill(last(), syscall.SIGSTOP)
		<-done
		return code, "", errs
	}()
	if code != 1 || !strings.Contains(errs, "do not answer") {
		t.Errorf("it hangs: %d %s", code, errs)
	}
	if n.pids()[0] != first || !kill0(first) {
		t.Error("the first lb has ended")
	}
	if code, out, errs := n.upgrade("--watch", "0s"); code != 0 {
		t.Errorf("a good one at last: %d %s%s", code, out, errs)
	}
	traffic.goesOn(t, 30)
	traffic.end()
	all := n.pids()
	syscall.Kill(all[len(all)-1], syscall.SIGTERM)
	for _, pid := range all {
		eventually(t, fmt.Sprint("process ", pid, " ends"), func() bool { return !kill0(pid) })
	}
}

// SIGUSR2 upgrades; what was drained stays drained, a reload finds the new process, a listener that the file has no more
// closes, and a stop in the middle ends both processes without a failed request.
func TestUpgradeGoesOn(t *testing.T) {
	apps := startApps(t, 2, "express.mjs")
	more := "[listen.more]\naddress = \"127.0.0.1:0\""
	n := startLineage(t, setup{backends: apps, more: more})
	other := n.event(`listener=more address=(\S+)`)
	if code, _, errs := run(t, lbBinary, "drain", "app", "a", "--config", n.config); code != 0 {
		t.Fatal(errs)
	}
	if code, _, errs := run(t, lbBinary, "weight", "app", "b", "7", "--config", n.config); code != 0 {
		t.Fatal(errs)
	}
	s := setup{backends: apps}
	s.write(t, n.config, n.logPath)
	n.signal(syscall.SIGUSR2)
	n.event(`msg="in charge"`)
	if got := n.metrics().sum("lb_backend_weight", "backend=b"); got != 7 {
		t.Errorf("the weight of b is %v, was made 7 while lb ran", got)
	}
	for i := range 10 {
		c := &conn{addr: n.addr}
		if a := c.do("GET", fmt.Sprint("/work/", i), ""); !a.ok() || a.instance != "b" {
			t.Errorf("%s from %s, want b", a.String(), a.instance)
		}
		c.close()
	}
	eventually(t, "the listener that is gone refuses", func() bool {
		c, err := net.Dial("tcp", other)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if code, _, errs := run(t, lbBinary, "ready", "app", "a", "--config", n.config); code != 0 {
		t.Error(errs)
	}
	s.pool = "retries = 0"
	s.write(t, n.config, n.logPath)
	if code, out, errs := run(t, lbBinary, "reload", n.config); code != 0 || !strings.Contains(out, "pool.app.retries is 0, was 2") {
		t.Errorf("reload: %d %s%s", code, out, errs)
	}
	first := n.pids()[0]
	eventually(t, "the first lb has ended", func() bool { return !kill0(first) })

	// A stop while the next one is watched.
	waiting := startWaiters(t, n.lb, apps, 6, "/gate/g")
	done := make(chan struct{})
	go func() {
		defer close(done)
		if code, _, errs := n.upgrade("--watch", "60s"); code != 1 {
			t.Errorf("an upgrade that was called off: %d %s", code, errs)
		}
	}()
	eventually(t, "the third lb is ready", func() bool { return len(n.pids()) == 3 })
	late := startWaiters(t, n.lb, apps, 6, "/gate/g")
	syscall.Kill(n.pids()[1], syscall.SIGTERM)
	<-done
	eventually(t, "connections are refused", func() bool {
		c, err := net.Dial("tcp", n.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	for _, a := range apps {
		a.order("open", "g")
	}
	for _, a := range append(waiting.end(), late.end()...) {
		if !a.ok() {
			t.Errorf("a request under way in the stop: %s", a.String())
		}
	}
	for _, pid := range n.pids() {
		eventually(t, fmt.Sprint("process ", pid, " ends"), func() bool { return !kill0(pid) })
	}
}
