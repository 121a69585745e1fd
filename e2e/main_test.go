// Package e2e tests the built binary from outside, in front of real Node.js programs.
//
// Each test starts an lb of its own, on ports that the system chooses, and apps of its own; what clients saw is held
// against lb's metrics and access log. LB_BINARY names the binary to test; without it, the one of this source is built.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// lbBinary is the lb under test.
var lbBinary string

func TestMain(m *testing.M) {
	if url := os.Getenv(askVariable); url != "" {
		os.Exit(ask(url))
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lb-e2e-")
	if err == nil {
		defer os.RemoveAll(dir)
		os.Setenv("RUNTIME_DIRECTORY", dir) // where lb puts its socket, and a killed one leaves it
		err = prepare(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return m.Run()
}

// prepare builds what there is not yet.
func prepare(dir string) (err error) {
	if lbBinary = os.Getenv("LB_BINARY"); lbBinary == "" {
		lbBinary = filepath.Join(dir, "lb")
		if err := output("..", "go", "build", "-o", lbBinary, "./cmd/lb"); err != nil {
			return err
		}
	}
	if lbBinary, err = filepath.Abs(lbBinary); err != nil {
		return err
	}
	// npm writes its own copy of the lock file when it has installed all of it.
	want, err := os.Stat("apps/package-lock.json")
	if err != nil {
		return err
	}
	have, err := os.Stat("apps/node_modules/.package-lock.json")
	if err != nil || have.ModTime().Before(want.ModTime()) {
		return output("apps", "npm", "ci", "--no-audit", "--no-fund")
	}
	return nil
}

// output runs a command in a directory and shows what it said if it fails.
func output(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s in %s: %w\n%s", cmd, dir, err, out)
	}
	return nil
}
