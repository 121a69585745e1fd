package main

import (
	"bytes"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb/config"
)

var update = flag.Bool("update", false, "write testdata anew")

// golden compares got with a file.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (go test ./cmd/lb -update writes it anew):\n%s", path, diff)
	}
}

// lines is a writer whose text can be read meanwhile.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// command is one run of lb within the test.
type command struct {
	t              *testing.T
	stdout, stderr lines
	signals        chan<- os.Signal
	ready          chan struct{} // closed when it listens for signals
	code           chan int
}

func start(t *testing.T, args ...string) *command {
	c := &command{t: t, ready: make(chan struct{}), code: make(chan int, 1)}
	w := world{&c.stdout, &c.stderr, func(s chan<- os.Signal, _ ...os.Signal) {
		c.signals = s
		close(c.ready)
	}}
	go func() { c.code <- execute(args, w) }()
	return c
}

func (c *command) signal(s os.Signal) {
	<-c.ready
	c.signals <- s
}

func (c *command) wait() int {
	c.t.Helper()
	select {
	case code := <-c.code:
		return code
	case <-time.After(30 * time.Second):
		c.t.Fatalf("does not end; standard error:\n%s", c.stderr.String())
		return 0
	}
}

// says waits for a match of pattern in what get returns, and returns its first group.
func (c *command) says(get func() string, pattern string) string {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if m := re.FindStringSubmatch(get()); m != nil {
			return m[len(m)-1]
		}
	}
	c.t.Fatalf("never said %s, but:\n%s", pattern, get())
	return ""
}

func (c *command) event(pattern string) string {
	c.t.Helper()
	return c.says(c.stderr.String, pattern)
}

func TestCommands(t *testing.T) {
	t.Chdir("testdata") // so that paths in messages are short
	defer func(was []string) { configPlaces = was }(configPlaces)
	configPlaces = []string{"nosuch.toml", "/nosuch/config.toml"}
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string // "" stands for nothing; a name in angle brackets for that file
	}{
		{args: []string{}, stdout: "<help.txt>"},
		{args: []string{"--help"}, stdout: "<help.txt>"},
		{args: []string{"run", "--help"}, stdout: "<help-run.txt>"},
		{args: []string{"reload", "--help"}, stdout: "<help-reload.txt>"},
		{args: []string{"check", "good.toml"},
			stdout: "good.toml: ok: listens on 127.0.0.1:0, sends everything to pool app (2 backends, adaptive), metrics off\n"},
		{args: []string{"check", "faults.toml"}, code: 1, stdout: "<faults.txt>"},
		{args: []string{"run", "faults.toml"}, code: 1, stderr: "<faults.txt>"},
		{args: []string{"check", "missing.toml"}, code: 1, stderr: "lb: missing.toml: cannot be read: no such file or directory\n"},
		{args: []string{"run"}, code: 1,
			stderr: "lb: there is neither a nosuch.toml in this directory nor a /nosuch/config.toml: name a file, or have one written by \"lb init\"\n"},
		{args: []string{"chekc"}, code: 64, stderr: "lb: there is no command \"chekc\", did you mean \"lb check\"?\n"},
		{args: []string{"check", "--loud"}, code: 64, stderr: "lb: lb check has no flag --loud; there is --help\n"},
		{args: []string{"help", "exit-codes"}, stdout: "<help-exit-codes.txt>"},
		{args: []string{"demo", "--rate", "-1"}, code: 64, stderr: "lb: --rate -1: this is a demo, 0 to 5000 is what it does\n"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := execute(c.args, world{&stdout, &stderr, func(chan<- os.Signal, ...os.Signal) {}})
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, o := range []struct{ what, got, want string }{{"standard output", stdout.String(), c.stdout}, {"standard error", stderr.String(), c.stderr}} {
				if strings.HasPrefix(o.want, "<") {
					golden(t, strings.Trim(o.want, "<>"), o.got)
				} else if diff := cmp.Diff(o.want, o.got); diff != "" {
					t.Errorf("%s:\n%s", o.what, diff)
				}
			}
		})
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const text = "[pool.app]\nbackends = [1]\nhold = \"off\"\n[listen.web]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n[access_log]\npath = \"%\"\n"
	file := strings.Replace(text, "%", filepath.Join(dir, "access.log"), 1)
	write(file)
	c := start(t, "run", path)
	web := c.event(`listener=web address=(\S+)`)
	c.event("msg=ready")
	res, err := http.Get("http://" + web) // nobody listens on port 1
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != 503 {
		t.Errorf("%d %q", res.StatusCode, body)
	}

	c.signal(syscall.SIGUSR1)
	c.event("access log reopened")
	write(file + "mistake = 1\n")
	c.signal(syscall.SIGHUP)
	c.event(`not reloaded, all goes on as before" err="\S+:10:1: access_log.mistake: unknown key`)
	write(strings.Replace(file, "[1]", "[2]", 1))
	c.signal(syscall.SIGHUP)
	c.event("msg=reloaded changed=true changes=\"1 backend joined pool app: 127.0.0.1:2; 1 backend left pool app: 127.0.0.1:1\"")

	c.signal(syscall.SIGTERM)
	if code := c.wait(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, c.stderr.String())
	}
	c.event("msg=stopped")
	if b, err := os.ReadFile(filepath.Join(dir, "access.log")); err != nil || !strings.Contains(string(b), `"reason":"no_backend"`) {
		t.Errorf("access log: %v %q", err, b)
	}
}

func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("listens on the ports of config.toml")
	}
	c := start(t, "demo", "--rate", "300")
	url := c.says(c.stdout.String, `through lb +(http://\S+)/`)
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	page, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if who := res.Header.Get("X-Instance"); res.StatusCode != 200 || who == "" || !strings.Contains(string(page), who+"</b> answered") {
		t.Errorf("%d, from %q:\n%s", res.StatusCode, who, page)
	}
	c.says(c.stdout.String, `pool app, adaptive +\d+ requests, \d+ a second, 0 failed\n +backend .*\n(?: .* ready .* % .*\n){3}.* \(slow\) +ready`)
	c.signal(syscall.SIGINT)
	if code := c.wait(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, c.stderr.String())
	}
	c.says(c.stdout.String, `stopped: \d+ requests sent, 0 failed\n$`)
	if s := c.stderr.String(); s != "" {
		t.Errorf("standard error:\n%s", s)
	}
}

// TestPortFinder holds that the demo runs beside whatever has its ports.
func TestPortFinder(t *testing.T) {
	var p portFinder
	a, err := p.listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := p.listen("tcp", a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if len(p.moved) != 1 || !strings.HasPrefix(p.moved[0], a.Addr().String()) || !strings.HasSuffix(p.moved[0], " is now "+b.Addr().String()) {
		t.Errorf("got %q", p.moved)
	}
}

// TestReadme holds that the examples of the README are good.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(examples) < 2 {
		t.Fatalf("%d examples", len(examples))
	}
	for _, e := range examples {
		if _, err := config.Parse("README.md", []byte(e[1])); err != nil {
			t.Errorf("%v in\n%s", err, e[1])
		}
	}
}
