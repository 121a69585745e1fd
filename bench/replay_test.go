package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const msec = time.Millisecond

func TestShots(t *testing.T) {
	for _, k := range []kind{lognormal, bimodal} {
		s := shots(1, 1000, 10*time.Second, 10*msec, k)
		if len(s) != 10_000 {
			t.Fatalf("%s: %d requests", k.name, len(s))
		}
		var sum, squares float64
		for i, x := range s {
			if x.work <= 0 || x.at < 0 || x.at >= 10*time.Second || i > 0 && x.at < s[i-1].at {
				t.Fatalf("%s: %d is %+v", k.name, i, x)
			}
			sum += x.work.Seconds()
			squares += x.work.Seconds() * x.work.Seconds()
		}
		mean := sum / 1e4
		if math.Abs(mean-.01) > 1e-6 {
			t.Errorf("%s: mean %v", k.name, mean)
		}
		spread := math.Sqrt(squares/1e4-mean*mean) / mean
		if want := map[string]float64{"lognormal": 1.5, "bimodal": 2.18}[k.name]; math.Abs(spread-want) > .2 {
			t.Errorf("%s: deviation %.2f of the mean, want %.2f", k.name, spread, want)
		}
		if !slices.Equal(s, shots(1, 1000, 10*time.Second, 10*msec, k)) || slices.Equal(s, shots(2, 1000, 10*time.Second, 10*msec, k)) {
			t.Errorf("%s: the seed does not decide", k.name)
		}
	}
}

// TestServe: response times by hand, with two instances of which the second takes twice as long.
func TestServe(t *testing.T) {
	f := instances{slow: []float64{1, 2}}
	s := []shot{{0, 10 * msec}, {1 * msec, 10 * msec}, {2 * msec, 1 * msec}, {3 * msec, 1 * msec}}
	for name, c := range map[string]struct {
		pick func([]time.Duration, shot) int
		want []time.Duration
	}{
		// The second is idle at 1 and takes the next one until 21; the first serves the rest from 10 on.
		"one queue": {f.oneQueue, []time.Duration{10 * msec, 20 * msec, 9 * msec, 9 * msec}},
		// The second request would be done at 21 there and at 20 here; the small ones are done at 4 and 6 there.
		"knowing": {f.firstDone, []time.Duration{10 * msec, 19 * msec, 2 * msec, 3 * msec}},
	} {
		if got := f.serve(s, c.pick); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if got := f.bound(s, 0).at(.99); got != 19*msec {
		t.Errorf("the bound is %v", got)
	}
}

// TestBoundFrom: who comes before the first that counts is served, and not counted.
func TestBoundFrom(t *testing.T) {
	f := instances{slow: []float64{1}}
	s := []shot{{0, 10 * msec}, {1 * msec, 10 * msec}, {2 * msec, 10 * msec}}
	for at, first := range map[time.Duration]int{0: 0, 1 * msec: 1, 1*msec + 1: 2, 2*msec + 1: 3} {
		if n := before(s, at); n != first {
			t.Errorf("%d are before %v, want %d", n, at, first)
		}
	}
	if got := f.bound(s, 2); !slices.Equal(got.queue, []time.Duration{28 * msec}) {
		t.Errorf("%v", got.queue)
	}
}

// TestFit: the cost of a request follows from what was measured.
func TestFit(t *testing.T) {
	f := instances{slow: []float64{1, 1, 2}, cost: 700 * time.Microsecond}
	measured := f.capacity(5 * msec)
	f.cost = 0
	if f.fit(measured, 5*msec); f.cost < 690*time.Microsecond || f.cost > 710*time.Microsecond {
		t.Errorf("cost %v", f.cost)
	}
	if f.fit(1e9, 5*msec); f.cost > 2*time.Microsecond {
		t.Errorf("cost %v when nothing is lost", f.cost)
	}
}

// TestBoundAgainstTheory: M/M/1's response time is exponential with mean 1/(µ-λ).
func TestBoundAgainstTheory(t *testing.T) {
	exponential := kind{draw: func(r *rand.Rand) float64 { return r.ExpFloat64() }}
	f := instances{slow: []float64{1}}
	got := f.bound(shots(1, 50, 20_000*time.Second, 10*msec, exponential), 0)
	if want := -math.Log(.01) / (100 - 50) * 1e3; math.Abs(float64(got.at(.99))/1e6-want) > .05*want {
		t.Errorf("p99 %v, want %.1f ms", got.at(.99), want)
	}
}
