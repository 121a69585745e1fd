package strategy

import (
	"math"

	"lb/upstream"
)

// guard keeps a limit that has become wrong from starving the pool. When requests that used to compute begin to wait (for
// a database that got slow, say), the backends idle at the old limit, a queue builds up here that does not end, and nothing
// above the limit is measured any more that could tell. Two signs give it away, both in latency per place in line, whose
// logarithm is x, so that a few long requests do not decide:
//
//   - It jumps, and falls again when the limit is raised, whereas on busy cores it stays. So when it jumps, the limit is
//     raised fourfold on trial, and again for as long as that helps.
//   - Backends that dither have a lower x than the others, by half or more of what they would have if the limit were all
//     that holds them back. In a queue that does not end it is enough that a cost cannot be ruled out.
//
// When a raised limit helps, what was learned is thrown away, and the profile begins anew.
type guard struct {
	raised  int64   // the limit in place of the knee, under trial or kept after one; 0: none
	trying  bool    // under trial
	before  int64   // the limit before the present trial
	xBefore float64 // x with it
	failed  int64   // ns, when raising brought nothing last

	// The present window: answers to requests that were sent in it, while the queue was never empty.
	from int64
	n, x float64

	arms [2]stat // x of requests that were last under the limit, and under the dithered one
}

const (
	window    = 100 // answers in a window
	jump      = 1.0 // of x that starts a trial: e-fold. Loads vary by less; waits that matter are more
	help      = .25 // of x that a trial must bring to go on
	raise     = 4   // times the limit, for a jump: there is no time for small steps
	pause     = 5e9 // ns before another trial after one that brought nothing
	forget    = 2e9 // ns without a queue, or with one that does not end
	maxLimit  = 1 << 20
	armMin    = 20  // answers in each arm before they are compared
	armSure   = 100 // the same for a cost that cannot be ruled out
	armFactor = 2   // times the limit, for a difference between arms
	armDoubt  = .15 // of x that must be ruled out
	armMemory = 300 // answers
	armTau    = 5e9 // ns
)

// answer books the answer to l, with x and the logarithm of its backend's slow.
func (l *limiter) answer(le upstream.Lease, now int64, x, logSlow float64) {
	if !l.mu.TryLock() {
		return
	}
	g := &l.guard
	if le.Start() >= g.from && !(g.trying && le.Ahead() < g.before) {
		g.n++
		g.x += x
	}
	if note := le.Note(); note > 0 {
		g.arms[note-atLimit].add(now, x-logSlow)
	}
	l.mu.Unlock()
}

func (g *guard) newWindow(now int64) { g.from, g.n, g.x = now, 0, 0 }

// control gives the limit in place of knee, and whether what it was found by is out of date. empty is when nobody waited
// last, deep whether one more than the limit is allowed, mean the fleet's x.
func (g *guard) control(now, empty, knee int64, deep bool, mean float64) (limit int64, stale bool) {
	if empty >= g.from {
		g.newWindow(now)
		if now-empty > forget {
			g.trying, g.raised = false, 0
		}
	}
	if knee > 0 && !g.trying {
		g.raised = 0 // something new has been learned
	}
	limit = knee
	if g.raised > 0 {
		limit = g.raised
	}
	if g.n >= window {
		x := g.x / g.n
		g.newWindow(now)
		switch {
		case g.trying && x < g.xBefore-help:
			g.before, g.xBefore, g.raised = g.raised, x, min(raise*g.raised, maxLimit)
			g.arms = [2]stat{}
			stale = true
		case g.trying:
			g.trying, g.raised, g.failed = false, g.before, now
		case limit > 0 && now-g.failed > pause && x > mean+jump:
			g.before, g.xBefore, g.raised, g.trying = limit, x, raise*limit, true
		}
		if g.raised > 0 {
			limit = g.raised
		}
	}
	if limit > 0 && !g.trying && g.costly(limit, deep, g.raised > 0 && now-empty > forget) {
		g.raised = min(armFactor*limit, maxLimit)
		limit = g.raised
		g.arms = [2]stat{}
		g.newWindow(now)
		stale = true
	}
	return limit, stale
}

// costly compares the arms. endless is whether the queue has been there for long although the limit was raised before.
func (g *guard) costly(limit int64, deep, endless bool) bool {
	under, over := &g.arms[0], &g.arms[1]
	n := min(under.n, over.n)
	if n < armMin {
		return false
	}
	if deep {
		limit++
	}
	half := math.Log(float64(limit+max(1, limit/2))/float64(limit)) / 2
	diff, se := under.mean-over.mean, math.Sqrt(under.variance/under.n+over.variance/over.n)
	return diff > half && diff > 3*se || endless && n >= armSure && diff+2*se > armDoubt
}

// stat is a mean and a variance that forget by count and by time.
type stat struct {
	n, mean, variance float64
	at                int64
}

func (s *stat) add(now int64, x float64) {
	s.n = min(armMemory-1, s.n*fade(float64(now-s.at), armTau)) + 1
	s.at = now
	d := x - s.mean
	s.mean += d / s.n
	s.variance = (1 - 1/s.n) * (s.variance + d*d/s.n)
}
