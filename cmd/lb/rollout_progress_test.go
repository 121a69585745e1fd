package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"lb/admin"
	"lb/rollout"
)

// TestRolloutTeller tells a rollout, event by event. Whoever hears may be slower than it, and misses nothing that counts.
func TestRolloutTeller(t *testing.T) {
	var last admin.RolloutProgress
	hear := make(chan struct{})
	tell := func(_ context.Context, p admin.RolloutProgress) {
		last = p
		hear <- struct{}{}
	}
	teller := newRolloutTeller(tell)
	of := func(name, event string) rollout.Event {
		return rollout.Event{Event: event, Target: rollout.Target{Name: name}, Of: 3, Why: "c is down", Took: time.Minute}
	}
	for _, c := range []struct {
		event rollout.Event
		want  string
	}{
		{of("", rollout.Planned), "3 [] [] "},
		{of("a", rollout.Back), "3 [] [a] "},
		{of("a", rollout.Warm), "3 [a] [] "},
		{of("", rollout.Watching), "3 [a] [] the canary is compared with the others for 1m0s"},
		{of("", rollout.Judged), "3 [a] [] "},
		{of("b", rollout.Paused), "3 [a] [] c is down"},
		{of("b", rollout.Resumed), "3 [a] [] "},
		{of("b", rollout.Back), "3 [a] [b] "},
		{of("b", rollout.Bad), "3 [a] [] "},
	} {
		teller.event(c.event)
		<-hear
		if got := fmt.Sprintf("%d %v %v %s", last.Of, last.Done, last.Warming, last.Waits); got != c.want {
			t.Errorf("after %s: %q, want %q", c.event.Event, got, c.want)
		}
	}
	// ends gives how often it tells from here on, to somebody who has not listened for a while.
	ends := func() (told int) {
		over := make(chan struct{})
		go func() {
			teller.end(&rollout.Result{Ending: rollout.FoundBad, Done: []string{"a"}, Err: errors.New("b is bad: x")})
			close(over)
		}()
		for {
			select {
			case <-hear:
				told++
			case <-over:
				return told
			}
		}
	}
	teller.event(of("b", rollout.Output))
	if told := ends(); told != 1 || last.Ending != "bad" || last.Why != "b is bad: x" || last.Of != 3 {
		t.Errorf("told %d times, the last %+v", told, last)
	}

	teller = newRolloutTeller(tell)
	for range 100 {
		teller.event(of("b", rollout.Paused))
		teller.event(of("b", rollout.Resumed))
	}
	// One that is under way, one that waits, and the end, which the second may tell already.
	if told := ends(); told > 3 || last.Ending != "bad" {
		t.Errorf("told %d times, the last %+v", told, last)
	}
}
