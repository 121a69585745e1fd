package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"lb/config"
)

// initIn runs lb init in a directory of its own, without a terminal.
func initIn(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = execute(append([]string{"init"}, args...), world{stdout: &out, stderr: &errs})
	return code, out.String(), errs.String()
}

func TestInitFlags(t *testing.T) {
	for _, c := range []struct {
		args, summary string
		has           []string // lines
		next          string
	}{
		{"--ports 3000-3003", "config.toml: ok: listens on :8080, sends everything to pool app (4 backends, adaptive), metrics on 127.0.0.1:9901",
			[]string{`backends = ["127.0.0.1:3000-3003"]`, `#strategy = "adaptive"`, `#path = "/health"`, `#trusted_proxies = ["10.0.0.0/16"]`, `#path = "-"`},
			"curl http://127.0.0.1:8080/ "},
		{"--ports 3000,10.0.0.7:4000-4001 --listen 10.0.0.1:81 --health /healthz?full=1 --strategy ewma --trusted-proxies 10.0.0.0/16,10.1.0.0/16 --output a.toml",
			"a.toml: ok: listens on 10.0.0.1:81, sends everything to pool app (3 backends, ewma), metrics on 127.0.0.1:9901",
			[]string{`backends = ["127.0.0.1:3000", "10.0.0.7:4000-4001"]`, `strategy = "ewma"`, `path = "/healthz?full=1"`, `trusted_proxies = ["10.0.0.0/16", "10.1.0.0/16"]`, `address = "10.0.0.1:81"`},
			"curl http://10.0.0.1:81/ "},
		{"--ports 3000 --sticky", "config.toml: ok: listens on :8080, sends everything to pool app (1 backend, adaptive), metrics on 127.0.0.1:9901",
			[]string{"[pool.app.affinity]", `kind = "cookie"`}, "lb reload config.toml "},
		{"--ports 3000 --socketio", "config.toml: ok: listens on :8080, sends everything to pool app (1 backend, adaptive), metrics on 127.0.0.1:9901",
			[]string{"[pool.app.affinity]", `#kind = "cookie"`, "#rebalance = 10"}, "lb run config.toml "},
		{"--ports 8080-8081", "config.toml: ok: listens on :8082, sends everything to pool app (2 backends, adaptive), metrics on 127.0.0.1:9901",
			[]string{`backends = ["127.0.0.1:8080-8081"]`, `address = ":8082"`}, "curl http://127.0.0.1:8082/ "},
		{"--ports unix:/run/app.sock --listen [::1]:8080 --yes", "config.toml: ok: listens on [::1]:8080, sends everything to pool app (1 backend, adaptive), metrics on 127.0.0.1:9901",
			[]string{`backends = ["unix:/run/app.sock"]`}, "curl http://[::1]:8080/ "},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Chdir(t.TempDir())
			code, stdout, stderr := initIn(t, strings.Fields(c.args)...)
			if code != 0 || stderr != "" || !strings.HasPrefix(stdout, c.summary+"\n\nNext:\n  lb run ") || !strings.Contains(stdout, c.next) {
				t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
			}
			file, _, _ := strings.Cut(c.summary, ":")
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(string(text), "\n")
			for _, want := range c.has {
				if !slices.Contains(lines, want) {
					t.Errorf("no line %q in\n%s", want, text)
				}
			}
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o644 {
				t.Errorf("%v %v", info.Mode(), err)
			}
			if left, _ := filepath.Glob(".lb-*"); left != nil {
				t.Errorf("left over: %q", left)
			}
			// Every key that is commented out is one that may be put in.
			for i, l := range lines {
				if strings.HasPrefix(l, "#") && !strings.HasPrefix(l, "# ") {
					with := slices.Clone(lines)
					with[i] = l[1:]
					if _, err := config.Parse(file, []byte(strings.Join(with, "\n"))); err != nil {
						t.Errorf("with %s: %v", l, err)
					}
				}
			}
		})
	}
}

// TestInitService holds what is otherwise in the file of the service.
func TestInitService(t *testing.T) {
	a := choices{ports: "3000", listen: ":80", strategy: "adaptive", output: servicePath}
	c, err := config.Parse(servicePath, []byte(a.text()))
	if err != nil {
		t.Fatal(err)
	}
	if c.AccessLog.Path != "/var/log/lb/access.log" || !strings.Contains(next(a), "systemctl enable --now lb ") {
		t.Errorf("%+v\n%s", c.AccessLog, next(a))
	}
}

func TestInitFaults(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("there.toml", []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   string
		code   int
		stderr string
	}{
		{"", exitUsage, "lb: there is no terminal to ask on: say where the app listens, as in \"lb init --ports 3000-3003\""},
		{"--ports 70000", exitUsage, "lb: --ports 70000: \"127.0.0.1:70000\": there is no port 70000"},
		{"--ports 3000 --listen nowhere", exitUsage, "lb: --listen nowhere: "},
		{"--ports 3000 --listen :3000", exitUsage, "lb: --listen :3000: \"127.0.0.1:3000\" is where lb itself listens"},
		{"--ports 3000 --health health", exitUsage, "lb: --health health: "},
		{"--ports 3000 --strategy best", exitUsage, "lb: --strategy best: "},
		{"--ports 3000 --trusted-proxies alb", exitUsage, "lb: --trusted-proxies alb: "},
		{"--ports 3000 --output there.toml", exitFailed, "lb: there.toml is there already: --output names another file, --force writes over it\n"},
		{"--ports 3000 --output nosuch/x.toml", exitFailed, "lb: nosuch/x.toml cannot be written: no such file or directory: --output names another file, - is standard output\n"},
		{"--ports 3000 --output . --force", exitFailed, "lb: . is no file\n"},
	} {
		code, stdout, stderr := initIn(t, strings.Fields(c.args)...)
		if code != c.code || stdout != "" || !strings.HasPrefix(stderr, c.stderr) {
			t.Errorf("%s: exit code %d, %q, %q", c.args, code, stdout, stderr)
		}
	}
	if text, _ := os.ReadFile("there.toml"); string(text) != "mine" {
		t.Errorf("it was overwritten:\n%s", text)
	}
	if err := os.Symlink("there.toml", "link.toml"); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := initIn(t, "--ports", "3000", "--output", "link.toml", "--force"); code != 0 {
		t.Errorf("%d %s", code, stderr)
	}
	if text, _ := os.ReadFile("there.toml"); !strings.Contains(string(text), "127.0.0.1:3000") {
		t.Errorf("--force did not write:\n%s", text)
	}
	info, _ := os.Stat("there.toml")
	link, _ := os.Lstat("link.toml")
	if info.Mode().Perm() != 0o600 || link.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("its mode is %v now, the link is %v", info.Mode(), link.Mode())
	}
	code, stdout, _ := initIn(t, "--ports", "3000", "--output", "-")
	if _, err := config.Parse("-", []byte(stdout)); code != 0 || err != nil {
		t.Errorf("%d %v\n%s", code, err, stdout)
	}
}

// TestInitRace holds that a file which comes while lb asks is not overwritten.
func TestInitRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(path, []byte("lb's"), false); err == nil || !strings.Contains(err.Error(), "is there by now") {
		t.Error(err)
	}
	if text, _ := os.ReadFile(path); string(text) != "mine" {
		t.Errorf("%s", text)
	}
}

func TestInitQuestions(t *testing.T) {
	node := func(port int) listener { return listener{port, port, "node", "node /srv/app.js"} }
	machine := []listener{{22, 0, "", ""}, {2999, 9, "node", "PM2 v7.0.4: God Daemon (/root/.pm2)"}, {3900, 8, "node", "node /srv/other.js"}, node(4000), node(4001), node(4003),
		{5432, 7, "postgres", "postgres -D \x1b[2J"}, node(9229), node(40000)}
	for _, c := range []struct {
		name, typed string
		given       choices // by flags
		machine     []listener
		health      string // the path that the app has
		all         bool   // it answers everything
		want        []string
		asked       []string
	}{
		{name: "defaults", typed: "\n\n\n\n\n\n", machine: machine, health: "/healthz",
			want:  []string{`backends = ["127.0.0.1:4000-4001", "127.0.0.1:4003"]`, `address = ":8080"`, `path = "/healthz"`, `#strategy = "adaptive"`},
			asked: []string{"  22          (another user's; root sees whose)\n  2999        PM2 v7.0.4: God Daemon (/root/.pm2)\n  3900        node /srv/other.js\n  4000-4001   node /srv/app.js (2 processes)\n", "postgres -D ?[2J", "[4000-4001,4003]: ", "[/healthz]: ", "[none]: "}},
		{name: "the port is taken", typed: "3000\n\n\n\n\n\n", machine: []listener{{8080, 0, "", ""}, node(8081), {8083, 0, "", ""}}, want: []string{`address = ":8082"`}},
		{name: "the port is taken, and the app's", typed: "\n\n\n\n\n", given: choices{ports: "8080"}, machine: []listener{node(8080)}, want: []string{`address = ":8081"`}},
		{name: "the port is taken, and said", typed: "3000\n\n\n\n\n", given: choices{listen: ":8080"}, machine: []listener{{8080, 0, "", ""}}, want: []string{`address = ":8080"`}},
		{name: "nothing known", typed: "\n\n\n\n\n\n", want: []string{`backends = ["127.0.0.1:3000-3003"]`, `#path = "/health"`}, asked: []string{"[3000-3003]: "}},
		{name: "an app that says yes to all", typed: "\n\n\n\n\n\n", machine: machine, health: "/health", all: true, want: []string{`#path = "/health"`}},
		{name: "answers", typed: "3100-3103, 3200\n:80\n/up\newma\nYES\n10.0.0.0/16\n", machine: machine,
			want: []string{`backends = ["127.0.0.1:3100-3103", "127.0.0.1:3200"]`, `address = ":80"`, `path = "/up"`, `strategy = "ewma"`, `kind = "cookie"`, `trusted_proxies = ["10.0.0.0/16"]`}},
		{name: "mistakes", typed: "everywhere\n3000\n99999999\n:80\nup\nnone\nbest\nrandom\nperhaps\nn\nalb\nnone\n", machine: machine,
			want: []string{`backends = ["127.0.0.1:3000"]`, `strategy = "random"`, `#path = "/health"`}, asked: []string{"  yes or no?\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			var out, prompt bytes.Buffer
			i := wizard{in: strings.NewReader(c.typed), out: &out, prompt: &prompt, terminal: true, given: func(flag string) bool {
				return flag == "ports" && c.given.ports != "" || flag == "listen" && c.given.listen != ""
			},
				listening: func() []listener { return c.machine },
				status: func(url string) int {
					if c.all || c.health != "" && strings.HasSuffix(url, c.health) {
						return 200
					}
					return 404
				}}
			a := c.given
			a.strategy, a.output = "adaptive", "config.toml"
			if err := i.run(a); err != nil {
				t.Fatalf("%v\n%s", err, prompt.String())
			}
			text, err := os.ReadFile("config.toml")
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if !slices.Contains(strings.Split(string(text), "\n"), want) {
					t.Errorf("no line %q in\n%s", want, text)
				}
			}
			for _, want := range c.asked {
				if !strings.Contains(prompt.String(), want) {
					t.Errorf("it did not ask %q:\n%s", want, prompt.String())
				}
			}
		})
	}
}

func TestInitInterrupted(t *testing.T) {
	t.Chdir(t.TempDir())
	i := wizard{in: strings.NewReader("3000\n"), out: new(bytes.Buffer), prompt: new(bytes.Buffer), terminal: true, given: func(string) bool { return false },
		listening: func() []listener { return nil }, status: func(string) int { return 0 }}
	if err := i.run(choices{strategy: "adaptive", output: "config.toml"}); err == nil || !strings.Contains(err.Error(), "nothing was written") {
		t.Error(err)
	}
	if left, _ := os.ReadDir("."); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestListening(t *testing.T) {
	proc := t.TempDir()
	put := func(path, text string) {
		t.Helper()
		path = filepath.Join(proc, path)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(path, to string) {
		t.Helper()
		os.MkdirAll(filepath.Dir(filepath.Join(proc, path)), 0o755)
		if err := os.Symlink(to, filepath.Join(proc, path)); err != nil {
			t.Fatal(err)
		}
	}
	line := func(at, state string, inode int) string {
		return fmt.Sprintf("   0: %s 00000000:0000 %s 00000000:00000000 00:00000000 00000000     0        0 %d 1 0 100 0 0 10 0\n", at, state, inode)
	}
	put("net/tcp", "  sl  local_address rem_address   st\n"+line("0100007F:0BB8", "0A", 11)+line("00000000:0BB9", "0A", 12)+
		line("0100007F:0BBA", "01", 13)+ // a connection
		line("0A00000A:0BBB", "0A", 14)) // another address of the machine
	put("net/tcp6", "  sl\n"+line("00000000000000000000000000000000:0BBC", "0A", 15)+line("00000000000000000000000001000000:0BBD", "0A", 16)+
		line("0000000000000000FFFF00000100007F:0BBE", "0A", 17)+"nonsense\n"+line("XX:YY", "0A", 18))
	for pid, inode := range map[int]int{101: 11, 100: 11, 102: 12, 103: 15} {
		link(fmt.Sprintf("%d/fd/3", pid), fmt.Sprintf("socket:[%d]", inode))
		link(fmt.Sprintf("%d/fd/4", pid), "/dev/null")
		link(fmt.Sprintf("%d/exe", pid), "/usr/bin/node")
		put(fmt.Sprintf("%d/cmdline", pid), "node\x00/srv/app.js\x00")
	}
	got := fmt.Sprint(readListening(proc))
	const want = "[{3000 100 node node /srv/app.js} {3001 102 node node /srv/app.js} {3004 103 node node /srv/app.js} {3005 0  } {3006 0  }]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if ports := appPorts(readListening(proc)); !slices.Equal(ports, []string{"3000-3001", "3004"}) {
		t.Errorf("%q", ports)
	}
	if all := readListening(filepath.Join(proc, "nosuch")); all != nil {
		t.Errorf("%v", all)
	}
}

// TestListeningReal finds a port of this process, and a real Node.js.
func TestListeningReal(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	find := func(port int) *listener {
		for _, l := range listening() {
			if l.port == port {
				return &l
			}
		}
		return nil
	}
	if l := find(port); l == nil || l.pid != os.Getpid() || l.app() {
		t.Errorf("%+v", l)
	}
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("there is no node: install Node.js")
	}
	node := exec.Command("node", "-e", `const s = require("http").createServer().listen(0, "127.0.0.1", () => console.log(s.address().port)); process.stdin.on("close", () => process.exit()).resume()`)
	stdin, err := node.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	defer node.Wait()
	defer stdin.Close()
	if _, err := fmt.Fscan(stdout, &port); err != nil {
		t.Fatal(err)
	}
	if l := find(port); l == nil || l.pid != node.Process.Pid || l.program != "node" || !strings.HasPrefix(l.command, "node -e ") {
		t.Errorf("%+v", l)
	}
}
