package sim

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb/upstream"
)

const ms = time.Millisecond

// node is a Node process: one request at a time, 10 ms on average, with a tail.
var node = Backend{Service: 10 * ms}

func fleet(n int, b Backend) []Backend {
	f := make([]Backend, n)
	for i := range f {
		f[i] = b
	}
	return f
}

// scene is 8 nodes at a load of 85 %, for 30 s.
func scene() Run {
	return Run{
		Backends: fleet(8, node), Spread: 1.5, Rate: 680,
		Network: 100 * time.Microsecond, Warm: 5 * time.Second, Length: 30 * time.Second,
	}
}

// summary is the mean over a few seeds.
type summary struct {
	p99    float64 // ms
	share  float64 // of backend 0
	errors float64
	uneven float64 // largest share over the mean share
}

func run(t *testing.T, strategy string, r Run) (s summary) {
	t.Helper()
	if race {
		t.Skip("one goroutine")
	}
	const seeds = 3
	for seed := range uint64(seeds) {
		r.Strategy, r.Seed = strategy, seed
		res, err := r.Do()
		if err != nil {
			t.Fatal(err)
		}
		most := 0.
		for i := range r.Backends {
			most = max(most, res.Share(i))
		}
		s.p99 += res.Quantile(.99).Seconds() * 1e3 / seeds
		s.share += res.Share(0) / seeds
		s.errors += res.Errors() / seeds
		s.uneven += most * float64(len(r.Backends)) / seeds
	}
	t.Logf("%-12s p99 %7.1f ms, share of the first %5.2f %%, errors %.2f %%, max/mean %.3f",
		strategy, s.p99, 100*s.share, 100*s.errors, s.uneven)
	return s
}

// less checks that a is at most factor times b.
func less(t *testing.T, what string, a, factor, b float64) {
	t.Helper()
	if !(a <= factor*b) {
		t.Errorf("%s: %.4g, want at most %.3g × %.4g", what, a, factor, b)
	}
}

func TestSameSeedSameRun(t *testing.T) {
	r := scene()
	r.Length = 2 * time.Second
	for _, s := range []string{"p2c", "ewma"} {
		r.Strategy = s
		a, err := r.Do()
		if err != nil {
			t.Fatal(err)
		}
		b, _ := r.Do()
		if d := cmp.Diff(a, b); d != "" {
			t.Errorf("%s: two runs differ:\n%s", s, d)
		}
	}
}

func TestEqualBackends(t *testing.T) {
	rnd, rr, p2c := run(t, "random", scene()), run(t, "round_robin", scene()), run(t, "p2c", scene())
	least, ewma := run(t, "least_conn", scene()), run(t, "ewma", scene())
	less(t, "p99 of round_robin against random", rr.p99, .95, rnd.p99)
	less(t, "p99 of p2c against round_robin", p2c.p99, .6, rr.p99)
	less(t, "p99 of least_conn against p2c", least.p99, .9, p2c.p99)
	less(t, "p99 of ewma against least_conn", ewma.p99, 1.03, least.p99)
	less(t, "largest share of round_robin", rr.uneven, 1.01, 1)
	less(t, "largest share of least_conn", least.uneven, 1.06, 1)
	less(t, "largest share of ewma", ewma.uneven, 1.1, 1)
}

// TestLightLoad: when nobody is busy, everybody gets a share all the same.
func TestLightLoad(t *testing.T) {
	r := scene()
	r.Rate = 80
	r.Length = 60 * time.Second
	less(t, "largest share of least_conn", run(t, "least_conn", r).uneven, 1.03, 1)
	less(t, "largest share of ewma", run(t, "ewma", r).uneven, 1.5, 1)
}

// warming is a Node process as it is measured behind lb: its first requests take long, until its code is compiled, and
// requests take longer the longer it has rested.
func warming() Backend {
	return Backend{Service: 300 * time.Microsecond, Warm: func(served int, rest time.Duration) float64 {
		return (1 + 5*math.Exp(-float64(served)/300)) * (1 + 4*(1-math.Exp(-rest.Seconds()/.010)))
	}}
}

// TestWarming: four equal processes that are the faster the more they are used. Whoever goes by latency alone settles on one.
func TestWarming(t *testing.T) {
	r := scene()
	r.Backends, r.Rate, r.Spread = fleet(4, warming()), 800, .5
	r.Warm, r.Length = 0, 3*time.Second
	for _, s := range []string{"least_conn", "ewma", "adaptive"} {
		less(t, s+": largest share in the first 3 s", run(t, s, r).uneven, 1.5, 1)
	}
	r.Warm, r.Length = 10*time.Second, 20*time.Second
	for _, s := range []string{"least_conn", "ewma", "adaptive"} {
		less(t, s+": largest share after that", run(t, s, r).uneven, 1.3, 1)
	}
}

func TestThreeTimesSlower(t *testing.T) {
	r := scene()
	r.Backends[0].Service *= 3
	r.Rate = .85 * 7.333 * 100
	rr, least, ewma := run(t, "round_robin", r), run(t, "least_conn", r), run(t, "ewma", r)
	less(t, "p99 of least_conn against round_robin", least.p99, .1, rr.p99)
	less(t, "p99 of ewma against least_conn", ewma.p99, .97, least.p99)
	less(t, "share of the slow one under ewma", ewma.share, 1, 1./22) // what its speed is worth
}

// TestSlowAmongFast is one backend that takes 200 ms among three that take 5 ms, with a given number of requests in
// flight. Nothing queues, so only what was learned tells them apart.
func TestSlowAmongFast(t *testing.T) {
	r := scene()
	r.Backends = fleet(4, Backend{Service: 5 * ms, Workers: 64})
	r.Backends[0].Service = 200 * ms
	r.Rate, r.Spread = 0, .3
	r.InFlight = 20
	less(t, "share under round_robin", .24, 1, run(t, "round_robin", r).share)
	less(t, "share under ewma at 20 in flight", run(t, "ewma", r).share, 1, .03)
	r.InFlight = 2
	less(t, "share under ewma at 2 in flight", run(t, "ewma", r).share, 1, .05)
}

func TestDegrades(t *testing.T) {
	r := scene()
	r.Rate = 560
	r.Backends[0].Slow = func(at time.Duration) float64 {
		if at > 15*time.Second {
			return 10
		}
		return 1
	}
	rr, p2c := run(t, "round_robin", r), run(t, "p2c", r)
	least, ewma := run(t, "least_conn", r), run(t, "ewma", r)
	less(t, "p99 of p2c against round_robin", p2c.p99, .2, rr.p99)
	less(t, "p99 of least_conn against p2c", least.p99, .8, p2c.p99)
	less(t, "p99 of ewma against least_conn", ewma.p99, .9, least.p99)
}

// TestRecovers: a backend that was slow gets its share back.
func TestRecovers(t *testing.T) {
	r := scene()
	r.Warm, r.Rate = 30*time.Second, 560
	r.Backends[0].Slow = func(at time.Duration) float64 {
		if at < 10*time.Second {
			return 20
		}
		return 1
	}
	less(t, "share of a healthy backend against that of the recovered", .125, 1.1, run(t, "ewma", r).share)
}

// TestFailsFast: what fails at once looks idle, and draws requests. ewma is not fooled.
func TestFailsFast(t *testing.T) {
	r := scene()
	r.Rate = 480
	r.Backends[0].Fails = func(time.Duration) float64 { return 1 }
	r.Backends[0].FailTime = ms / 5
	least, ewma := run(t, "least_conn", r), run(t, "ewma", r)
	less(t, "errors under ewma", ewma.errors, 1, .005)
	less(t, "errors under round_robin against least_conn", run(t, "round_robin", r).errors, .8, least.errors)

	r.Backends[0].Fails = func(time.Duration) float64 { return .3 } // a part of them
	less(t, "share of one that fails 30 % under ewma", run(t, "ewma", r).share, 1, .05)
}

// TestAllFailAlike: bad requests fail everywhere, which is no backend's fault.
func TestAllFailAlike(t *testing.T) {
	r := scene()
	r.Rate = 480
	for i := range r.Backends {
		r.Backends[i].Fails = func(time.Duration) float64 { return .2 }
		r.Backends[i].FailTime = 10 * ms
	}
	less(t, "largest share under ewma", run(t, "ewma", r).uneven, 1.35, 1)
}

// TestFreeze: one backend answers nothing for 5 s. Under ewma its age keeps requests away, but for one now and then.
func TestFreeze(t *testing.T) {
	const from, to = 10 * time.Second, 15 * time.Second
	r := scene()
	r.Rate = 480
	r.Backends[0].Slow = func(at time.Duration) float64 {
		if at > from && at < to {
			return float64(to-at) / float64(10*ms)
		}
		return 1
	}
	sent := map[string]int{}
	strategy := ""
	r.Each = func(at time.Duration, i int, _ *upstream.Lease) {
		if i == 0 && at > from && at < to {
			sent[strategy]++
		}
	}
	for _, strategy = range []string{"round_robin", "least_conn", "ewma"} {
		run(t, strategy, r)
	}
	t.Logf("sent to the frozen one in 5 s, three runs: %v", sent)
	less(t, "sent to the frozen one by least_conn against round_robin", float64(sent["least_conn"]), .1, float64(sent["round_robin"]))
	less(t, "sent to the frozen one by ewma in three runs", float64(sent["ewma"]), 3, 12)
}

// TestCold: a backend joins that is slow at first. Under ewma it may have one request more in flight than it has
// answered, so it is never flooded, and it gets its share in the end.
func TestCold(t *testing.T) {
	const join = 10 * time.Second
	r := scene()
	r.Rate = .8 * 800
	r.Backends[0].Join = join
	r.Backends[0].Slow = func(at time.Duration) float64 {
		if at < join+2*time.Second {
			return 10
		}
		return 1
	}
	n, late := 0, 0
	r.Each = func(at time.Duration, i int, l *upstream.Lease) {
		switch {
		case i != 0:
			return
		case at < join:
			t.Errorf("sent to it at %v", at)
		case at < join+100*ms && l.Ahead() > int64(n):
			t.Errorf("%d ahead at %v, after %d requests", l.Ahead(), at, n)
		case at > 20*time.Second:
			late++
		}
		n++
	}
	for _, s := range []string{"least_conn", "ewma"} {
		n, late = 0, 0
		r.Strategy = s
		res, err := r.Do()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: p99 %v", s, res.Quantile(.99))
		if want := int(r.Rate * 15 / 8 * .8); late < want {
			t.Errorf("%s: %d requests in its last 15 s, want at least %d", s, late, want)
		}
	}
}

// TestLongPolls: 10 long polls hang on one of four backends. Counted as busy, they keep other requests away from it.
func TestLongPolls(t *testing.T) {
	r := scene()
	r.Backends = fleet(4, node)
	r.Rate = 280
	r.LongPolls, r.LongPoll = 10, 50*time.Second
	// They all start while only the first is there.
	for i := 1; i < 4; i++ {
		r.Backends[i].Join = 100 * ms
	}
	for _, s := range []string{"least_conn", "ewma"} {
		r.NoPark = false
		with := run(t, s, r)
		r.NoPark = true
		without := run(t, s, r)
		less(t, s+": share of the others against that of the one with polls", .25, 1.1, with.share)
		less(t, s+": share of the one with polls if they were not parked", without.share, .7, .25)
	}
}

// TestWeights: backends of weight 1, 2 and 4 that are as fast as that. ewma measures the speed too, so the slow ones get
// even less from it; the weight is a preference on top.
func TestWeights(t *testing.T) {
	r := scene()
	r.Backends = nil
	for _, w := range []int{1, 2, 4, 1, 2, 4} {
		r.Backends = append(r.Backends, Backend{Service: 40 * ms / time.Duration(w), Weight: w})
	}
	r.Rate = .85 * 14 * 25
	rr := run(t, "round_robin", r)
	for _, s := range []string{"least_conn", "p2c", "ewma"} {
		x := run(t, s, r)
		less(t, s+": p99 against round_robin", x.p99, .7, rr.p99)
		less(t, s+": share of a backend of weight 1", x.share, 1.2, 1./14)
	}
}
