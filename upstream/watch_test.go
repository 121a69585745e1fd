package upstream

import (
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type recorder []string

func (r *recorder) Fault(b *Backend, o Outcome) { *r = append(*r, b.Name+" "+o.Fault.String()) }
func (r *recorder) Waiting()                    { *r = append(*r, "waiting") }
func (r *recorder) HungUp(*Live)                { *r = append(*r, "hung up") }

func TestWatcher(t *testing.T) {
	p := newPool("a")
	r := new(recorder)
	p.SetWatcher(r)
	s := new(Selection)
	for f := range Faults {
		s.Reset(1, 0)
		l := acquire(t, p, s)
		l.Done(Outcome{Fault: f})
	}
	c := newCrowd(t, p)
	p.SetDead(backend(t, p, "a"), time.Unix(1, 0))
	c.expect("1", "waits")
	backend(t, p, "a").HungUp()
	want := recorder{"a connect", "a refused", "a timeout", "a reset", "a malformed", "a status", "waiting", "hung up"}
	if d := cmp.Diff(want, *r); d != "" {
		t.Error(d)
	}
	p.SetWatcher(nil)
	c.expect("2", "waits")
	backend(t, p, "a").HungUp()
	if len(*r) != len(want) {
		t.Errorf("told after it was taken away: %v", *r)
	}
}

func TestFailOpen(t *testing.T) {
	p := newPool("a b c")
	a, b, c := backend(t, p, "a"), backend(t, p, "b"), backend(t, p, "c")
	p.SetEjected(a, time.Unix(1, 0))
	p.SetEjected(b, time.Unix(1, 0))
	s := new(Selection)
	pick := func() string {
		s.Reset(1, 0)
		l := acquire(t, p, s)
		defer l.Done(Outcome{})
		return l.Backend().Name
	}
	if p.Snapshot().Panic || pick() != "c" {
		t.Error("c is ready")
	}
	p.SetProbed(c, Down)
	if snap := p.Snapshot(); !snap.Panic || names(snap.Ready) != "a b" || pick() != "a" {
		t.Errorf("panic %v, ready %q", snap.Panic, names(snap.Ready))
	}
	p.SetDead(a, time.Unix(2, 0))
	if snap := p.Snapshot(); !snap.Panic || pick() != "b" {
		t.Errorf("panic %v, ready %q", snap.Panic, names(snap.Ready))
	}
	p.SetProbed(c, Up)
	if p.Snapshot().Panic || pick() != "c" {
		t.Error("c is ready again")
	}
	p.SetEjected(a, time.Time{})
	for _, w := range []struct {
		b                            *Backend
		failOpen, ejections, returns uint64
	}{{a, 1, 1, 1}, {b, 1, 1, 0}, {c, 0, 0, 0}} {
		if n := w.b.Stats(0).FailOpen.Load(); n != w.failOpen || w.b.Ejections() != w.ejections || w.b.Returns() != w.returns {
			t.Errorf("%s: %d picks in panic, %d ejections, %d returns; want %d %d %d", w.b.Name, n, w.b.Ejections(), w.b.Returns(), w.failOpen, w.ejections, w.returns)
		}
	}
}

func TestConnectFault(t *testing.T) {
	for _, c := range []struct {
		network, address string
		want             Fault
	}{
		{"unix", t.TempDir() + "/none", FaultRefused},
		{"tcp", "127.0.0.1:99999", FaultConnect},
	} {
		_, err := net.Dial(c.network, c.address)
		if got := ConnectFault(err); got != c.want {
			t.Errorf("%v: %v, want %v", err, got, c.want)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if _, err := net.Dial("tcp", ln.Addr().String()); ConnectFault(err) != FaultRefused {
		t.Error(err)
	}
}
