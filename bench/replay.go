package main

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// shot is a request of an open load: when it is due, and how long an instance of usual speed takes for it.
type shot struct {
	at   time.Duration
	work time.Duration
}

// kind is a distribution of work.
type kind struct {
	name string
	says string
	draw func(*rand.Rand) float64 // any mean
}

var (
	lognormal = kind{"lognormal", "lognormal, standard deviation 1.5 times the mean", func(r *rand.Rand) float64 {
		return math.Exp(r.NormFloat64() * math.Sqrt(math.Log(1+1.5*1.5)))
	}}
	bimodal = kind{"bimodal", "19 of 20 take half the mean, one of 20 takes 10.5 times the mean", func(r *rand.Rand) float64 {
		if r.Float64() < .05 {
			return 10.5
		}
		return .5
	}}
)

// shots is a Poisson process of the given rate and length with work of the given mean. Number and mean are exact, so that
// the load is what it is said to be in a short round too: the times and the order are chance.
func shots(seed uint64, rate float64, length, mean time.Duration, k kind) []shot {
	r := rand.New(rand.NewPCG(seed, 6))
	s := make([]shot, int(rate*length.Seconds()+.5))
	work, sum := make([]float64, len(s)), 0.
	for i := range s {
		s[i].at = time.Duration(r.Float64() * float64(length))
		work[i] = k.draw(r)
		sum += work[i]
	}
	slices.SortFunc(s, func(a, b shot) int { return cmp.Compare(a.at, b.at) })
	for i := range s {
		s[i].work = time.Duration(work[i] / sum * float64(len(s)) * float64(mean))
	}
	return s
}

// before is how many of s are due before at.
func before(s []shot, at time.Duration) int {
	n, _ := slices.BinarySearchFunc(s, at, func(x shot, at time.Duration) int { return cmp.Compare(x.at, at) })
	return n
}

// instances are the servers of a replay: slow[i] times as long takes instance i, and each request costs it cost besides.
type instances struct {
	slow []float64
	cost time.Duration
}

// capacity is how many requests a second they can do together, of a mean work.
func (f *instances) capacity(mean time.Duration) float64 {
	sum := 0.
	for i := range f.slow {
		sum += 1 / f.time(i, mean).Seconds()
	}
	return sum
}

func (f *instances) time(i int, work time.Duration) time.Duration {
	return time.Duration(float64(work)*f.slow[i]) + f.cost
}

// fit sets cost such that the capacity is the measured one.
func (f *instances) fit(measured float64, mean time.Duration) {
	low, high := time.Duration(0), mean
	for high-low > time.Microsecond {
		if f.cost = (low + high) / 2; f.capacity(mean) > measured {
			low = f.cost
		} else {
			high = f.cost
		}
	}
}

// bound is the response times that no balancer can be better than: those of oracles that serve the same requests. One has a
// queue for all, from which whoever is idle takes the first; the other knows the work of each request, and who will be done
// with it first. Nothing is charged for networks and proxies.
type bound struct{ queue, knowing []time.Duration }

// Those before first are served, but do not count.
func (f *instances) bound(s []shot, first int) bound {
	b := bound{f.serve(s, f.oneQueue)[first:], f.serve(s, f.firstDone)[first:]}
	slices.Sort(b.queue)
	slices.Sort(b.knowing)
	return b
}

// at is the better of the oracles' quantiles.
func (b bound) at(q float64) time.Duration { return min(quantile(b.queue, q), quantile(b.knowing, q)) }

// serve is the response times of s, when pick chooses an instance for each: free[i] is when instance i is done with what it
// has.
func (f *instances) serve(s []shot, pick func(free []time.Duration, x shot) int) []time.Duration {
	free := make([]time.Duration, len(f.slow))
	out := make([]time.Duration, len(s))
	for k, x := range s {
		i := pick(free, x)
		free[i] = max(free[i], x.at) + f.time(i, x.work)
		out[k] = free[i] - x.at
	}
	return out
}

// oneQueue is the fastest of those that are idle, else who is idle first.
func (f *instances) oneQueue(free []time.Duration, x shot) int {
	best := 0
	for i := range free {
		a, b := max(free[i], x.at), max(free[best], x.at)
		if a < b || a == b && f.slow[i] < f.slow[best] {
			best = i
		}
	}
	return best
}

func (f *instances) firstDone(free []time.Duration, x shot) int {
	best, least := 0, time.Duration(math.MaxInt64)
	for i := range free {
		if end := max(free[i], x.at) + f.time(i, x.work); end < least {
			best, least = i, end
		}
	}
	return best
}

// quantile of sorted durations: what at least a share q of them does not exceed.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
