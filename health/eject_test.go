package health

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"lb/upstream"
)

func TestWindow(t *testing.T) {
	type step struct {
		at               float64 // s
		total            uint64  // requests ended, this one included
		faults, requests int
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"one", []step{{0, 1, 1, 1}}},
		{"of many", []step{{5, 1_000_000, 1, 1}, {5, 1_000_001, 2, 2}}},
		{"among good ones", []step{{5, 100, 1, 1}, {6, 110, 2, 11}, {7, 111, 3, 12}}},
		{"in one second", []step{{5.1, 100, 1, 1}, {5.2, 103, 2, 4}, {5.9, 104, 3, 5}}},
		{"the first has gone", []step{{5.5, 100, 1, 1}, {9, 150, 2, 51}, {15.1, 200, 2, 51}}},
		{"all have gone", []step{{5, 100, 1, 1}, {6, 101, 2, 2}, {16.01, 5000, 1, 1}}},
		{"long after", []step{{5, 100, 1, 1}, {5000, 101, 1, 1}}},
		{"a loop's clock is behind", []step{{5, 100, 1, 1}, {4.9, 101, 1, 1}, {5.1, 102, 3, 4 - 1}}},
	} {
		var w window
		for i, s := range c.steps {
			f, r := w.fault(int64(s.at*1e9), 10e9, s.total)
			if f != s.faults || r != s.requests {
				t.Errorf("%s, step %d: %d of %d, want %d of %d", c.name, i, f, r, s.faults, s.requests)
			}
		}
	}
}

// TestWindowModel compares with all faults and requests kept in lists.
func TestWindowModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w window
		now, total := int64(0), uint64(0)
		type fault struct {
			slot   int64
			before uint64
		}
		var all []fault
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += rapid.SampledFrom([]int64{0, 1e6, 3e8, 1e9, 4e9, 20e9}).Draw(t, "dt")
			total += rapid.Uint64Range(1, 20).Draw(t, "requests")
			all = append(all, fault{now / 1e9, total - 1})
			faults, first := 0, total
			for _, f := range all {
				if f.slot > now/1e9-10 {
					faults++
					first = min(first, f.before)
				}
			}
			f, r := w.fault(now, 10e9, total)
			if f != faults || r != int(total-first) {
				t.Fatalf("%d of %d, want %d of %d", f, r, faults, total-first)
			}
		}
	})
}

func TestTooMany(t *testing.T) {
	p := Passive{}.complete()
	for _, c := range []struct {
		faults, requests int
		want             bool
	}{{4, 4, false}, {5, 5, true}, {5, 10, true}, {5, 11, false}, {50, 100, true}, {50, 101, false}} {
		if got := p.tooMany(c.faults, c.requests); got != c.want {
			t.Errorf("%d of %d: %v", c.faults, c.requests, got)
		}
	}
}

func TestMayEject(t *testing.T) {
	for n, want := range []int{0, 0, 1, 1, 1, 2, 2, 3, 3, 4} {
		if got := mayEject(n); got != want {
			t.Errorf("of %d: %d, want %d", n, got, want)
		}
	}
}

func TestOut(t *testing.T) {
	p := Passive{}.complete()
	for _, c := range []struct {
		n      int
		chance float64
		want   time.Duration
	}{
		{0, .5, 5 * sec}, {1, .5, 10 * sec}, {2, .5, 20 * sec}, {3, .5, 40 * sec}, {4, .5, 60 * sec}, {1000, .5, 60 * sec},
		{0, 0, 4 * sec}, {0, 1, 6 * sec}, {9, 0, 48 * sec}, {9, 1, 72 * sec},
	} {
		if got := p.out(c.n, c.chance).Round(ms); got != c.want {
			t.Errorf("out(%d, %v) = %v, want %v", c.n, c.chance, got, c.want)
		}
	}
	for _, c := range []struct {
		n    int
		in   time.Duration
		want int
	}{
		{0, time.Hour, 0}, {3, 59 * sec, 3}, {3, 60 * sec, 2}, {3, 150 * sec, 1}, {3, time.Hour, 0},
		{3, -time.Hour, 3}, // the clock was set back while another process took over
	} {
		if got := remembered(c.n, c.in); got != c.want {
			t.Errorf("remembered(%d, %v) = %d, want %d", c.n, c.in, got, c.want)
		}
	}
}

// TestRefused: one refused connection on this machine is enough, and two passes bring the backend back.
func TestRefused(t *testing.T) {
	play(t, "a b A", DefaultCheck(), Passive{}, func(l *lab) {
		l.wantEvents("0s A up", "0s a up", "0s b up")
		l.at(sec)
		l.set("a", errRefused)
		l.count("a")
		l.request("a", upstream.FaultRefused)
		l.wantReady("b A")
		if n := l.count("a"); n != 1 {
			t.Errorf("asked %d times at once, want 1", n)
		}
		l.request("A", upstream.FaultRefused) // on another machine, it may be a firewall or a restart of something else
		l.wantReady("b A")
		l.wantEvents("1s a ejected for 5s")
		l.at(10 * sec) // its time is over, but it still refuses
		l.wantReady("b A")
		l.set("a", nil)
		l.at(13 * sec)
		l.wantReady("a b A")
		l.wantEvents("2s a down", "11s a returned", "11s a up")
	})
}

// TestRefusedOnce: the process was restarted so fast that only one connection was refused.
func TestRefusedOnce(t *testing.T) {
	play(t, "a b", DefaultCheck(), Passive{}, func(l *lab) {
		l.at(sec)
		l.request("a", upstream.FaultRefused)
		l.at(3 * sec)
		l.wantReady("a b")
		l.wantEvents("0s a up", "0s b up", "1s a ejected for 5s", "1.5s a returned")
	})
}

// TestFaults: how many faults, of which kinds and among how many requests eject.
func TestFaults(t *testing.T) {
	ok := upstream.FaultNone
	for _, c := range []struct {
		name     string
		requests []upstream.Fault
		every    time.Duration
		out      bool
	}{
		{"five timeouts", faults(5, upstream.FaultTimeout), ms, true},
		{"four timeouts", faults(4, upstream.FaultTimeout), ms, false},
		{"slowly", faults(20, upstream.FaultReset), 3 * sec, false},
		{"five in 8 s", faults(5, upstream.FaultReset), 2 * sec, true},
		{"the client's doing", faults(50, upstream.FaultClient), ms, false},
		{"of each", []upstream.Fault{upstream.FaultConnect, upstream.FaultTimeout, upstream.FaultReset, upstream.FaultMalformed, upstream.FaultStatus}, ms, true},
		{"every second", slices.Repeat([]upstream.Fault{upstream.FaultStatus, ok}, 20), ms, true},
		{"one of three", slices.Repeat([]upstream.Fault{upstream.FaultStatus, ok, ok}, 20), ms, false},
		{"after many good ones", append(faults(1000, ok), faults(5, upstream.FaultStatus)...), ms, true},
	} {
		play(t, "A B C", DefaultCheck(), Passive{}, func(l *lab) {
			for _, f := range c.requests {
				l.request("A", f)
				time.Sleep(c.every)
			}
			synctest.Wait()
			if out := !strings.Contains(l.ready(), "A"); out != c.out {
				t.Errorf("%s: ejected %v, want %v", c.name, out, c.out)
			}
		})
	}
}

func faults(n int, f upstream.Fault) (all []upstream.Fault) {
	for range n {
		all = append(all, f)
	}
	return all
}

// eject makes the requests to a backend fail until it is out.
func (l *lab) eject(name string, f upstream.Fault) bool {
	for range 5 {
		l.request(name, f)
	}
	return !l.backend(name).Life().Ejected.IsZero()
}

// TestReturn: by time, when probes see nothing wrong; earlier, when they do or did.
func TestReturn(t *testing.T) {
	for _, c := range []struct {
		name   string
		fault  upstream.Fault
		probes []error // in turn, the last goes on
		want   string
	}{
		{"probes see nothing", upstream.FaultTimeout, []error{nil}, "5s A returned"},
		{"they saw it", upstream.FaultTimeout, []error{errRefused, nil}, "1s A returned"},
		{"they go on to see it", upstream.FaultTimeout, []error{errRefused}, "1s A down\n5s A returned"},
		{"it could not be connected to", upstream.FaultConnect, []error{nil}, "500ms A returned"},
		{"and still cannot", upstream.FaultConnect, []error{errRefused, errRefused, nil, errRefused, nil}, "2.5s A returned"},
	} {
		play(t, "A B C", DefaultCheck(), Passive{}, func(l *lab) {
			n := 0
			l.mu.Lock()
			l.events = nil
			l.says["A"] = func() error {
				n++
				return c.probes[min(n, len(c.probes))-1]
			}
			l.mu.Unlock()
			if !l.eject("A", c.fault) {
				t.Fatal("not ejected")
			}
			l.at(10 * sec)
			l.mu.Lock()
			got := strings.Join(l.events, "\n")
			l.mu.Unlock()
			if want := "0s A ejected for 5s\n" + c.want; got != want {
				t.Errorf("%s:\n%s\nwant:\n%s", c.name, got, want)
			}
		})
	}
}

// TestGrowing: who is ejected again and again is out for longer, and is forgiven with time.
func TestGrowing(t *testing.T) {
	play(t, "A B C", DefaultCheck(), Passive{}, func(l *lab) {
		l.wantEvents("0s A up", "0s B up", "0s C up")
		for _, d := range []time.Duration{5 * sec, 10 * sec, 20 * sec, 40 * sec, 60 * sec, 60 * sec} {
			begin := time.Since(l.begin)
			if !l.eject("A", upstream.FaultStatus) {
				t.Fatal("not ejected")
			}
			l.at(begin + d)
			l.wantReady("A B C")
			l.wantEvents(fmt.Sprintf("%v A ejected for %v", begin, d), fmt.Sprintf("%v A returned", begin+d))
		}
		l.at(time.Since(l.begin) + 5*time.Minute) // six ejections, five minutes
		begin := time.Since(l.begin)
		l.eject("A", upstream.FaultStatus)
		l.wantEvents(fmt.Sprintf("%v A ejected for 10s", begin))
	})
}

// TestFlapping: a local backend that comes and goes every second is soon left out for long, though each time it passes
// probes, and costs few refused connections.
func TestFlapping(t *testing.T) {
	play(t, "a b", DefaultCheck(), Passive{}, func(l *lab) {
		l.mu.Lock()
		l.says["a"] = func() error {
			if time.Since(l.begin)/sec%2 == 1 {
				return errRefused
			}
			return nil
		}
		l.mu.Unlock()
		refused := 0
		for i := range 1200 {
			l.at(time.Duration(i) * 50 * ms)
			f := upstream.FaultNone
			if time.Since(l.begin)/sec%2 == 1 {
				f = upstream.FaultRefused
			}
			if l.request("a", f) && f != upstream.FaultNone {
				refused++
			}
		}
		if refused < 3 || refused > 8 {
			t.Errorf("%d connections refused in a minute", refused)
		}
	})
}

// TestSingle: one backend alone is never ejected on suspicion; when it refuses, requests wait rather than fail.
func TestSingle(t *testing.T) {
	play(t, "a", DefaultCheck(), Passive{}, func(l *lab) {
		if l.eject("a", upstream.FaultTimeout) {
			t.Error("ejected")
		}
		l.wantReady("a")
		l.request("a", upstream.FaultRefused)
		l.wantReady("")
	})
}

// TestFailOpen: when nobody is ready, suspects are used, and it is said.
func TestFailOpen(t *testing.T) {
	play(t, "A b", DefaultCheck(), Passive{}, func(l *lab) {
		l.wantEvents("0s A up", "0s b up")
		l.eject("A", upstream.FaultStatus)
		l.wantReady("b")
		l.set("b", errRefused)
		l.request("b", upstream.FaultRefused)
		l.wantReady("A panic")
		l.wantEvents("0s A ejected for 5s", "0s b ejected for 5s", "0s  fail open")
		l.at(sec)
		l.eject("A", upstream.FaultStatus) // nothing more can be done
		l.wantReady("A panic")
		l.at(5 * sec)
		l.wantReady("A")
		l.wantEvents("1s b down", "5s A returned", "5s  fail open over")
	})
}

// TestEjectionLimit holds for 1 to 8 backends, whatever fails in whatever order: suspects are never more than allowed,
// a refused connection ejects always, and somebody is used as long as somebody may be alive.
func TestEjectionLimit(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(rt, "n")
		// Capitals are on other machines, where refused is a fault like others.
		names := strings.Fields("a B c D e F g H")[:n]
		type op struct {
			who   string
			fault upstream.Fault
			times int
			wait  time.Duration
		}
		var ops []op
		for range rapid.IntRange(1, 30).Draw(rt, "ops") {
			ops = append(ops, op{
				rapid.SampledFrom(names).Draw(rt, "who"),
				rapid.SampledFrom([]upstream.Fault{upstream.FaultNone, upstream.FaultRefused, upstream.FaultTimeout, upstream.FaultStatus}).Draw(rt, "fault"),
				rapid.IntRange(1, 8).Draw(rt, "times"),
				time.Duration(rapid.IntRange(0, 3000).Draw(rt, "wait")) * ms,
			})
		}
		var bad string
		play(t, strings.Join(names, " "), DefaultCheck(), Passive{}, func(l *lab) {
			for i, op := range ops {
				for range op.times {
					sent := l.request(op.who, op.fault)
					life := l.backend(op.who).Life()
					if local := op.who[0] >= 'a'; sent && local && op.fault == upstream.FaultRefused && !life.Dead {
						bad = fmt.Sprintf("step %d: %s refused and is not out", i, op.who)
					}
				}
				suspects, dead := 0, 0
				for _, b := range l.p.Snapshot().All {
					switch life := b.Life(); {
					case life.Dead:
						dead++
					case !life.Ejected.IsZero():
						suspects++
					}
				}
				if suspects > mayEject(n) {
					bad = fmt.Sprintf("step %d: %d suspects of %d are out", i, suspects, n)
				}
				if dead < n && len(l.p.Snapshot().Ready) == 0 {
					bad = fmt.Sprintf("step %d: nobody is used, with %d of %d known to be dead", i, dead, n)
				}
				time.Sleep(op.wait)
			}
			time.Sleep(3 * time.Minute) // all probes pass
			synctest.Wait()
			if got := len(l.p.Snapshot().Ready); got != n || l.p.Snapshot().Panic {
				bad = fmt.Sprintf("%d of %d are back", got, n)
			}
		})
		if bad != "" {
			rt.Fatal(bad)
		}
	})
}

// TestSpared: a backend that fails and may not be ejected, since it is the only one or others are out, is told of, once in
// a window.
func TestSpared(t *testing.T) {
	fail := func(l *lab, names string, n int) {
		for range n {
			for name := range strings.FieldsSeq(names) {
				l.request(name, upstream.FaultReset)
			}
		}
	}
	off := Check{Kind: Off}
	play(t, "a", off, Passive{}, func(l *lab) {
		fail(l, "a", 4)
		l.wantEvents()
		fail(l, "a", 10)
		l.wantEvents("0s a spared")
		l.at(9900 * ms)
		fail(l, "a", 5)
		l.wantEvents()
		l.at(10 * sec)
		fail(l, "a", 5)
		l.wantEvents("10s a spared")
	})
	play(t, "a b c", off, Passive{}, func(l *lab) {
		fail(l, "b", 5)
		l.wantEvents("0s b ejected for 5s")
		fail(l, "c", 5)
		l.wantEvents("0s c spared")
		l.wantReady("a c")
		l.at(5 * sec) // b is back, so that c may go
		fail(l, "c", 1)
		l.wantReady("a b")
		l.wantEvents("5s b returned", "5s c ejected for 5s")
	})
}

// TestRefusesWhileEjected: whoever is found dead while it is out for its failures does not come back by time alone.
func TestRefusesWhileEjected(t *testing.T) {
	play(t, "a B C", Check{Kind: Off}, Passive{}, func(l *lab) {
		for range 5 {
			l.request("a", upstream.FaultReset)
		}
		l.wantEvents("0s a ejected for 5s")
		l.set("a", errRefused)
		for range 2 { // two requests that were on their way there
			l.m.Fault(l.backend("a"), upstream.Outcome{Now: l.now(), Fault: upstream.FaultRefused})
		}
		if s := l.backend("a").Life(); !s.Dead {
			t.Errorf("%+v", s)
		}
		l.at(20 * sec)
		l.wantReady("B C")
		l.set("a", nil)
		l.at(40 * sec)
		l.wantReady("a B C")
	})
}

// TestDeadOnesAreNoSuspects: an instance that stays away is no reason to send requests to another that fails them, but the
// last one alive is used on whatever it does.
func TestDeadOnesAreNoSuspects(t *testing.T) {
	for _, c := range []struct {
		name, pool, dead string
		byChecks         bool
		out              bool
	}{
		{"one of four is gone", "a B C D", "a", false, true},
		{"one of three is gone", "a B D", "a", false, true},
		{"two of four are gone", "a b C D", "a b", false, true},
		{"the other one is gone", "a D", "a", false, false},
		{"all others are gone", "a b c D", "a b c", false, false},
		{"one of four is down", "A B C D", "A", true, true},
		{"the other one is down", "A D", "A", true, false},
	} {
		play(t, c.pool, DefaultCheck(), Passive{}, func(l *lab) {
			l.set(c.dead, errRefused)
			if !c.byChecks {
				for name := range strings.FieldsSeq(c.dead) {
					l.request(name, upstream.FaultRefused)
				}
			}
			if l.at(10 * sec); c.byChecks {
				for name := range strings.FieldsSeq(c.dead) {
					if l.backend(name).Life().Probed != upstream.Down {
						t.Fatalf("%s: %s is not down", c.name, name)
					}
				}
			}
			if out := l.eject("D", upstream.FaultReset); out != c.out {
				t.Errorf("%s: the one that fails is ejected: %v, want %v", c.name, out, c.out)
			}
			if l.p.Snapshot().Panic {
				t.Errorf("%s: nobody is ready", c.name)
			}
		})
	}
}
