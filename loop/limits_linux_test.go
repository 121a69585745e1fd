package loop

import (
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOutOfDescriptors runs in a process of its own, since the limit is the process's.
func TestOutOfDescriptors(t *testing.T) {
	if os.Getenv("LOOP_TEST_FEW_DESCRIPTORS") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestOutOfDescriptors$", "-test.v")
		cmd.Env = append(os.Environ(), "LOOP_TEST_FEW_DESCRIPTORS=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	g := group(t, 2, Options{})
	addr, s := accept(t, g, func(c *Conn) { c.Loop().Go(&echo{c, make([]byte, 10)}, c) })
	ping := func(c net.Conn) error {
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	}
	old := dial(t, addr)
	if err := ping(old); err != nil {
		t.Fatal(err)
	}
	// The client's end needs a descriptor, too: it is opened before the limit falls.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(fd), Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	for s.Paused() == 0 {
		if err := ping(old); err != nil {
			t.Fatalf("while it cannot accept: %v", err)
		}
	}
	for range 100 {
		if err := ping(old); err != nil {
			t.Fatalf("while it cannot accept: %v", err)
		}
	}
	if n := s.Paused(); n > 50 {
		t.Errorf("it does not pause but spins: %d", n)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "client")
	fresh, err := net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if err := ping(fresh); err != nil {
		t.Errorf("the connection that waited: %v", err)
	}
}
