package loop

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestConnectionsGoToTheLoopWithFewest opens connections, closes those of one loop, and opens as many again.
func TestConnectionsGoToTheLoopWithFewest(t *testing.T) {
	const loops, each = 4, 25
	g := group(t, loops, Options{})
	addr := listen(t, g, func(c *Conn) { // says which loop it is on, and stays
		defer c.Close()
		c.Write([]byte{byte(c.Loop().Index())})
		c.Read(make([]byte, 1))
	})
	byLoop := make([][]net.Conn, loops)
	open := func() {
		c := dial(t, addr)
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		byLoop[b[0]] = append(byLoop[b[0]], c)
	}
	check := func() {
		t.Helper()
		var n []int
		for _, conns := range byLoop {
			n = append(n, len(conns))
		}
		// Two loops that accept at the same moment may both choose a third.
		if slices.Max(n)-slices.Min(n) > 2 {
			t.Errorf("connections per loop: %v", n)
		}
	}
	for range loops * each {
		open()
	}
	check()
	gone := len(byLoop[2])
	for _, c := range byLoop[2] {
		c.Close()
	}
	byLoop[2] = nil
	onLoop(t, g.Loop(2), func() {
		for g.Loop(2).Conns() > 0 {
			g.Loop(2).Sleep(tick)
		}
	})
	for range gone {
		open()
	}
	check()
}

// TestListenerCloseAcceptsWhatIsQueued holds the loops up, so that connections queue in the kernel.
func TestListenerCloseAcceptsWhatIsQueued(t *testing.T) {
	const conns = 50
	g := group(t, 3, Options{})
	var accepted atomic.Int64
	addr, s := accept(t, g, func(c *Conn) {
		accepted.Add(1)
		c.Loop().Go(&echo{c, make([]byte, 10)}, c)
	})
	hold := make(chan bool)
	var held sync.WaitGroup
	for i := range g.Len() {
		held.Add(1)
		g.Loop(i).Post(func() { held.Done(); <-hold })
	}
	held.Wait()
	var cs []net.Conn
	for range conns {
		cs = append(cs, dial(t, addr))
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	close(hold)
	if err := within(t, closed); err != nil {
		t.Error(err)
	}
	if n := accepted.Load(); n != conns {
		t.Errorf("%d of %d were accepted by the time Close returned", n, conns)
	}
	for _, c := range cs {
		c.Write([]byte("x"))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := net.DialTimeout("tcp", addr.String(), 10*time.Second); err == nil {
		c.Close()
		t.Error("still listening")
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// TestCloseEndsEverything closes a group with a task in every kind of wait. goleak looks after what is left.
func TestCloseEndsEverything(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	g, err := New(2, Options{})
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		what string
		err  error
	}
	ended := make(chan result, 100)
	var started sync.WaitGroup
	var after atomic.Int64
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s, err := g.Serve(ln, func(c *Conn) {
		l := c.Loop()
		run := func(what string, fn func() error) {
			l.Go(runFunc(func() {
				started.Done()
				ended <- result{what, fn()}
				// What it does on its way out is done, too.
				l.Go(runFunc(func() { l.Sleep(int64(time.Hour)); after.Add(1) }), nil)
			}), nil)
		}
		run("read", func() error { _, err := c.Read(make([]byte, 1)); return err })
		run("write", func() error { _, err := c.Write(make([]byte, 64<<20)); return err })
		run("sleep", func() error { return l.Sleep(int64(time.Hour)) })
		run("park", func() error { return l.Current().Park(0) })
		run("yield", func() error {
			for {
				if err := l.Yield(); err != nil {
					return err
				}
			}
		})
		run("stubborn", func() (err error) {
			for range 50 {
				err = l.Sleep(int64(time.Hour))
			}
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	const conns, tasks = 4, 6
	started.Add(conns * tasks)
	var cs []net.Conn
	for range conns {
		c, err := net.DialTimeout("tcp", ln.Addr().String(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		cs = append(cs, c)
	}
	started.Wait()
	g.Close()
	g.Close()
	if n := after.Load(); n != conns*tasks {
		t.Errorf("%d of %d tasks that were started at the end have ended", n, conns*tasks)
	}
	for range conns * tasks {
		if r := within(t, ended); r.err != ErrStopped && r.err != ErrClosed {
			t.Errorf("%s: %v", r.what, r.err)
		}
	}
	g.Loop(0).Post(func() { t.Error("ran after the end") })
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, c := range cs {
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); err == nil {
			t.Error("a connection of a closed group ended cleanly")
		}
		c.Close()
	}
	ln.Close()
	if c, err := net.DialTimeout("tcp", ln.Addr().String(), 10*time.Second); err == nil {
		c.Close()
		t.Error("still listening")
	}
	goleak.VerifyNone(t, ignore)
}

// TestChurn has 2,000 connections come and go in every way at once.
func TestChurn(t *testing.T) {
	const clients, each = 20, 100
	g := group(t, 2, Options{})
	addr := listen(t, g, func(c *Conn) {
		c.SetStallTimeout(int64(20 * time.Second))
		c.SetReadDeadline(c.Loop().Now() + int64(20*time.Second))
		up, err := c.Loop().Dial(c.RemoteAddr(), "", c.Loop().Now()+int64(time.Second))
		if err == nil { // nobody listens there, but the port may have been given out again
			up.Close()
		}
		(&echo{c, make([]byte, 512)}).Run()
	})
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			b := make([]byte, 2000)
			for j := range each {
				c, err := net.DialTimeout("tcp", addr.String(), 20*time.Second)
				if err != nil {
					t.Error(err)
					return
				}
				c.SetDeadline(time.Now().Add(20 * time.Second))
				switch (i + j) % 5 {
				case 0: // comes and goes
				case 1:
					reset(c.(*net.TCPConn))
				case 2: // leaves with an answer unread
					c.Write(b)
				case 3:
					c.Write(b)
					c.(*net.TCPConn).CloseWrite()
					if all, err := io.ReadAll(c); len(all) != len(b) || err != nil {
						t.Errorf("%d bytes, %v", len(all), err)
					}
				case 4:
					for range 3 {
						c.Write(b[:100])
						if _, err := io.ReadFull(c, b[:100]); err != nil {
							t.Error(err)
						}
					}
				}
				if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range g.Len() {
		l := g.Loop(i)
		onLoop(t, l, func() {
			for l.Conns() > 0 {
				l.Sleep(tick)
			}
			if n := l.accepted.Load(); n != 0 {
				t.Errorf("loop %d counts %d accepted connections when all are gone", i, n)
			}
		})
	}
}
