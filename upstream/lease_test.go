package upstream

import (
	"testing"

	"pgregory.net/rapid"
)

func TestDoneTwice(t *testing.T) {
	p := newPool("a")
	s := new(Selection)
	s.Reset(0, 0)
	l := acquire(t, p, s)
	l.Done(Outcome{})
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
		if n := l.Backend().Inflight(); n != 0 {
			t.Errorf("%d in flight", n)
		}
	}()
	l.Done(Outcome{})
}

func TestPark(t *testing.T) {
	const ms = 1e6
	p := newPool("a")
	a := backend(t, p, "a")
	s := new(Selection)
	at := func(now int64, loop int) Lease {
		s.Reset(now, loop)
		return acquire(t, p, s)
	}
	poll := at(0, 0)
	if poll.Park(600 * ms) {
		t.Error("parked though nothing overtook it")
	}
	failed := at(1*ms, 1)
	failed.Done(Outcome{Now: 2 * ms, Fault: FaultReset})
	same := at(0, 1)
	same.Done(Outcome{Now: 2 * ms, Latency: 1 * ms, Status: 200})
	if poll.Park(600 * ms) {
		t.Error("parked though nothing newer was answered")
	}
	newer := at(10*ms, 1)
	newer.Done(Outcome{Now: 20 * ms, Latency: 10 * ms, Status: 200})
	if poll.Park(499 * ms) {
		t.Error("parked before its time")
	}
	if l := a.Load(); l.Active() != 1 || l.Parked() != 0 {
		t.Errorf("load %d active, %d parked; want 1, 0", l.Active(), l.Parked())
	}
	for range 2 {
		if !poll.Park(500*ms) || !poll.Parked() {
			t.Error("not parked")
		}
	}
	if l := a.Load(); l.Active() != 0 || l.Parked() != 1 || a.Inflight() != 1 {
		t.Errorf("load %d active, %d parked, %d in flight; want 0, 1, 1", l.Active(), l.Parked(), a.Inflight())
	}
	poll.Done(Outcome{Now: 700 * ms, Latency: 690 * ms, Status: 200})
	if a.Load() != 0 {
		t.Errorf("load %x left", a.Load())
	}
}

func TestDoneCounts(t *testing.T) {
	p := newPool("a")
	a := backend(t, p, "a")
	s := new(Selection)
	for _, o := range []Outcome{
		{Status: 200}, {Status: 404}, {Status: 404}, {Status: 503, Fault: FaultStatus}, {Status: 999}, {Status: -1}, {},
		{Fault: FaultClient}, {Status: 101},
	} {
		s.Reset(100, 1)
		l := acquire(t, p, s)
		if o.Status == 101 {
			l.Tunnel()
			l.Tunnel()
			if a.Tunnels() != 1 || a.Inflight() != 0 {
				t.Errorf("%d tunnels, %d in flight; want 1, 0", a.Tunnels(), a.Inflight())
			}
		}
		o.Now = 100 + 1e6
		l.Done(o)
	}
	st := a.Stats(1)
	for class, want := range []uint64{4, 1, 1, 0, 2, 1} {
		if got := st.Requests[class].Load(); got != want {
			t.Errorf("class %d: %d, want %d", class, got, want)
		}
	}
	var h HistogramSnapshot
	h.Add(&st.Latency)
	if h.Count() != 8 || h.Sum() != 8e-3 {
		t.Errorf("%d latencies of %g s, want 8 without the tunnel, of 8 ms", h.Count(), h.Sum())
	}
	if st.Faults[FaultStatus].Load() != 1 || st.Faults[FaultClient].Load() != 1 || st.Faults[FaultNone].Load() != 0 {
		t.Errorf("faults %v", &st.Faults)
	}
}

// TestLoadIsLeases does what a proxy may do with leases, in any order, and counts along.
func TestLoadIsLeases(t *testing.T) {
	const second = 1e9
	rapid.Check(t, func(t *rapid.T) {
		p := newPool("a")
		a := p.Snapshot().All[0]
		s := new(Selection)
		now := int64(second)
		s.Reset(now, 0)
		var held []Lease
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += rapid.Int64Range(1, second).Draw(t, "dt")
			i := rapid.IntRange(0, max(0, len(held)-1)).Draw(t, "which")
			switch op := rapid.SampledFrom([]string{"acquire", "acquire", "tunnel", "park", "done"}).Draw(t, "op"); {
			case op == "acquire" || len(held) == 0:
				s.Reset(now, rapid.IntRange(0, 1).Draw(t, "loop"))
				l, err := p.Acquire(s)
				if err != nil {
					t.Fatal(err)
				}
				held = append(held, l)
			case op == "tunnel":
				held[i].Tunnel()
			case op == "park":
				held[i].Park(now)
			case op == "done":
				held[i].Done(Outcome{Now: now, Latency: 1, Status: 200})
				held = append(held[:i], held[i+1:]...)
			}
			var active, park, tun int64
			for i := range held {
				switch held[i].unit {
				case one:
					active++
				case parked:
					park++
				case tunnel:
					tun++
				}
			}
			if l := a.Load(); l.Active() != active || l.Parked() != park || l.Tunnels() != tun {
				t.Fatalf("load %d %d %d, want %d %d %d", l.Active(), l.Parked(), l.Tunnels(), active, park, tun)
			}
		}
		p.Update(nil, nil, nil)
		for i := range held {
			if closed(a.Drained()) {
				t.Fatal("drained too early")
			}
			held[i].Done(Outcome{Now: now})
		}
		if !closed(a.Drained()) {
			t.Fatal("not drained")
		}
	})
}

func TestAcquireAllocatesNothing(t *testing.T) {
	p := newPool("a b c")
	s := new(Selection)
	now := int64(0)
	if n := testing.AllocsPerRun(100, func() {
		now++
		s.Reset(now, 0)
		for range 3 {
			l, err := p.Acquire(s)
			if err != nil {
				t.Fatal(err)
			}
			l.Done(Outcome{Now: now, Latency: 1, Status: 200})
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAcquireDone(b *testing.B) {
	p := newPool("a b c")
	s := new(Selection)
	now := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		now += 1000
		s.Reset(now, 0)
		l, _ := p.Acquire(s)
		l.Done(Outcome{Now: now + 500, Latency: 400, Status: 200})
	}
}
