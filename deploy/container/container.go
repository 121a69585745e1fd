// Package container boots a Debian in a directory, for tests of what runs under systemd. deploy/debian.sh makes the directory.
package container

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rootVariable names the directory with a Debian in it.
const rootVariable = "LB_SYSTEMD_ROOT"

// A Machine is a Debian that can be booted.
type Machine struct {
	Root string // its directory
	args []string
}

// New skips the test where no container can be booted. script is what sets the variable that names its directory, and options
// are more of systemd-nspawn's.
func New(t *testing.T, script string, options ...string) *Machine {
	t.Helper()
	root := os.Getenv(rootVariable)
	if root == "" {
		t.Skipf("%s is not set: %s makes a Debian to boot and sets it", rootVariable, script)
	}
	if os.Getuid() != 0 {
		t.Skip("only root can boot a container")
	}
	if _, err := exec.LookPath("systemd-nspawn"); err != nil {
		t.Skip("there is no systemd-nspawn: install systemd-container")
	}
	m := &Machine{root, append([]string{"--directory=" + root, "--register=no", "--keep-unit", "--private-network"}, options...)}
	if out, err := exec.Command("systemd-nspawn", append(m.args, "/bin/true")...).CombinedOutput(); err != nil {
		t.Skipf("no container can be started here: %v\n%s", err, out)
	}
	return m
}

// Inside makes a program of the tests of the current directory, which is to run in the container.
func Inside(t *testing.T, path string) {
	t.Helper()
	cmd := exec.Command("go", "test", "-c", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// Boot boots it and waits until it powers itself off. By then the tests in it have left in dir what they said, in the file
// output, and their exit code, in the file code.
func (m *Machine) Boot(t *testing.T, most time.Duration, dir string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	boot := exec.CommandContext(ctx, "systemd-nspawn", append(append(m.args, "--boot", "--console=pipe"), args...)...)
	var console bytes.Buffer
	boot.Stdout, boot.Stderr = &console, &console
	boot.Cancel = func() error { return boot.Process.Signal(os.Interrupt) }
	boot.WaitDelay = 10 * time.Second
	err := boot.Run()
	code, codeErr := os.ReadFile(filepath.Join(dir, "code"))
	said, _ := os.ReadFile(filepath.Join(dir, "output"))
	if codeErr != nil || strings.TrimSpace(string(code)) != "0" {
		t.Fatalf("in the container (%v):\n%s\nits console:\n%s", err, said, console.String())
	}
	t.Logf("in the container:\n%s", said)
}

// Serve starts a server with that handler on loopback, for as long as the process lives, and returns its address.
func Serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go http.Serve(ln, h)
	return ln.Addr().String()
}

// Hello is what instances answer.
const Hello = "hello"

// Ask asks once, and wants an instance's answer.
func Ask(c *http.Client, url string) error {
	res, err := c.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || string(body) != Hello) {
		err = fmt.Errorf("status %d, body %q", res.StatusCode, body)
	}
	return err
}

// WaitFor waits until a condition holds.
func WaitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
