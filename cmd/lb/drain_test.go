package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

func TestDrain(t *testing.T) {
	run := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", run)
	if err := os.Chmod(run, 0o700); err != nil {
		t.Fatal(err)
	}
	entered, release := make(chan struct{}, 1), make(chan struct{})
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			entered <- struct{}{}
			<-release
		}
	}))
	defer app.Close()
	at := app.Listener.Addr().String()
	path := filepath.Join(t.TempDir(), "config.toml")
	text := fmt.Sprintf("[pool.app]\nbackends = [{ address = %q, name = \"one\" }]\n[listen.web]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"off\"\n[access_log]\nformat = \"off\"\n", at)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	do := func(args ...string) (int, string, string) {
		t.Helper()
		c := start(t, args...)
		code := c.wait()
		return code, c.stdout.String(), c.stderr.String()
	}
	expect := func(args []string, code int, stdout, stderr string) {
		t.Helper()
		c, out, err := do(args...)
		if c != code || !regexp.MustCompile("^"+stdout+"$").MatchString(out) || !regexp.MustCompile("^"+stderr+"$").MatchString(err) {
			t.Errorf("%s: %d\n%s%s", strings.Join(args, " "), c, out, err)
		}
	}
	expect([]string{"drain", "app", "one", "--config", path}, 4, "", "lb: no lb runs with .*\n")

	c := start(t, "run", path)
	web := c.event(`listener=web address=(\S+)`)
	c.event("msg=ready")
	socket := c.event(`msg=admin address=(\S+)`)
	slow := make(chan error, 1)
	go func() {
		res, err := http.Get("http://" + web + "/slow")
		if err == nil {
			res.Body.Close()
			if res.StatusCode != 200 {
				err = fmt.Errorf("%s", res.Status)
			}
		}
		slow <- err
	}()
	<-entered
	const alone = "lb: no other backend of pool app is ready: requests wait, or fail\n"
	expect([]string{"drain", "app", "one", "--config", path, "--wait", "1ms"}, 5, `app one: 1 request and 0 WebSockets left after [\d.]+m?s; it gets nothing new`+"\n", alone)
	waits := start(t, "ready", "app", "one", "--config", path, "--now")
	waits.wait()
	waits = start(t, "drain", "app", "one", "--config", path)
	waits.event(`^lb: waiting: app one still has 1 request\n`)
	close(release)
	if err := <-slow; err != nil {
		t.Errorf("the request that was under way: %v", err)
	}
	if code := waits.wait(); code != 0 || waits.stdout.String() == "" {
		t.Errorf("exit code %d: %s%s", code, waits.stdout.String(), waits.stderr.String())
	}
	expect([]string{"drain", "app", at, "--socket", socket}, 0, `app one: drained after [\d.]+m?s`+"\n", alone)
	expect([]string{"ready", "app", "one", "--socket", socket}, 0, `app one: in use after [\d.]+m?s`+"\n", "")
	res, err := http.Get("http://" + web)
	if err != nil || res.StatusCode != 200 {
		t.Errorf("%v %v", res, err)
	} else {
		res.Body.Close()
	}

	expect([]string{"drain", "app", "one", "--socket", socket}, 0, `app one: drained after [\d.]+m?s`+"\n", alone)
	app.Listener.Close()
	port := at[strings.LastIndexByte(at, ':')+1:]
	expect([]string{"ready", "app", port, "--config", path, "--wait", "10ms"}, exitLeft, `app one: gets no requests after [\d.]+m?s, it is (unchecked|down)(: .*)?\n`, "")
	waits = start(t, "ready", "app", port, "--config", path, "--wait", "1h")
	waits.event(`(?m)^lb: waiting: app one is down: connection refused\n`)
	expect([]string{"drain", "app", "one", "--socket", socket, "--wait", "0s"}, 0, `app one: drained after [\d.]+m?s`+"\n", alone)
	if code := waits.wait(); code != exitLeft || !strings.Contains(waits.stdout.String(), ", it is draining: told to") {
		t.Errorf("exit code %d: %s%s", code, waits.stdout.String(), waits.stderr.String())
	}

	expect([]string{"drain", "app", "two", "--socket", socket}, 7, "", `lb: backend "two" of pool "app" is not known; there is one`+"\n")
	expect([]string{"ready", "ap", "one", "--socket", socket}, 7, "", `lb: pool "ap" is not known, did you mean "app"\?`+"\n")
	expect([]string{"drain", "app", "one", "--wait", "25h", "--socket", socket}, 64, "", "lb: --wait 25h0m0s: it is 0s to 24h\n")
	expect([]string{"drain", "app", "one", "--wait", "-1ns", "--socket", socket}, 64, "", "lb: --wait -1ns: it is 0s to 24h\n")
	expect([]string{"drain", "app"}, 64, "", `lb: BACKEND is missing: lb drain POOL BACKEND, as in: .*`+"\n")
	c.signal(syscall.SIGTERM)
	if code := c.wait(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, c.stderr.String())
	}
}
