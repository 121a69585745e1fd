package strategy

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"lb/upstream"
)

// held is a pool under adaptive with a limit that stays: no tick is due before time 1<<62.
func held(loops int, limit int64, weights ...int) (*upstream.Pool, **adaptive) {
	a := new(*adaptive)
	p := weighted(loops, func(r []*upstream.Backend) upstream.Strategy {
		*a = newAdaptive(r, 1)
		(*a).fleet.next.Store(1 << 62)
		(*a).lim.limit.Store(limit)
		return *a
	}, weights...)
	return p, a
}

// weighted is a pool of backends with those weights.
func weighted(loops int, build upstream.Build, weights ...int) *upstream.Pool {
	var specs []upstream.Spec
	for i, w := range weights {
		ap := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80)
		specs = append(specs, upstream.Spec{Addr: upstream.Addr{AddrPort: ap}, Weight: w})
	}
	return upstream.NewPool("app", loops, specs, nil, build)
}

// TestKnee looks for the knee of backends whose throughput is known at each number in work.
func TestKnee(t *testing.T) {
	type seen struct {
		answers map[int]float64 // by number in work
		rate    func(n int) float64
	}
	spread := map[int]float64{1: 2000, 2: 2000, 3: 2000, 4: 2000, 5: 2000, 6: 2000, 7: 2000, 8: 2000}
	upTo := func(k int, r float64) func(int) float64 { return func(n int) float64 { return r * float64(min(n, k)) } }
	for _, c := range []struct {
		name string
		of   []seen
		want int64
	}{
		{"nothing known", []seen{{}, {}}, 0},
		{"one backend", []seen{{spread, upTo(1, 100)}}, 0},
		{"computes", []seen{{spread, upTo(1, 100)}, {spread, upTo(1, 100)}}, 1},
		{"four processors", []seen{{spread, upTo(4, 100)}, {spread, upTo(4, 100)}}, 4},
		{"waits for others", []seen{{spread, upTo(99, 100)}, {spread, upTo(99, 100)}}, 0},
		{"never more than one", []seen{{map[int]float64{1: 5000}, upTo(1, 100)}, {map[int]float64{1: 5000}, upTo(1, 100)}}, 0},
		{"too few answers", []seen{{map[int]float64{1: 20, 2: 20, 3: 20}, upTo(1, 100)}, {map[int]float64{1: 20, 2: 20, 3: 20}, upTo(1, 100)}}, 0},
		// Pooled, the fast one at 1 and the slow one above would look like a knee at 1.
		{"a slow one is seen at other counts", []seen{
			{map[int]float64{1: 9000, 2: 500, 3: 500}, upTo(2, 1000)},
			{map[int]float64{1: 100, 2: 2000, 3: 2000, 4: 2000}, upTo(2, 10)},
		}, 2},
	} {
		var ps []*profile
		for _, s := range c.of {
			p := new(profile)
			for n, x := range s.answers {
				p.count[n], p.time[n] = x, x/s.rate(n)*1e9
			}
			ps = append(ps, p)
		}
		if k := knee(ps); k != c.want {
			t.Errorf("%s: %d, want %d", c.name, k, c.want)
		}
	}
}

// TestProfile: time goes to the count at which it was spent, whoever's clock is late, and is forgotten by half in 28 s.
func TestProfile(t *testing.T) {
	p := new(profile)
	p.spend(1000, 0)
	p.spend(3000, 2)
	p.spend(2500, 7) // another loop, whose round began earlier
	p.spend(4000, 1)
	p.at[2].answers.Add(3)
	p.fold()
	if p.time[2] != 2000 || p.time[7] != 0 || p.time[1] != 1000 || p.count[2] != 3 {
		t.Errorf("%v %v", p.time, p.count)
	}
	for range 277 {
		p.fold()
	}
	if x := p.count[2]; x < 1.48 || x > 1.52 {
		t.Errorf("%v of 3 answers left after 27.7 s", x)
	}
}

// TestRoomIsPicked: when Room says that there is some, Pick finds it; if it did not, who waits would be woken for ever.
// And when nothing is in work, nobody is refused.
func TestRoomIsPicked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, 4), 2, 9).Draw(t, "weights")
		if rapid.Bool().Draw(t, "even") {
			for i := range weights {
				weights[i] = 2
			}
		}
		p, strategy := held(1, rapid.Int64Range(1, 4).Draw(t, "limit"), weights...)
		a := *strategy
		a.fleet.gap.set(1e6)
		now := int64(1e12)
		for _, e := range a.est {
			e.slow.set(rapid.Float64Range(.2, 20).Draw(t, "slow"))
			e.excess.set(rapid.SampledFrom([]float64{0, 0, 0, .01, .5}).Draw(t, "excess"))
		}
		limit := a.lim.limit.Swap(1 << 20)
		var s upstream.Selection
		for range rapid.IntRange(0, 3*len(weights)).Draw(t, "in work") {
			s.Reset(now-rapid.Int64Range(0, 1e9).Draw(t, "age"), 0)
			if _, err := p.Acquire(&s); err != nil {
				t.Fatal(err)
			}
		}
		a.lim.limit.Store(limit)
		for _, e := range a.est {
			e.good.Store(rapid.SampledFrom([]int64{0, 1, joined, joined}).Draw(t, "good"))
		}
		s.Reset(now, 0)
		for {
			waiting := p.Waiting()
			room, limited := a.Room(now, waiting, nil)
			_, err := p.Acquire(&s)
			if !limited || (room > 0) != (err == nil) {
				t.Fatalf("room for %d, and %v", room, err)
			}
			if err != nil {
				break
			}
			s.Reset(now, 0)
		}
		busy := false
		for _, b := range a.ready {
			busy = busy || b.Load().Active() > 0
		}
		if !busy {
			t.Fatal("refused by idle backends")
		}
	})
}

// waiter is an exchange on its own goroutine.
type waiter struct {
	w    upstream.Waiter
	s    upstream.Selection
	wake chan struct{}
}

func newWaiter(loop int) *waiter {
	x := &waiter{wake: make(chan struct{}, 1)}
	x.s.Loop = loop
	x.w.Wake = func() {
		select {
		case x.wake <- struct{}{}:
		default:
		}
	}
	return x
}

// lease waits for its turn.
func (x *waiter) lease(p *upstream.Pool, now int64, stream bool) (upstream.Lease, bool) {
	x.s.Reset(now, x.s.Loop)
	x.s.Stream = stream
	select {
	case <-x.wake: // of a wait that is over
	default:
	}
	l, err := p.Acquire(&x.s)
	if err == nil {
		return l, false
	}
	if !p.Wait(&x.w, &x.s) {
		panic("full")
	}
	for err != nil {
		<-x.wake
		l, err = p.Acquire(&x.s)
	}
	return l, true
}

// TestAdaptiveLoops has many exchanges on several loops share few places, with ticks, trials, turns of the experiment, streams,
// failures and backends that come and go, all in time that runs a hundred times as fast. A wake that is lost stops the test
// for good.
func TestAdaptiveLoops(t *testing.T) {
	const loops, rounds = 32, 2000
	p := weighted(loops, func(r []*upstream.Backend) upstream.Strategy { return newAdaptive(r, 1) }, 1, 1, 2)
	lim := p.Recall("adaptive", nil).(*limiter)
	start := time.Now()
	clock := func() int64 { return 1e9 + 100*int64(time.Since(start)) }
	var waits, most atomic.Int64
	var wg, changes sync.WaitGroup
	stop := make(chan struct{})
	changes.Go(func() {
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			lim.mu.Lock()
			if lim.raised = []int64{1, 2, 10}[i/8%3]; i%2 == 0 {
				lim.trying, lim.before, lim.began = true, lim.raised, clock()
			}
			lim.mu.Unlock()
			b := p.Snapshot().All[i%2]
			if i%4 < 2 {
				p.SetProbed(b, upstream.Down)
			} else {
				p.SetProbed(b, upstream.Up)
			}
		}
	})
	for _, b := range p.Snapshot().All {
		p.SetProbed(b, upstream.Up)
	}
	for loop := range loops {
		wg.Go(func() {
			x := newWaiter(loop)
			r := rand.New(rand.NewPCG(uint64(loop), 1))
			for range rounds {
				l, waited := x.lease(p, clock(), r.IntN(20) == 0)
				if waited {
					waits.Add(1)
				}
				if n := l.Backend().Load().Active(); n > most.Load() {
					most.Store(n)
				}
				if r.IntN(8) == 0 {
					time.Sleep(10 * time.Microsecond) // work, so that others meet it
				}
				now := clock()
				o := upstream.Outcome{Now: now, Latency: now - l.Start() + 1, Status: 200}
				if r.IntN(50) == 0 {
					o.Fault = upstream.Fault(r.IntN(int(upstream.Faults)))
				}
				l.Done(o)
			}
		})
	}
	wg.Wait()
	close(stop)
	changes.Wait()
	if p.Waiting() != 0 || waits.Load() == 0 {
		t.Errorf("%d wait in the end, %d did", p.Waiting(), waits.Load())
	}
	if lim.looked == 0 {
		t.Error("there was no tick")
	}
	t.Logf("%d of %d waited, at most %d in work", waits.Load(), loops*rounds, most.Load())
}

// queueCycle is a request that comes when all are at their limit, and waits until one of those in work is done.
func queueCycle(tb testing.TB) func() {
	p, _ := held(1, 2, 1, 1, 1, 1, 1, 1, 1, 1)
	now := int64(1e9)
	var leases [64]upstream.Lease
	first, last := 0, 0
	x := newWaiter(0)
	return func() {
		now += 10_000
		x.s.Reset(now, 0)
		l, err := p.Acquire(&x.s)
		if err != nil && !p.Wait(&x.w, &x.s) {
			tb.Fatal("full")
		}
		for err != nil {
			select {
			case <-x.wake:
				l, err = p.Acquire(&x.s)
			default:
				if first == last {
					tb.Fatal("nothing in work, and the request waits")
				}
				leases[first%64].Done(upstream.Outcome{Now: now, Latency: 160_000, Status: 200})
				first++
			}
		}
		leases[last%64] = l
		last++
	}
}

func TestQueueAllocs(t *testing.T) {
	cycle := queueCycle(t)
	if n := testing.AllocsPerRun(1000, cycle); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkHeld is what a request costs in this package and upstream when it has to wait for its turn.
func BenchmarkHeld(b *testing.B) {
	cycle := queueCycle(b)
	b.ReportAllocs()
	for b.Loop() {
		cycle()
	}
}

// TestJudge: what people get to see of a limit and of a slow backend.
func TestJudge(t *testing.T) {
	p, a := held(1, 3, 1, 2)
	snap := p.Snapshot()
	(*a).est[1].slow.set(2.5)
	(*a).est[1].excess.set(.25)
	for i, want := range []upstream.Opinion{{Limit: 3, Slow: 1}, {Limit: 6, Slow: 2.5, Excess: .25}} {
		if got := snap.Opinion(snap.Ready[i]); got != want {
			t.Errorf("backend %d: %+v, want %+v", i, got, want)
		}
	}
}

// TestFresh: what was overtaken by an answer takes no place, whoever ends without one does not count, and what was sent too
// long ago to tell counts.
func TestFresh(t *testing.T) {
	p := new(profile)
	want := func(active, n int64) {
		t.Helper()
		if got := p.fresh(active); got != n {
			t.Errorf("%d of %d are fresh, want %d", got, active, n)
		}
	}
	want(0, 0)
	for start := range int64(4) {
		p.sent(10 * (start + 1))
	}
	want(4, 4)
	want(3, 3) // one ended without an answer
	p.passed(20)
	want(3, 2)
	p.passed(10) // late
	want(3, 2)
	p.passed(40)
	want(2, 0)
	for start := range int64(200) {
		p.sent(100 + start)
	}
	want(200, 200)
	p.passed(299 - lately) // the last that is not known any more
	want(200, 200)
	p.passed(300 - lately)
	want(200, lately-1)
	p.passed(298)
	want(200, 1)
}

// TestSilentBackend: a backend at its limit that answers nothing for long may have one more, two after twice that; one that has
// just answered may not.
func TestSilentBackend(t *testing.T) {
	p, at := held(1, 1, 1, 1)
	a := *at
	a.fleet.gap.set(1e6)
	s := new(upstream.Selection)
	for i := range 2 {
		s.Reset(1e9, 0)
		if _, err := p.Acquire(s); err != nil {
			t.Fatal(i, err)
		}
	}
	for _, c := range []struct{ after, room int64 }{{0, 0}, {silence*1e6 - 1, 0}, {silence * 1e6, 1}, {100 * silence * 1e6, 1}} {
		v := a.view(1e9+c.after, 1)
		if got := max(0, a.room(0, a.ready[0].Load(), &v)); got != c.room {
			t.Errorf("after %d ns there is room for %d, want %d", c.after, got, c.room)
		}
	}
}

// TestBatch: answers that have come fast for a while are booked eight at a time, others at once, with the same sums.
func TestBatch(t *testing.T) {
	const most = batchMost
	for _, c := range []struct {
		name            string
		fast, late      int
		apart           int64 // ns, of the fast
		booked, pending float64
	}{
		{"rare", 0, 3, 0, 3, 0},
		{"just not fast", 3 * most, 0, batchTime, 3 * most, 0},
		{"not fast for long", most, 0, batchTime - 1, most, 0},
		{"fast, less than a batch", 2*most - 1, 0, 1e3, most, most - 1},
		{"fast, a batch", 2 * most, 0, 1e3, 2 * most, 0},
		{"fast, and then a late one", 2*most - 3, 1, 1e3, 2*most - 2, 0},
	} {
		p, strategy := held(1, 0, 1)
		est, fleet := (*strategy).est[0], (*strategy).fleet
		now, sum := int64(1e12), 0.
		var s upstream.Selection
		for i := range c.fast + c.late {
			if now += c.apart; i >= c.fast {
				now += 10 * batchTime
			}
			s.Reset(now, 0)
			l, err := p.Acquire(&s)
			if err != nil {
				t.Fatal(err)
			}
			took := int64(i+1) * 1e6
			l.Done(upstream.Outcome{Now: now, Latency: took, Status: 200})
			if i < int(c.booked) {
				sum += math.Log(float64(took) + floor)
			}
		}
		if n := est.batches[0].n; n != c.pending {
			t.Errorf("%s: %v are not booked, want %v", c.name, n, c.pending)
		}
		if math.Abs(est.w-c.booked) > .1 || math.Abs(est.x-sum) > .01*sum || math.Abs(fleet.w-c.booked) > .1 {
			t.Errorf("%s: sums of weight %v and %v, %v; want %v and %v", c.name, est.w, fleet.w, est.x, c.booked, sum)
		}
	}
}
