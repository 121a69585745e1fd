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

// TestRolloutTeller tells a rollout, event by event. Whoever hears is slower than it, and misses nothing that counts.
func TestRolloutTeller(t *testing.T) {
	var last admin.RolloutProgress
	hear := make(chan struct{}, 100)
	teller := newRolloutTeller(func(_ context.Context, p admin.RolloutProgress) {
		last = p
		hear <- struct{}{}
	})
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
	teller.event(of("b", rollout.Output))
	teller.end(&rollout.Result{Ending: rollout.FoundBad, Done: []string{"a"}, Err: errors.New("b is bad: x")})
	if len(hear) != 1 || last.Ending != "bad" || last.Why != "b is bad: x" || last.Of != 3 {
		t.Errorf("%d more, the last %+v", len(hear), last)
	}
}
