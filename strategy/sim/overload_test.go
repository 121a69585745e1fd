package sim

import (
	"testing"
	"time"
)

// TestOverload: for minutes, more is asked than the backends can do. They go on doing what they can, whoever is served is
// served soon after queue_timeout, and the others are told; under least_conn all wait longer and longer. When clients lose
// patience before, those that are gone are not sent to anybody, where other strategies have backends work for nobody.
func TestOverload(t *testing.T) {
	if race {
		t.Skip("one goroutine")
	}
	const capacity = 800 // requests a second
	for _, c := range []struct {
		name     string
		load     float64
		patience time.Duration
		most     float64 // p99 of adaptive in ms
		change   func(*Run)
	}{
		{"70 %, then 120 %", 1.2, 0, 8000, func(r *Run) { r.Load = calmBefore }},
		{"120 % from the start", 1.2, 0, 12000, func(*Run) {}},
		{"70 %, then 120 %, clients wait for 3 s", 1.2, 3 * time.Second, 1500, func(r *Run) { r.Load, r.Seed = calmBefore, 1 }}, // that seed went wrong once
		{"120 % from the start, clients wait for 3 s", 1.2, 3 * time.Second, 2500, func(*Run) {}},
		{"120 % from the start, one 3x slower, clients wait for 3 s", 1.1, 3 * time.Second, 2500, func(r *Run) { r.Backends[0].Service *= 3 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			did := map[string]float64{}
			tail := map[string]float64{}
			for _, s := range []string{"least_conn", "adaptive"} {
				r := scene()
				r.Rate, r.Warm, r.Length = c.load*capacity, 50*time.Second, 40*time.Second
				r.Patience, r.Strategy = c.patience, s
				c.change(&r)
				did[s], tail[s] = 0, 0
				answers := 0
				r.Answer = func(at, latency time.Duration) {
					if end := at + latency; end > 50*time.Second {
						answers++
					}
				}
				res, err := r.Do()
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%-10s p50 %6.0f ms", s, res.Quantile(.5).Seconds()*1e3)
				did[s] = float64(answers) / 40
				tail[s] = p99(res.Good)
				t.Logf("%-10s %4.0f answers/s, p99 %6.0f ms, %d overdue, %d gone, at most %d held, %d refused", s, did[s], tail[s], res.Overdue, res.Gone, res.MostHeld, res.Refused)
				if s == "adaptive" && res.Refused > 0 {
					t.Errorf("%d found no place to wait", res.Refused)
				}
			}
			can := capacity * c.load / 1.2
			less(t, "what can be done against what adaptive did", can, 1.03, did["adaptive"])
			if c.patience > 0 {
				less(t, "twice what least_conn did against what adaptive did", 2*did["least_conn"], 1, did["adaptive"])
			} else {
				less(t, "p99 of adaptive against least_conn", tail["adaptive"], .8, tail["least_conn"])
			}
			less(t, "p99 in ms of those that adaptive served", tail["adaptive"], 1, c.most)
		})
	}
}

// calmBefore is a load that begins with less.
func calmBefore(at time.Duration) float64 {
	if at < 30*time.Second {
		return .7 / 1.2
	}
	return 1
}

// TestBurst: more comes at once than can be done within queue_timeout, and then less. All are served.
func TestBurst(t *testing.T) {
	if race {
		t.Skip("one goroutine")
	}
	r := scene()
	r.Strategy, r.Rate, r.Warm, r.Length = "adaptive", 560, 20*time.Second, 60*time.Second
	r.Burst, r.BurstAt = 6000, 30*time.Second // 7.5 s of work
	res, err := r.Do()
	if err != nil {
		t.Fatal(err)
	}
	if res.Overdue > 0 || res.Refused > 0 {
		t.Errorf("%d were told to go, %d found no place", res.Overdue, res.Refused)
	}
	if res.MostHeld < 4000 {
		t.Errorf("only %d waited: that was no burst", res.MostHeld)
	}
}
