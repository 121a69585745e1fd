package loop

import (
	"net"
	"net/netip"
	"strconv"
	"testing"
)

type echo struct {
	c *Conn
	b []byte
}

func (e *echo) Run() {
	defer e.c.Close()
	for {
		n, err := e.c.Read(e.b)
		if err != nil {
			return
		}
		if _, err := e.c.Write(e.b[:n]); err != nil {
			return
		}
	}
}

// caller is one client; it makes n calls and then parks until there are more.
type caller struct {
	c    *Conn
	t    *Task
	b    []byte
	n    int
	left *int // calls of all callers
	done func()
}

func (e *caller) Run() {
	defer e.c.Close()
	for {
		for e.n == 0 {
			if e.t.Park(0) != nil {
				return
			}
		}
		if _, err := e.c.Write(e.b); err != nil {
			return
		}
		for got := 0; got < len(e.b); {
			n, err := e.c.Read(e.b[got:])
			if err != nil {
				return
			}
			got += n
		}
		e.n--
		if *e.left--; *e.left == 0 {
			e.done()
		}
	}
}

// calls returns a function that makes n round trips of size bytes over conns connections, whose both ends
// live on one loop.
func calls(tb testing.TB, conns, size int) func(n int) {
	g, err := New(1, Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(g.Close)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close()
	s, err := g.Serve(ln, func(c *Conn) { c.Loop().Go(&echo{c, make([]byte, size)}, c) })
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	done := make(chan struct{}, 1)
	left := 0
	callers := make([]*caller, conns)
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	l := g.Loop(0)
	onLoop(tb, l, func() {
		for i := range callers {
			c, err := l.Dial(addr, "", 0)
			if err != nil {
				tb.Error(err)
				return
			}
			callers[i] = &caller{c: c, b: make([]byte, size), left: &left, done: func() { done <- struct{}{} }}
			callers[i].t = l.Go(callers[i], c)
		}
	})
	start := func() {
		for _, c := range callers {
			if c.n > 0 {
				c.t.Wake()
			}
		}
	}
	return func(n int) {
		l.Post(func() {
			left = n
			for i, c := range callers {
				c.n = n / conns
				if i < n%conns {
					c.n++
				}
			}
			start()
		})
		<-done
	}
}

func BenchmarkEcho(b *testing.B) {
	for _, conns := range []int{1, 64} {
		b.Run(strconv.Itoa(conns), func(b *testing.B) {
			call := calls(b, conns, 64)
			call(100 * conns)
			b.ReportAllocs()
			b.ResetTimer()
			report := cpuPerOp(b)
			call(b.N)
			report()
		})
	}
}

// TestEchoAllocates counts allocations of the steady state: there are none.
func TestEchoAllocates(t *testing.T) {
	if raceEnabled || portable {
		t.Skip("counts only what ships on Linux")
	}
	call := calls(t, 4, 64)
	call(1000)
	// What a call of call costs itself, spread over many round trips, rounds to nothing.
	if n := testing.AllocsPerRun(5, func() { call(1000) }); n > 20 {
		t.Errorf("%.0f allocations in 1000 round trips", n)
	}
}

// BenchmarkSwitch is two tasks that yield to one another: a round each.
func BenchmarkSwitch(b *testing.B) {
	g, err := New(1, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	l := g.Loop(0)
	b.ReportAllocs()
	onLoop(b, l, func() {
		me := l.Current()
		var other *Task
		other = l.Go(runFunc(func() {
			for range b.N {
				me.Wake()
				other.Park(0)
			}
			me.Wake()
		}), nil)
		b.ResetTimer()
		for range b.N {
			me.Park(0)
			other.Wake()
		}
		b.StopTimer()
	})
}
