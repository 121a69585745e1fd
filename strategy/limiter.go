package strategy

import (
	"math"
	"sync"
	"sync/atomic"
)

// profile is how fast one backend answers, by the number of requests that it has in work: the throughput profile. Loops
// only add to the counts; the tick turns what came since the last one into sums that forget.
type profile struct {
	// What every request writes is side by side: with few in work it is one cache line, and one of starts.
	since  atomic.Int64 // ns, up to when time is booked
	number atomic.Int64 // of requests so far
	behind atomic.Int64 // how many of them were overtaken or answered
	at     [levels]struct {
		spent   atomic.Int64 // ns with so many requests in work, see levelOf
		answers atomic.Int64 // that came meanwhile
	}
	starts [lately]atomic.Int64 // ns, when the latest requests were sent

	// Guarded by limiter.mu.
	seenSpent, seenAnswers [levels]int64
	time, count            [levels]float64
	timeAbove, countAbove  float64 // for knee
}

const (
	// levels are the numbers of requests up to linear, each for itself, and above that half octaves: a process that starts
	// in overload has hundreds in work before anything is known of it.
	levels = 64
	linear = 48

	lately = 64 // requests of which it is known when they were sent

	// keep is what a sum keeps each tick: half is forgotten in 28 s. Shorter, and the counts above the limit, which only
	// the experiment visits, hold too few answers to judge by; longer, and a change of the load is learned too late.
	keep = .9975
)

// levelOf is the place in a profile for n requests in work.
func levelOf(n int64) int {
	if n <= linear {
		return int(max(0, n))
	}
	return min(levels-1, linear+1+int(2*math.Log2(float64(n)/(linear+1))))
}

// topOf is the largest number of requests of a level.
func topOf(level int) int64 {
	if level <= linear {
		return int64(level)
	}
	return int64(math.Ceil((linear+1)*math.Exp2(float64(level-linear)/2))) - 1
}

// spend books the time up to now at n requests in work. When two loops meet, or their clocks are apart by a round, one of
// them books it all.
func (p *profile) spend(now int64, n int) {
	was := p.since.Load()
	if now > was && p.since.CompareAndSwap(was, now) && was > 0 {
		p.at[n].spent.Add(now - was)
	}
}

// sent notes a request that was sent at start.
func (p *profile) sent(start int64) {
	p.starts[uint64(p.number.Add(1)-1)%lately].Store(start)
}

// passed notes the answer to a request that was sent at start: all that were sent before it have been overtaken, if they are
// still there.
func (p *profile) passed(start int64) {
	n, was := p.number.Load(), p.behind.Load()
	if n-was >= lately && p.starts[uint64(n)%lately].Load() > start {
		return // it was sent too long ago to tell, as mostly where there are thousands a second
	}
	for n > was && p.starts[uint64(n-1)%lately].Load() > start {
		if n--; p.number.Load()-n >= lately {
			return // others were sent meanwhile
		}
	}
	for n > was && !p.behind.CompareAndSwap(was, n) {
		was = p.behind.Load()
	}
}

// fresh is how many of the active requests nobody has overtaken. A process that computes does one after the other, so that
// this is all of them; what is overtaken waits for something else, such as a long poll or a stream, and takes no place.
func (p *profile) fresh(active int64) int64 {
	return min(active, p.number.Load()-p.behind.Load())
}

// fold is the tick of a profile. It gives for how long there was something in work since the last one, in ns, and the answers.
func (p *profile) fold() (time, count float64) {
	for n := range p.time {
		t, c := p.at[n].spent.Load(), p.at[n].answers.Load()
		p.time[n] = p.time[n]*keep + float64(t-p.seenSpent[n])
		p.count[n] = p.count[n]*keep + float64(c-p.seenAnswers[n])
		if n > 0 {
			time += float64(t - p.seenSpent[n])
			count += float64(c - p.seenAnswers[n])
		}
		p.seenSpent[n], p.seenAnswers[n] = t, c
	}
	return time, count
}

func (p *profile) forget() { p.time, p.count = [levels]float64{}, [levels]float64{} }

const (
	// theta is the share of the throughput above a count that is as good as all of it. One and the same would never be
	// found: the network's gap alone costs 2 % at one request of 10 ms in work.
	theta = .97

	enough      = 100 // answers at a count to judge it, a standard error of 10 %
	enoughAbove = 200 // and above it, with which each is compared
	enoughHere  = 5   // of one backend above, to take part in the comparison

	// spare is added to a limit from 3 on, in thirds of it: there the knee is flat, and a limit that is too low costs more
	// than one that is too high. A limit of 1 or 2 has nothing to be rounded to.
	spareFrom, spareShare = 3, .34
)

// knee is the least number of requests in work at which backends answer as fast as they do with more, and 0 when there is
// no evidence that there is one: then more is faster, or never happens.
//
// Each backend is compared with itself, so that a slow one that is seen at other counts than the rest does not decide;
// and what is expected of all together is what they answered, less a standard error for luck.
func knee(ps []*profile) int64 {
	if len(ps) < 2 {
		return 0 // to wait here rather than there changes nothing
	}
	for _, p := range ps {
		p.timeAbove, p.countAbove = 0, 0
		for n := 1; n < levels; n++ {
			p.timeAbove += p.time[n]
			p.countAbove += p.count[n]
		}
	}
	for n := 1; n < levels-1; n++ {
		got, want, above := 0.0, 0.0, 0.0
		for _, p := range ps {
			p.timeAbove -= p.time[n]
			p.countAbove -= p.count[n]
			above += p.countAbove
			if p.countAbove > enoughHere && p.timeAbove > 0 {
				got += p.count[n]
				want += p.time[n] * p.countAbove / p.timeAbove
			}
		}
		if above < enoughAbove {
			return 0
		}
		if got >= enough && got*(1-1/math.Sqrt(got)) >= theta*want {
			return topOf(n)
		}
	}
	return 0
}

// limiter finds the limit of a pool: how many requests each backend may have in work before others wait.
type limiter struct {
	limit atomic.Int64 // per least weight; 0: none
	empty atomic.Int64 // ns, when at most one request waited last

	_  [64]byte
	mu sync.Mutex // only tried: an answer that is not booked while another is, is no loss
	guard
}

// emptyGrain is how exactly, in ns, empty is known, so that loops do not all write it with each request.
const emptyGrain = 1e6

func (l *limiter) seenEmpty(now int64) {
	if now-l.empty.Load() >= emptyGrain {
		l.empty.Store(now)
	}
}

// tick finds the limit anew.
func (l *limiter) tick(a *adaptive, now, waiting int64) {
	if !l.mu.TryLock() {
		return
	}
	defer l.mu.Unlock()
	l.look(a, now, waiting)
	if len(a.prof) < 2 { // to wait here rather than there changes nothing, whatever a trial of more has brought
		l.guard = guard{looked: now}
		l.empty.Store(now)
		l.limit.Store(0)
		return
	}
	k := knee(a.prof)
	if k >= spareFrom {
		k += int64(spareShare * float64(k))
	}
	k, stale := l.control(now, l.empty.Load(), k, a.fleet.pace.get())
	if stale {
		for _, p := range a.prof {
			p.forget()
		}
	}
	if k == 0 {
		l.empty.Store(now)
	}
	l.limit.Store(k)
}

// look folds the profiles, and adds to the arms of the experiment what each backend did since the last tick, if the limit held
// requests back all the time.
func (l *limiter) look(a *adaptive, now, waiting int64) {
	v := a.view(now, waiting)
	held := v.limit > 0 && l.empty.Load() < l.looked && settles(v.limit, a.fleet.takes.get())
	l.looked = now
	// 0 when the arms begin anew: the first tick is all variance, so that one tick decides nothing.
	rate := (l.under.count + l.over.count) / max(1, l.under.time+l.over.time)
	l.under.fade()
	l.over.fade()
	for i, p := range a.prof {
		time, count := p.fold()
		if !held || time == 0 {
			continue
		}
		count *= a.est[i].slow.get() // so that it does not matter which of them dithers
		switch {
		case !v.dithers(i):
			l.under.add(time, count, rate*time)
		case !v.down(i):
			l.over.add(time, count, rate*time)
		}
	}
}
