package upstreamtest

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// Clog makes ln an address that answers no attempt to connect, as nobody accepts and its queue is full. It is for Linux, where
// the length of the queue may be set again.
func Clog(t testing.TB, ln net.Listener) (addr string) {
	t.Helper()
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if e := raw.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 0) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	Fill(t, ln.Addr().String())
	return ln.Addr().String()
}

// Fill fills the short queue of who listens at addr.
func Fill(t testing.TB, addr string) {
	t.Helper()
	for range 10 {
		c, err := net.DialTimeout("tcp", addr, 100*time.Millisecond)
		if err != nil {
			return
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue does not fill")
}
