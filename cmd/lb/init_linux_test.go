package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestInitTerminal has the program ask on a real terminal.
func TestInitTerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("links a binary")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "lb")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	main, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal is to be had here: %v", err)
	}
	defer main.Close()
	if err := unix.IoctlSetPointerInt(int(main.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(main.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "init", "--listen", "127.0.0.1:8080")
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	defer time.AfterFunc(time.Minute, func() { cmd.Process.Kill() }).Stop()
	var said bytes.Buffer
	b := make([]byte, 4096)
	for _, step := range [][2]string{{"Where does the app listen?", "4100-4101"}, {"A path that", "/up"}, {"Who gets", ""}, {"come back to its instance", ""}, {"load balancer before", ""}} {
		for !strings.Contains(said.String(), step[0]) || !strings.HasSuffix(said.String(), "]: ") {
			n, err := main.Read(b)
			if err != nil {
				t.Fatalf("%v after\n%s", err, said.String())
			}
			said.Write(b[:n])
		}
		fmt.Fprintf(main, "%s\n", step[1])
		said.WriteByte('\n') // the prompt is over
	}
	io.Copy(&said, main) // ends with an error when lb does
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	text, err := os.ReadFile(filepath.Join(dir, "config.toml"))
	if err != nil || !strings.Contains(string(text), "\nbackends = [\"127.0.0.1:4100-4101\"]\n") || !strings.Contains(string(text), "\npath = \"/up\"\n") ||
		!strings.Contains(said.String(), "config.toml: ok: listens on 127.0.0.1:8080") || strings.Contains(said.String(), "Where shall clients") {
		t.Errorf("%v\n%s\n%s", err, said.String(), text)
	}
}
