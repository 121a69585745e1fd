//go:build linux

// Package systemd tests lb.service under a real systemd, booted in a directory: see test.sh.
package systemd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lb/deploy/container"
)

// TestSecurity holds the unit to what systemd itself thinks of its walls.
func TestSecurity(t *testing.T) {
	const most = 2.0
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "lb.service").CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("there is no systemd-analyze: install systemd")
	}
	m := regexp.MustCompile(`Overall exposure level for lb.service: ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		t.Skipf("systemd-analyze is too old to judge a file: %v\n%s", err, out)
	}
	if level, _ := strconv.ParseFloat(string(m[1]), 64); level > most {
		t.Errorf("exposure %.1f, %.1f is the most\n%s", level, most, out)
	}
	t.Logf("exposure %s", m[1])
}

// insideVariable is set in the container, where the same test binary runs as a service.
const insideVariable = "LB_SYSTEMD_INSIDE"

// TestUnit boots the container. What TestInside finds there is its own.
func TestUnit(t *testing.T) {
	machine := container.New(t, "deploy/systemd/test.sh") // which is written to
	root := machine.Root
	dir := t.TempDir()
	binary, inside := filepath.Join(dir, "lb"), filepath.Join(dir, "inside")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "lb/cmd/lb")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	container.Inside(t, inside)
	result := filepath.Join(dir, "result")
	if err := os.Mkdir(result, 0o755); err != nil {
		t.Fatal(err)
	}
	copies := map[string]string{
		"lb.service": "usr/lib/systemd/system/lb.service", "lb.socket": "usr/lib/systemd/system/lb.socket", "lb.sysusers": "usr/lib/sysusers.d/lb.conf", "../logrotate/lb": "etc/logrotate.d/lb",
		binary: "usr/bin/lb", inside: "usr/bin/inside",
	}
	// Nothing of a run may be left for others: enabled, lb would start by itself, and deploy/package/test.sh boots the same directory.
	clean := func() {
		for _, to := range copies {
			os.RemoveAll(filepath.Join(root, to))
		}
		for _, made := range []string{"etc/lb", "var/lib/lb", "var/log/lb", "var/log/journal", "etc/systemd/system/lb.service.d", "etc/systemd/system/lb.socket.d",
			"etc/systemd/system/multi-user.target.wants/lb.service", "etc/systemd/system/sockets.target.wants/lb.socket",
			"etc/systemd/system/inside.service", "etc/systemd/system/multi-user.target.wants/inside.service"} {
			os.RemoveAll(filepath.Join(root, made))
		}
	}
	clean() // after a run that was cut short
	t.Cleanup(clean)
	for from, to := range copies {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(to, "usr/bin/") {
			mode = 0o755
		}
		write(t, filepath.Join(root, to), data, mode)
	}
	write(t, filepath.Join(root, "etc/systemd/system/inside.service"), []byte(`[Unit]
After=basic.target
[Service]
Type=oneshot
Environment=`+insideVariable+`=1
ExecStart=/bin/sh -c '/usr/bin/inside -test.run "^TestInside$$" -test.v >/result/output 2>&1; echo $$? >/result/code'
ExecStopPost=/bin/systemctl poweroff --no-block
TimeoutStartSec=400
`), 0o644)
	wants := filepath.Join(root, "etc/systemd/system/multi-user.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../inside.service", filepath.Join(wants, "inside.service")); err != nil {
		t.Fatal(err)
	}
	machine.Boot(t, 8*time.Minute, result, "--bind="+result+":/result")
}

func write(t *testing.T, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	os.Remove(path) // its mode would stay, and a program that runs cannot be written to
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
}

// TestInside is the life of the unit, from the first start on. It changes the machine that it runs on.
func TestInside(t *testing.T) {
	if os.Getenv(insideVariable) == "" {
		t.Skip("for TestUnit, in its container")
	}
	u := &unit{t}
	u.must("systemd-sysusers")
	u.must("systemctl", "daemon-reload")
	u.must("systemctl", "enable", "lb") // also lest systemd forgets how it ended
	if out := u.must("systemd-analyze", "verify", "lb.service"); strings.Contains(out, "lb.service") {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	backends := []string{backend(t), backend(t), backend(t)}
	u.configure("30s", backends[:2])

	t.Run("start", func(t *testing.T) {
		u := &unit{t}
		u.must("systemctl", "start", "lb") // returns when lb is ready
		u.get("/")                         // port 80, not as root
		status := u.read("/proc", u.pid(), "status")
		for _, want := range []string{"CapEff:\t0000000000000400", "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !strings.Contains(status, want) {
				t.Errorf("the process has no %s:\n%s", want, status)
			}
		}
		if strings.Contains(status, "Uid:\t0") {
			t.Error("lb runs as root")
		}
		// As much as the unit asks for, or as systemd itself has to give, which is less in some containers.
		most := min(524288, descriptors(t, u.read("/proc/1/limits")))
		if n := descriptors(t, u.read("/proc", u.pid(), "limits")); n != most {
			t.Errorf("lb may have %d descriptors, want %d", n, most)
		}
		u.await("app: 2 of 2 backends ready", "StatusText")
		// Listeners must have more than the 128 places that they get when lb cannot read somaxconn.
		if out := u.must("cat", "/proc/sys/net/core/somaxconn"); strings.TrimSpace(out) == "128" {
			t.Log("somaxconn is 128 here")
		} else if q := backlog(t); q == 128 {
			t.Errorf("the queue of the listener has %d places, somaxconn is %s", q, out)
		}
		if _, err := os.Stat("/run/lb/admin.sock"); err != nil {
			t.Error(err)
		}
		if log := u.must("find", "/var/log/lb/access.log", "-user", "lb"); log == "" {
			t.Error("the access log is not lb's")
		}
	})

	t.Run("reload", func(t *testing.T) {
		u := &unit{t}
		pid := u.pid()
		u.configure("30s", backends)
		u.must("systemctl", "reload", "lb")                 // returns when it has happened
		u.await("app: 3 of 3 backends ready", "StatusText") // the new one is asked first whether it is well
		u.is("active", "ActiveState")                       // and not "reloading" for ever
		// A person in the group, without being root.
		u.must("setpriv", "--reuid=nobody", "--regid=lb", "--clear-groups", "lb", "reload", "--socket=/run/lb/admin.sock")
		write(t, "/etc/lb/config.toml", []byte("nonsense"), 0o644)
		if out, err := exec.Command("systemctl", "reload", "lb").CombinedOutput(); err == nil {
			t.Errorf("nonsense was loaded: %s", out)
		}
		u.awaitJournal("config.toml:1:") // where the mistake is
		u.await("active", "ActiveState")
		u.get("/")
		if pid != u.pid() {
			t.Error("it is another process now")
		}
		u.configure("30s", backends)
	})

	t.Run("logrotate", func(t *testing.T) {
		u := &unit{t}
		if _, err := exec.LookPath("logrotate"); err != nil {
			t.Skip("there is no logrotate")
		}
		const log = "/var/log/lb/access.log"
		container.WaitFor(t, "lines", func() bool { return strings.Contains(u.read(log), `"GET"`) })
		u.must("logrotate", "--force", "/etc/logrotate.d/lb")
		u.awaitJournal("access log reopened")
		if old := u.read(log + ".1"); !strings.Contains(old, `"GET"`) {
			t.Errorf("the old log: %q", old)
		}
		u.get("/")
		container.WaitFor(t, "lines in the new file", func() bool { return strings.Contains(u.read(log), `"GET"`) })
	})

	testUpgrade(t, backends)

	t.Run("stop under load", func(t *testing.T) {
		u := &unit{t}
		l := loadOn(8, "/")
		slow := loadOn(2, "/slow") // under way as the stop begins
		container.WaitFor(t, "traffic", func() bool { return l.ok.Load() > 500 && slow.ok.Load() > 2 })
		u.must("systemctl", "stop", "lb")
		l.wait(t)
		slow.wait(t)
		u.is("success", "Result")
		u.is("inactive", "ActiveState")
		t.Logf("%d requests, %d of them slow, 0 failed", l.ok.Load()+slow.ok.Load(), slow.ok.Load())
	})

	t.Run("killed", func(t *testing.T) {
		u := &unit{t}
		u.must("systemctl", "start", "lb")
		pid := u.pid()
		u.must("systemctl", "kill", "--kill-who=main", "--signal=KILL", "lb")
		u.await("1", "NRestarts")
		u.await("active", "ActiveState")
		u.get("/")
		if pid == u.pid() {
			t.Error("it is the same process")
		}
	})

	t.Run("watchdog", func(t *testing.T) {
		u := &unit{t}
		u.must("systemctl", "kill", "--kill-who=main", "--signal=STOP", "lb")
		u.await("2", "NRestarts")
		u.await("active", "ActiveState")
		u.get("/")
		u.awaitJournal("atchdog timeout")
	})

	// What a stop cuts is no failure of the unit.
	t.Run("cut", func(t *testing.T) {
		u := &unit{t}
		u.configure("1s", backends)
		u.must("systemctl", "restart", "lb")
		go http.Get("http://127.0.0.1/stuck")
		stuck.wait(t)
		u.must("systemctl", "stop", "lb")
		u.is("5", "ExecMainStatus")
		u.is("success", "Result")
		u.is("inactive", "ActiveState")
	})

	// Grace beyond TimeoutStopSec, which a drop-in makes short to have it soon.
	t.Run("more time", func(t *testing.T) {
		u := &unit{t}
		write(t, "/etc/systemd/system/lb.service.d/short.conf", []byte("[Service]\nTimeoutStopSec=1\n"), 0o644)
		u.must("systemctl", "daemon-reload")
		u.configure("30s", backends)
		u.must("systemctl", "start", "lb")
		l := loadOn(1, "/slower")
		slower.wait(t)
		u.must("systemctl", "stop", "lb")
		l.wait(t)
		u.is("success", "Result")
		if l.ok.Load() != 1 {
			t.Errorf("%d slow requests were answered, want 1", l.ok.Load())
		}
		os.RemoveAll("/etc/systemd/system/lb.service.d")
		u.must("systemctl", "daemon-reload")
	})
	if t.Failed() {
		out, _ := exec.Command("journalctl", "--no-pager", "--boot", "--unit=lb").CombinedOutput()
		var b strings.Builder
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "systemd[1]") || strings.Contains(line, "level=") { // and not what SIGABRT prints
				b.WriteString(line)
			}
		}
		t.Logf("the journal:\n%s", b.String())
	}
}

// unit is lb.service as systemctl shows it.
type unit struct{ t *testing.T }

func (u *unit) must(name string, args ...string) string {
	u.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		u.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (u *unit) property(name string) string {
	u.t.Helper()
	return strings.TrimSpace(u.must("systemctl", "show", "--property="+name, "--value", "lb"))
}

func (u *unit) pid() string { return u.property("MainPID") }

func (u *unit) is(want, property string) {
	u.t.Helper()
	if got := u.property(property); got != want {
		u.t.Errorf("%s is %q, want %q", property, got, want)
	}
}

func (u *unit) await(want, property string) {
	u.t.Helper()
	container.WaitFor(u.t, property+" "+want, func() bool { return u.property(property) == want })
}

func (u *unit) awaitJournal(text string) {
	u.t.Helper()
	container.WaitFor(u.t, "journal: "+text, func() bool {
		return strings.Contains(u.must("journalctl", "--no-pager", "--boot", "--unit=lb"), text)
	})
}

func (u *unit) read(path ...string) string {
	u.t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		u.t.Fatal(err)
	}
	return string(b)
}

func (u *unit) get(path string) {
	u.t.Helper()
	if err := ask(http.DefaultClient, path); err != nil {
		u.t.Error(err)
	}
}

func (u *unit) configure(grace string, backends []string) {
	u.t.Helper()
	write(u.t, "/etc/lb/config.toml", fmt.Appendf(nil, `[pool.app]
backends = ["%s"]
[listen.web]
address = ":80"
[admin]
socket = "/run/lb/admin.sock"
[access_log]
path = "/var/log/lb/access.log"
[server]
grace = "%s"
`, strings.Join(backends, `", "`), grace), 0o644)
}

// signal is told of the first time.
type signal struct {
	once sync.Once
	c    chan struct{}
}

func newSignal() *signal { return &signal{c: make(chan struct{})} }

func (s *signal) now() { s.once.Do(func() { close(s.c) }) }

func (s *signal) wait(t *testing.T) {
	t.Helper()
	select {
	case <-s.c:
	case <-time.After(30 * time.Second):
		t.Fatal("waited in vain for a request")
	}
}

// A request for /stuck, one for /slower and one for /slow4 has come.
var stuck, slower, slow4 = newSignal(), newSignal(), newSignal()

func backend(t *testing.T) string {
	return container.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			time.Sleep(time.Second)
		case "/slow4":
			slow4.now()
			time.Sleep(4 * time.Second)
		case "/slower": // longer than the unit's TimeoutStopSec, in the test of that
			slower.now()
			time.Sleep(4 * time.Second)
		case "/stuck":
			stuck.now()
			<-r.Context().Done()
		}
		io.WriteString(w, container.Hello)
	})
}

// load is clients that ask until nobody takes their connections any more.
type load struct {
	ok      atomic.Int64
	over    atomic.Bool
	clients sync.WaitGroup
	mu      sync.Mutex
	failed  []error // guarded by mu
}

// end has clients not ask again.
func (l *load) end() { l.over.Store(true) }

func loadOn(n int, path string) *load {
	l := new(load)
	for i := range n {
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
		l.clients.Go(func() {
			for !l.over.Load() {
				err := ask(c, path)
				var op *net.OpError
				if errors.As(err, &op) && op.Op == "dial" {
					return
				}
				if err == nil {
					l.ok.Add(1)
					continue
				}
				l.mu.Lock()
				l.failed = append(l.failed, err)
				l.mu.Unlock()
			}
		})
	}
	return l
}

func (l *load) wait(t *testing.T) {
	t.Helper()
	l.clients.Wait()
	if len(l.failed) > 0 {
		t.Errorf("%d requests failed, %d did not; the first: %v", len(l.failed), l.ok.Load(), l.failed[0])
	}
}

func ask(c *http.Client, path string) error { return container.Ask(c, "http://127.0.0.1"+path) }

// descriptors is the hard limit of open files in what /proc/PID/limits says.
func descriptors(t *testing.T, limits string) int {
	t.Helper()
	m := regexp.MustCompile(`Max open files +\d+ +(\d+)`).FindStringSubmatch(limits)
	if m == nil {
		t.Fatalf("limits:\n%s", limits)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// backlog is how many connections may wait at the listener on port 80.
func backlog(t *testing.T) int {
	t.Helper()
	out, err := exec.Command("ss", "-Hltn", "sport = :80").Output() // for a listener, Send-Q is the length of its queue
	if errors.Is(err, exec.ErrNotFound) {
		t.Log("there is no ss to look at the listener with")
		return 0
	}
	fields := strings.Fields(string(out))
	if err != nil || len(fields) < 3 {
		t.Fatalf("ss: %v %q", err, out)
	}
	n, err := strconv.Atoi(fields[2])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
