package upstream

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool("a b")
		b := func() *Backend { return backend(t, p, "a") }
		for _, c := range []struct {
			name   string
			change func()
			other  bool // it stands differently from then on
		}{
			{"seen up for the first time", func() { p.SetProbed(b(), Up) }, false},
			{"ejected", func() { p.SetEjected(b(), time.Now().Add(time.Minute)) }, true},
			{"ejected for longer", func() { p.SetEjected(b(), time.Now().Add(time.Hour)) }, false},
			{"known to be dead", func() { p.SetDead(b(), time.Now().Add(time.Hour)) }, true},
			{"back", func() { p.SetEjected(b(), time.Time{}) }, true},
			{"drained", func() { p.SetWanted(b(), Draining) }, true},
			{"drained once more", func() { p.SetWanted(b(), Draining) }, false},
			{"wanted again", func() { p.SetWanted(b(), In) }, true},
			{"down", func() { p.SetProbed(b(), Down) }, true},
			{"up", func() { p.SetProbed(b(), Up) }, true},
			{"another is down", func() { p.SetProbed(backend(t, p, "b"), Down) }, false},
			{"same configuration", func() { p.Update(specs("a b"), nil, nil) }, false},
			{"no weight", func() { p.Update(specs("a*0 b"), nil, nil) }, true},
			{"weight", func() { p.Update(specs("a*7 b"), nil, nil) }, true},
			{"another weight", func() { p.Update(specs("a*8 b"), nil, nil) }, false},
			{"nobody knows", func() { p.SetProbed(b(), Unknown) }, false},
			{"the other is up, so this one waits for its check", func() { p.SetProbed(backend(t, p, "b"), Up) }, true},
		} {
			was := b().Since()
			time.Sleep(time.Second)
			c.change()
			want := was
			if c.other {
				want = time.Now()
			}
			if got := b().Since(); !got.Equal(want) {
				t.Errorf("%s: since %v, want %v", c.name, got, want)
			}
		}
	})
}

// TestRequestsOnlyGrow counts a pool's requests while its backends come and go.
func TestRequestsOnlyGrow(t *testing.T) {
	p := newPool("a b")
	var sel Selection
	send := func(again bool) {
		t.Helper()
		if !again {
			sel.Reset(1, 0)
		}
		l := acquire(t, p, &sel)
		l.Done(Outcome{Now: 2, Status: 200})
	}
	send(false)
	send(true) // the same request, at b
	p.Fail(3, true)
	p.Fail(FailureKinds, false)
	check := func(requests, failed, unserved uint64) {
		t.Helper()
		if n := p.Requests(); n != requests {
			t.Errorf("%d requests, want %d", n, requests)
		}
		if all, un := p.Failed(); all != failed || un != unserved {
			t.Errorf("%d failed, %d of them unserved, want %d and %d", all, un, failed, unserved)
		}
	}
	check(2, 2, 1)
	p.Update(specs("b c"), nil, nil)
	check(2, 2, 1)
	send(false)
	p.Update(nil, nil, nil)
	check(3, 2, 1)
}
