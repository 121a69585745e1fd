package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// lb status says what state each backend is in and why, and tells by its exit code.
func TestStatusStates(t *testing.T) {
	apps := startApps(t, 3, "express.mjs")
	l := startLB(t, setup{backends: apps, pool: `health = { interval = "100ms", changing = "50ms", down = "50ms" }`})
	traffic := startLoad(t, l.addr, 4, 100, nil)
	eventually(t, "all are ready", func() bool {
		code, _, _ := run(t, lbBinary, "status", "--config", l.config)
		return code == 0
	})
	traffic.goesOn(t, 100)
	l.cli(0, `lb \S+, running for .*, pid \d+.*listening on web 127.*pool app: adaptive, 3 of 3 ready, .*\na +ready .*\nb +ready .*\nc +ready `, "status")
	apps[2].kill()
	eventually(t, "lb has noticed", func() bool {
		code, _, _ := run(t, lbBinary, "status", "--config", l.config)
		return code == 6
	})
	l.cli(6, `2 of 3 ready.*\nc +(down|ejected) .*\n    .*(refused|hung up|reset|closed).*`, "status", "app")
	l.cli(0, `app a: drained after`, "drain", "app", "a")
	l.cli(6, fmt.Sprintf(`\na +draining .*\n    told to by uid %d`, os.Getuid()), "status")
	traffic.goesOn(t, 50)
	allOK(t, traffic.end())
	apps[1].kill()
	eventually(t, "nobody is ready", func() bool {
		code, _, _ := run(t, lbBinary, "status", "--config", l.config)
		return code == 3
	})
	var st struct {
		Pools []struct {
			Backends []struct{ Name, State, Why string }
		}
	}
	if err := json.Unmarshal([]byte(l.cli(3, "", "status", "--json")), &st); err != nil || st.Pools[0].Backends[0].State != "draining" || st.Pools[0].Backends[1].Why == "" {
		t.Errorf("%v %+v", err, st)
	}
	l.cli(7, `pool "ap" is not known, did you mean "app"`, "status", "ap")
	l.stop(0)
	l.cli(4, "no lb runs with", "status")
	l.cli(4, "no lb runs with", "drain", "app", "a")
}

// Backends come, go and change their weight under load, by the command line, and no request fails.
func TestChangesUnderLoad(t *testing.T) {
	apps := startApps(t, 3, "express.mjs")
	l := startLB(t, setup{backends: apps[:2], pool: "slow_start = \"off\"\nstrategy = \"round_robin\""})
	traffic := startLoad(t, l.addr, 8, 300, nil)
	traffic.goesOn(t, 50)
	for range 3 {
		l.cli(0, `app c: in use after`, "add", "app", apps[2].port, "--name", "c", "--weight", "2")
		n := traffic.count()
		traffic.goesOn(t, 200)
		if s := shares(traffic.since(n + 20)); s["c"] < s["a"] || s["a"] == 0 || s["b"] == 0 {
			t.Errorf("with a third one of twice the weight: %v", s)
		}
		l.cli(0, `app a: weight 0.25, was 1; the file says 1`, "weight", "app", "a", "25%")
		l.reloads(`nothing to change\n +note: backend a of pool app: weight 25% while lb runs, 1 in the file`)
		l.cli(0, `a +ready .*weight 25% while lb runs.*c +ready .*added while lb runs`, "status")
		n = traffic.count()
		traffic.goesOn(t, 200)
		if s := shares(traffic.since(n + 20)); s["a"] == 0 || 2*s["a"] > s["b"] {
			t.Errorf("with a quarter of the weight: %v", s)
		}
		l.cli(0, `app b: removed, and empty after`, "remove", "app", "b")
		n = traffic.count()
		traffic.goesOn(t, 100)
		if s := shares(traffic.since(n + 20)); s["b"] != 0 {
			t.Errorf("removed, and: %v", s)
		}
		l.reloads(`1 backend joined pool app: b.*1 backend left pool app: c`, "--reset")
	}
	l.cli(0, `2 of 2 ready`, "status")
	l.cli(0, "removed, and empty", "remove", "app", "a")
	l.cli(1, `backend b is the last one of pool app`, "remove", "app", "b")
	allOK(t, traffic.end())
	l.event(fmt.Sprintf(`msg="backend weight changed" pool=app backend=a why="0.25, was 1; the file says 1" by="uid %d`, os.Getuid()))
}

// reloads has lb read its file again.
func (l *lb) reloads(pattern string, flags ...string) {
	l.t.Helper()
	code, out, errs := run(l.t, lbBinary, append([]string{"reload", l.config}, flags...)...)
	if code != 0 || !regexp.MustCompile("(?s)"+pattern).MatchString(out) {
		l.t.Errorf("lb reload ended with %d and said, without %s:\n%s%s", code, pattern, out, errs)
	}
}

// lb explain says why, for the requests that come.
func TestExplainChoices(t *testing.T) {
	apps := startApps(t, 2, "express.mjs")
	l := startLB(t, setup{backends: apps})
	l.cli(0, `no request came; this is how its backends stand\n +a +not measured yet x \(0\+1\)\n +b +not measured yet x \(0\+1\)`, "explain", "--wait", "100ms")
	traffic := startLoad(t, l.addr, 4, 200, nil)
	// What is not answered within a second is told so: of nine, four at most, as there are four connections.
	l.cli(0, `GET e2e\.test/work/\d+ -> [ab]: 200 after \S+s\n  pool app, adaptive: [^\n]+\n.* x \(\d+\+1`, "explain", "app", "--last", "9")
	l.cli(0, "drained", "drain", "app", "b")
	l.cli(0, `-> a: 200 after \S+s\n  pool app, adaptive: the only one that is ready\n  > a .*\n    b +not: draining`, "explain", "--last", "9")
	allOK(t, traffic.end())
}

// pty is a terminal: what a program writes to it, and keys for it.
type pty struct {
	*os.File
	slave *os.File
	mu    sync.Mutex
	text  strings.Builder // guarded by mu
}

func ioctl(f *os.File, what uintptr, arg unsafe.Pointer) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), what, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

func openPTY(t *testing.T, rows, columns uint16) *pty {
	t.Helper()
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var unlock, n int32
	if err := ioctl(m, syscall.TIOCSPTLCK, unsafe.Pointer(&unlock)); err != nil {
		t.Fatal(err)
	}
	if err := ioctl(m, syscall.TIOCGPTN, unsafe.Pointer(&n)); err != nil {
		t.Fatal(err)
	}
	s, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &pty{File: m, slave: s}
	p.resize(t, rows, columns)
	t.Cleanup(func() { m.Close(); s.Close() })
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := m.Read(buf)
			p.mu.Lock()
			p.text.Write(buf[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return p
}

func (p *pty) resize(t *testing.T, rows, columns uint16) {
	t.Helper()
	size := [4]uint16{rows, columns}
	if err := ioctl(p.File, syscall.TIOCSWINSZ, unsafe.Pointer(&size)); err != nil {
		t.Fatal(err)
	}
}

// modes are the settings of the terminal.
func (p *pty) modes(t *testing.T) syscall.Termios {
	t.Helper()
	var m syscall.Termios
	if err := ioctl(p.slave, syscall.TCGETS, unsafe.Pointer(&m)); err != nil {
		t.Fatal(err)
	}
	return m
}

func (p *pty) all() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// screen is the last thing that was drawn, without what moves and colours.
func (p *pty) screen() string {
	all := p.all()
	all = all[:max(0, strings.LastIndex(all, "\x1b[J"))]
	if at := strings.LastIndex(all, "\x1b[H"); at >= 0 {
		all = all[at:]
	}
	return regexp.MustCompile("\x1b\\[[0-9;?]*[a-zA-Z]|\r").ReplaceAllString(all, "")
}

// lb top fills a terminal, sorts, follows its size, and leaves it as it was, however it ends.
func TestTop(t *testing.T) {
	apps := startApps(t, 3, "express.mjs")
	l := startLB(t, setup{backends: apps})
	traffic := startLoad(t, l.addr, 4, 100, nil)
	defer traffic.end()
	for _, c := range []struct {
		name string
		end  func(p *pty, top *exec.Cmd)
	}{
		{"q", func(p *pty, _ *exec.Cmd) { p.WriteString("q") }},
		{"Ctrl-C", func(p *pty, _ *exec.Cmd) { p.WriteString("\x03") }},
		{"SIGTERM", func(_ *pty, top *exec.Cmd) { top.Process.Signal(syscall.SIGTERM) }},
		{"SIGHUP", func(_ *pty, top *exec.Cmd) { top.Process.Signal(syscall.SIGHUP) }},
		{"SIGQUIT", func(_ *pty, top *exec.Cmd) { top.Process.Signal(syscall.SIGQUIT) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := openPTY(t, 24, 80)
			before := p.modes(t)
			top := exec.Command(lbBinary, "top", "--every", "200ms", "--config", l.config)
			top.Env = append(os.Environ(), "TERM=xterm", "NO_COLOR=1")
			top.Stdin, top.Stdout, top.Stderr = p.slave, p.slave, p.slave
			top.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
			if err := top.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- top.Wait() }()
			defer top.Process.Kill()
			shows := func(pattern string) {
				t.Helper()
				re := regexp.MustCompile("(?s)" + pattern)
				for end := time.Now().Add(patience); !re.MatchString(p.screen()); time.Sleep(5 * time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("never showed %s, but:\n%s", pattern, p.screen())
					}
				}
			}
			shows(`^lb \S+, running for .*pool app: adaptive, 3 of 3 ready.*\na +ready.*\nb +ready.*\nc +ready.*\nby the file, every 200ms`)
			if now := p.modes(t); now.Lflag&syscall.ICANON != 0 || now.Lflag&syscall.ECHO != 0 {
				t.Error("the terminal is not in raw mode")
			}
			if n := strings.Count(p.screen(), "\n"); n >= 24 {
				t.Errorf("%d lines in a window of 24", n+1)
			}
			p.WriteString("nr")
			shows(`\nc +ready.*\nb +ready.*\na +ready.*\nby BACKEND upward`)
			p.resize(t, 8, 60)
			shows(`^lb .*more lines: down`)
			eventually(t, "it keeps to the smaller window", func() bool { return strings.Count(p.screen(), "\n") < 8 })
			c.end(p, top)
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("%v", err)
				}
			case <-time.After(patience):
				t.Fatal("does not end")
			}
			if after := p.modes(t); after != before {
				t.Errorf("the terminal is not as it was: %+v, was %+v", after, before)
			}
			eventually(t, "the screen is as it was", func() bool { return strings.HasSuffix(p.all(), "\x1b[?7h\x1b[?25h\x1b[?1049l") })
		})
	}
	l.cli(1, "needs a terminal", "top")
}

// Who is in the group of lb's socket may use it, and nobody else.
func TestSocketIsOfAGroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("runs lb and its commands as other users, which takes root")
	}
	const owner, group, other = 61001, 61002, 61003
	dir, err := os.MkdirTemp("/run", "lb-e2e-") // where but root nobody can have put anything
	if err != nil {
		t.Skip("no /run: ", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	files, err := os.MkdirTemp("/tmp", "lb-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(files) })
	binary, config := filepath.Join(files, "lb"), filepath.Join(files, "config.toml")
	program, err := os.ReadFile(lbBinary)
	if err != nil {
		t.Fatal(err)
	}
	text := "[pool.app]\nbackends = [1]\nhealth.kind = \"off\"\n[listen.web]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"off\"\n[access_log]\nformat = \"off\"\n"
	for _, err := range []error{
		os.Chmod(files, 0o755), os.WriteFile(binary, program, 0o755), os.WriteFile(config, []byte(text), 0o644), os.Chown(dir, owner, group), os.Chmod(dir, 0o750),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	begin := func(name string, uid, gid uint32, args ...string) *process {
		cmd := exec.Command("setpriv", append([]string{"--reuid", fmt.Sprint(uid), "--regid", fmt.Sprint(gid), "--clear-groups", binary}, args...)...)
		cmd.Env, cmd.Dir = []string{"RUNTIME_DIRECTORY=" + dir, "PATH=/usr/bin:/bin"}, "/"
		return start(t, name, cmd)
	}
	l := &lb{config: config}
	l.process = begin("lb", owner, group, "run", config)
	l.event("msg=ready")
	ask := func(uid, gid uint32, args ...string) (int, string) {
		p := begin(args[0], uid, gid, append(args, "--config", config)...)
		p.in.Close()
		code := p.wait()
		return code, strings.Join(append(p.stdout(), p.stderr()...), "\n")
	}
	if code, out := ask(other, group, "weight", "app", "127.0.0.1:1", "2"); code != 0 {
		t.Errorf("a member of the group: %d %s", code, out)
	}
	l.event(fmt.Sprintf(`backend weight changed.* by="uid %d"`, other))
	if code, out := ask(owner, other, "status"); code != 0 {
		t.Errorf("its user: %d %s", code, out)
	}
	if code, out := ask(other, other, "status"); code != 1 || !strings.Contains(out, "is not yours to use") {
		t.Errorf("somebody else: %d %s", code, out)
	}
	l.stop(0)
}
