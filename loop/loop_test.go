package loop

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// group starts a group that ends with the test.
func group(t testing.TB, loops int, o Options) *Group {
	t.Helper()
	g, err := New(loops, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// listen serves a free port of the group with a task for each connection.
func listen(t testing.TB, g *Group, fn func(c *Conn)) netip.AddrPort {
	t.Helper()
	addr, _ := accept(t, g, func(c *Conn) { c.Loop().Go(runFunc(func() { fn(c) }), c) })
	return addr
}

// home is an address of this process's own where the system has more than one loopback address: tests count connections and
// hand each to who waits for it, and the tests of other packages, which run beside these, may ask a port that was
// theirs until a moment ago.
var home = func() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1:0"
	}
	n := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d:0", 1+n>>16&0x3f, n>>8&0xff, n&0xff)
}()

func accept(t testing.TB, g *Group, fn func(c *Conn)) (netip.AddrPort, *Listener) {
	t.Helper()
	ln, err := net.Listen("tcp", home)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s, err := g.Serve(ln, fn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return ln.Addr().(*net.TCPAddr).AddrPort(), s
}

// serve starts a group with a listener whose connections are each served by a task.
func serve(t testing.TB, loops int, fn func(c *Conn)) (*Group, netip.AddrPort) {
	t.Helper()
	g := group(t, loops, Options{})
	return g, listen(t, g, fn)
}

type runFunc func()

func (f runFunc) Run() { f() }

func dial(t testing.TB, addr netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr.String(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(time.Minute)) // so that a fault fails the test instead of hanging it
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// pair is one connection: the far end in the hands of the test, the near end in those of a task on loop 0.
func pair(t testing.TB, g *Group, fn func(c *Conn)) *net.TCPConn {
	t.Helper()
	return dial(t, listen(t, g, fn))
}

// reset closes c so that its peer gets RST.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// within waits for ch, and fails the test when it seems that nothing will come.
func within[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(30 * time.Second):
		var zero T
		t.Fatal("nothing happened for 30 s")
		return zero
	}
}

// onLoop runs fn as a task and waits for it.
func onLoop(t testing.TB, l *Loop, fn func()) {
	t.Helper()
	done := make(chan bool, 1)
	l.Post(func() {
		l.Go(runFunc(func() {
			ok := false
			defer func() { done <- ok }()
			fn()
			ok = true
		}), nil)
	})
	if !within(t, done) {
		t.Fatal("the task did not return")
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
