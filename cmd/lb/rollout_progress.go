package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"lb/admin"
	"lb/rollout"
)

// tellMost is how long lb may take to hear how a rollout goes.
const tellMost = 2 * time.Second

// rolloutTeller tells lb what it cannot know of a rollout, so that people see it on the live page. The rollout never waits
// for that, but for the last word, and whether lb hears it makes no difference to it.
type rolloutTeller struct {
	tell func(ctx context.Context, p admin.RolloutProgress)
	news chan struct{} // has room for one; closed at the end
	done chan struct{} // closed when nothing more is told

	mu sync.Mutex
	p  admin.RolloutProgress // guarded by mu
}

func newRolloutTeller(tell func(context.Context, admin.RolloutProgress)) *rolloutTeller {
	t := &rolloutTeller{tell: tell, news: make(chan struct{}, 1), done: make(chan struct{})}
	t.p.Done, t.p.Warming = []string{}, []string{}
	go func() {
		defer close(t.done)
		for range t.news {
			ctx, cancel := context.WithTimeout(context.Background(), tellMost)
			t.tell(ctx, t.progress())
			cancel()
		}
	}()
	return t
}

func (t *rolloutTeller) progress() admin.RolloutProgress {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.p
	p.Done, p.Warming = slices.Clone(p.Done), slices.Clone(p.Warming)
	return p
}

// again tells the same once more: the lb that knew it may be another by now.
func (t *rolloutTeller) again() {
	select {
	case t.news <- struct{}{}:
	default:
	}
}

// event takes from what happens what is to be told.
func (t *rolloutTeller) event(e rollout.Event) {
	without := func(names []string) []string {
		return slices.DeleteFunc(names, func(n string) bool { return n == e.Name })
	}
	t.mu.Lock()
	switch p := &t.p; e.Event {
	case rollout.Planned:
		p.Of = e.Of
	case rollout.Back:
		p.Warming = append(without(p.Warming), e.Name)
	case rollout.Warm:
		p.Warming, p.Done = without(p.Warming), append(without(p.Done), e.Name)
	case rollout.Bad, rollout.PutBack:
		p.Warming = without(p.Warming)
	case rollout.Paused:
		p.Waits = e.Why
	case rollout.Watching:
		p.Waits = fmt.Sprintf("the canary is compared with the others for %v", e.Took)
	case rollout.Resumed, rollout.Judged:
		p.Waits = ""
	default:
		t.mu.Unlock()
		return
	}
	t.mu.Unlock()
	t.again()
}

// end tells what came of it, and waits until lb has heard.
func (t *rolloutTeller) end(res *rollout.Result) {
	t.mu.Lock()
	t.p.Ending, t.p.Done, t.p.Warming, t.p.Waits = string(res.Ending), append([]string{}, res.Done...), []string{}, ""
	if res.Err != nil {
		t.p.Why = res.Err.Error()
	}
	t.mu.Unlock()
	t.again()
	close(t.news)
	<-t.done
}
