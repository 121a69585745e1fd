package loop

import (
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deaf is a listening socket whose queue is full. Its accept lets one more in.
func deaf(t *testing.T, family int, sa unix.Sockaddr) (fd int) {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, sa); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	to, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		c, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(c) })
		err = unix.Connect(c, to)
		if err == unix.EAGAIN { // a unix socket
			return fd
		}
		if err == unix.EINPROGRESS { // loopback connects at once or, for want of room, not before a retry in a second
			p := []unix.PollFd{{Fd: int32(c), Events: unix.POLLOUT}}
			if n, _ := unix.Poll(p, 100); n == 0 {
				return fd
			}
		}
	}
	t.Fatal("the queue never fills")
	return -1
}

func deafTCP(t *testing.T) netip.AddrPort {
	fd := deaf(t, unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(sa.(*unix.SockaddrInet4).Port))
}

func TestDialTimeout(t *testing.T) {
	addr := deafTCP(t)
	path := filepath.Join(t.TempDir(), "s")
	deaf(t, unix.AF_UNIX, &unix.SockaddrUnix{Name: path})
	g := group(t, 1, Options{})
	l := g.Loop(0)
	onLoop(t, l, func() {
		for _, path := range []string{"", path} {
			until := l.Now() + int64(30*time.Millisecond)
			if c, err := l.Dial(addr, path, until); c != nil || err != ErrTimeout {
				t.Errorf("%q: %v, %v", path, c, err)
			}
		}
		if l.Conns() != 0 {
			t.Errorf("%d connections are left", l.Conns())
		}
	})
}

// TestDialWaitsForRoom: a full queue of a unix socket is no failure yet.
func TestDialWaitsForRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd := deaf(t, unix.AF_UNIX, &unix.SockaddrUnix{Name: path})
	g := group(t, 1, Options{})
	l := g.Loop(0)
	onLoop(t, l, func() {
		l.Go(runFunc(func() {
			l.Sleep(20 * tick)
			nfd, _, err := unix.Accept(fd)
			if err != nil {
				t.Error(err)
			}
			unix.Close(nfd)
		}), nil)
		c, err := l.Dial(netip.AddrPort{}, path, l.Now()+int64(20*time.Second))
		if err != nil {
			t.Error(err)
			return
		}
		c.Close()
	})
}

func TestWatchInterruptsDial(t *testing.T) {
	addr := deafTCP(t)
	for name, leave := range map[string]func(*net.TCPConn){"fin": func(c *net.TCPConn) { c.CloseWrite() }, "reset": reset} {
		t.Run(name, func(t *testing.T) {
			g := group(t, 1, Options{})
			errs := make(chan error, 1)
			c := pair(t, g, func(c *Conn) {
				defer c.Close()
				c.Watch(c.Loop().Current(), name == "fin")
				c.Write([]byte("x"))
				_, err := c.Loop().Dial(addr, "", 0)
				errs <- err
			})
			io.ReadFull(c, make([]byte, 1))
			leave(c)
			if err := within(t, errs); err != ErrPeerGone {
				t.Error(err)
			}
		})
	}
}
