package loop

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

type heard struct {
	timeout bool
	n       int
	err     error
}

type handlerFunc func(c *Conn, timeout bool)

func (f handlerFunc) Ready(c *Conn, timeout bool) { f(c, timeout) }

// waiting accepts one connection that waits for its handler, after prepare.
func waiting(t *testing.T, prepare func(c *Conn)) (*net.TCPConn, <-chan heard, *Group) {
	g := group(t, 1, Options{})
	ch := make(chan heard, 1)
	return pair(t, g, func(c *Conn) {
		if prepare != nil {
			prepare(c)
		}
		var h handlerFunc
		h = func(c *Conn, timeout bool) {
			if c.Loop().Current() != nil {
				t.Error("the handler runs as a task")
			}
			n, err := c.TryRead(make([]byte, 10))
			if n == 0 && err == nil && !timeout {
				c.Await(h) // a new connection is tried once before it is waited for
				return
			}
			ch <- heard{timeout, n, err}
		}
		c.Await(h)
	}), ch, g
}

func TestAwaitData(t *testing.T) {
	c, ch, _ := waiting(t, nil)
	io.WriteString(c, "hello")
	if h := within(t, ch); h.timeout || h.n != 5 || h.err != nil {
		t.Errorf("%+v", h)
	}
}

func TestAwaitEnd(t *testing.T) {
	c, ch, _ := waiting(t, nil)
	c.CloseWrite()
	if h := within(t, ch); h.timeout || h.n != 0 || h.err != io.EOF {
		t.Errorf("%+v", h)
	}
}

func TestAwaitReset(t *testing.T) {
	c, ch, _ := waiting(t, nil)
	reset(c)
	if h := within(t, ch); h.timeout || h.n != 0 || h.err == nil || h.err == io.EOF {
		t.Errorf("%+v", h)
	}
}

func TestAwaitTimeout(t *testing.T) {
	_, ch, _ := waiting(t, func(c *Conn) { c.SetReadDeadline(c.Loop().Now() + 1) })
	if h := within(t, ch); !h.timeout || h.n != 0 || h.err != nil {
		t.Errorf("%+v", h)
	}
}

// TestAwaitAfterTheDeadline has the timer fire while nobody waits.
func TestAwaitAfterTheDeadline(t *testing.T) {
	_, ch, _ := waiting(t, func(c *Conn) {
		c.SetReadDeadline(c.Loop().Now() + 1)
		for c.timer.Armed() {
			c.Loop().Sleep(tick)
		}
	})
	if h := within(t, ch); !h.timeout {
		t.Errorf("%+v", h)
	}
}

func TestAwaitTakenBack(t *testing.T) {
	g := group(t, 1, Options{})
	got := make(chan string, 1)
	c := pair(t, g, func(c *Conn) {
		defer c.Close()
		c.Await(handlerFunc(func(*Conn, bool) { t.Error("told after all") }))
		c.Await(nil)
		b := make([]byte, 10)
		n, _ := c.Read(b)
		got <- string(b[:n])
	})
	io.WriteString(c, "mine")
	if s := within(t, got); s != "mine" {
		t.Error(s)
	}
}

func TestReadDeadline(t *testing.T) {
	g := group(t, 1, Options{})
	errs := make(chan error, 3)
	c := pair(t, g, func(c *Conn) {
		defer c.Close()
		l, b := c.Loop(), make([]byte, 10)
		c.SetReadDeadline(l.Now() + int64(time.Hour))
		c.SetReadDeadline(l.Now() + 2*tick)
		_, err := c.Read(b)
		errs <- err
		_, err = c.Read(b) // still passed
		errs <- err
		c.SetReadDeadline(0)
		c.Write([]byte("go"))
		_, err = c.Read(b)
		errs <- err
	})
	for _, want := range []error{ErrTimeout, ErrTimeout} {
		if err := within(t, errs); err != want {
			t.Errorf("%v, not %v", err, want)
		}
	}
	io.ReadFull(c, make([]byte, 2))
	io.WriteString(c, "x")
	if err := within(t, errs); err != nil {
		t.Error(err)
	}
}

// waits are the ways in which a task can wait while it watches a client.
var waits = map[string]func(t *testing.T, c, other *Conn) error{
	"read": func(t *testing.T, c, other *Conn) error {
		_, err := other.Read(make([]byte, 1))
		return err
	},
	"write": func(t *testing.T, c, other *Conn) error {
		_, err := other.Write(make([]byte, 64<<20))
		return err
	},
	"sleep": func(t *testing.T, c, other *Conn) error { return c.Loop().Sleep(int64(time.Hour)) },
	"park":  func(t *testing.T, c, other *Conn) error { return c.Loop().Current().Park(0) },
	"park until": func(t *testing.T, c, other *Conn) error {
		return c.Loop().Current().Park(c.Loop().Now() + int64(time.Hour))
	},
	"yield": func(t *testing.T, c, other *Conn) error {
		for {
			if err := c.Loop().Yield(); err != nil {
				return err
			}
		}
	},
	"own read": func(t *testing.T, c, other *Conn) error {
		for {
			if _, err := c.Read(make([]byte, 1)); err != nil && err != io.EOF {
				return err
			}
			if err := c.Loop().Yield(); err != nil {
				return err
			}
		}
	},
}

func TestWatchInterrupts(t *testing.T) {
	for name, wait := range waits {
		for _, end := range []string{"fin", "reset", "fin before", "reset before"} {
			t.Run(name+" "+end, func(t *testing.T) {
				g := group(t, 1, Options{})
				other := make(chan *Conn, 1)
				pair(t, g, func(c *Conn) { other <- c })
				o := within(t, other)
				errs := make(chan error, 1)
				ready := make(chan bool)
				c := pair(t, g, func(c *Conn) {
					defer c.Close()
					if before := end == "fin before" || end == "reset before"; before {
						ready <- true
						c.Wait()
					}
					fin := end == "fin" || end == "fin before"
					c.Watch(c.Loop().Current(), fin)
					if end == "fin" || end == "reset" {
						c.Loop().Post(func() { go func() { ready <- true }() })
					}
					err := wait(t, c, o)
					c.Watch(nil, false)
					errs <- err
				})
				within(t, ready)
				if end == "fin" || end == "fin before" {
					c.CloseWrite()
				} else {
					reset(c)
				}
				err := within(t, errs)
				if err != ErrPeerGone && !(name == "own read" && end[:3] == "res" && err != nil) {
					t.Error(err)
				}
			})
		}
	}
}

// TestWatchForResetOnly: a client that ends its side may still want its answer.
func TestWatchForResetOnly(t *testing.T) {
	g := group(t, 1, Options{})
	errs := make(chan error, 1)
	gone := make(chan bool, 1)
	c := pair(t, g, func(c *Conn) {
		defer c.Close()
		task := c.Loop().Current()
		c.Watch(task, false)
		for !c.Gone(true) {
			c.Loop().Sleep(tick)
		}
		errs <- task.Interrupted()
		gone <- c.Gone(false)
		errs <- task.Park(0)
	})
	c.CloseWrite()
	if err := within(t, errs); err != nil {
		t.Errorf("FIN interrupted: %v", err)
	}
	if within(t, gone) {
		t.Error("FIN is not gone")
	}
	if portable {
		return // does not see a reset after FIN
	}
	reset(c)
	if err := within(t, errs); err != ErrPeerGone {
		t.Error(err)
	}
}

// TestStallTimeout turns the clock by hand, since how long the sockets' buffers last nobody knows.
func TestStallTimeout(t *testing.T) {
	if portable {
		t.Skip("the net package does not tell what the peer has taken")
	}
	g := group(t, 1, Options{})
	conns := make(chan *Conn, 1)
	errs := make(chan error, 1)
	c := pair(t, g, func(c *Conn) {
		defer c.Close()
		c.SetStallTimeout(int64(time.Hour))
		conns <- c
		_, err := c.Write(make([]byte, 64<<20))
		errs <- err
	})
	s := within(t, conns)
	l := s.Loop()
	stalled := func() { // nothing moves any more: neither here nor in the peer's socket
		for left, same := -1, 0; same < 3; {
			onLoop(t, l, func() {
				l.Sleep(4 * tick)
				if n := int(s.untaken()); n == left && !s.writable && s.pending() {
					same++
				} else {
					left, same = n, 0
				}
			})
		}
	}
	// late lets the timeout pass and reports whether the peer was cut.
	late := func() bool {
		s.fire(&s.timer, s.writeBy)
		return s.werr != nil
	}
	stalled()
	for range 5 {
		before := make(chan int32, 1)
		onLoop(t, l, func() { before <- s.unsent })
		was := <-before
		// Less than what makes the socket say that there is room, mostly. How much the peer's socket has to have free
		// until it says so to this one depends on how large it has grown: a sixteenth of up to 6 MiB.
		for progress := false; !progress; {
			if _, err := io.ReadFull(c, make([]byte, 100<<10)); err != nil {
				t.Fatal(err)
			}
			onLoop(t, l, func() {
				l.Sleep(tick)
				if s.untaken() < s.unsent {
					progress = true
					if late() {
						t.Error("a slow peer was cut")
					}
				} else {
					progress = s.unsent != was // there was room, and more was sent
				}
			})
		}
		stalled()
	}
	cut := false
	for range 2 { // the peer's socket may have taken some since
		onLoop(t, l, func() { cut = cut || late() })
	}
	if !cut {
		t.Fatal("a peer that takes nothing was not cut")
	}
	if err := within(t, errs); err != ErrTimeout {
		t.Error(err)
	}
}

// TestStallTimeoutFires is the same by the loop's own clock, with a peer that takes nothing.
func TestStallTimeoutFires(t *testing.T) {
	g := group(t, 1, Options{})
	errs := make(chan error, 2)
	pair(t, g, func(c *Conn) {
		defer c.Close()
		c.SetStallTimeout(int64(50 * time.Millisecond))
		_, err := c.Write(make([]byte, 64<<20))
		errs <- err
		_, err = c.Write([]byte("x"))
		errs <- err
	})
	for range 2 {
		if err := within(t, errs); err != ErrTimeout {
			t.Error(err)
		}
	}
}

func TestParkEnds(t *testing.T) {
	g := group(t, 1, Options{})
	stop := errors.New("stop")
	onLoop(t, g.Loop(0), func() {
		l := g.Loop(0)
		me := l.Current()
		if err := me.Park(l.Now()); err != ErrTimeout {
			t.Errorf("past: %v", err)
		}
		if err := me.Park(l.Now() + 1); err != ErrTimeout {
			t.Errorf("soon: %v", err)
		}
		l.Go(runFunc(me.Wake), nil)
		if err := me.Park(0); err != nil {
			t.Errorf("woken: %v", err)
		}
		l.Go(runFunc(func() { me.Interrupt(stop); me.Interrupt(io.EOF) }), nil)
		for range 2 {
			if err := me.Park(l.Now() + int64(time.Hour)); err != stop {
				t.Errorf("interrupted: %v", err)
			}
		}
		if me.timer.Armed() {
			t.Error("the timer is left armed")
		}
		if me.Interrupted() != stop {
			t.Error(me.Interrupted())
		}
		if err := l.Sleep(1); err != stop {
			t.Errorf("sleep: %v", err)
		}
		me.ClearInterrupt()
		l.Go(runFunc(me.Wake), nil)
		before := l.Now()
		if err := l.Sleep(5 * tick); err != nil || l.Now() < before+5*tick {
			t.Errorf("slept %d of %d: %v", l.Now()-before, 5*tick, err)
		}
	})
}
