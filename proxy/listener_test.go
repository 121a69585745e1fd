package proxy

import (
	"net"
	"testing"
)

// open opens a listener that is not served yet.
func (l *lab) open(name string) *Listener {
	l.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	n, err := l.proxy.Open(name, ln)
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}

// A listener moves: its connections go on, its counters too, and it is forgotten with its last connection.
func TestListenerMoves(t *testing.T) {
	o := newOrigin(t, echo)
	l := newLab(t, []string{o.addr})
	old := l.client()
	old.send(get("/"))
	old.status(200)

	next := l.open("main")
	waits := newPeer(t, "early client", dialTo(t, next), t.Fatalf) // connects before anybody accepts
	waits.send(get("/"))
	if n := len(l.proxy.Listeners()); n != 1 {
		t.Fatalf("%d listeners", n)
	}
	next.Serve()
	waits.status(200)
	if all := l.proxy.Listeners(); len(all) != 1 || all[0] != next || all[0].Stats().Accepted != 2 {
		t.Fatalf("while it moves: %v", all)
	}
	l.ln.Close()
	if c, err := net.Dial("tcp", l.addr); err == nil {
		c.Close()
		t.Error("the old address still takes connections")
	}
	old.send(get("/"))
	old.status(200)
	eventually(t, "the count", func() bool { return next.Stats().Requests == 3 })
	if s := next.Stats(); s.Open != 2 {
		t.Errorf("%+v", s)
	}
	next.Rename("other")
	if all := l.proxy.Listeners(); len(all) != 1 || all[0].Name() != "other" {
		t.Errorf("after a new name: %v", all)
	}
	// A name that is free again begins anew.
	again := l.open("main")
	again.Serve()
	if s := again.Stats(); s.Accepted != 0 {
		t.Errorf("%+v", s)
	}
	next.Close()
	if all := l.proxy.Listeners(); len(all) != 2 || !all[0].Closed() {
		t.Errorf("with connections it is still there: %v", all)
	}
	old.close()
	waits.close()
	eventually(t, "it to be forgotten", func() bool { return len(l.proxy.Listeners()) == 1 })
	again.Close()
}

// A listener that was opened in vain goes without a trace.
func TestListenerNeverServed(t *testing.T) {
	l := newLab(t, []string{"127.0.0.1:1"})
	n := l.open("other")
	c := dialTo(t, n)
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("its connection is not closed")
	}
	if n := len(l.proxy.Listeners()); n != 1 {
		t.Errorf("%d listeners", n)
	}
}

func dialTo(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
