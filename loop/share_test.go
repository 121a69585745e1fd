package loop

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A socket goes from one group to another and back while clients connect as fast as they can, as it does between two
// processes: whoever connects is served by one of them, and nobody is refused or reset.
func TestShared(t *testing.T) {
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	ln, err := c.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	type side struct {
		g      *Group
		served atomic.Int64
	}
	var sides [2]side
	serve := func(s *side, ln net.Listener) *Listener {
		t.Helper()
		l, err := s.g.Serve(ln, func(c *Conn) {
			s.served.Add(1)
			c.Loop().Go(&echo{c, make([]byte, 100)}, c)
		})
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		return l
	}
	for i := range sides {
		if sides[i].g, err = New(2, Options{}); err != nil {
			t.Fatal(err)
		}
		defer sides[i].g.Close()
	}
	addr := ln.Addr().String()
	now := serve(&sides[0], ln)

	stop := make(chan struct{})
	var clients sync.WaitGroup
	var asked, lost atomic.Int64
	for range 8 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.Dial("tcp", addr)
				if err == nil {
					c.SetDeadline(time.Now().Add(20 * time.Second))
					if _, err = c.Write([]byte("x")); err == nil {
						_, err = io.ReadFull(c, make([]byte, 1))
					}
					c.Close()
				}
				if asked.Add(1); err != nil {
					lost.Add(1)
					t.Log(err)
				}
			}
		})
	}
	more := func(what *atomic.Int64) {
		t.Helper()
		want := what.Load() + 20
		for end := time.Now().Add(20 * time.Second); what.Load() < want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("nobody is served")
			}
		}
	}
	more(&asked)
	owner := 0
	for i := range 6 {
		var file *os.File
		if err := now.Control(func(fd uintptr) error {
			own, err := syscall.Dup(int(fd))
			file = os.NewFile(uintptr(own), "listener")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		other, err := net.FileListener(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		was := now
		if i%3 == 2 { // it is called off
			was.Suspend()
			was.Suspend()
			other.Close()
			was.Resume()
			more(&sides[owner].served)
			continue
		}
		now = serve(&sides[1-owner], other)
		was.Suspend()
		own := sides[owner].served.Load()
		more(&sides[1-owner].served)
		if n := sides[owner].served.Load() - own; n != 0 {
			t.Errorf("%d connections were accepted after Suspend", n)
		}
		was.SetShared(true)
		if err := was.Close(); err != nil {
			t.Error(err)
		}
		owner = 1 - owner
		more(&sides[owner].served)
	}
	close(stop)
	clients.Wait()
	if lost.Load() > 0 {
		t.Errorf("%d of %d lost", lost.Load(), asked.Load())
	}
	if err := now.Close(); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("the last one closed it, and somebody still listens")
	}
}
