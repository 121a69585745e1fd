package strategy

import (
	"math"
	"testing"
)

// watched is a guard, and the clock of those that ask it.
type watched struct {
	guard
	now, empty int64
}

const usual = 16. // x of a fleet whose requests take 9 ms

// tick asks for the limit, a tick later. In a queue, n answers with x have come meanwhile.
func (w *watched) tick(queue bool, n, x float64, knee int64) (limit int64, stale bool) {
	w.now += tick
	if queue {
		w.n, w.x = w.n+n, w.x+n*x
	} else {
		w.empty = w.now
	}
	return w.control(w.now, w.empty, knee, usual)
}

// queueing is a guard at limit 2 in whose pool a queue has just begun.
func queueing() *watched {
	w := &watched{now: 1e12}
	w.tick(false, 0, 0, 2)
	w.tick(true, 0, 0, 2)
	w.tick(true, 0, 0, 2)
	return w
}

func TestTrial(t *testing.T) {
	const jumped = usual + jump + .01
	for _, c := range []struct {
		name   string
		n, x   float64 // the window before
		trial  float64 // x in the trial
		during int64   // the limits that are wanted, in the trial
		after  int64
		stale  bool
	}{
		{"as usual", window, usual + jump - .01, usual, 2, 2, false},
		{"too few answers", window - 1, jumped, usual, 2, 2, false},
		{"it helps", window, jumped, jumped - help - .01, 8, 32, true},
		{"it brings nothing", window, jumped, jumped - help + .01, 8, 2, false},
	} {
		w := queueing()
		limit, stale := w.tick(true, c.n, c.x, 2)
		if limit != c.during || stale {
			t.Errorf("%s: limit %d, stale %v; want %d", c.name, limit, stale, c.during)
		}
		limit, stale = w.tick(true, window, c.trial, 2)
		if limit != c.after || stale != c.stale {
			t.Errorf("%s: then limit %d, stale %v; want %d, %v", c.name, limit, stale, c.after, c.stale)
		}
	}
}

// TestTrialAgain: a trial that brought nothing is not repeated at once, but soon.
func TestTrialAgain(t *testing.T) {
	const jumped = usual + jump + .01
	w := queueing()
	w.tick(true, window, jumped, 2)
	w.tick(true, window, jumped, 2)
	for at := w.now; w.now < at+pause; {
		if limit, _ := w.tick(true, window, jumped, 2); limit != 2 {
			t.Fatalf("limit %d %d ns after a trial", limit, w.now-at)
		}
	}
	if limit, _ := w.tick(true, window, jumped, 2); limit != 8 {
		t.Errorf("limit %d after the pause", limit)
	}
}

// TestTrialWithoutQueue: a raised limit with which the queue ends gets no verdict, as no window is full any more. The trial is
// over all the same, what was learned is out of date, and the limit stays raised until something new is.
func TestTrialWithoutQueue(t *testing.T) {
	w := queueing()
	w.tick(true, window, usual+jump+.01, 2)
	ended := 0
	for at := w.now; w.now < at+forget+5*tick; {
		knee := int64(2)
		if ended > 0 {
			knee = 0
		}
		limit, stale := w.tick(false, 0, 0, knee)
		if limit != 8 {
			t.Fatalf("limit %d %d ns after the trial began", limit, w.now-at)
		}
		if stale {
			ended++
		}
		if early := w.now-at <= forget; early == (ended > 0) {
			t.Fatalf("%d ns after the trial began it has ended %d times", w.now-at, ended)
		}
	}
	if ended != 1 {
		t.Errorf("it ended %d times", ended)
	}
	if limit, _ := w.tick(false, 0, 0, 3); limit != 3 {
		t.Errorf("limit %d, but what was learned is 3", limit)
	}
}

func TestCostly(t *testing.T) {
	for _, c := range []struct {
		name                string
		ticks               int
		under, over, spread float64 // answers of a backend in a tick
		want                bool
	}{
		{"the same", 100, 10, 10, 1, false},
		{"less than what counts", 100, 10, 10.2, .1, false},
		{"more", 100, 10, 11, 1, true},
		{"more, by chance", 100, 10, 11, 8, false},
		{"more, of few", 2, 10, 14, 1, false},
		{"less", 100, 10, 8, 1, false},
	} {
		var g guard
		for i := range c.ticks {
			off := c.spread
			if i%2 == 1 {
				off = -off
			}
			for range 3 {
				g.under.add(tick, c.under+off, c.under)
			}
			g.over.add(tick, c.over+off, c.over)
		}
		if got := g.costly(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestCostlyLimit: a limit that surely costs throughput is raised, in no trial, and only where a turn is long enough to tell.
func TestCostlyLimit(t *testing.T) {
	takes := math.Exp(usual)
	long := int64(math.Ceil(ditherTurn / armTurns / takes)) // the least limit for which it is not
	for limit, want := range map[int64]int64{2: 8, long - 1: 4 * (long - 1), long: long} {
		w := queueing()
		w.under = arm{time: 100e9, count: 1000, square: 1000}
		w.over = arm{time: 10e9, count: 150, square: 150}
		got, stale := w.tick(true, 0, 0, limit)
		if got != want || stale != (want != limit) {
			t.Errorf("limit %d, stale %v; want %d", got, stale, want)
		}
		if stale && (w.under.count > 0 || w.over.count > 0) {
			t.Error("the arms are not begun anew")
		}
	}
}

// TestOneIsNotHeld: with one backend nothing waits, whatever limit a trial has left when there were more.
func TestOneIsNotHeld(t *testing.T) {
	_, at := held(1, 8, 1)
	a := *at
	a.lim.guard = guard{raised: 8, trying: true}
	a.lim.tick(a, 1e12, 5)
	if _, limited := a.Room(1e12, 5, nil); limited {
		t.Errorf("the limit is %d", a.lim.limit.Load())
	}
}

// TestLook: each tick the arms get what backends did that dither, and what the others did, as long as requests are held back.
func TestLook(t *testing.T) {
	_, at := held(1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	a := *at
	l := a.lim
	a.fleet.takes.set(1e6)
	a.est[1].slow.set(2)
	now := int64(16e9) // the first backend dithers, upwards
	step := func() {
		now += tick
		for _, p := range a.prof {
			p.at[0].spent.Add(.1 * tick)
			p.at[1].spent.Add(.4 * tick)
			p.at[2].spent.Add(.5 * tick)
			p.at[1].answers.Add(2)
			p.at[2].answers.Add(3)
		}
		l.look(a, now, 3)
	}
	step()
	if l.under.count > 0 || l.over.count > 0 {
		t.Error("time counts in which nobody may have waited")
	}
	step()
	if l.under.time != 7*.9*tick || l.over.time != .9*tick || l.under.count != 6*5+2*5 || l.over.count != 5 {
		t.Errorf("%+v %+v", l.under, l.over)
	}
	l.empty.Store(now)
	was := l.under.count
	step()
	if l.under.count >= was {
		t.Error("a tick counts in which nobody waited")
	}
	step()
	if l.under.count <= was {
		t.Error("a tick does not count in which requests waited")
	}
	a.fleet.takes.set(ditherTurn)
	was = l.under.count
	step()
	if l.under.count >= was {
		t.Error("a turn counts that is too short to tell")
	}
}
