package loop

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// echoOnce dials on the loop and has one message echoed.
func echoOnce(l *Loop, addr netip.AddrPort, path string) error {
	c, err := l.Dial(addr, path, l.Now()+int64(20*time.Second))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	b := make([]byte, 10)
	n, err := c.Read(b)
	if err == nil && string(b[:n]) != "ping" {
		err = errors.New("got " + string(b[:n]))
	}
	if err == nil && path == "" && c.RemoteAddr() != addr {
		err = errors.New("the peer is " + c.RemoteAddr().String())
	}
	return err
}

func TestDial(t *testing.T) {
	for _, test := range []struct{ network, address string }{
		{"tcp", "127.0.0.1:0"},
		{"tcp", "[::1]:0"},
		{"unix", filepath.Join(t.TempDir(), "s")},
	} {
		t.Run(test.network+" "+test.address, func(t *testing.T) {
			ln, err := net.Listen(test.network, test.address)
			if err != nil {
				t.Skip(err) // no IPv6 here
			}
			defer ln.Close()
			g := group(t, 2, Options{})
			s, err := g.Serve(ln, func(c *Conn) { c.Loop().Go(&echo{c, make([]byte, 100)}, c) })
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var addr netip.AddrPort
			path := ""
			switch a := ln.Addr().(type) {
			case *net.TCPAddr:
				addr = a.AddrPort()
			case *net.UnixAddr:
				path = a.Name
			}
			for i := range g.Len() {
				onLoop(t, g.Loop(i), func() {
					if err := echoOnce(g.Loop(i), addr, path); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
}

func TestDialRefused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	ln.Close()
	g := group(t, 1, Options{})
	l := g.Loop(0)
	onLoop(t, l, func() {
		c, err := l.Dial(addr, "", l.Now()+int64(20*time.Second))
		if c != nil || !errors.Is(err, syscall.ECONNREFUSED) && runtime.GOOS != "windows" {
			t.Errorf("%v, %v", c, err)
		}
		c, err = l.Dial(netip.AddrPort{}, filepath.Join(t.TempDir(), "none"), l.Now()+int64(20*time.Second))
		if c != nil || !errors.Is(err, syscall.ENOENT) && runtime.GOOS != "windows" {
			t.Errorf("no such socket: %v, %v", c, err)
		}
		if l.Conns() != 0 {
			t.Errorf("%d connections are left", l.Conns())
		}
	})
}
