package upstream

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type recorder []string

func (r *recorder) Fault(b *Backend, o Outcome) { *r = append(*r, b.Name+" "+o.Fault.String()) }
func (r *recorder) Waiting()                    { *r = append(*r, "waiting") }

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
	want := recorder{"a connect", "a refused", "a timeout", "a reset", "a malformed", "a status", "waiting"}
	if d := cmp.Diff(want, *r); d != "" {
		t.Error(d)
	}
	p.SetWatcher(nil)
	c.expect("2", "waits")
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
