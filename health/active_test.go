package health

import (
	"errors"
	"testing"
	"time"

	"lb/upstream"
)

var sec = time.Second

const ms = time.Millisecond

// TestAllAtOnce: backends are asked from the first moment, none waits for another, and none gets requests before.
func TestAllAtOnce(t *testing.T) {
	c := DefaultCheck()
	play(t, "a b c", c, Passive{}, func(l *lab) {
		l.wantReady("a b c")
		l.wantEvents("0s a up", "0s b up", "0s c up")
	})
}

func TestFallAndRise(t *testing.T) {
	play(t, "a b", DefaultCheck(), Passive{}, func(l *lab) {
		l.wantEvents("0s a up", "0s b up")
		l.at(3 * sec)
		l.set("a", errRefused) // seen at 4, 4.5 and 5 s
		l.at(4999 * ms)
		l.wantReady("a b")
		l.at(5 * sec)
		l.wantReady("b")
		l.wantEvents("5s a down")
		if s := l.m.Status(l.backend("a")); s.Streak != 3 || !errors.Is(s.Err, errRefused) {
			t.Errorf("status %+v", s)
		}
		l.at(7400 * ms)
		l.set("a", nil) // seen at 8, and at 8.5 s
		l.at(8400 * ms)
		l.wantReady("b")
		l.at(8500 * ms)
		l.wantReady("a b")
		l.wantEvents("8.5s a up")
		if passed, failed := l.backend("a").Checks(); passed != 4 || failed != 5 { // at 0, 2, 8 and 8.5; 4, 4.5, 5, 6 and 7
			t.Errorf("%d checks passed, %d failed", passed, failed)
		}
	})
}

// TestBlips: fewer failures than Fall, or passes than Rise, in a row change nothing.
func TestBlips(t *testing.T) {
	play(t, "a", DefaultCheck(), Passive{}, func(l *lab) {
		l.wantEvents("0s a up")
		n := 0
		l.mu.Lock()
		l.says["a"] = func() error {
			if n++; n%3 == 0 {
				return nil
			}
			return errRefused
		}
		l.mu.Unlock()
		l.at(time.Minute)
		l.wantEvents()
		l.set("a", errRefused)
		l.at(2 * time.Minute)
		l.mu.Lock()
		l.events = nil
		l.says["a"] = func() error {
			if n++; n%2 == 0 {
				return nil
			}
			return errRefused
		}
		l.mu.Unlock()
		l.at(4 * time.Minute)
		l.wantEvents()
	})
}

// TestIntervals counts probes over a while.
func TestIntervals(t *testing.T) {
	play(t, "a", DefaultCheck(), Passive{}, func(l *lab) {
		l.at(sec)
		l.count("a")
		l.at(21 * sec)
		if n := l.count("a"); n != 10 {
			t.Errorf("up: %d in 20 s, want 10", n)
		}
		l.set("a", errRefused)
		l.at(41 * sec)
		l.count("a")
		l.at(61 * sec)
		if n := l.count("a"); n != 20 {
			t.Errorf("down: %d in 20 s, want 20", n)
		}
	})
}

// TestSlowProbe: a check that hangs does not pile up, nor keep others.
func TestSlowProbe(t *testing.T) {
	play(t, "a b", DefaultCheck(), Passive{}, func(l *lab) {
		running := 0
		l.mu.Lock()
		l.says["a"] = func() error {
			if running++; running > 1 {
				t.Error("two probes at a time")
			}
			time.Sleep(2 * sec) // as the timeout would
			running--
			return ErrTimeout
		}
		l.mu.Unlock()
		l.count("b")
		l.at(21 * sec)
		l.wantReady("b")
		if n := l.count("b"); n != 10 {
			t.Errorf("b was asked %d times", n)
		}
		// 2 s of probe and a pause
		if n := l.count("a"); n < 7 || n > 11 {
			t.Errorf("a was asked %d times", n)
		}
	})
}

// TestFirstAnswerDecides: who is not well at the beginning gets nothing.
func TestFirstAnswerDecides(t *testing.T) {
	play(t, "", DefaultCheck(), Passive{}, func(l *lab) {
		l.set("a", errRefused)
		l.p.Update(specs("a b"), nil, nil)
		l.wantReady("a b") // nobody has looked
		l.m.Update(DefaultCheck(), Passive{})
		l.wantReady("b")
		l.wantEvents("0s a down", "0s b up")
		l.p.Update(specs("a b c"), nil, nil)
		l.wantReady("b") // c has not passed
		l.m.Update(DefaultCheck(), Passive{})
		l.wantReady("b c")
	})
}

// TestReload: results survive it, with an equal check and with another.
func TestReload(t *testing.T) {
	c := DefaultCheck()
	play(t, "a b", c, Passive{}, func(l *lab) {
		l.set("a", errRefused)
		l.at(10 * sec)
		l.wantReady("b")
		l.wantEvents("0s a up", "0s b up", "3s a down")
		l.count("a")
		for range 100 {
			l.p.Update(specs("a b"), nil, nil)
			l.m.Update(c, Passive{})
			l.wantReady("b")
		}
		if n := l.count("a"); n != 0 {
			t.Errorf("equal reloads probed %d times", n)
		}
		c.Path = "/health"
		l.m.Update(c, Passive{})
		l.wantReady("b")
		if n := l.count("a"); n != 1 {
			t.Errorf("probed %d times by the new check, want 1", n)
		}
		l.wantEvents()
		l.at(20 * sec)
		l.wantReady("b")
		c.Kind = Off
		l.m.Update(c, Passive{})
		l.wantReady("a b") // nobody says otherwise
		c.Kind = TCP
		l.m.Update(c, Passive{})
		l.wantReady("b")
		// It leaves, and is not asked any more.
		l.p.Update(specs("b"), nil, nil)
		l.m.Update(c, Passive{})
		l.at(21 * sec)
		l.count("a")
		l.at(60 * sec)
		if n := l.count("a"); n != 0 {
			t.Errorf("probed %d times after it left", n)
		}
	})
}

// TestAsksToDrain: the application says that it goes away, and takes it back.
func TestAsksToDrain(t *testing.T) {
	play(t, "a b", DefaultCheck(), Passive{}, func(l *lab) {
		l.wantEvents("0s a up", "0s b up")
		l.set("a", ErrDrain)
		l.at(2 * sec)
		l.wantReady("b")
		if l.backend("a").Life().Wanted != upstream.Draining {
			t.Error("not draining")
		}
		l.wantEvents("2s a draining")
		l.at(9 * sec)
		l.set("a", errRefused) // its process has ended
		l.at(20 * sec)
		l.wantEvents("11s a down")
		l.set("a", nil) // the next one has begun
		l.at(30 * sec)
		l.wantReady("a b")
		l.wantEvents("21s a taken back", "21.5s a up")
		// A person's wish is left alone.
		l.p.SetWanted(l.backend("b"), upstream.Draining)
		l.set("b", ErrDrain)
		l.at(40 * sec)
		l.set("b", nil)
		l.at(50 * sec)
		l.wantReady("a")
		l.wantEvents()
	})
}

// TestAskedAndNeverAgain: a backend asked to be drained, and then a reload turns the checks off by which it could say that it
// no longer wants that.
func TestAskedAndNeverAgain(t *testing.T) {
	play(t, "a b c", DefaultCheck(), Passive{}, func(l *lab) {
		l.set("a", ErrDrain)
		l.at(2 * sec)
		l.wantReady("b c")
		l.p.SetWanted(l.backend("b"), upstream.Draining) // by a person
		l.wantEvents("0s a up", "0s b up", "0s c up", "2s a draining")
		l.m.Update(Check{Kind: Off}, Passive{})
		l.wantReady("a c")
		l.wantEvents("2s a taken back")
		l.m.Update(DefaultCheck(), Passive{})
		l.at(3 * sec)
		l.wantReady("c") // it still asks
	})
}

// TestDrainOfBoth: a backend asked to be drained, and a person wants that, too: it is the person who takes it back.
func TestDrainOfBoth(t *testing.T) {
	play(t, "a b", DefaultCheck(), Passive{}, func(l *lab) {
		l.set("a", ErrDrain)
		l.at(2 * sec)
		l.wantReady("b")
		l.p.StartDraining(l.backend("a"))
		l.m.Overrule(l.backend("a"))
		l.set("a", nil)
		l.at(20 * sec)
		l.wantReady("b")
		l.p.SetWanted(l.backend("a"), upstream.In)
		l.wantReady("a b")
		l.set("a", ErrDrain) // and from here on it can ask again
		l.at(30 * sec)
		l.wantReady("b")
		l.set("a", nil)
		l.at(40 * sec)
		l.wantReady("a b")
	})
}

// TestHungry: while requests wait for anybody, backends are asked ten times as often, and one pass is enough.
func TestHungry(t *testing.T) {
	for name, kind := range map[string]Kind{"tcp": TCP, "off": Off} {
		c := DefaultCheck()
		c.Kind = kind
		play(t, "a b", c, Passive{}, func(l *lab) {
			l.set("a b", errRefused)
			l.request("a", upstream.FaultRefused)
			l.request("b", upstream.FaultRefused)
			l.wantReady("")
			l.at(10 * sec)
			l.mu.Lock()
			l.events = nil
			l.mu.Unlock()
			s := new(upstream.Selection)
			s.Reset(l.now(), 0)
			if _, err := l.p.Acquire(s); !errors.Is(err, upstream.ErrNoBackend) {
				t.Fatal(err)
			}
			woken := false
			w := &upstream.Waiter{Wake: func() { woken = true }}
			if !l.p.Wait(w, s) {
				t.Fatal("full")
			}
			l.at(10*sec + 50*ms)
			l.count("a")
			l.at(12*sec + 50*ms)
			if n := l.count("a"); n != 20 {
				t.Errorf("%s: %d probes in 2 s, want 20", name, n)
			}
			l.set("b", nil)
			l.at(12*sec + 150*ms)
			if !woken {
				t.Errorf("%s: not woken", name)
			}
			l.wantReady("b")
			if lease, err := l.p.Acquire(s); err != nil {
				t.Error(err)
			} else {
				lease.Done(upstream.Outcome{Now: l.now()})
			}
			l.at(15 * sec)
			l.count("a")
			l.at(25 * sec)
			if n := l.count("a"); n > 20 {
				t.Errorf("%s: %d probes in 10 s with nobody waiting", name, n)
			}
		})
	}
}

// TestHungryLater: requests that waited for a place begin to wait for anybody when the backend dies.
func TestHungryLater(t *testing.T) {
	play(t, "a b", DefaultCheck(), Passive{}, func(l *lab) {
		one := specs("a b")
		one[0].MaxInflight = 1
		l.p.Update(one, nil, nil)
		l.set("b", errRefused)
		l.at(20*sec + 10*ms) // b is down, and was just asked
		l.wantReady("a")
		var s [2]upstream.Selection
		for i := range s {
			s[i].Reset(l.now(), 0)
		}
		lease, err := l.p.Acquire(&s[0])
		if err != nil {
			t.Fatal(err)
		}
		w := &upstream.Waiter{Wake: func() {}}
		if _, err := l.p.Acquire(&s[1]); !errors.Is(err, upstream.ErrBusy) || !l.p.Wait(w, &s[1]) {
			t.Fatal(err)
		}
		l.set("a", errRefused)
		l.set("b", nil)
		lease.Done(upstream.Outcome{Now: l.now(), Fault: upstream.FaultRefused})
		l.at(20*sec + 110*ms)
		l.wantReady("b")
	})
}

// TestStarved: when this process stands still, timeouts are not the backend's.
func TestStarved(t *testing.T) {
	play(t, "a", DefaultCheck(), Passive{}, func(l *lab) {
		l.wantEvents("0s a up")
		n := 0
		l.mu.Lock()
		l.says["a"] = func() error {
			if n++; n%2 == 1 {
				time.Sleep(10 * sec) // the timer said 2 s
				return ErrTimeout
			}
			return nil
		}
		l.mu.Unlock()
		l.at(10 * time.Minute)
		l.wantEvents()
		if s := l.m.Status(l.backend("a")); s.Err != nil {
			t.Errorf("%+v", s)
		}
	})
}
