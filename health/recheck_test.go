package health

import (
	"testing"
	"time"

	"lb/upstream"
)

// TestRecheck: a backend behind which another process may be by now gets nothing before it has been asked, and is asked
// often until it is there.
func TestRecheck(t *testing.T) {
	c := DefaultCheck()
	c.Interval, c.Down = time.Hour, time.Hour
	play(t, "a b", c, Passive{}, func(l *lab) {
		l.wantEvents("0s a up", "0s b up")
		l.at(10 * sec)
		l.set("a", errRefused) // nobody has looked yet
		l.wantReady("a b")
		l.m.Recheck(l.backend("a"))
		l.wantReady("b")
		l.wantEvents("10s a down")
		l.at(14900 * ms)
		l.set("a", nil)
		l.wantReady("b")
		l.at(15500 * ms) // twice, 500 ms apart
		l.wantReady("a b")
		l.wantEvents("15.5s a up")

		// One that is well is back with the first answer.
		l.at(20 * sec)
		l.m.Recheck(l.backend("a"))
		l.wantReady("a b")
		l.wantEvents("20s a up")
		l.count("a")
		l.at(21 * time.Minute)
		if n := l.count("a"); n != 0 {
			t.Errorf("%d probes in 20 minutes: it is well", n)
		}

		// Whoever stays away is not asked often for ever.
		l.set("a", errRefused)
		l.m.Recheck(l.backend("a"))
		l.at(22 * time.Minute)
		if n := l.count("a"); n < 100 || n > 125 {
			t.Errorf("%d probes in a minute, want one every 500 ms", n)
		}
		l.at(60 * time.Minute)
		if n := l.count("a"); n > 2 {
			t.Errorf("%d probes after that, want next to none", n)
		}
	})
}

// TestRecheckOfTheOnlyOne: where nobody else is up, waiting for an answer would help nobody.
func TestRecheckOfTheOnlyOne(t *testing.T) {
	play(t, "a", DefaultCheck(), Passive{}, func(l *lab) {
		hang := make(chan struct{})
		l.mu.Lock()
		l.says["a"] = func() error { <-hang; return nil }
		l.mu.Unlock()
		l.m.Recheck(l.backend("a"))
		l.wantReady("a")
		close(hang)
		l.wantReady("a")
	})
}

// TestRecheckForgets what requests have said: five failures eject, and four from before and one after do not.
func TestRecheckForgets(t *testing.T) {
	c := DefaultCheck()
	play(t, "a b", c, Passive{}, func(l *lab) {
		for range 4 {
			l.request("a", upstream.FaultReset)
		}
		l.m.Recheck(l.backend("a"))
		l.wantReady("a b")
		l.request("a", upstream.FaultReset)
		l.wantReady("a b")
		for range 4 {
			l.request("a", upstream.FaultReset)
		}
		l.wantReady("b")
	})
}

// TestRecheckWithoutChecks does nothing.
func TestRecheckWithoutChecks(t *testing.T) {
	play(t, "a b", Check{Kind: Off}, Passive{}, func(l *lab) {
		l.m.Recheck(l.backend("a"))
		l.wantReady("a b")
		if n := l.count("a"); n != 0 {
			t.Errorf("%d probes", n)
		}
	})
}

// TestRecheckOfOneThatFlaps: whoever was ejected again and again is out for long, but not when a person says that it is
// to be used: two checks that pass are enough.
func TestRecheckOfOneThatFlaps(t *testing.T) {
	for _, fault := range []upstream.Fault{upstream.FaultRefused, upstream.FaultReset} {
		play(t, "a b c", DefaultCheck(), Passive{Faults: 1}, func(l *lab) {
			for range trusted + 2 {
				for !l.request("a", fault) {
					l.at(time.Since(l.begin) + time.Second)
				}
				l.wantReady("b c")
			}
			l.at(time.Since(l.begin) + 10*sec) // it is well, and kept out
			l.wantReady("b c")
			l.m.Recheck(l.backend("a"))
			l.wantReady("b c") // one has passed
			l.at(time.Since(l.begin) + 600*ms)
			l.wantReady("a b c")
		})
	}
}
