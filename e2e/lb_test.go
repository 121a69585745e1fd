package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// app is a Node.js program of directory apps.
type app struct {
	*process
	script string
	env    []string
	port   string
}

// addr is where the app listens.
func (a *app) addr() string { return "127.0.0.1:" + a.port }

// startProgram runs a program that listens on any port. env holds NAME=value.
func startProgram(t testing.TB, script, name string, env ...string) *app {
	t.Helper()
	return startProgramAt(t, "0", script, name, env...)
}

func startProgramAt(t testing.TB, port, script, name string, env ...string) *app {
	t.Helper()
	a := &app{script: script, env: append(env, "NAME="+name), port: port}
	a.launch(t, name)
	return a
}

// startApp runs a program and waits until it listens.
func startApp(t testing.TB, script, name string, env ...string) *app {
	t.Helper()
	a := startProgram(t, script, name, env...)
	a.port = a.hears("listening")
	return a
}

func (a *app) launch(t testing.TB, name string) {
	t.Helper()
	cmd := exec.Command("node", a.script)
	cmd.Dir = "apps"
	cmd.Env = append(append(os.Environ(), a.env...), "PORT="+a.port)
	a.process = start(t, name, cmd)
}

// again starts a killed app on the port that it had.
func (a *app) again(t testing.TB) {
	t.Helper()
	eventually(t, "the port is free again", func() bool {
		a.launch(t, a.name)
		listens := false
		eventually(t, a.name+" listens or gives up", func() bool {
			n, _ := a.said("listening")
			listens = n > 0
			select {
			case <-a.done:
				return true
			default:
				return listens
			}
		})
		return listens
	})
}

// startApps runs n instances of a program, named a, b, c and so on, and waits until all listen.
func startApps(t testing.TB, n int, script string, env ...string) []*app {
	t.Helper()
	var all []*app
	for i := range n {
		all = append(all, startProgram(t, script, string(rune('a'+i)), env[:len(env):len(env)]...))
	}
	for _, a := range all {
		a.port = a.hears("listening")
	}
	return all
}

// setup is a configuration. Lines hold "key = value" of TOML.
type setup struct {
	backends []*app
	address  string // of [listen.web], any port if it is ""
	pool     string // lines of [pool.app]
	server   string // lines of [server]
	log      string // lines of [access_log] in place of a path in the test's directory
	more     string // other tables
	raw      string // the whole file in place of all else; %LOG% stands for the path of the log
}

func (s *setup) write(t testing.TB, path, logPath string) {
	t.Helper()
	var b strings.Builder
	if s.raw != "" {
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(s.raw, "%LOG%", logPath)), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	address := s.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	fmt.Fprintf(&b, "[listen.web]\naddress = %q\n[admin]\naddress = \"127.0.0.1:0\"\n[access_log]\n", address)
	if s.log != "" {
		b.WriteString(s.log + "\n")
	} else {
		fmt.Fprintf(&b, "path = %q\n", logPath)
	}
	fmt.Fprintf(&b, "[server]\n%s\n[pool.app]\n%s\nbackends = [\n", s.server, s.pool)
	for _, a := range s.backends {
		fmt.Fprintf(&b, "  { address = %q, name = %q },\n", a.addr(), a.name)
	}
	fmt.Fprintf(&b, "]\n%s\n", s.more)
	err := os.WriteFile(path+".new", []byte(b.String()), 0o600)
	if err == nil {
		err = os.Rename(path+".new", path) // another process may read it now
	}
	if err != nil {
		t.Fatal(err)
	}
}

// lb is a running lb.
type lb struct {
	*process
	addr    string // of [listen.web]
	url     string // http:// and addr
	admin   string // http:// and the admin address
	config  string // path of the file
	logPath string
}

// startLB runs lb with s and waits until it is ready.
func startLB(t testing.TB, s setup) *lb {
	t.Helper()
	return startLBWith(t, s, func(args ...string) *exec.Cmd { return exec.Command(lbBinary, args...) })
}

// startLBWith runs lb by a command that becomes it.
func startLBWith(t testing.TB, s setup, command func(args ...string) *exec.Cmd) *lb {
	t.Helper()
	dir := t.TempDir()
	l := &lb{config: filepath.Join(dir, "config.toml"), logPath: filepath.Join(dir, "access.log")}
	s.write(t, l.config, l.logPath)
	l.process = start(t, "lb", command("run", l.config))
	l.event(`msg=ready`)
	l.addr = l.event(`msg=listening listener=web address=(\S+)`)
	l.url = "http://" + l.addr
	l.admin = "http://" + l.event(`msg=admin address=(\S+)`)
	return l
}

// event waits for an event in lb's standard error and returns what the pattern's first group matched.
func (l *lb) event(pattern string) string {
	l.t.Helper()
	re := regexp.MustCompile(pattern)
	found := ""
	eventually(l.t, "lb reports "+pattern, func() bool {
		for _, line := range l.stderr() {
			if m := re.FindStringSubmatch(line); m != nil {
				found = m[len(m)-1]
				return true
			}
		}
		select {
		case <-l.done:
			l.t.Fatalf("lb ended: %v\n%s", l.cmd.ProcessState, strings.Join(l.stderr(), "\n"))
		default:
		}
		return false
	})
	return found
}

// sawEvent fails the test if an lb that has ended did not report an event.
func (l *lb) sawEvent(pattern string) {
	l.t.Helper()
	re := regexp.MustCompile(pattern)
	if !slices.ContainsFunc(l.stderr(), re.MatchString) {
		l.t.Errorf("lb did not report %s", pattern)
	}
}

// stop tells lb to stop and holds it to its exit code.
func (l *lb) stop(code int) {
	l.t.Helper()
	l.signal(syscall.SIGTERM)
	if got := l.wait(); got != code {
		l.t.Errorf("lb ended with %d, want %d", got, code)
	}
	l.neverSaid()
}

// neverSaid fails the test for each event with one of the words, and for each panic.
func (l *lb) neverSaid(words ...string) {
	l.t.Helper()
	for _, line := range l.stderr() {
		bad := strings.HasPrefix(line, "goroutine ")
		for _, w := range append(words, "msg=panic") {
			bad = bad || strings.Contains(line, w)
		}
		if bad {
			l.t.Errorf("lb reported: %s", line)
		}
	}
}

// get asks the admin server.
func (l *lb) get(path string) (status int, body string) {
	l.t.Helper()
	resp, err := http.Get(l.admin + path)
	if err != nil {
		l.t.Fatalf("admin: %v", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatalf("admin: %s: %v", path, err)
	}
	return resp.StatusCode, string(b)
}

// metrics are samples by name and labels, as they stand in the text form.
type metrics map[string]float64

// metrics reads /metrics.
func (l *lb) metrics() metrics {
	l.t.Helper()
	status, body := l.get("/metrics")
	if status != 200 {
		l.t.Fatalf("/metrics: %d: %s", status, body)
	}
	m := metrics{}
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			l.t.Fatalf("/metrics: %q: %v", line, err)
		}
		m[line[:at]] = v
	}
	return m
}

// sum adds up the series of a name that have all the labels, each as name="value".
func (m metrics) sum(name string, labels ...string) (total float64) {
next:
	for series, v := range m {
		if rest, ok := strings.CutPrefix(series, name); !ok || rest != "" && rest[0] != '{' {
			continue
		}
		for _, label := range labels {
			k, v, _ := strings.Cut(label, "=")
			if !strings.Contains(series, k+`="`+v+`"`) {
				continue next
			}
		}
		total += v
	}
	return total
}

// reaches waits until a sum of metrics has a value.
func (l *lb) reaches(want float64, name string, labels ...string) {
	l.t.Helper()
	got := 0.0
	defer func() {
		if got != want {
			l.t.Logf("%s %v is %v, want %v", name, labels, got, want)
		}
	}()
	eventually(l.t, name+" "+strings.Join(labels, " "), func() bool {
		got = l.metrics().sum(name, labels...)
		return got == want
	})
}

// settled waits until lb has done all it was asked, and returns the metrics then.
func (l *lb) settled() metrics {
	l.t.Helper()
	l.reaches(0, "lb_backend_inflight_requests")
	return l.metrics()
}

// record is a line of the access log.
type record struct {
	Time      string  `json:"time"`
	Client    string  `json:"client"`
	Method    string  `json:"method"`
	Host      string  `json:"host"`
	Path      string  `json:"path"`
	Proto     string  `json:"proto"`
	Status    int     `json:"status"`
	BytesOut  int64   `json:"bytes_out"`
	BytesIn   int64   `json:"bytes_in"`
	Total     float64 `json:"total"`
	Connect   float64 `json:"connect"`
	FirstByte float64 `json:"first_byte"`
	Listener  string  `json:"listener"`
	Route     string  `json:"route"`
	Pool      string  `json:"pool"`
	Backend   string  `json:"backend"`
	Tries     int     `json:"tries"`
	Affinity  string  `json:"affinity"`
	Reason    string  `json:"reason"`
	RequestID string  `json:"request_id"`
	UserAgent string  `json:"user_agent"`
	Referer   string  `json:"referer"`
}

// readLog reads an access log, in which every line must be whole and have no field that nobody knows.
func readLog(t testing.TB, path string) (all []record) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 0 && b[len(b)-1] != '\n' {
		t.Errorf("%s ends in the middle of a line", path)
	}
	for line := range strings.Lines(string(b)) {
		var r record
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil {
			t.Fatalf("%s: %v in %q", path, err, line)
		}
		all = append(all, r)
	}
	return all
}

// byPath finds the line of each path; every path may be there once.
func byPath(t testing.TB, all []record) map[string]record {
	t.Helper()
	m := make(map[string]record, len(all))
	for _, r := range all {
		if _, ok := m[r.Path]; ok {
			t.Errorf("%s is there twice in the access log", r.Path)
		}
		m[r.Path] = r
	}
	return m
}
