//go:build linux

package packages

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lb/deploy/container"
)

// insideVariable is set in the container, where the same test binary runs as a service.
const insideVariable = "LB_PACKAGES_INSIDE"

// TestLife makes two versions and boots the container. What TestInside finds there is its own.
func TestLife(t *testing.T) {
	machine := container.New(t, "deploy/package/test.sh", "--volatile=overlay") // what is written goes to memory, and is gone with it
	dir := t.TempDir()
	for _, version := range []string{"v0.0.1", "v0.0.2"} {
		build := exec.Command("./build.sh", "amd64")
		build.Env = append(os.Environ(), "VERSION="+version, "OUT="+filepath.Join(dir, version))
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	// The second one comes with another configuration, so that there is something to keep or to overwrite.
	unpacked := filepath.Join(dir, "unpacked")
	output(t, "dpkg-deb", "--raw-extract", filepath.Join(dir, "v0.0.2/lb_0.0.2-1_amd64.deb"), unpacked)
	config := filepath.Join(unpacked, "etc/lb/config.toml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, config, append(text, "# new in 0.0.2\n"...))
	output(t, "dpkg-deb", "--root-owner-group", "--build", unpacked, filepath.Join(dir, "new.deb"))
	if err := os.Rename(filepath.Join(dir, "v0.0.1/lb_0.0.1-1_amd64.deb"), filepath.Join(dir, "old.deb")); err != nil {
		t.Fatal(err)
	}
	container.Inside(t, filepath.Join(dir, "inside"))
	write(t, filepath.Join(dir, "inside.service"), []byte(`[Unit]
Requires=multi-user.target
After=multi-user.target
[Service]
Type=oneshot
WorkingDirectory=/test
Environment=`+insideVariable+`=1 PATH=/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/bin/sh -c '/test/inside -test.run "^TestInside$$" -test.v >/test/output 2>&1; echo $$? >/test/code'
ExecStopPost=/bin/systemctl poweroff --no-block
TimeoutStartSec=240
`))
	machine.Boot(t, 5*time.Minute, dir, "--bind="+dir+":/test",
		"--bind-ro="+filepath.Join(dir, "inside.service")+":/etc/systemd/system/inside.service", "--", "--unit=inside.service")
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestInside is the life of the package, from the first installation on. It changes the machine that it runs on.
func TestInside(t *testing.T) {
	if os.Getenv(insideVariable) == "" {
		t.Skip("for TestLife, in its container")
	}
	const conf = "/etc/lb/config.toml"
	mine := fmt.Sprintf("# mine\n[pool.app]\nbackends = [%q, %q]\n[listen.web]\naddress = \"127.0.0.1:8080\"\n[access_log]\npath = \"/var/log/lb/access.log\"\n", backend(t), backend(t))
	dpkg := func(t *testing.T, args ...string) string {
		t.Helper()
		// As apt does for who is not there to be asked.
		cmd := exec.Command("dpkg", append([]string{"--force-confdef", "--force-confold"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("dpkg %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "warning") || strings.Contains(line, "rror") || strings.Contains(line, "cannot") {
				t.Errorf("dpkg %s says: %s", strings.Join(args, " "), line)
			}
		}
		return string(out)
	}
	is := func(t *testing.T, what, want string) {
		t.Helper()
		out, _ := exec.Command("systemctl", "is-"+what, "lb.service").Output() // its exit code says the same again
		if got := strings.TrimSpace(string(out)); got != want {
			t.Errorf("lb.service is %s, want %s", got, want)
		}
	}
	there := func(t *testing.T, want bool, paths ...string) {
		t.Helper()
		for _, p := range paths {
			if _, err := os.Lstat(p); (err == nil) != want {
				t.Errorf("%s: there %t, want %t", p, err == nil, want)
			}
		}
	}
	kept := func(t *testing.T) {
		t.Helper()
		if text, err := os.ReadFile(conf); err != nil || string(text) != mine {
			t.Errorf("the configuration is not mine any more: %v\n%s", err, text)
		}
	}
	pid := func(t *testing.T) string {
		t.Helper()
		return strings.TrimSpace(output(t, "systemctl", "show", "--property=MainPID", "--value", "lb"))
	}

	t.Run("install", func(t *testing.T) {
		said := dpkg(t, "-i", "/test/old.deb")
		if !strings.Contains(said, "lb init --output "+conf) || !strings.Contains(said, "systemctl start lb") {
			t.Errorf("it does not say what to do next:\n%s", said)
		}
		is(t, "enabled", "enabled")
		is(t, "active", "inactive") // with a guess of a configuration it shall not listen anywhere
		output(t, "getent", "passwd", "lb")
		if got := output(t, "lb", "version"); !strings.HasPrefix(got, "lb v0.0.1 ") {
			t.Errorf("version %s", got)
		}
		output(t, "lb", "check") // finds /etc/lb/config.toml, which is good
		// As it is, it can run: it only finds nobody there.
		output(t, "systemctl", "start", "lb")
		is(t, "active", "active")
		there(t, true, "/run/lb", "/var/log/lb/access.log")
	})

	t.Run("upgrade under load", func(t *testing.T) {
		write(t, conf, []byte(mine))
		output(t, "systemctl", "reload", "lb")
		before := pid(t)
		l := loadOn(4)
		container.WaitFor(t, "traffic", func() bool { return l.ok.Load() > 200 })
		if got := version(t); got != "v0.0.1" {
			t.Errorf("%s runs", got)
		}
		said := dpkg(t, "-i", "/test/new.deb")
		if got := version(t); got != "v0.0.2" {
			t.Errorf("%s runs:\n%s", got, said)
		}
		n := l.ok.Load()
		container.WaitFor(t, "traffic", func() bool { return l.ok.Load() > n+200 })
		l.stop()
		if n := l.failed.Load(); n > 0 {
			t.Errorf("%d requests failed; the first: %v", n, *l.first.Load())
		}
		kept(t)
		there(t, true, conf+".dpkg-dist")
		is(t, "active", "active")
		if before == pid(t) {
			t.Error("it is the same process")
		}
		t.Logf("%d requests, %d failed", l.ok.Load(), l.failed.Load())
	})

	// A configuration that the new one refuses: the old process goes on, and so does dpkg.
	t.Run("upgrade with faults", func(t *testing.T) {
		before := pid(t)
		write(t, conf, []byte(mine+"mistake = 1\n"))
		said := dpkg(t, "-i", "/test/new.deb")
		if !strings.Contains(said, "access_log.mistake: unknown key") || !strings.Contains(said, "the old version goes on") {
			t.Errorf("it said:\n%s", said)
		}
		if before != pid(t) {
			t.Error("it is another process")
		}
		if err := ask(http.DefaultClient); err != nil {
			t.Error(err)
		}
		write(t, conf, []byte(mine))
	})

	t.Run("disabled stays disabled", func(t *testing.T) {
		output(t, "systemctl", "disable", "--now", "lb")
		dpkg(t, "-i", "/test/new.deb")
		is(t, "enabled", "disabled")
		is(t, "active", "inactive")
		output(t, "systemctl", "enable", "--now", "lb")
	})

	t.Run("remove", func(t *testing.T) {
		dpkg(t, "-r", "lb")
		is(t, "active", "inactive")
		there(t, false, "/usr/bin/lb", "/usr/lib/systemd/system/lb.service", "/run/lb")
		there(t, true, "/var/log/lb/access.log", "/etc/logrotate.d/lb")
		kept(t)
	})

	t.Run("back", func(t *testing.T) {
		dpkg(t, "-i", "/test/new.deb")
		kept(t)
		is(t, "enabled", "enabled")
		output(t, "systemctl", "start", "lb")
		container.WaitFor(t, "an answer", func() bool { return ask(http.DefaultClient) == nil })
	})

	t.Run("purge", func(t *testing.T) {
		dpkg(t, "-P", "lb")
		is(t, "active", "inactive")
		there(t, false, "/etc/lb", "/etc/logrotate.d/lb", "/var/log/lb", "/run/lb", "/usr/share/doc/lb",
			"/etc/systemd/system/multi-user.target.wants/lb.service", "/var/lib/systemd/deb-systemd-helper-enabled/lb.service.dsh-also")
		left := output(t, "find", "/etc", "/usr", "/var", "/run", "-xdev", "(", "-name", "lb", "-o", "-name", "lb.*", "-o", "-name", "lb-*", ")",
			"-not", "-path", "/var/log/journal/*", "-not", "-path", "/run/log/*")
		if left != "" {
			t.Errorf("it leaves\n%s", left)
		}
	})
}

func backend(t *testing.T) string {
	return container.Serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, container.Hello) })
}

// version is that of the process that answers.
func version(t *testing.T) string {
	t.Helper()
	res, err := http.Get("http://127.0.0.1:9901/status")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var s struct{ Version string }
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s.Version
}

// load is clients that ask again and again, half of them on a connection that stays.
type load struct {
	ok, failed atomic.Int64
	over       chan struct{}
	clients    sync.WaitGroup
	first      atomic.Pointer[error]
}

func loadOn(n int) *load {
	l := &load{over: make(chan struct{})}
	for i := range n {
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}, Timeout: 20 * time.Second}
		l.clients.Go(func() {
			for {
				select {
				case <-l.over:
					return
				default:
				}
				if err := ask(c); err != nil {
					l.failed.Add(1)
					l.first.CompareAndSwap(nil, &err)
					continue
				}
				l.ok.Add(1)
			}
		})
	}
	return l
}

func (l *load) stop() {
	close(l.over)
	l.clients.Wait()
}

func ask(c *http.Client) error { return container.Ask(c, "http://127.0.0.1:8080/") }
