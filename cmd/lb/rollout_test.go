package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"lb/rollout"
)

// TestRollout runs rollouts of instances that live in this process, so all are --in-place: e2e has real ones.
func TestRollout(t *testing.T) {
	run := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", run)
	if err := os.Chmod(run, 0o700); err != nil {
		t.Fatal(err)
	}
	var backends []string
	for _, name := range []string{"one", "two"} {
		app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		defer app.Close()
		backends = append(backends, fmt.Sprintf("{ address = %q, name = %q }", app.Listener.Addr(), name))
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf(`[pool.app]
backends = [%s]
slow_start = "off"
health = { changing = "10ms" }
[pool.app.rollout]
exec = "echo from the file: {name}"
in_place = true
[listen.web]
address = "127.0.0.1:0"
[admin]
address = "off"
[access_log]
format = "off"
`, strings.Join(backends, ", "))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	do := func(code int, stdout, stderr string, args ...string) string {
		t.Helper()
		c := start(t, append([]string{"rollout"}, args...)...)
		got := c.wait()
		if got != code || !regexp.MustCompile("(?s)^"+stdout+"$").MatchString(c.stdout.String()) || !regexp.MustCompile("(?s)^"+stderr+"$").MatchString(c.stderr.String()) {
			t.Errorf("%s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, c.stdout.String(), c.stderr.String())
		}
		return c.stdout.String()
	}
	do(4, "", "lb: no lb runs with .*", "app", "--config", path)

	c := start(t, "run", path)
	c.event("msg=ready")
	socket := c.event(`msg=admin address=(\S+)`)

	const proof = `\d+ requests during the rollout, 0 failed, 0 WebSockets moved\n`
	do(0, `pool app: 2 backends, at most 1 out at a time
  1  one  echo from the file: one
  2  two  echo from the file: two
  each: up to 30s until it is empty, 2m0s for the command, 1m0s until it is well, 0s to warm up
 +\d+\.\ds  1/2 one: empty after \d+\.\ds
 +\d+\.\ds  1/2 one: \$ echo from the file: one
         \| from the file: one
 +\d+\.\ds  1/2 one: done in \d+\.\ds
 +\d+\.\ds  1/2 one: listens after \d+\.\ds, [23] checks passed after \d+\.\ds: in use
.*2/2 two: listens .*
done in \d+\.\ds: 2 of 2 restarted
`+proof, "", "app", "--config", path)
	do(0, `pool app: 1 backend, at most 1 out at a time
  1  two  restart two   \(canary\)
  each: up to 1s until it is empty, 3s for the command, 4s until it is well, 5s to warm up
  canary: watched for 6s; more errors by 7 points, or a p95 above by 8 %, stop the rollout
  note: all of them are canaries: nothing follows the watch
`, "", "app", "--config", path, "--dry-run", "--exec", "restart {name}", "--only", "two", "--wait", "1s", "--timeout", "3s", "--start-timeout", "4s",
		"--warmup", "5s", "--canary", "1", "--watch", "6s", "--canary-errors", "7", "--canary-slower", "8")

	// What a command says beyond a few lines is shown when it fails.
	chatty := "for i in 1 2 3 4 5 6 7 8; do echo line $i of {name}; done; exit "
	if out := do(0, ".*", "", "app", "--socket", socket, "--config", path, "--exec", chatty+"0"); strings.Contains(out, "line 7") || !strings.Contains(out, "| line 6 of one\n         | ... 2 lines more\n") {
		t.Error(out)
	}
	out := do(9, ".*", "", "app", "--config", path, "--exec", chatty+"3")
	want := regexp.MustCompile(`(?s)\| line 1 of one.*\| line 8 of one
 +\d+\.\ds  1/2 one: BAD, stays out of use: its command failed: exit status 3
stopped after \d+\.\ds: 0 of 2 restarted, one is bad and out of use
  as before, and in use: two
  next: mend one and run the rollout again, which begins with it; or put it back as it is: lb ready app one
` + proof + "$")
	if !want.MatchString(out) {
		t.Error(out)
	}
	do(0, "pool app: 2 backends.*  note: one was left out by an earlier rollout \\(its command failed: exit status 3\\): it comes first\n.*", "", "app", "--config", path)

	// A line of JSON for each thing that happens.
	var events []string
	for line := range strings.Lines(do(0, ".*", "", "app", "--config", path, "--json")) {
		var e struct {
			Event, Backend, Line, Ending string
			Exit, Failed                 *int
			Done                         []string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		events = append(events, e.Event)
		if e.Event == "ended" && (e.Ending != "finished" || e.Exit == nil || *e.Exit != 0 || e.Failed == nil || len(e.Done) != 2) {
			t.Errorf("%s", line)
		}
	}
	const one = "draining drained restarting output restarted passed back warm "
	if got := strings.Join(events, " "); got != "planned "+one+one+"ended" {
		t.Errorf("%s", got)
	}

	do(7, "", `lb: pool "ap" is not known, did you mean "app"\?\n`, "ap", "--config", path)
	do(1, "", `lb: no rollout of pool app:\n  there is no command: .*\n  --only x: .*`, "app", "--config", path, "--exec", "", "--only", "x")
	for flag, words := range map[string]string{
		"--wait=-1s": "--wait -1s: it is 0s to 24h", "--timeout=0s": "--timeout 0s: it is 1ms to 24h", "--start-timeout=25h": "--start-timeout 25h0m0s: .*",
		"--watch=500ms": "--watch 500ms: it is 1s to 24h", "--watch=5s": "--watch is for --canary, as in --canary 1 --watch 5s",
		"--max-unavailable=0": "--max-unavailable: 0 is too little: .*", "--max-unavailable=x": `--max-unavailable: "x" is neither .*`,
		"--canary=-1": "--canary -1: it is 0 to 1000", "--canary-errors=101": "--canary-errors 101: .*", "--exec=kill {backend}": `--exec: \{backend\} is not filled in: did you mean \{name\}\?`,
		"--warmup=-1s": "--warmup -1s: .*",
	} {
		do(64, "", "lb: "+words+"\n", "app", "--config", path, flag)
	}

	// A second signal kills the command, and lb puts the backend back.
	r := start(t, "rollout", "app", "--config", path, "--exec", "echo begins; sleep 1000")
	r.says(r.stdout.String, "(begins)\n")
	do(1, "", "lb: another rollout of the pool runs: by .*, since .*\n", "app", "--config", path)
	r.signal(syscall.SIGTERM)
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 10 || !strings.Contains(r.stdout.String(), "one was being restarted: lb puts it back") {
		t.Errorf("exit code %d:\n%s", code, r.stdout.String())
	}
	ready := start(t, "ready", "app", "one", "--config", path, "--wait", "20s")
	if code := ready.wait(); code != 0 {
		t.Errorf("ready: %d\n%s", code, ready.stderr.String())
	}
	c.signal(syscall.SIGTERM)
	if code := c.wait(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, c.stderr.String())
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// TestRolloutNobodyReads holds that a rollout stops when nobody reads what it says, as when an ssh connection is gone.
func TestRolloutNobodyReads(t *testing.T) {
	stopped := 0
	p := newRolloutPrinter(brokenPipe{}, false, func() { stopped++ })
	defer p.close()
	p.event(rollout.Event{Time: time.Now(), Event: rollout.Note, Why: "something"})
	if stopped == 0 {
		t.Error("it goes on")
	}
}
