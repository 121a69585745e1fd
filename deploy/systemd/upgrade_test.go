//go:build linux

package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lb/deploy/container"
)

// upgrade runs lb upgrade as a package's script does.
func (u *unit) upgrade(args ...string) (string, error) {
	out, err := exec.Command("lb", append([]string{"upgrade", "/etc/lb/config.toml"}, args...)...).CombinedOutput()
	return string(out), err
}

// gone waits until a process has ended.
func (u *unit) gone(pid string) {
	u.t.Helper()
	container.WaitFor(u.t, "process "+pid+" ends", func() bool {
		_, err := os.Stat("/proc/" + pid)
		return os.IsNotExist(err)
	})
}

// testUpgrade is what systemd makes of a service whose main process changes. lb runs, and runs when it is over.
func testUpgrade(t *testing.T, backends []string) {
	t.Run("upgrade", func(t *testing.T) {
		u := &unit{t}
		restarts := u.property("NRestarts")
		l := loadOn(8, "/")
		slow := loadOn(2, "/slow")
		container.WaitFor(t, "traffic", func() bool { return l.ok.Load() > 200 && slow.ok.Load() > 1 })
		for range 3 {
			was := u.pid()
			out, err := u.upgrade()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			t.Logf("%s", strings.TrimSpace(out))
			container.WaitFor(t, "systemd to follow", func() bool { return u.pid() != was })
			u.is("active", "ActiveState")
			u.await("app: 3 of 3 backends ready", "StatusText")
			if !strings.Contains(out, "process "+u.pid()+" ") {
				t.Errorf("the main process is %s", u.pid())
			}
			u.gone(was)
		}
		status := u.read("/proc", u.pid(), "status")
		for _, want := range []string{"CapEff:\t0000000000000400", "NoNewPrivs:\t1", "Seccomp:\t2", "PPid:\t1\n"} {
			if !strings.Contains(status, want) {
				t.Errorf("the new process has no %s:\n%s", want, status)
			}
		}
		pid := u.pid()
		time.Sleep(12 * time.Second) // longer than WatchdogSec: whoever does not feed it is gone
		if u.pid() != pid || u.property("NRestarts") != restarts {
			t.Errorf("the watchdog ended it: process %s, %s restarts", u.pid(), u.property("NRestarts"))
		}
		u.configure("30s", backends[:2])
		u.must("systemctl", "reload", "lb")
		u.await("app: 2 of 2 backends ready", "StatusText")
		u.is("active", "ActiveState")
		u.configure("30s", backends)
		u.must("systemctl", "reload", "lb")
		u.must("systemctl", "stop", "lb")
		l.wait(t)
		slow.wait(t)
		u.is("success", "Result")
		u.is("inactive", "ActiveState")
		t.Logf("3 upgrades, 2 reloads and a stop: %d requests, %d of them slow, 0 failed", l.ok.Load()+slow.ok.Load(), slow.ok.Load())
		if out := u.must("journalctl", "--no-pager", "--boot", "--unit=lb"); strings.Contains(out, "reception only permitted") || strings.Contains(out, "not our child") {
			t.Errorf("systemd was told by the wrong process, or of one:\n%s", out)
		}
		u.must("systemctl", "start", "lb")
	})

	t.Run("an upgrade that fails", func(t *testing.T) {
		u := &unit{t}
		was, restarts := u.pid(), u.property("NRestarts")
		out, err := u.upgrade("--binary", "/bin/false")
		if err == nil || !strings.Contains(out, "the lb that runs goes on") {
			t.Errorf("%v: %s", err, out)
		}
		// One that crashes while it is watched: for systemd, nothing has happened.
		done := make(chan string)
		go func() {
			out, _ := u.upgrade("--watch", "60s")
			done <- out
		}()
		next := ""
		container.WaitFor(t, "the new process", func() bool {
			all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, path := range all {
				line, _ := os.ReadFile(path) // it may have ended
				if pid := filepath.Base(filepath.Dir(path)); strings.Contains(string(line), "lb\x00run\x00") && pid != was {
					next = pid
				}
			}
			return next != "" && strings.Contains(u.must("journalctl", "--no-pager", "--boot", "_PID="+next), "msg=ready")
		})
		number, _ := strconv.Atoi(next)
		if err := syscall.Kill(number, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if out := <-done; !strings.Contains(out, "right after it had begun to serve") {
			t.Errorf("%s", out)
		}
		u.get("/")
		if u.pid() != was || u.property("NRestarts") != restarts {
			t.Errorf("process %s, was %s; %s restarts", u.pid(), was, u.property("NRestarts"))
		}
	})

	// The unit stops when both have ended: a request that the old process still has is not cut with it.
	t.Run("stop while the old one drains", func(t *testing.T) {
		u := &unit{t}
		was := u.pid()
		l := loadOn(1, "/slow4")
		slow4.wait(t)
		if out, err := u.upgrade("--watch", "0s"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		container.WaitFor(t, "systemd to follow", func() bool { return u.pid() != was })
		u.must("systemctl", "stop", "lb")
		l.wait(t)
		if l.ok.Load() == 0 {
			t.Error("no request was answered")
		}
		u.is("success", "Result")
		u.must("systemctl", "start", "lb")
	})

	t.Run("killed after an upgrade", func(t *testing.T) {
		u := &unit{t}
		was := u.pid()
		if out, err := u.upgrade(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		container.WaitFor(t, "systemd to follow", func() bool { return u.pid() != was })
		pid := u.pid()
		u.must("systemctl", "kill", "--kill-who=main", "--signal=KILL", "lb")
		container.WaitFor(t, "another process", func() bool { p := u.pid(); return p != pid && p != "0" })
		u.await("active", "ActiveState")
		u.get("/")
		u.must("systemctl", "restart", "lb") // and none is left that has the port
		u.get("/")
		u.must("systemctl", "reset-failed", "lb") // what comes next counts restarts
	})

	t.Run("socket", func(t *testing.T) {
		u := &unit{t}
		u.must("systemctl", "stop", "lb")
		u.must("systemctl", "enable", "--now", "lb.socket")
		u.must("systemctl", "start", "lb")
		l := loadOn(8, "/")
		more := func() {
			t.Helper()
			want := l.ok.Load() + 200
			container.WaitFor(t, "traffic", func() bool { return l.ok.Load() > want })
		}
		more()
		for range 3 {
			u.must("systemctl", "restart", "lb")
			more()
		}
		was := u.pid()
		if out, err := u.upgrade(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		container.WaitFor(t, "systemd to follow", func() bool { return u.pid() != was })
		more()
		u.must("systemctl", "restart", "lb")
		more()
		l.end() // what waits at a socket of systemd's is reset when that is stopped, too
		l.wait(t)
		u.must("systemctl", "stop", "lb.socket", "lb")
		t.Logf("4 restarts and an upgrade with lb.socket: %d requests, 0 failed", l.ok.Load())

		// A socket that nothing in the file listens at would let its clients wait for ever.
		write(t, "/etc/systemd/system/lb.socket.d/other.conf", []byte("[Socket]\nListenStream=127.0.0.1:81\n"), 0o644)
		u.must("systemctl", "daemon-reload")
		u.must("systemctl", "start", "lb.socket")
		if out, err := exec.Command("systemctl", "start", "lb").CombinedOutput(); err == nil {
			t.Errorf("lb started: %s", out)
		}
		u.awaitJournal("systemd gave lb a socket at 127.0.0.1:81")
		u.must("systemctl", "stop", "lb.socket", "lb")
		u.must("systemctl", "disable", "lb.socket")
		os.RemoveAll("/etc/systemd/system/lb.socket.d")
		u.must("systemctl", "daemon-reload")
		u.must("systemctl", "reset-failed", "lb")
		u.must("systemctl", "start", "lb")
	})
}
