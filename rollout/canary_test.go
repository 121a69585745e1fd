package rollout

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lb/admin"
)

func TestCanary(t *testing.T) {
	canary := func(t *testing.T, set func(p *play)) (*play, Result) {
		p := playOf(4)
		p.opt.Canary, p.opt.Warmup = 1, time.Second
		set(p)
		return p, p.run(t)
	}
	synctest.Test(t, func(t *testing.T) {
		p, res := canary(t, func(*play) {})
		if res.Ending != Finished || res.Took != 4*7*time.Second+time.Minute {
			t.Errorf("%+v", res)
		}
		if i := slices.Index(p.events, "watching"); i < 0 || p.events[i+1] != "judged "+a || p.events[i+2] != "draining "+b {
			t.Errorf("%v", p.events)
		}
	})
	synctest.Test(t, func(t *testing.T) { // errors end it at once
		p, res := canary(t, func(p *play) { p.backends[0].errors = 2 })
		want := a + " is bad: worse than the others: 2.0 % errors"
		if res.Ending != FoundBad || !strings.HasPrefix(res.Err.Error(), want) || !slices.Equal(res.Rest, []string{b, c, "127.0.0.1:3003"}) || res.Took > 20*time.Second {
			t.Errorf("%+v", res)
		}
		if p.backends[0].Out != admin.OutBad || p.backends[0].State != admin.Draining || len(res.Done) > 0 {
			t.Errorf("%+v", p.backends[0].RolloutBackend)
		}
	})
	synctest.Test(t, func(t *testing.T) { // times are compared at the end
		_, res := canary(t, func(p *play) { p.backends[0].late = 20 * time.Millisecond })
		if res.Ending != FoundBad || !strings.Contains(res.Err.Error(), "p95 30ms, the others 10ms: 200 % more, and the rule allows 50 % (and 10ms in any case)") || res.Took < time.Minute {
			t.Errorf("%+v", res)
		}
	})
	synctest.Test(t, func(t *testing.T) { // too few requests: three times as long, and then it goes on
		_, res := canary(t, func(p *play) {
			p.opt.Watch = 10 * time.Second
			for _, b := range p.backends {
				b.rate = 1
				b.late = time.Second
			}
		})
		if res.Ending != Finished || res.Took != 4*7*time.Second+30*time.Second {
			t.Errorf("%+v", res)
		}
	})
	synctest.Test(t, func(t *testing.T) { // it goes down while it is watched
		p, res := canary(t, func(p *play) { p.backends[0].sick = 20 * time.Second })
		if res.Ending != FoundBad || p.backends[0].Out != admin.OutBad || !strings.Contains(res.Err.Error(), "is down") {
			t.Errorf("%+v", res)
		}
	})
	synctest.Test(t, func(t *testing.T) { // interrupted while it is watched
		p, res := canary(t, func(p *play) { p.on["watching"] = after(5*time.Second, func() { close(p.stop) }) })
		if res.Ending != Interrupted || p.backends[0].State != admin.Ready || !slices.Equal(res.Done, []string{a}) {
			t.Errorf("%+v", res)
		}
	})
	synctest.Test(t, func(t *testing.T) { // lb counts anew: so does the watch
		_, res := canary(t, func(p *play) {
			p.on["watching"] = after(30*time.Second, func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.id = "two"
			})
		})
		if res.Ending != Finished || res.Took < 4*7*time.Second+90*time.Second {
			t.Errorf("%+v", res)
		}
	})
	synctest.Test(t, func(t *testing.T) { // two canaries
		p, res := canary(t, func(p *play) {
			p.opt.Canary = 2
			p.backends[1].errors = 50
		})
		if res.Ending != FoundBad || !slices.Equal(res.Bad, []string{a, b}) || p.backends[2].fresh {
			t.Errorf("%+v", res)
		}
	})
}
