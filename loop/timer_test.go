package loop

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// firing is a timer's entry in the oracle: a plain list of who is due when.
type firing struct {
	Timer
	due     int64 // 0 is idle
	armedAt int64 // the wheel's time then; what is armed late fires late
	then    func(now int64)
}

// TestWheelAgainstList drives the wheel and a list of deadlines by the same random steps. The clock only goes
// where a loop would take it: to the end of wait, or short of it.
func TestWheelAgainstList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := rapid.Int64Range(1, int64(1)<<50).Draw(t, "start")
		var w wheel
		w.init(now)
		timers := make([]*firing, 8)
		advanceTo := now // the last time given to advance: within it nothing fires early or late
		last := now
		for i := range timers {
			f := &firing{}
			f.target = f2(func(now int64) {
				if f.due == 0 {
					t.Fatalf("timer %d fired when idle", i)
				}
				if now < f.due {
					t.Fatalf("timer %d fired %d ns early", i, f.due-now)
				}
				// It was not fired by the advance before, which was at last.
				if late := last - max(f.due, f.armedAt); late > tick {
					t.Fatalf("timer %d, due %d, fired a round and %d ns late", i, f.due, late)
				}
				f.due = 0
				if f.then != nil {
					f.then(now)
				}
			})
			timers[i] = f
		}
		distance := rapid.OneOf(
			rapid.Int64Range(-tick, 3*tick),
			rapid.Int64Range(0, 64*tick),
			rapid.Map(rapid.Int64Range(-2, 400), func(n int64) int64 { return n * tick }),
			rapid.Int64Range(0, 64*64*tick),
			rapid.Int64Range(0, 64*64*64*tick),
			rapid.Int64Range(0, 2*farthest*tick),
		)
		arm := func(f *firing, now, d int64) {
			f.due, f.armedAt = max(1, now+d), now
			w.arm(&f.Timer, f.due)
		}
		check := func() {
			armed := 0
			next := int64(math.MaxInt64)
			for i, f := range timers {
				if f.Armed() != (f.due != 0) {
					t.Fatalf("timer %d: armed %v, due %d", i, f.Armed(), f.due)
				}
				if f.due != 0 {
					armed++
					next = min(next, f.due)
				}
			}
			if armed != w.n {
				t.Fatalf("%d armed, the wheel counts %d", armed, w.n)
			}
			wait := w.wait(now)
			switch {
			case armed == 0 && wait != -1:
				t.Fatalf("an empty wheel lets the loop sleep %d", wait)
			case armed > 0 && wait < 0:
				t.Fatal("sleeps for ever with timers armed")
			case armed > 0 && next > now && now+wait >= next+tick:
				t.Fatalf("sleeps until %d, %d past the next timer", now+wait, now+wait-next)
			case armed > 0 && next <= now && wait > 2*tick:
				t.Fatalf("sleeps %d with a timer overdue", wait)
			}
		}
		steps := rapid.IntRange(1, 60).Draw(t, "steps")
		for range steps {
			f := timers[rapid.IntRange(0, len(timers)-1).Draw(t, "timer")]
			switch rapid.SampledFrom([]string{"arm", "arm", "stop", "sleep", "step", "then"}).Draw(t, "op") {
			case "arm":
				arm(f, now, distance.Draw(t, "distance"))
			case "stop":
				w.stop(&f.Timer)
				f.due = 0
			case "then": // the next time it fires it arms or stops somebody, itself perhaps
				other := timers[rapid.IntRange(0, len(timers)-1).Draw(t, "other")]
				d := distance.Draw(t, "then distance")
				stop := rapid.Bool().Draw(t, "then stop")
				f.then = func(now int64) {
					f.then = nil
					if stop {
						w.stop(&other.Timer)
						other.due = 0
						return
					}
					arm(other, now, max(1, d))
				}
			case "sleep":
				wait := w.wait(now)
				if wait < 0 {
					wait = rapid.Int64Range(0, 10*tick).Draw(t, "idle")
				}
				last, now = advanceTo, now+wait
				w.advance(now)
				advanceTo = now
			case "step":
				d := rapid.Int64Range(0, 20*tick)
				step := rapid.OneOf(d, rapid.Int64Range(0, 5000*tick)).Draw(t, "step")
				last, now = advanceTo, now+step
				w.advance(now)
				advanceTo = now
			}
			check()
		}
		// Everything fires in the end, in the order of its tick.
		for range 1 << 20 {
			if w.n == 0 {
				break
			}
			wait := w.wait(now)
			last, now = advanceTo, now+wait
			w.advance(now)
			advanceTo = now
		}
		if w.n != 0 {
			t.Fatalf("%d timers never fired", w.n)
		}
		check()
	})
}

type f2 func(now int64)

func (f f2) fire(_ *Timer, now int64) { f(now) }

func TestWheelFiresInOrderOfTicks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w wheel
		start := rapid.Int64Range(1, 1<<40).Draw(t, "start")
		w.init(start)
		var fired []int64
		ats := rapid.SliceOfN(rapid.Int64Range(0, 100_000*tick), 1, 100).Draw(t, "distances")
		for _, d := range ats {
			at := start + d
			w.arm(&Timer{target: f2(func(int64) { fired = append(fired, max(at-1, start)/tick) })}, at)
		}
		w.advance(start + 200_000*tick)
		if len(fired) != len(ats) || !slices.IsSorted(fired) {
			t.Fatalf("fired %v", fired)
		}
	})
}

func TestWheelTakesTheEndOfTime(t *testing.T) {
	var w wheel
	w.init(1)
	w.arm(&Timer{target: f2(func(int64) { t.Fatal("fired") })}, math.MaxInt64)
	w.advance(int64(3600e9))
}
