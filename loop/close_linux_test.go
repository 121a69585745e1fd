//go:build linux && !lb_portable

package loop

import (
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A listener closes while clients connect as fast as they can: whoever gets a connection is served, all others are
// refused, and none is reset. Without the filter, 200 closes lost 31.
func TestCloseLosesNobody(t *testing.T) {
	const closes = 5
	for name, listen := range map[string]func(i int) (net.Listener, error){
		"tcp": func(int) (net.Listener, error) {
			var c net.ListenConfig
			c.SetMultipathTCP(false) // its sockets take no filter
			return c.Listen(t.Context(), "tcp", "127.0.0.1:0")
		},
		"unix": func(i int) (net.Listener, error) {
			return net.Listen("unix", filepath.Join(t.TempDir(), string(rune('a'+i))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := New(2, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			for i := range closes {
				ln, err := listen(i)
				if err != nil {
					t.Fatal(err)
				}
				if u, ok := ln.(*net.UnixListener); ok {
					u.SetUnlinkOnClose(false)
				}
				s, err := g.Serve(ln, func(c *Conn) { c.Loop().Go(&echo{c, make([]byte, 100)}, c) })
				if err != nil {
					t.Fatal(err)
				}
				ln.Close()
				var served, lost atomic.Int64
				var clients sync.WaitGroup
				for range 8 {
					clients.Go(func() {
						for {
							c, err := net.Dial(ln.Addr().Network(), ln.Addr().String())
							if err != nil {
								return
							}
							c.SetDeadline(time.Now().Add(10 * time.Second))
							_, err = c.Write([]byte("x"))
							if err == nil {
								_, err = io.ReadFull(c, make([]byte, 1))
							}
							c.Close()
							if err != nil {
								lost.Add(1)
								t.Log(err)
								continue
							}
							served.Add(1)
						}
					})
				}
				for served.Load() < 50 {
					time.Sleep(time.Millisecond)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				clients.Wait()
				if lost.Load() > 0 {
					t.Errorf("close %d: %d of %d lost", i, lost.Load(), served.Load()+lost.Load())
				}
			}
		})
	}
}
