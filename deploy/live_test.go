package deploy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestPrometheus has a real Prometheus look at a real lb, and asks it what the dashboard asks.
func TestPrometheus(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	if _, err := exec.LookPath("prometheus"); err != nil {
		missing(t, "prometheus")
	}
	dir := t.TempDir()
	web, admin := startLB(t, dir)

	res, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	tool := exec.Command("promtool", "check", "metrics")
	tool.Stdin = res.Body
	if out, err := tool.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	res.Body.Close()

	rules, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "prometheus.yml")
	text := strings.NewReplacer("lb.rules.yml", rules, "127.0.0.1:9901", admin, ": 15s", ": 1s").Replace(read(t, "prometheus/prometheus.yml"))
	text, _, _ = strings.Cut(text, "\nalerting:")
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	// It does not say which port it got when it is given 0.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	ln.Close()
	run(t, dir, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "tsdb"), "--web.listen-address="+address)
	api := func(path string, into any) error {
		res, err := http.Get("http://" + address + path)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", res.Status, body)
		}
		if err != nil {
			return err
		}
		return json.Unmarshal(body, into)
	}
	query := func(expr string) (int, error) {
		var answer struct {
			Data struct{ Result []json.RawMessage }
		}
		err := api("/api/v1/query?query="+url.QueryEscape(expr), &answer)
		return len(answer.Data.Result), err
	}

	over := make(chan struct{})
	var clients sync.WaitGroup
	defer clients.Wait()
	defer close(over)
	for range 2 {
		clients.Go(func() {
			for {
				select {
				case <-over:
					return
				case <-time.After(5 * time.Millisecond):
					if res, err := http.Get(web); err == nil {
						io.Copy(io.Discard, res.Body)
						res.Body.Close()
					}
				}
			}
		})
	}
	waitFor(t, "rates, and what is recorded of them", func() bool {
		n, err := query("job_pool:lb_backend_request_duration_seconds:p99_5m > 0 and on () job:lb_listener_requests:rate5m > 0")
		return err == nil && n > 0
	})

	// What needs trouble of its kind to be seen; here are 5xx and a backend that nobody listens on.
	quiet := regexp.MustCompile(`> 0\)?$|lb_pool_wait_seconds_total|changes\(`)
	values := strings.NewReplacer("$__rate_interval", "10s", "$job", ".*", "$instance", ".*", "$pool", ".*")
	d := readDashboard(t)
	asked := 0
	ask := func(where, expr string) {
		asked++
		switch n, err := query(values.Replace(expr)); {
		case err != nil:
			t.Errorf("%s: %s: %v", where, expr, err)
		case n == 0 && !quiet.MatchString(expr):
			t.Errorf("%s: %s shows nothing", where, expr)
		}
	}
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			ask(p.Title, q.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		ask("annotation", a.Expr)
	}
	for _, v := range d.Templating.List {
		if m := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(v.Definition); m != nil {
			ask("variable "+v.Name, "count by ("+m[2]+") ("+m[1]+")")
		}
	}
	for _, e := range matches(read(t, "../docs/metrics.md"), "(?s)```promql\n(.*?)\n```") {
		for expr := range strings.Lines(e) {
			if _, err := query(strings.TrimSpace(expr)); err != nil {
				t.Errorf("docs/metrics.md: %s: %v", expr, err)
			}
		}
	}
	t.Logf("%d queries", asked)

	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Type, Health, LastError, State string }
			}
		}
	}
	waitFor(t, "every rule looked at", func() bool {
		if err := api("/api/v1/rules", &answer); err != nil {
			t.Fatal(err)
		}
		for _, g := range answer.Data.Groups {
			for _, r := range g.Rules {
				if r.Health == "unknown" {
					return false
				}
			}
		}
		return len(answer.Data.Groups) == 2
	})
	down := ""
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			if r.Health != "ok" {
				t.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
			}
			if n, err := query(r.Name); r.Type == "recording" && (err != nil || n == 0) {
				t.Errorf("%s: nothing is recorded: %v", r.Name, err)
			}
			if r.Name == "LbBackendDown" {
				down = r.State
			}
		}
	}
	if down != "pending" {
		t.Errorf("LbBackendDown is %q, want it pending: a backend is down", down)
	}
}

// startLB runs lb before an app that errs now and then, and a port that nobody listens on.
func startLB(t *testing.T, dir string) (web, admin string) {
	t.Helper()
	app := func(every int) string {
		var mu sync.Mutex
		n := 0
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if n++; n%every == 0 {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}))
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := ln.Addr().String()
	ln.Close()
	binary := filepath.Join(dir, "lb")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "lb/cmd/lb").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	config := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("[pool.app]\nbackends = [%q, %q, %q]\n[listen.web]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n[access_log]\npath = %q\n",
		app(20), app(30), nobody, filepath.Join(dir, "access.log"))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	events := run(t, dir, binary, "run", config)
	find := func(expr string) (found string) {
		waitFor(t, expr, func() bool {
			if m := regexp.MustCompile(expr).FindStringSubmatch(events.String()); m != nil {
				found = m[1]
			}
			return found != ""
		})
		return found
	}
	return "http://" + find(`msg=listening listener=web address=(\S+)`), find(`msg=admin address=(\S+)`)
}

// output is what a program has written so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// run starts a program that ends with the test.
func run(t *testing.T, dir, name string, args ...string) *output {
	t.Helper()
	o := new(output)
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, o, o
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		killer := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		killer.Stop()
		if t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(name), o)
		}
	})
	return o
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
