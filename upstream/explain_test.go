package upstream

import (
	"sync"
	"testing"
	"time"
)

type asker string

func (a asker) Asks() string { return string(a) }

// TestDecisionOut: why each backend could not be chosen, and that nobody is told once nobody asks.
func TestDecisionOut(t *testing.T) {
	sp := specs("good drains dead out full zero new")
	sp[4].MaxInflight = 1
	sp[5].Weight = 0
	p := NewPool("app", 1, sp, nil, buildInOrder)
	all := p.Snapshot().All
	for i, b := range all {
		if i != 6 {
			p.SetProbed(b, Up)
		}
	}
	var s Selection
	s.Reset(1, 0)
	for _, b := range all[:4] {
		s.mark(b.Live) // so that the full one is taken
	}
	l, err := p.Acquire(&s)
	if err != nil || l.Backend().Name != "full" {
		t.Fatal(err, l.Backend().Name)
	}
	p.SetWanted(all[1], Draining)
	p.SetDead(all[2], time.Now().Add(time.Hour))
	p.SetEjected(all[3], time.Now().Add(time.Hour))

	var got []Decision
	stop := p.Record(0, func(d Decision) { got = append(got, d) })
	s.Of = asker("GET /")
	s.Reset(2, 0)
	l2, err := p.Acquire(&s)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"good": "", "drains": "draining", "dead": "down", "out": "ejected", "full": "at max_inflight", "zero": "weight 0", "new": "no check has passed yet",
	}
	if len(got) != 1 || got[0].Chosen != "good" || got[0].Request != "GET /" || got[0].Pool != "app" {
		t.Fatalf("%+v", got)
	}
	for _, c := range got[0].Candidates {
		if c.Out != want[c.Name] {
			t.Errorf("%s: %q, want %q", c.Name, c.Out, want[c.Name])
		}
	}
	if v := p.View(3); v.Chosen != "" || v.Why != "" || v.Candidates[0].Load.Active() != 1 {
		t.Errorf("%+v", v)
	}
	stop()
	s.Reset(3, 0)
	l3, err := p.Acquire(&s)
	if err != nil || len(got) != 1 {
		t.Errorf("%v, told %d times, once of them after nobody asked", err, len(got))
	}
	if p.attention.Load() != 0 {
		t.Errorf("requests still look: %x", p.attention.Load())
	}
	for _, l := range []*Lease{&l, &l2, &l3} {
		l.Done(Outcome{Now: 4})
	}
}

// TestRecordGap: several may ask, each as often as it wants.
func TestRecordGap(t *testing.T) {
	p := newPool("a")
	var all, few int
	stopAll := p.Record(0, func(Decision) { all++ })
	stopFew := p.Record(10, func(Decision) { few++ })
	var s Selection
	for now := int64(1000); now < 1100; now++ {
		s.Reset(now, 0)
		l, err := p.Acquire(&s)
		if err != nil {
			t.Fatal(err)
		}
		l.Done(Outcome{Now: now})
	}
	if all != 100 || few != 10 {
		t.Errorf("%d and %d of 100", all, few)
	}
	stopAll()
	if p.attention.Load()&explaining == 0 {
		t.Error("who still asks is forgotten")
	}
	stopFew()
	if p.attention.Load() != 0 {
		t.Error("requests still look")
	}
}

// TestDecisionsOfTheQueue: who waits is told, and for how long it did.
func TestDecisionsOfTheQueue(t *testing.T) {
	sp := specs("a")
	sp[0].MaxInflight = 1
	p := NewPool("app", 1, sp, nil, buildInOrder)
	var got []Decision
	defer p.Record(0, func(d Decision) { got = append(got, d) })()
	var s1, s2 Selection
	s1.Reset(100, 0)
	l1, _ := p.Acquire(&s1)
	s2.Reset(200, 0)
	if _, err := p.Acquire(&s2); err != ErrBusy {
		t.Fatal(err)
	}
	w := &Waiter{Wake: func() {}}
	p.Wait(w, &s2)
	l1.Done(Outcome{Now: 500})
	s2.Now = 700
	l2, err := p.Acquire(&s2)
	if err != nil {
		t.Fatal(err)
	}
	l2.Done(Outcome{Now: 800})
	if len(got) != 3 || got[0].Why != "the only one that is ready" || got[1].Chosen != "" || got[1].Why != ErrBusy.Error() || got[1].Candidates[0].Out != "at max_inflight" ||
		got[2].Chosen != "a" || got[2].Held != 500 || got[2].Attempt != 1 {
		t.Errorf("%+v", got)
	}
}

// TestRecordMeanwhile begins and ends to ask while requests come, for the race detector.
func TestRecordMeanwhile(t *testing.T) {
	p := NewPool("app", 4, specs("a b c"), nil, buildInOrder)
	done := make(chan struct{})
	var asking, asked sync.WaitGroup
	for loop := range 4 {
		asked.Go(func() {
			var s Selection
			for now := int64(1); ; now++ {
				select {
				case <-done:
					return
				default:
				}
				s.Reset(now, loop)
				if l, err := p.Acquire(&s); err == nil {
					l.Done(Outcome{Now: now})
				}
			}
		})
	}
	for range 4 {
		asking.Go(func() {
			for range 100 {
				told := make(chan Decision, 1)
				stop := p.Record(0, func(d Decision) {
					select {
					case told <- d:
					default:
					}
				})
				if d := <-told; d.Chosen == "" || len(d.Candidates) != 3 {
					t.Errorf("%+v", d)
				}
				stop()
			}
		})
	}
	asking.Wait()
	close(done)
	asked.Wait()
	if p.attention.Load() != 0 {
		t.Errorf("attention %x", p.attention.Load())
	}
}

// TestDecisionOfAPreference: whoever serves the client already is said to be the reason, and who cannot is named.
func TestDecisionOfAPreference(t *testing.T) {
	p := newPool("a b")
	var got []Decision
	defer p.Record(0, func(d Decision) { got = append(got, d) })()
	ask := func(bound bool) {
		t.Helper()
		var s Selection
		s.Reset(1, 0)
		s.Prefer, s.Bound = p.Snapshot().All[1], bound
		l, err := p.Acquire(&s)
		if err != nil {
			t.Fatal(err)
		}
		l.Done(Outcome{Now: 2})
	}
	ask(false)
	ask(true)
	p.SetWanted(p.Snapshot().All[1], Draining)
	p.Update(append(specs("a b"), specs("c")...), nil, nil)
	ask(false)
	for i, want := range []string{"it serves this client already", "it has the client's session, and nobody else can serve that", "; b, which served this client, takes nothing"} {
		if got[i].Why != want {
			t.Errorf("%+v, want %q", got[i], want)
		}
	}
}
