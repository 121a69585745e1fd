package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestMain keeps tests from finding the lb that this machine happens to run.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "lb-test-")
	if err != nil {
		panic(err)
	}
	serviceDir = filepath.Join(dir, "run")
	os.Unsetenv("XDG_RUNTIME_DIR")
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// serveSocket is a socket at which h answers in lb's place.
func serveSocket(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = ln
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections() // who is stuck there, too
		s.Close()
	})
	return socket
}

// TestWhichLB holds that a command which is not told for which lb it is takes the only one, and says which there are
// where it cannot tell.
func TestWhichLB(t *testing.T) {
	run := t.TempDir()
	if err := os.Chmod(run, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("RUNTIME_DIRECTORY", run)
	t.Setenv("TMPDIR", run)
	defer func(was []string) { configPlaces = was }(configPlaces)
	configPlaces = []string{"config.toml", "/nosuch/config.toml"}
	status := func() (int, string, string) {
		var out, errs bytes.Buffer
		code := execute([]string{"status"}, world{stdout: &out, stderr: &errs})
		return code, out.String(), errs.String()
	}
	t.Chdir(t.TempDir())
	if code, _, err := status(); code != exitNoLB || !strings.HasPrefix(err, "lb: no lb is seen to run here, and there is no config.toml and no /nosuch/config.toml: ") {
		t.Errorf("none: %d %s", code, err)
	}
	one, two := t.TempDir(), t.TempDir()
	for _, dir := range []string{one, two} {
		text := "[pool.app]\nbackends = [\"127.0.0.1:1\"]\nhealth = { kind = \"off\" }\n[listen.web]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"off\"\n[access_log]\nformat = \"off\"\n"
		if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := start(t, "run", filepath.Join(one, "config.toml"))
	a.event("msg=ready")
	if code, out, err := status(); code != 0 || !strings.Contains(out, filepath.Join(one, "config.toml")) {
		t.Errorf("one: %d %s%s", code, out, err)
	}
	var out, errs bytes.Buffer
	if execute([]string{"rollout", "app", "--exec", "true {port}", "--dry-run"}, world{stdout: &out, stderr: &errs}); !strings.Contains(out.String()+errs.String(), "pool app:") {
		t.Errorf("a rollout: %s%s", out.String(), errs.String())
	}
	b := start(t, "run", filepath.Join(two, "config.toml"))
	b.event("msg=ready")
	code, _, err := status()
	both := fmt.Sprintf("with %s/config.toml\n", one)
	if code != exitNoLB || !strings.HasPrefix(err, "lb: 2 of lb run here, say which\n  --socket "+run+"/lb-") || !strings.Contains(err, both) {
		t.Errorf("two: %d %s", code, err)
	}
	if err := os.WriteFile("config.toml", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, err := status(); code != exitNoLB || !strings.HasPrefix(err, "lb: no lb runs with config.toml here: ") || !strings.Contains(err, both) {
		t.Errorf("another file: %d %s", code, err)
	}
	for _, c := range []*command{a, b} {
		c.signal(syscall.SIGTERM)
		c.wait()
	}
}
