package rollout

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var target = Target{Index: 1, Pool: "app", Name: "b", Address: "127.0.0.1:3001", Host: "127.0.0.1", Port: "3001"}

func shell(t *testing.T, ctx context.Context, line string) (lines []string, err error) {
	t.Helper()
	err = Shell(line)(ctx, target, func(s string) { lines = append(lines, s) })
	return lines, err
}

func TestShell(t *testing.T) {
	for _, c := range []struct {
		line string
		want []string
		err  string
	}{
		{"echo {port}; echo $LB_POOL $LB_BACKEND $LB_ADDRESS $LB_HOST $LB_PORT $LB_INDEX >&2", []string{"3001", "app b 127.0.0.1:3001 127.0.0.1 3001 1"}, ""},
		{"printf 'a\\r\\nb'; exit 3", []string{"a", "b"}, "exit status 3"},
		{"kill -9 $$", nil, "signal: killed"},
		{"cat", nil, ""}, // nobody is there to type
		{"no-such-command-here", nil, "exit status 127"},
		{"head -c 40000 /dev/zero | tr '\\0' x", []string{strings.Repeat("x", longLine), strings.Repeat("x", longLine), strings.Repeat("x", 40000-2*longLine)}, ""},
	} {
		lines, err := shell(t, context.Background(), c.line)
		if got := fmt.Sprint(err); err == nil && c.err != "" || err != nil && got != c.err {
			t.Errorf("%s: %v", c.line, err)
		}
		if c.want != nil && !slices.Equal(lines, c.want) {
			t.Errorf("%s: %q", c.line, lines)
		}
	}
}

// pidIn waits for a process ID in a file.
func pidIn(t *testing.T, path string) int {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(path)
		if pid, err2 := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && err2 == nil {
			return pid
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %q, %v", path, text, err)
		}
	}
}

// gone waits until a process has ended. A zombie that init has not fetched has ended, too.
func gone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(time.Millisecond) {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("process %d goes on", pid)
		}
	}
}

// TestShellIsKilled holds that a command ends with all that it started.
func TestShellIsKilled(t *testing.T) {
	for name, line := range map[string]string{
		"that ends when told":      "sleep 1000 & echo $! > %s; wait",
		"whose child does not":     "(trap '' TERM; sleep 1000 & echo $! > %s; wait; wait) & wait",
		"whose shell goes at once": "trap 'exit 0' TERM; sleep 1000 & echo $! > %s; wait",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "pid")
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() {
				_, err := shell(t, ctx, fmt.Sprintf(line, path))
				done <- err
			}()
			pid := pidIn(t, path)
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			gone(t, pid)
		})
	}
}

// TestShellLeavesBehind holds that what a command starts in the background lives on, and is not waited for.
func TestShellLeavesBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	lines, err := shell(t, context.Background(), "sleep 1000 & echo $! > "+path+"; echo started")
	if err != nil || !slices.Equal(lines, []string{"started"}) {
		t.Errorf("%q %v", lines, err)
	}
	pid := pidIn(t, path)
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("it did not live on: %v", err)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	gone(t, pid)
}

// TestShellEndsWithUs holds that a command does not outlive a rollout that is killed: nobody would wait for the instance that
// it restarts.
func TestShellEndsWithUs(t *testing.T) {
	if path := os.Getenv("LB_TEST_SHELL"); path != "" {
		Shell("trap '' TERM; sleep 1000 & echo $! > "+path+"; wait; wait")(context.Background(), target, func(string) {})
		return
	}
	path := filepath.Join(t.TempDir(), "pid")
	us := exec.Command(os.Args[0], "-test.run=^TestShellEndsWithUs$")
	us.Env = append(os.Environ(), "LB_TEST_SHELL="+path)
	if err := us.Start(); err != nil {
		t.Fatal(err)
	}
	pid := pidIn(t, path)
	us.Process.Kill()
	us.Wait()
	gone(t, pid)
}
