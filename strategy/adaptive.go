package strategy

import (
	"math"
	"math/bits"

	"lb/upstream"
)

// adaptive is ewma that sends a request only when a backend can work on it ("late binding"). Every strategy that commits
// a request at once to a backend's own queue loses against one queue for all: the request waits behind a long one while
// another backend falls idle. So when all ready backends have as many requests in work as they can make use of, the next
// ones wait in the pool's queue, and the first of them goes to whoever is done first.
//
// How many that is, is measured: see limiter. For a process that computes it is one or two. For one that waits for its
// database there is no such number; then there is no limit, and adaptive is ewma.
//
// Four things bend the limit while requests wait:
//   - Deep queue: when more than deepQueue requests per backend wait, each may have one more, which covers the time that an
//     answer and the next request spend on the network. With a long queue the order of service matters less than that.
//   - Dither: one backend in ditherEvery, by turns of a second, may have half as many more. It is the experiment that shows
//     whether the limit costs throughput: without it nothing above the limit would ever be measured again. A limit from
//     ditherDown on is as likely too high, as one that was found in overload: there it is half as many, every other time.
//     In a deep queue that lasts it is one in ditherOften, since then the limit may be what keeps it up.
//   - A backend that joins may have one request more in flight than it has answered, as under ewma.
//   - Pass-over: a slow, silent or failing backend that is free gets nothing while waiting for a good one is shorter.
//
// Limits are for the least weight in the pool; a backend of twice that may have twice as many.
type adaptive struct {
	ewma
	lim   *limiter
	prof  []*profile // by Backend.Index
	units []float64  // weight over the least weight
	per   []float64  // 1 / units
}

const (
	deepQueue   = 2
	ditherEvery = 8
	ditherTurn  = 1e9 // ns
	ditherDown  = 9
	ditherOften = 4

	silence  = 8    // gaps between answers
	oldLeast = 20e6 // ns
	oldTimes = 4    // of what a request takes by itself

	// A backend as good as the mean of the fleet costs 1 when idle. One that costs up to passCost is not worth a scan of
	// who else could do it; above, it is passed over when the expected wait for one of the others is shorter by passGain.
	passCost = 1.5
	passGain = 1.1
)

func newAdaptive(ready []*upstream.Backend, seed uint64) *adaptive {
	a := &adaptive{ewma: *newEWMA(ready, seed)}
	a.lim = ready[0].Pool().Recall("adaptive", func() any { return new(limiter) }).(*limiter)
	least := ready[0].Weight
	for _, b := range ready {
		least = min(least, b.Weight)
	}
	for _, b := range ready {
		a.prof = append(a.prof, b.Recall("adaptive", func() any { return new(profile) }).(*profile))
		a.units = append(a.units, float64(b.Weight)/float64(max(1, least)))
		a.per = append(a.per, float64(max(1, least))/float64(b.Weight))
	}
	return a
}

// view is what the limits are at one moment.
type view struct {
	now, waiting int64
	limit        int64 // 0: none
	raised       int64 // of those that dither up
	lowered      int64 // and of those that dither down; 0: none do
	turn, cycle  int64
	every        int64 // one backend in so many dithers
	gap          float64
}

func (a *adaptive) view(now, waiting int64) view {
	v := view{now: now, waiting: waiting, limit: a.lim.limit.Load(), every: ditherEvery, gap: a.fleet.gap.get()}
	if v.limit > 0 {
		if waiting >= deepQueue*int64(len(a.ready)) {
			v.limit++
			if now-a.lim.empty.Load() > forget && settles(v.limit, a.fleet.takes.get()) {
				v.every = ditherOften
			}
		}
		v.raised = v.limit + max(1, v.limit/2)
		if v.limit >= ditherDown {
			v.lowered = v.limit / 2
		}
		v.turn = now / ditherTurn % ditherEvery
		v.cycle = now / (ditherTurn * ditherEvery)
	}
	return v
}

func (v *view) dithers(i int) bool { return v.waiting > 0 && (int64(i)+v.turn)%v.every == 0 }

// down reports whether backend i, which dithers, does so down. They take it by turns.
func (v *view) down(i int) bool { return v.lowered > 0 && (int64(i)+v.cycle)&1 == 0 }

// passes reports whether waiting is better than a backend of the given cost. The others, which are full, serve so many
// requests in the time that an average backend needs for one.
func (v *view) passes(cost, full float64) bool {
	return full > 0 && cost > passCost && cost > passGain*(1+float64(v.waiting+1)/full)
}

// room is how many more requests backend i may have at load w.
func (a *adaptive) room(i int, w upstream.Load, v *view) int64 {
	b := a.ready[i]
	k := v.limit
	if v.dithers(i) {
		if k = v.raised; v.down(i) {
			k = v.lowered
		}
	}
	if !a.even {
		k = int64(float64(k) * a.units[i])
	}
	if good := a.est[i].good.Load(); good < joined {
		k = min(k, 1+good) // as ewma, which skips who joins and has more than good
	}
	if k -= a.prof[i].fresh(w.Active()); k <= 0 {
		k = min(1, k+a.silent(i, v))
	}
	if b.MaxInflight > 0 {
		k = min(k, b.MaxInflight-w.Active()-w.Parked())
	}
	if w.Draining() {
		return 0
	}
	return k
}

// silent is how many requests more than its limit backend i may have, because it has answered nothing for long: one after
// silence times what an answer takes, two after twice that, three after four times. What it has may be streams, long polls or
// queries, which wait for something else than its attention: with the answer to one that came later that is known.
func (a *adaptive) silent(i int, v *view) int64 {
	est := a.est[i]
	gap := int64(silence * v.gap * est.slow.get())
	if gap <= 0 {
		return 0
	}
	return int64(bits.Len64(uint64(max(0, v.now-est.last.Load()) / gap)))
}

// rate is how many requests backend i, which is full, answers in the time that an average backend needs for one.
func (a *adaptive) rate(i int, w upstream.Load, v *view) float64 {
	if w.Active() == 0 || a.silent(i, v) > 1 { // full of parked ones, on its way out, or busy with something else
		return 0
	}
	return a.units[i] / a.est[i].slow.get()
}

func (a *adaptive) Pick(s *upstream.Selection) *upstream.Backend {
	if s.Lasts() {
		return a.fewestLasting(s)
	}
	if a.fleet.due(s.Now) {
		a.refresh(s.Now)
		a.lim.tick(a, s.Now, s.Waiting())
	}
	v := a.view(s.Now, s.Waiting())
	if v.limit == 0 || !s.MayWait() {
		return a.pick(s)
	}
	if v.waiting <= 1 {
		a.lim.seenEmpty(s.Now)
	}
	if s.Ramping() {
		if b := a.warmUp(s); b != nil {
			return b
		}
	}
	return a.pickLimited(s, &v)
}

// pickLimited takes the least cost among those below their limit, or nobody.
func (a *adaptive) pickLimited(s *upstream.Selection, v *view) *upstream.Backend {
	at, stride := a.start(s.Loop)
	n := len(a.ready)
	fresh, shares := s.Tried() == 0, s.Ramping()
	var best *upstream.Backend
	var load upstream.Load
	least, cheapest, full := math.MaxFloat64, math.MaxFloat64, 0.0
	idle, seen := 0, 0
	for k, next := 0, at; k < n; k++ {
		i := next
		if next += stride; next >= n {
			next -= n
		}
		b := a.ready[i]
		if !fresh && s.Has(b.Live) {
			continue
		}
		w := b.Load()
		seen++
		if a.room(i, w, v) <= 0 {
			full += a.rate(i, w, v)
			continue
		}
		c := a.est[i].cost(s.Now, w.Active(), v.gap, a.per[i])
		cheapest = min(cheapest, c)
		if shares {
			c /= b.Share(s.Now)
		}
		if c < least*margin {
			best, load, least = b, w, c
		}
		if w.Active() == 0 {
			idle++
		}
	}
	if best == nil || v.passes(cheapest, full) {
		return nil
	}
	if v.waiting <= 1 && idle >= 2 && float64(idle+1) > calm*float64(seen) {
		best, load = a.draw(s, at, stride, best, load)
	}
	s.Saw(load)
	return best
}

// Room implements upstream.Holder. It goes by the same costs and the same rule as pickLimited.
func (a *adaptive) Room(now, waiting int64, s *upstream.Selection) (n int64, limited bool) {
	v := a.view(now, waiting)
	if v.limit == 0 {
		return 0, false
	}
	free, full := 0, 0.0
	for i, b := range a.ready {
		if s != nil && s.Has(b.Live) {
			continue
		}
		if w := b.Load(); a.room(i, w, &v) > 0 {
			free++
		} else {
			full += a.rate(i, w, &v)
		}
	}
	if free == 0 {
		return 0, true
	}
	for i, b := range a.ready {
		if s != nil && s.Has(b.Live) {
			continue
		}
		w := b.Load()
		r := a.room(i, w, &v)
		if r > 0 && !v.passes(a.est[i].cost(now, w.Active(), v.gap, a.per[i]), full) {
			n += r
		}
	}
	return n, true
}

// Judge implements upstream.Judge. Its limit is the one of a shallow queue, without the experiment.
func (a *adaptive) Judge(b *upstream.Backend) upstream.Opinion {
	o := a.ewma.Judge(b)
	o.Limit = int64(float64(a.lim.limit.Load()) * a.units[b.Index()])
	return o
}

// Sent implements upstream.Observer.
func (a *adaptive) Sent(b *upstream.Backend, l upstream.Lease) {
	i := b.Index()
	p := a.prof[i]
	p.spend(l.Start(), a.level(i, l.Ahead()))
	if l.Active() {
		p.sent(l.Start())
	}
	a.ewma.Sent(b, l)
}

// Done implements upstream.Observer.
func (a *adaptive) Done(b *upstream.Backend, l upstream.Lease, o upstream.Outcome) {
	i := b.Index()
	n := a.level(i, b.Load().Active())
	a.prof[i].spend(o.Now, n)
	if o.Latency > 0 {
		a.prof[i].passed(min(l.Start(), o.Now-a.old()))
	}
	if l.Active() && o.Fault != upstream.FaultClient {
		a.prof[i].at[n].answers.Add(1)
	}
	est := a.est[i]
	switch {
	case o.Fault.Blames():
		est.failed(l, o, a.fleet)
	case o.Fault == upstream.FaultNone && o.Latency > 0:
		if est.answered(l, o, a.fleet) && a.lim.limit.Load() > 0 {
			a.lim.answer(l, math.Log(pace(l, o)))
		}
	}
}

// level is the place in the profile of backend i for n requests in work.
func (a *adaptive) level(i int, n int64) int {
	if !a.even {
		n = int64(math.Ceil(float64(n) * a.per[i]))
	}
	return levelOf(n)
}

// old is how old, in ns, a request must be that others have overtaken to count no more: then it is not one of those whose
// waits are short, which a backend does several of at a time.
func (a *adaptive) old() int64 {
	return int64(max(oldLeast, oldTimes*a.fleet.takes.get()))
}
