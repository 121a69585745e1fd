//go:build !lb_portable

package loop

import (
	"io"
	"net"
	"testing"
)

// What can be known of bytes that were written to a connection which then ended: the peer closed before they came, or it
// did after; it read them, or it did not.
func TestMissed(t *testing.T) {
	read := func(c *net.TCPConn) {
		if _, err := io.ReadFull(c, make([]byte, 70)); err != nil {
			t.Error(err)
		}
	}
	for _, test := range []struct {
		name          string
		before, after func(*net.TCPConn) // the bytes were written
		yes, maybe    bool
	}{
		{"closed before", func(c *net.TCPConn) { c.Close() }, nil, true, false},
		{"reset before", reset, nil, true, false}, // the socket does not take them
		{"half closed before", func(c *net.TCPConn) { c.CloseWrite() }, nil, false, true},
		{"half closed before, and read", func(c *net.TCPConn) { c.CloseWrite() }, func(c *net.TCPConn) { read(c); c.Close() }, false, true},
		{"closed after, unread", nil, func(c *net.TCPConn) { c.Close() }, false, false},
		{"closed after, read", nil, func(c *net.TCPConn) { read(c); c.Close() }, false, false},
		{"reset after, unread", nil, reset, false, false},
		{"reset after, read", nil, func(c *net.TCPConn) { read(c); reset(c) }, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := group(t, 1, Options{})
			ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			at := ln.Addr().(*net.TCPAddr).AddrPort()
			onLoop(t, g.Loop(0), func() {
				l := g.Loop(0)
				c, err := l.Dial(at, "", 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				peer, err := ln.AcceptTCP()
				if err != nil {
					t.Error(err)
					return
				}
				defer peer.Close()
				// One that has served before.
				c.Write(make([]byte, 100))
				io.ReadFull(peer, make([]byte, 100))
				peer.Write(make([]byte, 50))
				b := make([]byte, 100)
				if n, err := c.Read(b); n != 50 || err != nil {
					t.Error(n, err)
				}
				given := c.Given()
				if given != 100 {
					t.Errorf("%d bytes were given", given)
				}
				if test.before != nil {
					test.before(peer)
				}
				c.Write(make([]byte, 70))
				if test.after != nil {
					test.after(peer)
				}
				if n, err := c.Read(b); n != 0 || err == nil {
					t.Errorf("read %d, %v", n, err)
				}
				if yes, maybe := c.Missed(given); yes != test.yes || maybe != test.maybe {
					t.Errorf("it is certain: %t, it may be: %t; want %t, %t", yes, maybe, test.yes, test.maybe)
				}
			})
		})
	}
}
