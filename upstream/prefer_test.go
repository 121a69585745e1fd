package upstream

import (
	"errors"
	"testing"
	"time"
)

// told is a strategy that hears of its choices.
type told struct {
	inOrder
	sent *[]string
}

func (s told) Sent(b *Backend, _ Lease)      { *s.sent = append(*s.sent, b.Name) }
func (s told) Done(*Backend, Lease, Outcome) {}

func TestPrefer(t *testing.T) {
	var sent []string
	p := NewPool("app", 2, specs("a b c"), nil, func(r []*Backend) Strategy { return told{r, &sent} })
	ask := func(prefer string, bound bool) (string, error) {
		s := new(Selection)
		s.Reset(1, 0)
		s.Prefer, s.Bound = backend(t, p, prefer), bound
		l, err := p.Acquire(s)
		if err != nil {
			return "", err
		}
		t.Cleanup(func() { l.Done(Outcome{}) })
		if s.Tried() != 1 || !s.Has(l.Backend().Live) {
			t.Errorf("%d tried", s.Tried())
		}
		return l.Backend().Name, nil
	}
	want := func(prefer string, bound bool, name string) {
		t.Helper()
		if got, err := ask(prefer, bound); got != name || err != nil {
			t.Errorf("%q %v, want %q", got, err, name)
		}
	}
	want("b", false, "b")
	want("c", true, "c")
	// Not ready, but said to be good for who prefers it: the strategy does not know it, and is told nothing.
	p.Update(specs("a b*0 c"), nil, nil)
	sent = nil
	want("b", false, "b")
	if len(sent) != 0 {
		t.Errorf("the strategy was told of %v", sent)
	}
	// Even when nobody else is.
	p.SetProbed(backend(t, p, "a"), Down)
	p.SetProbed(backend(t, p, "c"), Down)
	want("b", true, "b")
	if _, err := p.Acquire(new(Selection)); !errors.Is(err, ErrNoBackend) {
		t.Errorf("a newcomer: %v", err)
	}
	// One of another snapshot, and one that has left.
	old := backend(t, p, "b")
	p.Update(specs("c b a"), nil, nil)
	s := &Selection{Prefer: old}
	if l, err := p.Acquire(s); err != nil || l.Backend().Name != "b" || l.Backend().Index() < 0 {
		t.Errorf("%v", err)
	} else {
		l.Done(Outcome{})
	}
	p.SetProbed(backend(t, p, "a"), Up)
	p.Update(specs("a c"), nil, nil)
	s = &Selection{Prefer: old}
	if l, err := p.Acquire(s); err != nil || l.Backend().Name != "a" {
		t.Errorf("instead of one that has left: %v", err)
	} else {
		l.Done(Outcome{})
	}
}

func TestPreferAtTheLimit(t *testing.T) {
	sp := specs("a b")
	sp[1].MaxInflight = 2
	p := NewPool("app", 1, sp, nil, buildInOrder)
	for i, want := range []string{"b", "b", "a", "b", "b"} { // the last two are bound
		s := &Selection{Prefer: backend(t, p, "b"), Bound: i > 2}
		l, err := p.Acquire(s)
		if err != nil || l.Backend().Name != want {
			t.Errorf("request %d: %v %v, want %s", i, l.Backend().Name, err, want)
		}
		defer l.Done(Outcome{})
	}
	if n := backend(t, p, "b").Inflight(); n != 4 {
		t.Errorf("%d are on it", n)
	}
}

func TestStartDraining(t *testing.T) {
	set := DefaultSettings()
	set.DrainSessions = time.Hour
	p := NewPool("app", 1, specs("a b"), set, buildInOrder)
	b := backend(t, p, "b")
	era := b.Era()
	acquireBound := func() (Lease, error) { return p.Acquire(&Selection{Prefer: backend(t, p, "b")}) }
	p.StartDraining(b)
	if names(p.Snapshot().Ready) != "a" || b.Draining() || closed(b.Drained()) || b.Era() != era {
		t.Error("it drains as if it had no sessions")
	}
	l, err := acquireBound()
	if err != nil || l.Backend().Name != "b" {
		t.Fatalf("%v", err)
	}
	p.StartDraining(b) // again
	p.EndSessions(b)
	if !b.Draining() || closed(b.Drained()) || b.Era() == era {
		t.Error("its sessions go on")
	}
	if m, err := acquireBound(); err != nil || m.Backend().Name != "a" {
		t.Errorf("afterwards: %v", err)
	} else {
		m.Done(Outcome{})
	}
	l.Done(Outcome{})
	if !closed(b.Drained()) {
		t.Error("it is not empty")
	}
	p.EndSessions(b)
	p.StartDraining(b)
	if backend(t, p, "b").Life().Sessions {
		t.Error("they begin again")
	}
	// Taken back before it has ended: nothing was lost.
	p.SetWanted(b, In)
	era = b.Era()
	p.StartDraining(b)
	drained := b.Drained()
	p.SetWanted(b, In)
	if b.Era() != era || !closed(drained) || names(p.Snapshot().Ready) != "a b" {
		t.Error("taken back, it is not as it was")
	}
	// Without sessions to keep, and for a backend that dies, all is over at once.
	p.SetDead(b, time.Now())
	if b.Era() == era {
		t.Error("a dead one has sessions")
	}
	p.Update(specs("a b"), DefaultSettings(), nil)
	p.StartDraining(backend(t, p, "a"))
	if !backend(t, p, "a").Draining() {
		t.Error("it keeps sessions although it shall not")
	}
}

// TestPreferWhileOthersWait: who waits does not hold up those that are bound to a backend which takes nothing new, or which
// alone can serve them. Others that prefer a backend wait for their turn.
func TestPreferWhileOthersWait(t *testing.T) {
	set := DefaultSettings()
	set.DrainSessions = time.Hour
	for _, c := range []struct {
		name  string
		pool  string
		limit int64
		begin func(*Pool)
		bound bool
		want  string
	}{
		{"the only one drains", "b", 0, func(p *Pool) { p.StartDraining(p.Snapshot().All[0]) }, false, "b"},
		{"one of two drains", "b a", 1, func(p *Pool) { p.StartDraining(p.Snapshot().All[0]) }, false, "b"},
		{"weight 0", "b*0 a", 1, func(*Pool) {}, false, "b"},
		{"bound to one that is full", "b", 1, func(*Pool) {}, true, "b"},
		{"full, and not bound", "b", 1, func(*Pool) {}, false, "waits"},
		{"drained for good", "b", 0, func(p *Pool) { p.SetWanted(p.Snapshot().All[0], Draining) }, true, "waits"},
	} {
		sp := specs(c.pool)
		if len(sp) > 1 || c.bound || c.want == "waits" {
			sp[len(sp)-1].MaxInflight = c.limit
		}
		p := NewPool("app", 1, sp, set, buildInOrder)
		c.begin(p)
		x := newCrowd(t, p)
		if len(p.Snapshot().Ready) > 0 {
			if got := x.comes("first"); got == "waits" {
				t.Fatalf("%s: the first %s", c.name, got)
			}
		}
		if got := x.comes("waiting"); got != "waits" {
			t.Fatalf("%s: somebody is to wait, and is sent to %s", c.name, got)
		}
		s := &x.person("client").s
		s.Prefer, s.Bound = backend(t, p, "b"), c.bound
		if got := x.comes("client"); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		want := int64(1)
		if c.want == "waits" {
			want = 2
		}
		if n := p.Waiting(); n != want {
			t.Errorf("%s: %d wait, want %d", c.name, n, want)
		}
	}
}
