//go:build linux && !lb_portable

package loop

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestToItself connects a socket to its own address, as a dial to a dead local port may.
func TestToItself(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, sa); err != nil {
		t.Skip(err)
	}
	if !toItself(fd, sa) {
		t.Error("not seen")
	}
	if other := *sa.(*unix.SockaddrInet4); true {
		other.Port++
		if toItself(fd, &other) {
			t.Error("seen where there is none")
		}
	}
}

// TestStaleEvents closes connections in the round in which they have events, and opens others that get
// their descriptors: those must not be told.
func TestStaleEvents(t *testing.T) {
	g := group(t, 1, Options{})
	l := g.Loop(0)
	onLoop(t, l, func() {
		var pairs [][2]int
		open := func() *Conn {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			pairs = append(pairs, fds)
			c := l.register(fds[0], peer(&unix.RawSockaddrAny{}))
			if n, err := c.TryRead(make([]byte, 1)); n != 0 || err != nil {
				t.Fatal(n, err)
			}
			c.enroll()
			return c
		}
		a, b := open(), open()
		l.Yield()
		l.Yield() // their first events, that they can be written to, are over
		told := 0
		var fresh *Conn
		closeOther := handlerFunc(func(c *Conn, _ bool) {
			told++
			other := a
			if c == a {
				other = b
			}
			fd := other.fd
			other.Close()
			if fresh = open(); fresh.fd != fd {
				t.Logf("descriptor %d was not given out again, %d was", fd, fresh.fd)
			}
			fresh.Await(handlerFunc(func(*Conn, bool) { t.Error("told of an event of its forerunner") }))
		})
		a.Await(closeOther)
		b.Await(closeOther)
		unix.Write(pairs[0][1], []byte("x"))
		unix.Write(pairs[1][1], []byte("x"))
		for range 10 {
			l.Yield()
		}
		if told != 1 || fresh.Readable() {
			t.Errorf("%d told, readable %v", told, fresh.Readable())
		}
		fresh.Close()
		for _, p := range pairs {
			unix.Close(p[1])
		}
	})
}
