package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// maxSize is what the binary may weigh in bytes, with room for some commands more than there are: it is 12.4 MB. One
	// careless import of a package that calls methods by name (html/template is one) brings megabytes at once.
	maxSize = 13_500_000
	// maxModules is how many modules may be linked into the binary.
	maxModules = 15
)

// modules are those that go.mod may require directly. A line more is a decision: what it costs in size, who looks after
// it, and why it is not fifty lines of our own.
var modules = []string{
	"github.com/BurntSushi/toml",
	"github.com/prometheus/client_golang",
	"github.com/prometheus/client_model", // native histograms
	"github.com/spf13/cobra",
	"github.com/spf13/pflag", // cobra's, for completing flags
	"golang.org/x/sync",
	"golang.org/x/sys",
	"golang.org/x/term", // lb top: raw mode and the size of the window, on each system

	// In tests only.
	"github.com/google/go-cmp",
	"github.com/prometheus/common",
	"go.uber.org/goleak",
	"pgregory.net/rapid",
}

func TestModules(t *testing.T) {
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Require {
		if !r.Indirect && !slices.Contains(modules, r.Path) {
			t.Errorf("go.mod requires %s, which is not on the list in this file", r.Path)
		}
	}
}

// TestBinary builds what `make build` does, and looks at it from outside.
func TestBinary(t *testing.T) {
	if testing.Short() {
		t.Skip("links a binary")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "lb")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=v0.0.0-test", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(bin)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB", float64(info.Size())/1e6)
	if info.Size() > maxSize {
		t.Errorf("the binary has %d bytes, %d is the most. What is in it: build it without \"-s -w\", then go tool nm -size -sort size bin/lb | head -50; "+
			"why a package is in it: go mod why -m MODULE, go list -deps ./cmd/lb. If it is worth its bytes, raise maxSize here and say so in the commit", info.Size(), maxSize)
	}
	bi, err := buildinfo.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	if len(bi.Deps) > maxModules {
		t.Errorf("%d modules are linked in, %d is the most; go version -m bin/lb lists them", len(bi.Deps), maxModules)
	}
	out, err := exec.Command(bin, "version").Output()
	if err != nil || !strings.HasPrefix(string(out), "lb v0.0.0-test (go1.") {
		t.Errorf("version: %v %q", err, out)
	}

	// Signals for real: they come while it starts, twice, and when nobody reads its standard error any more.
	path := filepath.Join(dir, "config.toml")
	text := "[pool.app]\nbackends = [1]\n[listen.web]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"off\"\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd := exec.Command(bin, "run", path)
		var events lines
		cmd.Stderr = &events
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(30 * time.Second); !strings.Contains(events.String(), "msg=ready"); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				cmd.Process.Kill()
				t.Fatalf("not ready:\n%s", events.String())
			}
		}
		cmd.Process.Signal(sig)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v\n%s", sig, err, events.String())
		}
	}

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "run", path)
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var head []byte
	for b := make([]byte, 4096); !bytes.Contains(head, []byte("msg=ready")); {
		n, err := r.Read(b)
		if err != nil {
			t.Fatalf("%v after %q", err, head)
		}
		head = append(head, b[:n]...)
	}
	r.Close()
	cmd.Process.Signal(syscall.SIGHUP) // it says something, and must not die of it
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("without a reader of its events: %v", err)
	}
}
