package strategy

import (
	"math"

	"lb/upstream"
)

// guard keeps a limit that has become wrong from starving the pool. When requests that used to compute begin to wait (for
// a database that got slow, say), the backends idle at the old limit, and a queue builds up here that does not end. The
// profile does not tell for long: what it knows of the counts below is of the old load, and with all backends at their limit
// nothing new is learned of them. Two signs give it away:
//
//   - Latency per place in line jumps, and falls again when the limit is raised, whereas on busy cores it stays. So when it
//     jumps, the limit is raised on trial, and again for as long as that helps. This goes by the mean of its logarithm, x, so
//     that a few long requests do not decide. It takes less than a second, and sees what costs more than a third
//     of the throughput: exp(-jump) are left.
//   - Backends that dither up answer more in the same time than the others. Both are seen at the same time, under the same
//     load, and which of them is which goes by turns: nothing but the limit tells them apart. This takes seconds, and sees a
//     loss of a sixth, as in simulation.
//
// Then the limit is raised, what was learned is thrown away, and the profile begins anew.
type guard struct {
	raised  int64   // the limit in place of the knee, under trial or kept after one; 0: none
	trying  bool    // under trial
	before  int64   // the limit before the present trial
	xBefore float64 // x with it
	began   int64   // ns, when the present trial began
	failed  int64   // ns, when raising brought nothing last

	// The present window: answers to requests that were sent in it, while the queue was never empty.
	from int64
	n, x float64

	under, over arm   // backends under the limit, and under the raised one of the experiment
	looked      int64 // ns, when they were last added to
}

const (
	window = 100 // answers in a window

	// jump is of x, and starts a trial. In simulation x rises by .45 when requests begin to wait for as long as they compute,
	// and by .7 when they wait four times as long. By chance the mean of a window is off by .1: logarithms deviate by 1.
	jump = .5

	help  = .25 // of x that a trial must bring to go on
	raise = 4   // times the limit: there is no time for small steps, and the knee is soon known again

	// pause is ns before another trial after one that brought nothing. The window before it may have been half of the old
	// load, so that the trial seemed to bring less than it did. A trial takes some .2 s.
	pause = 1e9

	forget   = 2e9 // ns that a queue or a trial has to last to be one that does not end by itself
	maxLimit = 1 << 20

	armKeep = .98 // of an arm each tick: half is forgotten in 3.5 s
	armMin  = 30  // answers in each arm before they are compared

	// armSure is how many standard errors the arms must differ by. To be wrong costs a second or two of a limit that is too
	// high; to wait until it is sure costs a queue.
	armSure = 2.5

	// armTurns is how many times over a turn must be as long as limit requests take, one after the other, for the arms to be
	// compared: else what a backend does in a turn goes by what it got in the one before.
	armTurns = 4
)

// answer books the answer to l, with x.
func (l *limiter) answer(le upstream.Lease, x float64) {
	if !l.mu.TryLock() {
		return
	}
	g := &l.guard
	if le.Start() >= g.from && !(g.trying && le.Ahead() < g.before) {
		g.n++
		g.x += x
	}
	l.mu.Unlock()
}

func (g *guard) newWindow(now int64) { g.from, g.n, g.x = now, 0, 0 }

// control gives the limit in place of knee, and whether what it was found by is out of date. empty is when nobody waited
// last, mean the fleet's x.
func (g *guard) control(now, empty, knee int64, mean float64) (limit int64, stale bool) {
	if empty >= g.from {
		g.newWindow(now)
		if g.trying && now-g.began > forget { // the queue has ended, so there will be no verdict: it has helped
			g.trying, stale = false, true
		}
	}
	if knee > 0 && !g.trying && !stale {
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
			stale = true
		case g.trying:
			g.trying, g.raised, g.failed = false, g.before, now
		case limit > 0 && now-g.failed > pause && x > mean+jump:
			g.before, g.xBefore, g.raised, g.trying, g.began = limit, x, raise*limit, true, now
		}
		if g.raised > 0 {
			limit = g.raised
		}
	}
	if limit > 0 && !g.trying && settles(limit, math.Exp(mean)) && g.costly() {
		g.raised = min(raise*limit, maxLimit)
		limit = g.raised
		g.newWindow(now)
		stale = true
	}
	if stale {
		g.under, g.over = arm{}, arm{}
	}
	return limit, stale
}

// costly reports whether backends surely answer faster under the raised limit of the experiment.
func (g *guard) costly() bool {
	if min(g.under.count, g.over.count) < armMin {
		return false
	}
	under, over := g.under.rate(), g.over.rate()
	return under < theta*over && over-under > armSure*math.Sqrt(g.under.variance()+g.over.variance())
}

// settles reports whether the arms can be compared at a limit, where a request takes so many ns by itself.
func settles(limit int64, takes float64) bool {
	return armTurns*float64(limit)*takes < ditherTurn
}

// arm is how fast backends answer under one limit, from what each of them did in each tick.
type arm struct {
	time, count float64 // ns, answers
	square      float64 // of what a backend answered in a tick more or less than expected
}

func (x *arm) fade() {
	x.time *= armKeep
	x.count *= armKeep
	x.square *= armKeep
}

func (x *arm) add(time, count, expected float64) {
	x.time += time
	x.count += count
	x.square += (count - expected) * (count - expected)
}

func (x *arm) rate() float64 { return x.count / x.time }

// variance is that of rate. It is taken from the data, since it depends on how much requests differ.
func (x *arm) variance() float64 { return x.square / (x.time * x.time) }
