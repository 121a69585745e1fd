package upstream

import (
	"runtime"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// TestBudget counts how many retries are allowed of those wanted at each step.
func TestBudget(t *testing.T) {
	type step struct {
		at      float64 // s
		total   uint64  // requests begun by then
		wanted  int
		allowed int
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"a few are free", []step{{1, 0, 10, 3}}},
		{"a share of the requests", []step{{5, 1000, 500, 203}}},
		{"the window slides", []step{{5, 1000, 500, 203}, {10, 1000, 5, 0}, {15.1, 1000, 10, 3}}},
		{"only the window's requests", []step{{100, 10_000, 1, 1}, {1000, 10_000, 10, 3}}},
		{"evenly before", []step{{1000, 100_000, 1000, 203}}},
		{"seen since the last retry", []step{{100, 10_000, 1, 1}, {105, 10_100, 500, 3 + 20 + 99}}},
		{"counted twice before", []step{{5, 1000, 1, 1}, {6, 999, 500, 202}}},
		{"backends left", []step{{5, 1000, 1, 1}, {6, 1000, 500, 202}}},
	} {
		var r budget
		for _, s := range c.steps {
			got := 0
			for range s.wanted {
				if r.allow(int64(s.at*1e9), s.total, .2, retryFree) {
					got++
				}
			}
			if d := got - s.allowed; d < -1 || d > 1 {
				t.Errorf("%s, at %v s: %d allowed, want %d", c.name, s.at, got, s.allowed)
			}
		}
	}
}

// A process that takes over from another may retry as that could: by the requests of the last ten seconds, less what they had
// retried already.
func TestBudgetInherited(t *testing.T) {
	for _, c := range []struct {
		requests, retries uint64
		after             int64 // ns, when it is asked
		allowed           int
	}{
		{0, 0, 0, 3},
		{1000, 0, 0, 203},
		{1000, 150, 0, 53},
		{1000, 203, 0, 0},
		{1000, 0, 5e9, 3 + 133}, // they are taken to have come evenly until now, as always
		{1000, 203, 5e9, 0},
		{1000, 203, 11e9, 3},
		{1000, 0, 30e9, 3 + 50},
	} {
		old, p := newPool("a b"), newPool("a b")
		s := new(Selection)
		for range c.requests {
			s.Reset(95e9, 1)
			l, err := old.Acquire(s)
			if err != nil {
				t.Fatal(err)
			}
			l.Done(Outcome{Now: 95e9, Status: 200})
		}
		if c.requests > 0 { // they came after this one
			old.retry.last = retrySlot{at: 90e9, retries: 1}
		}
		for range c.retries {
			if !old.AllowRetry(99e9) {
				t.Fatal("refused")
			}
		}
		requests, retries := old.Retried(100e9)
		if requests < c.requests*98/100 || requests > c.requests || retries != c.retries {
			t.Errorf("%d requests and %d retries; it says %d and %d", c.requests, c.retries, requests, retries)
		}
		const now = 1e6 // of a process that has just begun
		p.InheritRetries(now, c.requests, c.retries)
		allowed := 0
		for range 1000 {
			if p.AllowRetry(now + c.after) {
				allowed++
			}
		}
		if d := allowed - c.allowed; d < -1 || d > 1 {
			t.Errorf("%d requests, %d retries, after %v s: %d allowed, want %d", c.requests, c.retries, c.after/1e9, allowed, c.allowed)
		}
	}
}

// TestBudgetHolds: whatever the load, retries in the last 10 s stay below a fifth of all requests so far and what is
// free, and something is always free after a calm.
func TestBudgetHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r budget
		var granted []int64
		now, total := int64(0), uint64(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += rapid.Int64Range(0, 4e9).Draw(t, "dt")
			total += rapid.Uint64Range(0, 30).Draw(t, "requests")
			if r.allow(now, total, .2, retryFree) {
				granted = append(granted, now)
			}
			n := 0
			for _, at := range granted {
				if at > now-9e9 {
					n++
				}
			}
			if float64(n) > .2*float64(total)+4 {
				t.Fatalf("%d retries within 9 s, of %d requests in all", n, total)
			}
		}
		if !r.allow(now+20e9, total, .2, retryFree) {
			t.Fatal("refused after a calm")
		}
	})
}

func TestAllowRetry(t *testing.T) {
	p := newPool("a b")
	s := new(Selection)
	ask := func(n int) (allowed int) {
		for range n {
			if p.AllowRetry(5e9) {
				allowed++
			}
		}
		return allowed
	}
	for range 100 {
		s.Reset(1e9, 1)
		for range 2 { // the second is a retry, and no reason for more
			l := acquire(t, p, s)
			l.Done(Outcome{Fault: FaultReset})
		}
	}
	p.Update(specs("b c"), nil, nil) // what a had counts still
	if got := ask(50); got != 23 {
		t.Errorf("%d allowed of 100 requests, want 23", got)
	}
	if n := p.RetriesRefused(); n != 27 {
		t.Errorf("%d refused, want 27", n)
	}
}

// TestBegunWhileCounted: a backend that only retries go to has begun none, at whatever moment one looks.
func TestBegunWhileCounted(t *testing.T) {
	p := newPool("a")
	a := backend(t, p, "a")
	var enough atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !enough.Load() {
			a.Stats(0).Picks.Inc()
			a.Stats(0).Retries.Inc()
		}
	}()
	for a.Stats(0).Picks.Load() == 0 {
		runtime.Gosched() // until it counts
	}
	for range 100_000 {
		if n := a.begun(); n > 1 { // a pick is counted before it is known to be a retry
			t.Errorf("%d requests have begun", n)
			break
		}
	}
	enough.Store(true)
	<-done
}
