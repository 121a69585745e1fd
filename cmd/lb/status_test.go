package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"lb/admin"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fleetStatus is a status with a backend in each state.
func fleetStatus() *admin.Status {
	at := func(d time.Duration) time.Time { return noon.Add(-d) }
	until := noon.Add(4 * time.Second)
	b := func(name string, state admin.State, since time.Duration) admin.Backend {
		return admin.Backend{Name: name, Address: name, State: state, Since: at(since), Weight: 1}
	}
	well := b("127.0.0.1:3000", admin.Ready, 3*time.Hour)
	well.Inflight, well.Tunnels, well.Share = 3, 12, .998
	well.Recent = admin.Recent{Rate: 812.4, P50: 3.14, P99: 12.2, ErrorRate: .0004}
	well.Check = &admin.Check{Time: at(time.Second), Passed: true, Streak: 5400}
	well.Weight, well.Differs = 2.5, "weight 250% while lb runs, 1 in the file, by uid 0 (root)"
	down := b("127.0.0.1:3001", admin.Down, 12*time.Second)
	down.Why = "connection refused"
	down.Check = &admin.Check{Time: at(400 * time.Millisecond), Said: "connection refused", Streak: 14}
	ejected := b("127.0.0.1:3002", admin.Ejected, time.Second)
	ejected.Why, ejected.Until = `7 of 9 requests failed within 10s, the last by fault "reset"`, &until
	ejected.Recent = admin.Recent{Rate: 1.5, P50: 1200, P99: 31000, ErrorRate: .78}
	ejected.Check = &admin.Check{Time: at(time.Second), Passed: true, Streak: 3}
	draining := b("127.0.0.1:3003", admin.Draining, 90*time.Second)
	draining.Why = "told to by uid 1000 (ubuntu)"
	draining.Inflight = 1
	resting := b("a-backend-with-a-long-name:3004", admin.Resting, 50*time.Hour)
	resting.Why, resting.Weight = "its weight is 0", 0
	unchecked := b("127.0.0.1:3005", admin.Unchecked, 0)
	unchecked.Why = "no check has passed yet"
	return &admin.Status{
		Version: "v1.2.3", State: "running", Uptime: 7380, PID: 4242, File: "/etc/lb/config.toml",
		Reload:    &admin.Reloaded{Time: at(5 * time.Minute), OK: true},
		Listeners: []admin.Listener{{Name: "web", Address: "[::]:80", Connections: 1}, {Name: "internal", Address: "127.0.0.1:8081", Connections: 120}},
		Pools: []admin.Pool{
			{
				Name: "app", Strategy: "least_conn", Recent: admin.Recent{Rate: 814, P50: 3.2, P99: 14, ErrorRate: .002}, Queue: admin.Queue{Waiting: 2},
				Backends: []admin.Backend{well, down, ejected, draining, resting, unchecked},
				Removed:  []admin.Removed{{Name: "127.0.0.1:3006", Address: "127.0.0.1:3006", Time: at(time.Minute), By: "uid 0 (root)"}},
			},
			{Name: "api", Strategy: "hash", FailOpen: true, Backends: []admin.Backend{b("unix:/run/api.sock", admin.Ejected, time.Hour)}},
		},
	}
}

func TestStatusText(t *testing.T) {
	golden(t, "testdata/status.txt", statusText(fleetStatus(), terminal{}, noon))
	failed := fleetStatus()
	failed.State, failed.Pools, failed.Reload = "stopping", nil, &admin.Reloaded{Time: noon}
	golden(t, "testdata/status-failed.txt", statusText(failed, terminal{colors: true}, noon))
	colors := statusText(fleetStatus(), terminal{colors: true}, noon)
	if plainText := regexp.MustCompile("\x1b\\[[0-9]*m").ReplaceAllString(colors, ""); plainText != statusText(fleetStatus(), terminal{}, noon) {
		t.Errorf("colours change the text:\n%s", plainText)
	}
	for _, want := range []string{green + "ready" + plain, red + "down" + plain, yellow + "draining" + plain} {
		if !strings.Contains(colors, want) {
			t.Errorf("no %q", want)
		}
	}
}

// TestStatusFits holds that the table of a usual pool fits 80 columns, and that a narrow window costs columns, not lines.
func TestStatusFits(t *testing.T) {
	p := &fleetStatus().Pools[0]
	p.Backends = p.Backends[:4]
	for _, width := range []int{44, 60, 80, 200} {
		text := backendTable(p, terminal{}, noon, width, "")
		for i, line := range strings.Split(text, "\n") {
			if n := utf8.RuneCountInString(line); n > max(width, 78) || !strings.HasPrefix(line, "    ") && n > width {
				t.Errorf("width %d, line %d has %d: %s", width, i, n, line)
			}
		}
		if width == 80 && !strings.Contains(text, "P99") || width == 200 && !strings.Contains(text, "CHECK") || !strings.Contains(text, "ERR") {
			t.Errorf("width %d:\n%s", width, text)
		}
	}
}

func TestStatusUnits(t *testing.T) {
	for want, got := range map[string]string{
		"0": rate(0), "0.1": rate(.1), "9.9": rate(9.94), "10": rate(9.95), "99999": rate(99999), "100k": rate(99999.6),
		"-": span(0), "9.9ms": span(9.94), "10ms": span(9.96), "999ms": span(999), "1.0s": span(1000), "99.9s": span(99900), "100s": span(100000),
		"0%": percent(0), "0.1%": percent(.00001), "0.9%": percent(.009), "1%": percent(.0096), "100%": percent(1),
		"0s": ago(-time.Second), "59s": ago(59 * time.Second), "1m": ago(time.Minute), "59m": ago(time.Hour - 1), "47h": ago(48*time.Hour - 1), "2d": ago(48 * time.Hour),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestFitness(t *testing.T) {
	pool := func(states ...admin.State) admin.Pool {
		var p admin.Pool
		for _, s := range states {
			p.Backends = append(p.Backends, admin.Backend{State: s})
		}
		return p
	}
	for _, c := range []struct {
		pools []admin.Pool
		want  int
	}{
		{[]admin.Pool{pool(admin.Ready, admin.Ready), pool(admin.Ready)}, 0},
		{[]admin.Pool{pool(admin.Ready, admin.Draining)}, 6},
		{[]admin.Pool{pool(admin.Ready, admin.Down), pool(admin.Down)}, 3},
		{[]admin.Pool{pool()}, 3},
	} {
		if got := exitCode(world{}, fitness(&admin.Status{Pools: c.pools}), true); got != c.want {
			t.Errorf("%+v: %d, want %d", c.pools, got, c.want)
		}
	}
}

// running is an lb in the test with the given lines of [pool.app], and how to run other commands against it.
type running struct {
	*command
	path string
}

func runLB(t *testing.T, pool string) *running {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", dir)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.toml")
	text := "[pool.app]\n" + pool + "\n[listen.web]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"off\"\n[access_log]\nformat = \"off\"\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &running{start(t, "run", path), path}
	r.event("msg=ready")
	t.Cleanup(func() {
		r.signal(syscall.SIGTERM)
		if code := r.wait(); code != 0 {
			t.Errorf("lb ended with %d:\n%s", code, r.stderr.String())
		}
	})
	return r
}

// do runs a command and holds it to its exit code and, by patterns, its output.
func (r *running) do(code int, stdout, stderr string, args ...string) string {
	r.t.Helper()
	c := start(r.t, append(args, "--config", r.path)...)
	got := c.wait()
	out, err := c.stdout.String(), c.stderr.String()
	if got != code || !regexp.MustCompile("(?s)^"+stdout+"$").MatchString(out) || !regexp.MustCompile("(?s)^"+stderr+"$").MatchString(err) {
		r.t.Errorf("lb %s: %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, err)
	}
	return out
}

func TestStatus(t *testing.T) {
	r := runLB(t, "backends = [1, 2]\nhealth.kind = \"off\"")
	r.do(0, `lb \S+, running for \d+s, pid \d+, .*/config\.toml\nlistening on web 127\.0\.0\.1:\d+ \(0 connections\)\n\n`+
		`pool app: adaptive, 2 of 2 ready, 0 req/s, 0 in flight\nBACKEND +STATE +SINCE.*\n127\.0\.0\.1:1 ready .*\n127\.0\.0\.1:2 ready .*\n`, "", "status")
	r.do(0, ".*pool app: .*", "", "status", "app")
	r.do(7, "", `lb: pool "ap" is not known, did you mean "app"\?\n`, "status", "ap")
	r.do(64, "", "lb: --watch=10ms: it is 100ms to 1h\n", "status", "--watch=10ms")
	r.do(0, `app 127\.0\.0\.1:1: drained after .*`, "", "drain", "app", "127.0.0.1:1")
	by := ""
	if runtime.GOOS == "linux" {
		by = fmt.Sprintf(`.* by uid %d.*`, os.Getuid())
	}
	r.do(6, `.*1 of 2 ready.*127\.0\.0\.1:1 draining .*\n    told to`+by+"\n127.*", "", "status")
	r.do(0, `app 127\.0\.0\.1:2: drained.*`, "lb: no other backend .*", "drain", "app", "127.0.0.1:2", "--wait", "0s")
	r.do(3, ".*0 of 2 ready.*", "", "status")
	var st admin.Status
	out := r.do(3, `\{.*\}\n`, "", "status", "app", "--json")
	if err := json.Unmarshal([]byte(out), &st); err != nil || st.PID != os.Getpid() || st.File != r.path || len(st.Pools) != 1 {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestStatusWatch(t *testing.T) {
	r := runLB(t, "backends = [1, 2]\nhealth.kind = \"off\"")
	for _, args := range [][]string{{"--watch=100ms"}, {"-w=100ms", "--json"}} {
		c := start(t, append(append([]string{"status"}, args...), "--config", r.path)...)
		c.says(c.stdout.String, `(?s)(127\.0\.0\.1:2.*){4}`)
		c.signal(syscall.SIGINT)
		if code := c.wait(); code != 0 || strings.Contains(c.stdout.String(), "\x1b") {
			t.Errorf("%d %q", code, c.stdout.String())
		}
		if len(args) > 1 {
			for _, line := range strings.Split(strings.TrimSpace(c.stdout.String()), "\n") {
				if !json.Valid([]byte(line)) {
					t.Errorf("not an object a line: %.80s", line)
				}
			}
		}
	}
}

func TestRuntimeCommands(t *testing.T) {
	r := runLB(t, "backends = [1, 2]\nhealth.kind = \"off\"")
	r.do(0, "app 127.0.0.1:1: weight 3, was 1; the file says 1\n", "", "weight", "app", "127.0.0.1:1", "3")
	r.do(0, ".*WEIGHT.*weight 3 while lb runs, 1 in the file.*", "", "status")
	r.do(0, "app 127.0.0.1:1: weight 0.5, was 3; the file says 1\n", "", "weight", "app", "127.0.0.1:1", "50%")
	r.do(0, "app 127.0.0.1:1: weight 1, was 0.5\n", "", "weight", "app", "127.0.0.1:1", "reset")
	r.do(1, "", `lb: weight "many": write a number .*`, "weight", "app", "127.0.0.1:1", "many")
	r.do(7, "", `lb: backend "127.0.0.1:11" of pool "app" is not known, did you mean "127.0.0.1:1"\?\n`, "weight", "app", "127.0.0.1:11", "1")
	r.do(0, "app new: in use after .*\n", "", "add", "app", "3", "--name", "new", "--weight", "2", "--max-inflight", "5")
	r.do(1, "", "lb: pool app has that backend already: new at 127.0.0.1:3\n", "add", "app", "3")
	r.do(64, "", "lb: --wait 25h0m0s: it is 0s to 24h\n", "add", "app", "4", "--wait", "25h")
	r.do(0, "app 127.0.0.1:1: removed, and empty after .*\n", "", "remove", "app", "127.0.0.1:1")
	r.do(0, `.*127\.0\.0\.1:1 is in the file, and was removed \d+s ago.*`, "", "status")
	r.do(0, "app 127.0.0.1:2: removed, and empty after .*\n", "", "remove", "app", "127.0.0.1:2")
	r.do(1, "", "lb: backend new is the last one of pool app: .*--force removes it\n", "remove", "app", "new")
	r.do(0, "app new: removed.*", "lb: no other backend of pool app is ready: .*", "remove", "app", "new", "--force")
	r.do(3, ".*0 of 0 ready.*", "", "status")
	c := start(t, "reload", r.path, "--reset")
	if code := c.wait(); code != 0 || !strings.Contains(c.stdout.String(), "2 backends joined pool app") || strings.Contains(c.stdout.String(), "note") {
		t.Errorf("%d %s%s", code, c.stdout.String(), c.stderr.String())
	}
	r.do(0, ".*2 of 2 ready.*", "", "status")
	r.do(0, "app 127.0.0.1:1: weight 3.*", "", "weight", "app", "127.0.0.1:1", "3")
	c = start(t, "reload", r.path)
	if code := c.wait(); code != 0 || !strings.Contains(c.stdout.String(), "nothing to change\n  note: backend 127.0.0.1:1 of pool app: weight 3 while lb runs, 1 in the file") {
		t.Errorf("%d %s%s", code, c.stdout.String(), c.stderr.String())
	}
}

func TestNotRunning(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	os.Chmod(os.Getenv("RUNTIME_DIRECTORY"), 0o700)
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte("[pool.app]\nbackends = [1]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"status"}, {"status", "--watch"}, {"drain", "app", "a"}, {"ready", "app", "a"}, {"weight", "app", "a", "1"}, {"add", "app", "2"}, {"remove", "app", "a"},
	} {
		for _, where := range [][]string{{"--config", path}, {"--socket", path + ".sock"}, {"--socket", path}} {
			c := start(t, append(args, where...)...)
			if code := c.wait(); code != exitNoLB || !strings.HasPrefix(c.stderr.String(), "lb: no lb ") || c.stdout.String() != "" {
				t.Errorf("%s %s: %d %s%s", args, where, code, c.stdout.String(), c.stderr.String())
			}
		}
	}
}

// TestExitCodesDoc holds docs/api.md to the codes.
func TestExitCodesDoc(t *testing.T) {
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	table := "<!-- exit codes -->\n\n| code | meaning |\n| --- | --- |\n"
	for _, c := range exitCodes {
		table += fmt.Sprintf("| %d | %s |\n", c.code, c.says)
	}
	if !strings.Contains(string(text)+"\n", table) {
		t.Errorf("docs/api.md lacks\n%s", table)
	}
}

func TestRolloutText(t *testing.T) {
	ended := noon.Add(-time.Minute)
	for _, c := range []struct {
		rollout admin.RolloutStatus
		state   admin.State // of b
		want    string
		color   string
	}{
		{admin.RolloutStatus{Of: 3, Done: []string{"a"}, Under: []admin.RolloutUnder{{Backend: "b", Step: admin.StepChecking, Since: noon.Add(-2 * time.Second)}}, Requests: 1},
			admin.Draining, "rollout by me: 1 of 3 restarted, b checking for 2s; 1 request, 0 failed", yellow},
		{admin.RolloutStatus{Waits: "c is down\x1b"}, admin.Ready, "rollout by me: 0 restarted, waits: c is down?; 0 requests, 0 failed", yellow},
		{admin.RolloutStatus{Of: 1, Done: []string{"a"}, Ended: &ended, Ending: "finished"}, admin.Ready, "rollout by me: 1 of 1 restarted, finished 1m ago; 0 requests, 0 failed", ""},
		{admin.RolloutStatus{Ended: &ended, Ending: "bad", Why: "b is bad", Bad: []admin.RolloutReason{{Backend: "b", Why: "x"}}}, admin.Draining,
			"rollout by me: 0 restarted, stopped 1m ago; b is bad: x; 0 requests, 0 failed", red},
		{admin.RolloutStatus{Ended: &ended, Ending: "bad", Why: "b is bad", Bad: []admin.RolloutReason{{Backend: "b", Why: "x"}}}, admin.Ready,
			"rollout by me: 0 restarted, stopped 1m ago; b was bad, and was put back: x; 0 requests, 0 failed", ""},
		{admin.RolloutStatus{Ended: &ended, Ending: "failed", Why: "no lb"}, admin.Ready, "rollout by me: 0 restarted, stopped 1m ago: no lb; 0 requests, 0 failed", red},
	} {
		c.rollout.Who = "me"
		p := &admin.Pool{Rollout: &c.rollout, Backends: []admin.Backend{{Name: "a", State: admin.Ready}, {Name: "b", State: c.state}}}
		if got := rolloutText(p, noon); got != c.want || rolloutColor(p) != c.color {
			t.Errorf("%q in %q, want %q in %q", got, rolloutColor(p), c.want, c.color)
		}
	}
}
