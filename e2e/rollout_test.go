package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// rolloutRounds is how many rollouts, and how many reloads by PM2, are compared. ROLLOUTS=10 is what docs/rollout.md
// has figures of.
func rolloutRounds(t testing.TB) int {
	n, err := strconv.Atoi(os.Getenv("ROLLOUTS"))
	if os.Getenv("ROLLOUTS") == "" {
		return 1
	}
	if err != nil || n < 1 {
		t.Fatalf("ROLLOUTS=%s is no number", os.Getenv("ROLLOUTS"))
	}
	return n
}

// deployLoad is what an app gets in a deploy: GETs and POSTs over kept connections, and WebSockets that come back when they
// are told to.
type deployLoad struct {
	*load
	stop    context.CancelFunc
	sockets sync.WaitGroup
	open    atomic.Int64 // WebSockets
	moved   atomic.Int64 // came back after they were told to go
	cut     atomic.Int64 // ended in another way, or could not come back
	why     sync.Map     // of those cut
}

func startDeployLoad(t testing.TB, addr string, rate, sockets int) *deployLoad {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tr := &deployLoad{stop: cancel}
	tr.load = startLoad(t, addr, 16, rate, func(c *conn, n int64) sample {
		if n%4 == 0 {
			path := fmt.Sprintf("/add?n=%d", n)
			return sample{path, c.do("POST", path, strings.Repeat("x", int(n%1000)), "Content-Type: text/plain")}
		}
		path := fmt.Sprintf("/work/%d", n)
		return sample{path, c.do("GET", path, "")}
	})
	for range sockets {
		tr.sockets.Go(func() { tr.socket(ctx, "ws://"+addr+"/ws") })
	}
	t.Cleanup(func() {
		cancel()
		tr.sockets.Wait()
	})
	eventually(t, "all WebSockets are open", func() bool { return tr.open.Load() == int64(sockets) })
	return tr
}

// socket is one WebSocket client, until ctx ends. It says something ten times a second, and wants to hear it.
func (tr *deployLoad) socket(ctx context.Context, url string) {
	for again := false; ctx.Err() == nil; again = true {
		c, _, err := websocket.Dial(ctx, url, nil)
		if err != nil {
			if ctx.Err() == nil {
				tr.spoil("dial", err)
				time.Sleep(100 * time.Millisecond)
			}
			continue
		}
		if again {
			tr.moved.Add(1)
		}
		tr.open.Add(1)
		err = echoes(ctx, c)
		tr.open.Add(-1)
		c.CloseNow()
		if code := websocket.CloseStatus(err); ctx.Err() == nil && code != websocket.StatusServiceRestart {
			tr.spoil("socket", err)
		}
	}
}

func (tr *deployLoad) spoil(what string, err error) {
	tr.cut.Add(1)
	tr.why.Store(fmt.Sprintf("%s: %v", what, err), true)
}

func echoes(ctx context.Context, c *websocket.Conn) error {
	for n := 0; ; n++ {
		text := strconv.Itoa(n)
		if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
			// It may have been told to go while it spoke: what it was told is still to be read.
			if _, _, readErr := c.Read(ctx); websocket.CloseStatus(readErr) != -1 {
				return readErr
			}
			return err
		}
		_, got, err := c.Read(ctx)
		if err != nil {
			return err
		}
		if string(got) != text {
			return fmt.Errorf("said %s, heard %s", text, got)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// end ends it, and counts what failed.
func (tr *deployLoad) end() (all []sample, failed int) {
	all = tr.load.end()
	tr.stop()
	tr.sockets.Wait()
	for _, s := range all {
		if !s.ok() {
			failed++
		}
	}
	return all, failed
}

// spotless fails the test for all that failed.
func (tr *deployLoad) spotless(t testing.TB) int {
	t.Helper()
	all, _ := tr.end()
	allOK(t, all)
	if n := tr.cut.Load(); n > 0 {
		t.Errorf("%d WebSockets were cut, or could not come back", n)
		tr.why.Range(func(k, _ any) bool { t.Log(k); return true })
	}
	return len(all)
}

// pm2Fleet is instances of apps/slow.mjs under PM2, each on a port of its own, and an lb before them.
type pm2Fleet struct {
	*pm2
	*lb
	ports   []string
	version string // the file that says which version starts
}

func startPM2Fleet(t testing.TB, n int, env map[string]string, rollout string) *pm2Fleet {
	t.Helper()
	f := &pm2Fleet{pm2: startPM2(t), ports: freePorts(t, n), version: filepath.Join(t.TempDir(), "version")}
	f.release("good")
	vars := map[string]string{"VERSION_FILE": f.version}
	maps.Copy(vars, env)
	var apps []map[string]any
	for _, port := range f.ports {
		apps = append(apps, slowApp(t, "app-"+port, port, vars))
	}
	f.pm2.startAll(apps)
	var backends []string
	for _, port := range f.ports {
		backends = append(backends, fmt.Sprintf("{ address = %q, name = %q }", "127.0.0.1:"+port, "app-"+port))
	}
	f.lb = startLB(t, setup{raw: fmt.Sprintf(`
[listen.web]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[access_log]
path = "%%LOG%%"
[pool.app]
backends = [%s]
slow_start = "500ms"
[pool.app.health]
path = "/health"
interval = "500ms"
changing = "100ms"
down = "200ms"
[pool.app.rollout]
exec = %q
%s
`, strings.Join(backends, ", "), f.pm2.line("restart {name}"), rollout)})
	f.reaches(float64(n), "lb_backend_ready")
	return f
}

// release has the instances that start from now on be of a version.
func (f *pm2Fleet) release(version string) {
	if err := os.WriteFile(f.version, []byte(version), 0o600); err != nil {
		f.pm2.t.Fatal(err)
	}
}

// pids asks each instance who it is; the one that does not answer is nobody.
func (f *pm2Fleet) pids() (pids []string) {
	for i, port := range f.ports {
		resp, err := http.Get("http://127.0.0.1:" + port + "/work/1")
		if err != nil {
			pids = append(pids, fmt.Sprintf("nobody %d", i))
			continue
		}
		resp.Body.Close()
		pids = append(pids, resp.Header.Get("X-Pid"))
	}
	return pids
}

// rollout runs `lb rollout app`, which takes longer than other commands.
func (f *pm2Fleet) rollout(args ...string) (code int, out string) {
	f.pm2.t.Helper()
	p := f.startRollout(args...)
	select {
	case <-p.done:
	case <-time.After(3 * time.Minute):
		p.kill()
		f.pm2.t.Errorf("the rollout does not end")
	}
	return p.cmd.ProcessState.ExitCode(), strings.Join(append(p.stdout(), p.stderr()...), "\n")
}

func (f *pm2Fleet) startRollout(args ...string) *process {
	return start(f.pm2.t, "rollout", exec.Command(lbBinary, append([]string{"rollout", "app", "--config", f.config}, args...)...))
}

var proof = regexp.MustCompile(`(?m)^([\d,]+) requests during the rollout, (\d+) failed.*, (\d+) WebSockets moved`)

// Four instances under a real PM2, and an lb before them, in three acts.
func TestRollout(t *testing.T) {
	f := startPM2Fleet(t, 4, nil, "")
	for name, act := range map[string]func(*testing.T, *pm2Fleet){"good": rolloutGood, "bad version": rolloutBad} {
		t.Run(name, func(t *testing.T) { act(t, f.in(t)) })
	}
	t.Run("interrupted", func(t *testing.T) { rolloutInterrupted(t, f.in(t)) }) // it ends lb
}

// in is f for a part of its test.
func (f *pm2Fleet) in(t testing.TB) *pm2Fleet {
	f.pm2.t, f.lb.t = t, t
	return f
}

// All are restarted by `lb rollout`, again and again, under a load of GETs, POSTs and WebSockets. Nothing fails, and every
// process is another one afterwards.
func rolloutGood(t *testing.T, f *pm2Fleet) {
	tr := startDeployLoad(t, f.addr, 200, 12)
	for range rolloutRounds(t) {
		before := f.pids()
		code, out := f.rollout()
		m := proof.FindStringSubmatch(out)
		if code != 0 || m == nil || m[2] != "0" || m[3] == "0" || len(m[1]) < 3 {
			t.Fatalf("exit code %d:\n%s", code, out)
		}
		t.Log(m[0])
		for i, pid := range f.pids() {
			if pid == before[i] {
				t.Errorf("%s was not restarted", f.ports[i])
			}
		}
	}
	n := tr.spotless(t)
	t.Logf("lb rollout, %d times: 0 of %d requests failed, %d WebSockets moved, %d cut", rolloutRounds(t), n, tr.moved.Load(), tr.cut.Load())
}

// What PM2 itself does to the same app under the same load: cluster mode, pm2 reload, with wait_ready as its manual has
// it. This is a comparison, so nothing of it is a failure of lb's.
func TestReloadPM2(t *testing.T) {
	if os.Getenv("ROLLOUTS") == "" {
		t.Skip("tests nothing of lb: ROLLOUTS=10 compares")
	}
	p := startPM2(t)
	port := freePorts(t, 1)[0]
	app := slowApp(t, "app", port, nil)
	app["exec_mode"], app["instances"], app["wait_ready"], app["listen_timeout"] = "cluster", 4, true, 10000
	p.startAll([]map[string]any{app})
	eventually(t, "the app answers", func() bool {
		resp, err := http.Get("http://127.0.0.1:" + port + "/work/1")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil && resp.StatusCode == 200
	})
	tr := startDeployLoad(t, "127.0.0.1:"+port, 200, 12)
	for range rolloutRounds(t) {
		p.run("reload", "app")
	}
	all, failed := tr.end()
	if len(all) < 100 {
		t.Errorf("only %d requests", len(all))
	}
	t.Logf("pm2 reload, %d times: %d of %d requests failed, %d WebSockets moved, %d cut", rolloutRounds(t), failed, len(all), tr.moved.Load(), tr.cut.Load())
}

// A version that is bad is found at the first instance: it is left out, the others are not touched, and no request fails.
// The next rollout begins with it.
func rolloutBad(t *testing.T, f *pm2Fleet) {
	tr := startDeployLoad(t, f.addr, 200, 4)
	first := "app-" + f.ports[0]
	for _, c := range []struct {
		version, want string
		args          []string
		fails         bool // requests that the canary gets
		mended        bool // then; else the next version is as bad, and its rollout begins with the same instance
	}{
		{"exits", "BAD, stays out of use: it does not listen 2s after the command", []string{"--start-timeout", "2s"}, false, false},
		{"sick", "BAD, stays out of use: it does not (pass its checks|listen) 3s after the command", []string{"--start-timeout", "3s"}, false, true},
		{"slow", "canary: worse after .*: (p95|half of its .* requests took) ((1[5-9]\\d|[2-9]\\d\\d)ms|[1-9]\\d*(\\.\\d)?s)", []string{"--canary", "1", "--watch", "2s"}, false, false},
		{"erring", "canary: worse after .*: \\d+\\.\\d % errors .* the rule allows 1", []string{"--canary", "1", "--watch", "2s"}, true, true},
	} {
		before, at := f.pids(), tr.count()
		f.release(c.version)
		code, out := f.rollout(c.args...)
		if code != 9 || !regexp.MustCompile(c.want).MatchString(out) || !strings.Contains(out, "as before, and in use: app-"+f.ports[1]+", app-"+f.ports[2]+", app-"+f.ports[3]) ||
			!strings.Contains(out, "lb ready app "+first) {
			t.Errorf("%s: exit code %d:\n%s", c.version, code, out)
		}
		if m := proof.FindStringSubmatch(out); m == nil || m[2] != "0" {
			t.Errorf("%s: the proof is %v", c.version, m)
		}
		if c.fails { // every third request does, and those in flight at either end may be one more or less
			var bad, of int
			m := regexp.MustCompile(`% errors \((\d+) of (\d+) requests\), the others`).FindStringSubmatch(out)
			if m != nil {
				bad, _ = strconv.Atoi(m[1])
				of, _ = strconv.Atoi(m[2])
			}
			if d := 3*bad - of; of == 0 || d < -5 || d > 5 {
				t.Errorf("%s: %v of the canary's requests were errors, want a third", c.version, m)
			}
		}
		if got := f.backends()[first].State; got != "draining" {
			t.Errorf("%s: the bad one is %s", c.version, got)
		}
		if c.mended {
			f.release("good")
			if code, out = f.rollout("--only", first); code != 0 || !strings.Contains(out, first+" was left out by an earlier rollout") {
				t.Fatalf("after %s: exit code %d:\n%s", c.version, code, out)
			}
		}
		if after := f.pids(); after[0] == before[0] || !slices.Equal(after[1:], before[1:]) {
			t.Errorf("%s: the processes were %v, and are %v", c.version, before, after)
		}
		erred := 0
		for _, s := range tr.since(at) {
			if c.fails && s.err == nil && s.status == 500 && s.body == "erring" && s.instance == first {
				erred++
			} else if !s.ok() {
				t.Errorf("%s: %s: %s", c.version, s.path, s.String())
			}
		}
		if c.fails != (erred > 0) {
			t.Errorf("%s: %d answers of the canary were errors", c.version, erred)
		}
		t.Logf("%s: stopped at the first instance, %d requests, %d with an error of the canary's own", c.version, len(tr.since(at)), erred)
	}
	tr.end()
}

// An app that takes long to stop, since it finishes its requests, and long to start, loses nothing: neither when it is
// waited for, nor when the restart meets its requests.
func TestRolloutSlowApp(t *testing.T) {
	finish, begin := 2*time.Second, time.Second
	if rolloutRounds(t) > 1 {
		finish, begin = 8*time.Second, 4*time.Second
	}
	f := startPM2Fleet(t, 2, map[string]string{"START": fmt.Sprint(begin.Milliseconds())}, "warmup = \"off\"\nwait = \"30s\"")
	tr := startDeployLoad(t, f.addr, 100, 0)
	path := fmt.Sprintf("/sleep/%d", finish.Milliseconds())
	long := startLoad(t, f.addr, 8, 100, func(c *conn, n int64) sample { return sample{path, c.do("POST", path, "")} })
	for _, wait := range []string{"30s", "100ms"} {
		code, out := f.rollout("--wait", wait)
		m := proof.FindStringSubmatch(out)
		if code != 0 || m == nil || m[2] != "0" {
			t.Errorf("--wait %s: exit code %d:\n%s", wait, code, out)
		}
		if left := strings.Contains(out, "requests and 0 WebSockets left") || strings.Contains(out, "1 request and 0 WebSockets left"); left != (wait == "100ms") {
			t.Errorf("--wait %s: whether something was left is %t:\n%s", wait, left, out)
		}
	}
	allOK(t, long.end())
	tr.spotless(t)
	f.lb.stop(0)
}

// Whoever interrupts a rollout leaves nothing out of use: by Ctrl-C, by a second one, by kill -9 of the command, and by a
// restart of lb in the middle.
func rolloutInterrupted(t *testing.T, f *pm2Fleet) {
	tr := startDeployLoad(t, f.addr, 100, 2)
	allReady := func(when string) {
		t.Helper()
		eventually(t, when+": all are in use again", func() bool {
			n := 0
			for _, b := range f.backends() {
				if b.State == "ready" {
					n++
				}
			}
			return n == 4
		})
	}
	hold := filepath.Join(t.TempDir(), "hold")
	// A command that waits in the middle, so that there is one, and ends with its whole group.
	slow := fmt.Sprintf("echo %s {name}; sleep 1000 & echo $! > %s; wait $!; %s", "begins", hold, f.pm2.line("restart {name}"))
	running := func(p *process) {
		t.Helper()
		eventually(t, "the command runs", func() bool {
			text, err := os.ReadFile(hold)
			return err == nil && len(text) > 1 && slices.ContainsFunc(p.stdout(), func(s string) bool { return strings.Contains(s, "| begins") })
		})
	}
	sleeper := func() int {
		text, _ := os.ReadFile(hold)
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(hold)
		return pid
	}

	// Once: the instance is seen through.
	p := f.startRollout("--exec", slow, "--warmup", "0s")
	running(p)
	p.signal(syscall.SIGINT)
	eventually(t, "it says so", func() bool { return strings.Contains(strings.Join(p.stdout(), "\n"), "stopping: ") })
	syscall.Kill(sleeper(), syscall.SIGTERM) // and the command goes on
	if code := p.wait(); code != 10 || !strings.Contains(strings.Join(p.stdout(), "\n"), "interrupted after") {
		t.Errorf("after SIGINT: exit code %d:\n%s", code, strings.Join(p.stdout(), "\n"))
	}
	allReady("after SIGINT")

	// Twice: the command is killed.
	p = f.startRollout("--exec", slow, "--warmup", "0s")
	running(p)
	p.signal(syscall.SIGHUP)
	p.signal(syscall.SIGTERM)
	pid := sleeper()
	if code := p.wait(); code != 10 || !strings.Contains(strings.Join(p.stdout(), "\n"), "was being restarted: lb puts it back") {
		t.Errorf("after the second signal: exit code %d:\n%s", code, strings.Join(p.stdout(), "\n"))
	}
	eventually(t, "the command's whole group is gone", func() bool { return syscall.Kill(pid, 0) != nil })
	allReady("after the second signal")

	// kill -9: lb notices.
	p = f.startRollout("--exec", slow, "--warmup", "0s")
	running(p)
	pid = sleeper()
	p.kill()
	eventually(t, "the command ends with it", func() bool { return syscall.Kill(pid, 0) != nil })
	allReady("after kill -9")

	// A second rollout of the same pool has to wait for the first.
	p = f.startRollout("--exec", slow, "--warmup", "0s")
	running(p)
	if code, out := f.rollout(); code != 1 || !strings.Contains(out, "another rollout of the pool runs: by ") {
		t.Errorf("a second one: exit code %d:\n%s", code, out)
	}
	// A reload in the middle changes nothing.
	if code, out, errs := run(t, lbBinary, "reload", f.config); code != 0 {
		t.Errorf("reload: %d %s %s", code, out, errs)
	}
	p.signal(syscall.SIGTERM)
	syscall.Kill(sleeper(), syscall.SIGTERM)
	if code := p.wait(); code != 10 {
		t.Errorf("after a reload: exit code %d:\n%s", code, strings.Join(p.stdout(), "\n"))
	}
	allReady("after a reload")
	tr.spotless(t)

	// lb is restarted while a command runs: the rollout goes on with the new one, which keeps the instance out.
	p = f.startRollout("--exec", slow, "--warmup", "0s")
	running(p)
	f.lb.stop(0)
	f.lb = &lb{process: start(t, "lb", exec.Command(lbBinary, "run", f.config)), config: f.config, logPath: f.logPath}
	f.event(`msg=ready`)
	f.admin = "http://" + f.event(`msg=admin address=(127\S+)`)
	eventually(t, "the new lb knows of it", func() bool { return f.backends()["app-"+f.ports[0]].State == "draining" })
	p.signal(syscall.SIGTERM)
	syscall.Kill(sleeper(), syscall.SIGTERM)
	if code := p.wait(); code != 10 || !strings.Contains(strings.Join(p.stdout(), "\n"), "lb was restarted") {
		t.Errorf("after a restart of lb: exit code %d:\n%s", code, strings.Join(p.stdout(), "\n"))
	}
	allReady("after a restart of lb")
	f.lb.stop(0)
}
