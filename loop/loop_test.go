package loop

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// serve starts a group with a listener whose connections are each served by a task.
func serve(t *testing.T, loops int, fn func(c *Conn)) (*Group, netip.AddrPort) {
	t.Helper()
	g, err := New(loops, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	s, err := g.Serve(ln, func(c *Conn) { c.Loop().Go(runFunc(func() { fn(c) }), c) })
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	t.Cleanup(func() { s.Close() })
	return g, addr
}

type runFunc func()

func (f runFunc) Run() { f() }

func dial(t *testing.T, addr netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr.String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func TestEcho(t *testing.T) {
	_, addr := serve(t, 2, func(c *Conn) {
		defer c.Close()
		b := make([]byte, 1000)
		for {
			n, err := c.Read(b)
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("read: %v", err)
				}
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				t.Errorf("write: %v", err)
				return
			}
		}
	})
	c := dial(t, addr)
	want := make([]byte, 1<<20)
	for i := range want {
		want[i] = byte(i * 7)
	}
	go func() {
		c.Write(want)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Fatalf("got %d bytes back, not the %d that were sent", len(got), len(want))
	}
}
