package sim

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// scenario is a fleet under load for adaptive.
type scenario struct {
	name   string
	change func(*Run)
	waits  bool    // backends wait for others than their processor: one queue is no bound then
	bound  float64 // p99 of adaptive is at most so many times the bound
	least  float64 // and so many times that of least_conn
	seeds  uint64  // of which the mean counts
}

func bimodal(r *rand.Rand, _ time.Duration) Demand {
	long, spread := r.Float64() < .05, .8+.4*r.Float64()
	if long {
		return Demand{CPU: 10.5 * spread}
	}
	return Demand{CPU: .5 * spread}
}

// waiting is a request of CPU with spread 1 around two waits.
func waiting(r *rand.Rand, cpu float64, wait time.Duration) Demand {
	return Demand{CPU: cpu * LogNormal(r, 1), Wait: time.Duration(float64(wait) * LogNormal(r, 1)), Waits: 2}
}

func stopsOf(i int, length time.Duration) (s []Span) {
	r := rand.New(rand.NewPCG(uint64(i), 9))
	for at := time.Duration(0); at < length; {
		at += time.Duration(r.ExpFloat64() * 5e9)
		d := time.Duration((100 + 100*r.Float64()) * 1e6)
		s = append(s, Span{at, at + d})
		at += d
	}
	return s
}

var scenarios = []scenario{
	{"equal, 70 %", func(r *Run) { r.Rate = 560 }, false, 1.15, 0.9, 1},
	{"equal, 85 %", func(r *Run) { r.Rate = 680 }, false, 1.15, 0.85, 1},
	{"equal, 95 %", func(r *Run) { r.Rate = 760; r.Length *= 2 }, false, 1.15, 0.92, 1},
	{"bimodal, 85 %", func(r *Run) { r.Kind = bimodal; r.Rate = 680 }, false, 1.15, 0.85, 1},
	{"one 3x slower, 85 %", func(r *Run) { r.Backends[0].Service *= 3; r.Rate = .85 * 733.3 }, false, 1.25, 0.75, 1},
	{"half 2x slower, 85 %", func(r *Run) {
		for i := 0; i < 8; i += 2 {
			r.Backends[i].Service *= 2
		}
		r.Rate = .85 * 600
	}, false, 1.25, 0.75, 4},
	{"one turns 10x slower, 60 %", func(r *Run) {
		r.Rate = 480
		r.Backends[0].Slow = func(at time.Duration) float64 {
			if at > r.Warm+r.Length*3/10 && at < r.Warm+r.Length*6/10 {
				return 10
			}
			return 1
		}
	}, false, 1.15, 0.85, 1},
	{"one freezes for 5 s, 60 %", func(r *Run) {
		r.Rate = 480
		r.Backends[0].Stops = []Span{{r.Warm + r.Length/3, r.Warm + r.Length/3 + 5*time.Second}}
	}, false, 1.15, 0.95, 1},
	{"pauses, 70 %", func(r *Run) {
		r.Rate = 560
		for i := range r.Backends {
			r.Backends[i].Stops = stopsOf(i, r.Warm+r.Length)
		}
	}, false, 1.15, 0.8, 1},
	{"one fails at once, 60 %", func(r *Run) {
		r.Rate = 480
		r.Backends[0].FailTime = ms
		r.Backends[0].Fails = func(at time.Duration) float64 {
			if at > r.Warm+r.Length*3/10 && at < r.Warm+r.Length*6/10 {
				return 1
			}
			return 0
		}
	}, false, 1.15, 1, 1},
	{"a cold one joins, 80 %", func(r *Run) {
		r.Rate = 640
		join := r.Warm + r.Length*3/10
		r.Backends[7].Join = join
		r.Backends[7].Slow = func(at time.Duration) float64 {
			return 1 / min(1, .1+.2*max(0, at-join).Seconds())
		}
	}, false, 1.15, 0.85, 1},
	{"four lbs, 85 %", func(r *Run) { r.LBs = 4 }, false, 1.7, 1.05, 1},
	{"1 ms of work, 85 %", func(r *Run) {
		for i := range r.Backends {
			r.Backends[i].Service = ms
		}
		r.Rate, r.Warm, r.Length = 6800, r.Warm/5, r.Length/5
	}, false, 1.35, 0.9, 1},
	{"waits for I/O, 50 %", func(r *Run) {
		r.Kind = func(r *rand.Rand, _ time.Duration) Demand { return waiting(r, .1, 50*ms) }
		r.Rate, r.Warm, r.Length = 4000, r.Warm/5, r.Length/5
	}, true, 1.3, 1.05, 1},
	{"a mix of CPU and waits, 85 %", func(r *Run) {
		r.Kind = func(r *rand.Rand, _ time.Duration) Demand { return waiting(r, .3, 30*ms) }
		r.Rate, r.Warm, r.Length = .85*8*333.3, r.Warm/2, r.Length/2
	}, true, 1.5, 1.05, 1},
}

func adaptiveScene() Run {
	return Run{
		Backends: fleet(8, node), Spread: 1.5, Rate: 680,
		Network: 100 * time.Microsecond, Warm: 30 * time.Second, Length: 90 * time.Second,
	}
}

// p99 runs sc under a strategy and gives p99 of its good answers in ms, and the result with the last seed.
func (sc *scenario) p99(t *testing.T, strategy string) (tail float64, res *Result) {
	t.Helper()
	for seed := uint64(1); seed <= sc.seeds; seed++ {
		r := adaptiveScene()
		sc.change(&r)
		r.Strategy, r.Seed = strategy, seed
		var err error
		if res, err = r.Do(); err != nil {
			t.Fatal(err)
		}
		if len(res.Good) == 0 {
			t.Fatalf("%s: no answers", strategy)
		}
		tail += p99(res.Good) / float64(sc.seeds)
	}
	return tail, res
}

// TestAdaptive measures p99 against the bound that no load balancer can pass. With -v it prints the table of
// docs/balancing.md.
//
// What is wanted, and measured with these seeds: 1.15 with equal backends and bimodal work (1.03 to 1.11), 1.25 with one or
// half slow (1.17, 1.22), 1.15 through trouble (1.01 to 1.10), 1.05 × least_conn where backends wait (1.00, 1.01) or several
// lbs share them (.93). Other seeds give the same within a few percent; with half of the backends slow a single one gives 1.15
// to 1.28, so that there the mean of four counts. Far from the bound stay four lbs, each of which sees a part of the load
// (1.63), and 1 ms of work, for which .2 ms of network between two requests are long (1.27).
func TestAdaptive(t *testing.T) {
	if race {
		t.Skip("one goroutine")
	}
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			bound, _ := sc.p99(t, LeastWork)
			if !sc.waits {
				one, _ := sc.p99(t, OneQueue)
				bound = min(bound, one)
			}
			least, _ := sc.p99(t, "least_conn")
			var rr, p2c, ewma float64
			if testing.Verbose() { // for the table
				rr, _ = sc.p99(t, "round_robin")
				p2c, _ = sc.p99(t, "p2c")
				ewma, _ = sc.p99(t, "ewma")
			}
			adaptive, res := sc.p99(t, "adaptive")
			t.Logf("| %-30s | %5.1f ms | %6.2f | %5.2f | %5.2f | %5.2f | %5.2f | held %2.0f %%, at most %d", sc.name, bound,
				rr/bound, p2c/bound, least/bound, ewma/bound, adaptive/bound,
				100*float64(res.Held)/float64(res.Total()), res.MostHeld)
			less(t, "p99 of adaptive against the bound", adaptive, sc.bound, bound)
			less(t, "p99 of adaptive against least_conn", adaptive, sc.least, least)
			if res.Refused > 0 {
				t.Errorf("%d requests found no place to wait", res.Refused)
			}
			if sc.waits && res.Held > res.Total()/20 {
				t.Errorf("%d of %d requests waited in lb though the backends wait for others", res.Held, res.Total())
			}
		})
	}
}

// shift is a load on so many backends whose nature changes twice: requests compute, then they wait as well, then they compute
// again. What was learned of the limit is wrong each time.
func shift(backends int, load float64, waits func(*rand.Rand) Demand) Run {
	r := adaptiveScene()
	r.Backends, r.Rate = fleet(backends, node), load*float64(backends)*100
	r.Warm, r.Length = 0, 90*time.Second
	r.Kind = func(rnd *rand.Rand, at time.Duration) Demand {
		c, w := LogNormal(rnd, 1.5), waits(rnd)
		if at > 30*time.Second && at < 60*time.Second {
			return w
		}
		return Demand{CPU: c}
	}
	return r
}

// TestShift: no limit starves the pool when the nature of the load changes. By the last 10 s of a period of 30 s the limit
// fits the load again, with each seed, and in between p99 stays below 1.5 s. The hard case is short waits at a high load: the
// right limit is 3 instead of 2, and with 2 the pool is just overloaded. With waits of 10, 40 and 100 ms, 72 seeds of 72 passed,
// and the worst p99 of 5 s was .4, .6 and .9 s. When only half of the requests wait, it takes up to 10 s to be sure, in which
// p99 rises to 3 s.
func TestShift(t *testing.T) {
	if race {
		t.Skip("one goroutine")
	}
	all := func(wait time.Duration) func(*rand.Rand) Demand {
		return func(r *rand.Rand) Demand { return waiting(r, 1, wait) }
	}
	half := func(r *rand.Rand) Demand {
		c, w := LogNormal(r, 1.5), waiting(r, 1, 50*ms)
		if r.Float64() < .5 {
			return w
		}
		return Demand{CPU: c}
	}
	const period, window = 30 * time.Second, 5 * time.Second
	const seeds = 3
	for _, c := range []struct {
		name     string
		backends int
		load     float64
		waits    func(*rand.Rand) Demand
		most     float64 // p99 while requests wait, over that of least_conn
		worst    float64 // p99 of 5 s in ms
	}{
		{"80 %, waits of 100 ms", 8, .8, all(100 * ms), 1.15, 1500},
		{"85 %, waits of 10 ms", 8, .85, all(10 * ms), 1.15, 1500},
		{"85 %, waits of 40 ms", 8, .85, all(40 * ms), 1.15, 1500},
		{"85 %, half of them wait 50 ms", 8, .85, half, 1.15, 4000},
		{"two backends, 80 %, waits of 40 ms", 2, .8, all(40 * ms), 1.3, 1500},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			run := func(strategy string, seed uint64) (end [3]float64, worst float64) {
				r := shift(c.backends, c.load, c.waits)
				r.Strategy, r.Seed = strategy, seed
				last := make([][]time.Duration, 3)
				all := make([][]time.Duration, 3*period/window+1)
				r.Answer = func(at, latency time.Duration) {
					if at%period >= period-10*time.Second {
						last[at/period] = append(last[at/period], latency)
					}
					all[at/window] = append(all[at/window], latency)
				}
				if _, err := r.Do(); err != nil {
					t.Fatal(err)
				}
				for i, l := range last {
					end[i] = p99(l)
				}
				for _, l := range all {
					worst = max(worst, p99(l))
				}
				t.Logf("%-34s seed %3d %-10s p99 in the last 10 s: computing %6.1f ms, waiting too %6.1f ms, computing again %6.1f ms; worst in 5 s %6.1f ms",
					c.name, seed, strategy, end[0], end[1], end[2], worst)
				return end, worst
			}
			for seed := range uint64(seeds) {
				seed += 107 // of these, two were bad once
				least, _ := run("least_conn", seed)
				adaptive, worst := run("adaptive", seed)
				less(t, "p99 of 5 s in ms", worst, 1, c.worst)
				for i, most := range []float64{.95, c.most, .95} {
					less(t, "p99 of adaptive against least_conn", adaptive[i], most, least[i])
				}
			}
		})
	}
}

// p99 sorts latencies and gives their 99th percentile in ms, 0 of none.
func p99(l []time.Duration) float64 {
	if len(l) == 0 {
		return 0
	}
	slices.Sort(l)
	return float64(l[len(l)*99/100]) / 1e6
}
