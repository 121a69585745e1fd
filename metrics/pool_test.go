package metrics

import (
	"errors"
	"testing"
	"time"

	"lb/upstream"
)

// TestPool has requests wait, give up and find the queue full, and a pool fail open.
func TestPool(t *testing.T) {
	p := pool("app", 1, 2)
	set := *upstream.DefaultSettings()
	set.HoldRequests = 2
	p.Update(specs(2), &set, nil)
	a, b := p.Snapshot().All[0], p.Snapshot().All[1]
	p.SetDead(a, time.Unix(1, 0))
	p.SetProbed(b, upstream.Down)
	var s [3]upstream.Selection
	var w [3]upstream.Waiter
	for i := range w {
		w[i].Wake = func() {}
		s[i].Reset(1e9, 0)
		if _, err := p.Acquire(&s[i]); !errors.Is(err, upstream.ErrNoBackend) {
			t.Fatal(err)
		}
		if in := p.Wait(&w[i], &s[i]); in != (i < 2) {
			t.Fatalf("%d: waits %v", i, in)
		}
	}
	p.Leave(&w[0], true, 2.5e9)
	check := func(when string, want map[string]float64) {
		t.Helper()
		got := values(scrape(t, Handler(world(p)), text))
		for name, v := range want {
			if g, ok := got[name]; !ok || g != v {
				t.Errorf("%s: %s is %v (%v), want %v", when, name, g, ok, v)
			}
		}
	}
	check("all dead", map[string]float64{
		"lb_pool_fail_open pool=app":             0,
		"lb_pool_ready_backends pool=app":        0,
		"lb_pool_waiting_requests pool=app":      1,
		"lb_pool_waits_total pool=app":           2,
		"lb_pool_wait_seconds_total pool=app":    1.5,
		"lb_pool_wait_timeouts_total pool=app":   1,
		"lb_pool_queue_full_total pool=app":      1,
		"lb_pool_retries_refused_total pool=app": 0,
	})
	p.SetEjected(a, time.Unix(2, 0)) // it accepts again, but is not trusted
	l, err := p.Acquire(&s[1])
	if err != nil {
		t.Fatal(err)
	}
	l.Done(upstream.Outcome{Now: 2e9, Status: 200})
	for range 10 {
		p.AllowRetry(2e9)
	}
	const backend = " backend=127.0.0.1:3000 pool=app"
	check("fail open", map[string]float64{
		"lb_pool_fail_open pool=app":                 1,
		"lb_pool_ready_backends pool=app":            1,
		"lb_pool_waiting_requests pool=app":          0,
		"lb_pool_retries_refused_total pool=app":     6,
		"lb_backend_fail_open_picks_total" + backend: 1,
		"lb_backend_ejections_total" + backend:       1,
		"lb_backend_returns_total" + backend:         0,
	})
	p.SetEjected(a, time.Time{})
	for i := range 5 {
		a.Checked(i > 1)
	}
	p.Fail(0, true)
	p.Fail(0, false)
	check("back", map[string]float64{"lb_pool_fail_open pool=app": 0, "lb_backend_returns_total" + backend: 1,
		"lb_backend_health_checks_total" + backend + " result=success": 3, "lb_backend_health_checks_total" + backend + " result=failure": 2,
		"lb_pool_failed_requests_total pool=app": 2, "lb_pool_requests_total pool=app": 2, // one was answered, one nobody was asked for
	})
}
