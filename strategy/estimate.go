package strategy

import (
	"math"
	"sync"
	"sync/atomic"

	"lb/upstream"
)

// Times are in ns. The figures come from simulations of many load balancers' algorithms on the same arrivals.
const (
	slowMemory  = 5e9  // by time: slow is what the last 5 s say
	slowSamples = 128  // and by answers, at high rates
	slowPrior   = 8    // samples as fast as the fleet, which stand for a new or idle backend
	fleetMemory = 20e9 // of the fleet's mean
	fleetEnough = 20   // samples of the fleet before slow is believed
	failMemory  = 5e9
	failSamples = 32
	gapSamples  = 1000
	backoffMin  = 50e6
	backoffMax  = 2e9
	joined      = 64 // good answers after which a backend has joined

	batchMost = 8   // answers
	batchTime = 1e6 // ns between answers that come fast

	// floor is added to latencies: differences of less are the machine's noise, or how warm a process is, not its speed.
	// Node was seen to answer in .6 ms where it got 500 requests a second, and in 2.5 ms where it got 30.
	floor = .5e6
)

// estimate is what ewma knows of one backend. What Pick reads is atomic; the sums behind it are under a lock that is only
// tried, since samples that are dropped while another loop adds some are no loss. Figures are published when they change by
// more than 1 %, far less than they are sure of: loops then read them from their own caches. For the same reason, and since
// a logarithm, an exponential and two locks are much for a request, answers to a loop that come fast for long are booked a
// batch at a time.
type estimate struct {
	slow   float // geometric mean of latency / place in line + floor, over the fleet's
	excess float // error rate above the fleet's and what chance explains

	last     atomic.Int64 // when something came back, or when the backend went from idle to busy
	lastSent atomic.Int64
	newest   atomic.Int64 // start of the newest request that was answered
	backoff  atomic.Int64 // for how long after lastSent silence counts
	good     atomic.Int64 // answers since it joined: may have so many in flight and one more

	build uint64 // last build of the strategy that it was in; guarded by the pool's lock

	batches []batch // by loop

	_    [64]byte
	mu   sync.Mutex
	w, x float64 // weight and weighted sum of log(latency / place in line + floor)
	at   int64   // when they were last faded
	fw   float64 // weight of all outcomes
	fx   float64 // of the failures among them
	fat  int64
	_    [64]byte
}

// batch is the good answers that one loop has had from one backend and has not booked: at most batchMost, and none as long
// as they come further apart than batchTime.
type batch struct {
	n      float64 // answers
	speeds float64 // those of them that say something about speed, of which the rest is
	x      float64 // product of latency / place in line + floor: one logarithm for all
	pace   float64 // the same without floor
	gap    float64 // sum
	last   int64   // ns, of the latest answer
	fast   int64   // answers in a row that came fast
	_      [8]byte
}

// fleet is the mean of the pool, and what its backends have in common.
type fleet struct {
	next   atomic.Int64 // when estimates are refreshed
	gap    float        // mean time between answers of a busy average backend, 0 unknown
	mean   float        // of log(latency / place in line + floor)
	pace   float        // the same without floor, for adaptive's guard
	takes  float        // exp(pace), ns
	known  atomic.Bool  // mean has fleetEnough samples
	fail   float        // error rate
	builds uint64       // of the strategy; guarded by the pool's lock

	_    [64]byte // what is above is read at every pick and written seldom, what is below is written at every answer
	mu   sync.Mutex
	w, x float64
	p    float64 // of pace
	at   int64
	fw   float64
	fx   float64
	g    float64
	gw   float64
	_    [64]byte
}

func newEstimate(loops int) *estimate {
	e := &estimate{batches: make([]batch, loops)}
	for i := range e.batches {
		e.batches[i].empty()
	}
	e.slow.set(1)
	e.good.Store(joined)
	return e
}

func newFleet() *fleet { return new(fleet) }

// join makes the backend start with one request in flight.
func (e *estimate) join() { e.good.Store(0) }

func (e *estimate) cost(now, active int64, gap, inv float64) float64 {
	slow := e.slow.get()
	n := float64(1 + active)
	if active > 0 && gap > 0 {
		n += e.age(now, slow*gap)
	}
	return slow*n*inv + excessCost*e.excess.get()
}

// age is how many requests more than it has the backend seems to have, because it is silent for longer than the usual
// gap between its answers; or fewer, when it has just answered. After a while with nothing sent it is forgotten, so that
// a silent backend is tried again now and then.
func (e *estimate) age(now int64, gap float64) float64 {
	sent := e.lastSent.Load()
	if sent <= e.newest.Load() || now-sent >= e.backoff.Load() {
		return 0
	}
	return min(ageCap, max(-.5, float64(now-e.last.Load())/gap-1))
}

func (e *estimate) sent(now, ahead int64, gap float64) {
	if ahead == 0 || e.lastSent.Load() <= e.newest.Load() {
		e.last.Store(now) // nothing was due until now
	}
	e.lastSent.Store(now)
	b := max(backoffMin, int64(20*gap), 2*e.backoff.Load())
	e.backoff.Store(min(backoffMax, b))
}

// progress notes that the backend lives: something sent at start came back.
func (e *estimate) progress(now, start int64) {
	e.last.Store(now)
	e.backoff.Store(0)
	for {
		n := e.newest.Load()
		if n >= start || e.newest.CompareAndSwap(n, start) {
			return
		}
	}
}

// pace is what a request took, in ns, by its place in line.
func pace(l upstream.Lease, o upstream.Outcome) float64 {
	return float64(o.Latency) / float64(l.Ahead()+1)
}

// answered books a good answer. It reports whether that says something about speed.
func (e *estimate) answered(l upstream.Lease, o upstream.Outcome, f *fleet) (speed bool) {
	start := l.Start()
	first := start + o.Latency
	gap := float64(max(0, first-max(start, e.last.Load()))) / e.slow.get()
	e.progress(o.Now, start)
	if g := e.good.Load(); g < joined {
		e.good.Store(g + 1)
	}
	speed = !l.Parked() // a long poll says nothing about it

	b := &e.batches[l.Loop()]
	b.n++
	if speed {
		one := pace(l, o)
		b.speeds++
		b.x *= one + floor
		b.pace *= one
		b.gap += gap
	}
	if b.fast++; o.Now-b.last >= batchTime {
		b.fast = 0
	}
	b.last = o.Now
	if b.n >= batchMost || b.fast < batchMost {
		e.book(b, o.Now, f)
	}
	return speed
}

func (b *batch) empty() { b.n, b.speeds, b.x, b.pace, b.gap = 0, 0, 1, 1, 0 }

// book adds a batch to the sums.
func (e *estimate) book(b *batch, now int64, f *fleet) {
	x := math.Log(b.x)
	if f.mu.TryLock() {
		f.outcome(b.n, 0)
		if b.speeds > 0 {
			f.sample(now, b, x)
		}
		f.mu.Unlock()
	}
	if e.mu.TryLock() {
		e.outcome(now, b.n, 0, f)
		if b.speeds > 0 {
			k := min(fade(float64(now-e.at), slowMemory), (slowSamples-b.speeds)/max(e.w, 1))
			e.at = now
			e.w, e.x = e.w*k+b.speeds, e.x*k+x
			e.setSlow(e.w, f)
		}
		e.mu.Unlock()
	}
	b.empty()
}

// failed books a failure. It gives no sample of latency: to fail fast is not to be fast.
func (e *estimate) failed(l upstream.Lease, o upstream.Outcome, f *fleet) {
	if o.Fault != upstream.FaultTimeout { // then nothing came back: the silence goes on
		e.progress(o.Now, l.Start())
	}
	if f.mu.TryLock() {
		f.outcome(1, 1)
		f.mu.Unlock()
	}
	if e.mu.TryLock() {
		e.outcome(o.Now, 1, 1, f)
		e.mu.Unlock()
	}
}

// outcome counts n answers, bad of which are failures. The caller holds e.mu.
func (e *estimate) outcome(now int64, n, bad float64, f *fleet) {
	k := min(fade(float64(now-e.fat), failMemory), (failSamples-n)/max(e.fw, 1))
	e.fat = now
	e.fw, e.fx = e.fw*k+n, e.fx*k+bad
	if e.fx > 0 {
		e.setExcess(e.fw, e.fx, f)
	}
}

// refresh lets what is known fade on a backend that got no answer for a while.
func (e *estimate) refresh(now int64, f *fleet) {
	if !e.mu.TryLock() {
		return
	}
	e.setSlow(e.w*fade(float64(now-e.at), slowMemory), f)
	if e.fx > 0 {
		k := fade(float64(now-e.fat), failMemory)
		e.setExcess(e.fw*k, e.fx*k, f)
	}
	e.mu.Unlock()
}

// setSlow publishes slow for samples that now weigh w. The caller holds e.mu.
func (e *estimate) setSlow(w float64, f *fleet) {
	if e.w == 0 || !f.known.Load() {
		e.slow.set(1)
		return
	}
	if s, is := math.Exp((e.x/e.w-f.mean.get())*w/(w+slowPrior)), e.slow.get(); math.Abs(s-is) > .01*is {
		e.slow.set(s)
	}
}

// setExcess publishes what is above the fleet's error rate and two standard errors of it. When all fail alike, nobody
// is avoided. The caller holds e.mu.
func (e *estimate) setExcess(w, x float64, f *fleet) {
	p := f.fail.get()
	y := x/(w+1) - p - 2*math.Sqrt(p*(1-p)/(w+1))
	if y < 1e-3 {
		y = 0
	}
	if y != e.excess.get() {
		e.excess.set(y)
	}
}

// due reports, to one of those who ask, that a tick has passed.
func (f *fleet) due(now int64) bool {
	next := f.next.Load()
	return now >= next && f.next.CompareAndSwap(next, now+tick)
}

// sample books a batch of any backend, with the logarithm of its x. The caller holds f.mu.
func (f *fleet) sample(now int64, b *batch, x float64) {
	k := fade(float64(now-f.at), fleetMemory)
	f.at = now
	f.w, f.x, f.p = f.w*k+b.speeds, f.x*k+x, f.p*k+math.Log(b.pace)
	if m := f.x / f.w; math.Abs(m-f.mean.get()) > .005 {
		f.mean.set(m)
	}
	if m := f.p / f.w; math.Abs(m-f.pace.get()) > .005 {
		f.pace.set(m)
		f.takes.set(math.Exp(m))
	}
	f.gw = min(f.gw+b.speeds, gapSamples)
	f.g += (b.gap/b.speeds - f.g) * b.speeds / f.gw
	if g := f.gap.get(); math.Abs(f.g-g) > .01*g {
		f.gap.set(f.g)
	}
	if enough := f.w >= fleetEnough; enough != f.known.Load() {
		f.known.Store(enough)
	}
}

// outcome counts n answers, bad of which are failures, and forgets by a thousandth for each. The caller holds f.mu.
func (f *fleet) outcome(n, bad float64) {
	k := 1 - n/1000
	f.fw, f.fx = f.fw*k+n, f.fx*k+bad
	if p, q := f.fx/f.fw, f.fail.get(); math.Abs(p-q) > .01*q && p > 1e-9 {
		f.fail.set(p)
	}
}
