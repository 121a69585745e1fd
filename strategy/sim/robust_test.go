package sim

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestRobust: where there is nothing to be won, or something to be lost, adaptive is as good as least_conn.
func TestRobust(t *testing.T) {
	if race {
		t.Skip("one goroutine")
	}
	io := func(cpu float64, wait time.Duration) func(*rand.Rand, time.Duration) Demand {
		return func(r *rand.Rand, _ time.Duration) Demand { return waiting(r, cpu, wait) }
	}
	for _, c := range []struct {
		name   string
		most   float64 // p99 of adaptive over that of least_conn
		held   float64 // share of requests that wait in lb at most
		change func(*Run)
	}{
		{"one backend", 1.001, 0, func(r *Run) { r.Backends, r.Rate = fleet(1, node), 85 }},
		{"two backends", .95, 2, func(r *Run) { r.Backends, r.Rate = fleet(2, node), 170 }},
		{"max_inflight of 1", 1.02, 1, func(r *Run) {
			r.QueueLen = 1000
			for i := range r.Backends {
				r.Backends[i].MaxInflight = 1
			}
		}},
		{"max_inflight of 20", .9, 1, func(r *Run) {
			for i := range r.Backends {
				r.Backends[i].MaxInflight = 20
			}
		}},
		{"600 ms of work", .95, 1, func(r *Run) {
			for i := range r.Backends {
				r.Backends[i].Service = 600 * ms
			}
			r.Rate, r.Warm, r.Length = .85*8/.6, 20*time.Minute, 60*time.Minute
		}},
		{"4 threads each", 1.05, 1, func(r *Run) { r.Backends, r.Rate = fleet(4, Backend{Service: 10 * ms, Workers: 4}), .85*1600 }},
		{"16 threads each", 1.05, 1, func(r *Run) {
			r.Backends, r.Rate = fleet(4, Backend{Service: 40 * ms, Workers: 16}), .85*1600
		}},
		{"4 threads each, 97 %", 1.05, 2, func(r *Run) { r.Backends, r.Rate = fleet(4, Backend{Service: 10 * ms, Workers: 4}), .97*1600 }},
		{"20 ms away", 1.05, 1, func(r *Run) { r.Network = 20 * ms }},
		{"2 ms away", 1.02, 1, func(r *Run) { r.Network = 2 * ms }},
		{"cheap and expensive routes", .95, 1, func(r *Run) {
			r.Kind = func(r *rand.Rand, _ time.Duration) Demand {
				if r.Float64() < .02 {
					return Demand{CPU: 20}
				}
				return Demand{CPU: .6 * LogNormal(r, .5)}
			}
			r.Rate = 680
		}},
		{"cheap routes that compute, others that wait", 1.05, 1, func(r *Run) {
			r.Kind = func(r *rand.Rand, at time.Duration) Demand {
				w, c := waiting(r, .3, 200*ms), LogNormal(r, 1)
				if r.Float64() < .3 {
					return w
				}
				return Demand{CPU: c}
			}
			r.Rate = .8 * 8 * 100 / .79
		}},
		{"await of a database, 20 %", 1.05, .02, func(r *Run) { r.Kind, r.Rate = io(.1, 50*ms), 1600 }},
		{"await of a database, 80 %", 1.05, .02, func(r *Run) { r.Kind, r.Rate, r.Warm, r.Length = io(.1, 50*ms), 6400, 10*time.Second, 20*time.Second }},
		{"await of 1 s", 1.05, .02, func(r *Run) { r.Kind, r.Rate = io(.1, time.Second), 2000 }},
		{"four lbs, and waits", 1.05, .3, func(r *Run) { r.LBs, r.Kind, r.Rate = 4, io(.3, 30*ms), .85*8*333.3 }},
		{"two lbs", 1, 1, func(r *Run) { r.LBs = 2 }},
		{"50 long polls", .9, 1, func(r *Run) { r.LongPolls, r.LongPoll, r.PollsApart = 50, 20*time.Second, 400*ms }},
		{"streams of 2 s beside", .9, 1, func(r *Run) { r.LongPolls, r.LongPoll, r.PollsApart = 100, 2*time.Second, 20*ms }},
		{"200 long polls that come together", .9, 1, func(r *Run) { r.LongPolls, r.LongPoll = 200, 20*time.Second }},
		{"200 streams that come together in the middle", .9, 1, func(r *Run) {
			r.LongPolls, r.LongPoll, r.PollsFrom, r.PollsSay = 200, time.Hour, 60*time.Second, true
		}},
		{"200 long polls of a new kind that come together in the middle", .9, 1, func(r *Run) {
			r.LongPolls, r.LongPoll, r.PollsFrom = 200, time.Hour, 60*time.Second
		}},
		{"slow start", 1.05, 1, func(r *Run) {
			r.SlowStart, r.Rate = 10*time.Second, 560
			r.Backends[7].Join = r.Warm + 20*time.Second
		}},
		{"5 % load", 1.05, .02, func(r *Run) { r.Rate = 40 }},
		{"30 % load", 1.05, .2, func(r *Run) { r.Rate = 240 }},
		// A fixed number of clients, as a benchmark has: instances are never seen with little in work.
		{"24 clients", 1, 1.01, func(r *Run) { clients(r, 24) }},
		{"24 clients, one 3x slower", .85, 1.01, func(r *Run) { clients(r, 24); r.Backends[0].Service *= 3 }},
		{"24 clients, all work the same", 1.15, .02, func(r *Run) { clients(r, 24); r.Spread = .05 }},
		{"1000 clients", 1.05, .02, func(r *Run) { clients(r, 1000) }},
		{"100 clients, .2 ms of work", .95, 1.01, func(r *Run) {
			clients(r, 100)
			for i := range r.Backends {
				r.Backends[i].Service /= 50
			}
			r.Warm, r.Length = 5*time.Second, 5*time.Second
		}},
		{"400 clients, await of a database", 1.05, .02, func(r *Run) {
			clients(r, 400)
			r.Kind, r.Warm, r.Length = io(.1, 50*ms), 10*time.Second, 10*time.Second
		}},
		{"64 backends", 1, 1, func(r *Run) {
			r.Backends, r.Rate, r.Warm, r.Length = fleet(64, node), .85*6400, 15*time.Second, 15*time.Second
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const seeds = 2
			tail, held := map[string]float64{}, 0.
			for seed := range uint64(seeds) {
				for _, s := range []string{"least_conn", "adaptive"} {
					r := adaptiveScene()
					c.change(&r)
					r.Strategy, r.Seed = s, seed+1
					res, err := r.Do()
					if err != nil {
						t.Fatal(err)
					}
					tail[s] += p99(res.Good) / seeds
					if res.Refused > 0 || res.Overdue > 0 {
						if s == "adaptive" {
							t.Errorf("%d found no place to wait, %d waited in vain", res.Refused, res.Overdue)
						}
					}
					if s == "adaptive" {
						held += float64(res.Held) / float64(res.Total()) / seeds
					}
				}
			}
			t.Logf("%-30s adaptive %7.1f ms, least_conn %7.1f ms, ratio %.3f, held %.0f %%", c.name, tail["adaptive"], tail["least_conn"], tail["adaptive"]/tail["least_conn"], 100*held)
			less(t, "p99 of adaptive against least_conn", tail["adaptive"], c.most, tail["least_conn"])
			less(t, "share that waited in lb", held, 1, c.held)
		})
	}
}

// clients makes the load that of so many clients on four backends, each of which asks again at once.
func clients(r *Run, n int) {
	r.Backends, r.Rate, r.InFlight = r.Backends[:4], 0, n
}
