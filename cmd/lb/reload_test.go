package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// lb reload finds the lb of its file, waits for the verdict, and says what changed or what is wrong.
func TestReload(t *testing.T) {
	run := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", run)
	if err := os.Chmod(run, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reload := func(args ...string) (code int, stdout, stderr string) {
		t.Helper()
		c := start(t, append([]string{"reload"}, args...)...)
		code = c.wait()
		return code, c.stdout.String(), c.stderr.String()
	}
	const text = "[pool.app]\nbackends = [1, 2]\n[listen.web]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"off\"\n[access_log]\nformat = \"off\"\n"
	write(text)
	if code, out, err := reload(path); code != 4 || out != "" || !strings.HasPrefix(err, "lb: no lb runs with "+path) {
		t.Errorf("before there is one: %d %q %q", code, out, err)
	}
	c := start(t, "run", path)
	c.event("msg=ready")
	socket := c.event(`msg=admin address=(\S+)`)
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o660 || filepath.Dir(socket) != run {
		t.Errorf("%s: %v %v", socket, info, err)
	}

	if code, out, err := reload(path); code != 0 || out != path+": nothing to change\n" || err != "" {
		t.Errorf("an equal file: %d %q %q", code, out, err)
	}
	write(strings.Replace(text, "[1, 2]", "[2, 3, 4]\nretries = 0", 1))
	want := path + `: reloaded
  2 backends joined pool app: 127.0.0.1:3, 127.0.0.1:4
  1 backend left pool app: 127.0.0.1:1
  pool.app.retries is 0, was 2
  kept: listener web
`
	if code, out, err := reload("--socket", socket); code != 0 || out != want || err != "" {
		t.Errorf("%d %q %q", code, out, err)
	}
	write(text + "mistake = 1\n[server]\ngracy = \"1s\"\n")
	check := start(t, "check", path)
	check.wait()
	if code, out, err := reload(path); code != 1 || out != check.stdout.String() || strings.Count(out, "\n") != 2 || err != "" {
		t.Errorf("a wrong file: %d %q %q", code, out, err)
	}
	c.event("not reloaded, all goes on as before")
	write(strings.Replace(text, "[1, 2]", `["nosuch.invalid:1"]`, 1))
	if code, out, _ := reload(path); code != 1 || !strings.HasPrefix(out, path+`:2:13: pool.app.backends: host "nosuch.invalid" `) {
		t.Errorf("an unknown name: %d %q", code, out)
	}

	c.signal(syscall.SIGTERM)
	if code := c.wait(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, c.stderr.String())
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("after the stop: %v", err)
	}
}
