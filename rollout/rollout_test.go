package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lb/admin"
)

func TestOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := playOf(3)
		p.totals = admin.RolloutTotals{Requests: 48211}
		res := p.run(t)
		if res.Ending != Finished || res.Err != nil || !slices.Equal(res.Done, []string{a, b, c}) || len(res.Rest) > 0 {
			t.Errorf("%+v", res)
		}
		// 1 s to be empty, 3 s the command, 2 s to be well, 10 s to warm up.
		if res.Took != 3*16*time.Second {
			t.Errorf("took %v", res.Took)
		}
		var want []string
		for _, name := range []string{a, b, c} {
			for _, verb := range []string{"drain", "restart", "check", "ready"} {
				want = append(want, verb+" "+name)
			}
		}
		if !slices.Equal(p.calls, want) {
			t.Errorf("%v", p.calls)
		}
		if p.least != 2 || p.mostOut != 1 {
			t.Errorf("%d were ready, %d out", p.least, p.mostOut)
		}
		if got := res.Proof.String(); got != "48,211 requests during the rollout, 0 failed, 9 WebSockets moved" {
			t.Error(got)
		}
		if got := p.events[:7]; !slices.Equal(got, []string{"draining " + a, "drained " + a, "restarting " + a, "restarted " + a, "passed " + a, "back " + a, "warm " + a}) {
			t.Errorf("%v", got)
		}
	})
}

func TestSeveralAtOnce(t *testing.T) {
	for _, c := range []struct {
		n      int
		amount Amount
		most   int
		took   time.Duration // in units of one step
	}{
		{4, Amount{N: 2}, 2, 2}, {4, Amount{Percent: 25}, 1, 4}, {4, Amount{Percent: 50}, 2, 2}, {4, Amount{Percent: 74}, 2, 2}, {4, Amount{Percent: 75}, 3, 2},
		{4, Amount{N: 9}, 3, 2}, {4, Amount{Percent: 100}, 3, 2}, {3, Amount{Percent: 1}, 1, 3}, {2, Amount{N: 2}, 1, 2},
	} {
		t.Run(fmt.Sprint(c.n, c.amount), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := playOf(c.n)
				p.opt.AtOnce = c.amount
				res := p.run(t)
				if res.Ending != Finished || p.mostOut != c.most || p.least != c.n-c.most || len(res.Done) != c.n {
					t.Errorf("%+v: %d out, %d ready", res, p.mostOut, p.least)
				}
				if res.Took != c.took*16*time.Second {
					t.Errorf("took %v", res.Took)
				}
			})
		})
	}
}

// TestBad holds that the first bad instance ends a rollout, whatever is bad about it, and stays out.
func TestBad(t *testing.T) {
	failing := func(err error) Command { return func(context.Context, Target, func(string)) error { return err } }
	for _, c := range []struct {
		name  string
		set   func(p *play)
		why   string
		done  int           // that were restarted before
		after time.Duration // 0: does not matter
	}{
		{"command fails", func(p *play) { p.command = failing(errors.New("exit status 3")) }, "its command failed: exit status 3", 0, time.Second},
		{"command hangs", func(p *play) {
			p.command = func(ctx context.Context, _ Target, _ func(string)) error {
				<-ctx.Done()
				return ctx.Err()
			}
		}, "its command was not done after 2m0s, and was killed", 0, 121 * time.Second},
		{"same process", func(p *play) { p.backends[0].checked = admin.RolloutChecked{Same: true} },
			"1m0s after the command the process from before still listens there, so it was not restarted. If the command is not meant to, say --in-place", 0, 64 * time.Second},
		{"does not listen", func(p *play) { p.backends[1].checked = admin.RolloutChecked{Said: "connection refused"} },
			"it does not listen 1m0s after the command (connection refused)", 1, 0},
		{"does not pass", func(p *play) {
			p.backends[2].checked = admin.RolloutChecked{Listen: time.Second, Said: "status 500"}
		}, "it does not pass its checks 1m0s after the command (status 500)", 2, 0},
		{"goes down in its warm-up", func(p *play) { p.backends[0].sick = 4 * time.Second }, "soon after its restart it is down (connection refused)", 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := playOf(3)
				c.set(p)
				res := p.run(t)
				bad := p.backends[c.done]
				if res.Ending != FoundBad || !slices.Equal(res.Bad, []string{bad.Name}) || len(res.Done) != c.done || len(res.Rest) != 2-c.done || len(res.Left) > 0 {
					t.Errorf("%+v", res)
				}
				if bad.Out != admin.OutBad || bad.State != admin.Draining || bad.Why != c.why {
					t.Errorf("%+v", bad.RolloutBackend)
				}
				for _, b := range p.backends {
					if b != bad && b.State != admin.Ready {
						t.Errorf("%s is %s", b.Name, b.State)
					}
				}
				if c.after > 0 && res.Took != c.after {
					t.Errorf("took %v", res.Took)
				}
			})
		})
	}
}

// TestBadAmongSeveral holds that others which are being restarted are seen through, and those that were only taken out
// put back.
func TestBadAmongSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := playOf(4)
		p.opt.AtOnce = Amount{N: 3}
		p.backends[2].busy = 20 * time.Second
		restart := p.command
		p.command = func(ctx context.Context, t Target, out func(string)) error {
			if t.Name == a {
				time.Sleep(time.Second)
				return errors.New("exit status 1")
			}
			return restart(ctx, t, out)
		}
		res := p.run(t)
		if res.Ending != FoundBad || !slices.Equal(res.Bad, []string{a}) || !slices.Equal(res.Done, []string{b}) || len(res.Rest) != 2 || res.Took > 17*time.Second {
			t.Errorf("%+v", res)
		}
		for i, want := range []admin.State{admin.Draining, admin.Ready, admin.Ready, admin.Ready} {
			if p.backends[i].State != want {
				t.Errorf("%s is %s", p.backends[i].Name, p.backends[i].State)
			}
		}
		if p.backends[2].fresh || p.backends[3].fresh || slices.Contains(p.calls, "restart "+c) {
			t.Errorf("restarted after the bad one: %v", p.calls)
		}
	})
}

func TestInterrupted(t *testing.T) {
	for _, c := range []struct {
		name  string
		at    string // the event
		later time.Duration
		twice bool
		want  Ending
		done  []string
		left  []string
		put   bool // the instance was put back as it was
	}{
		{"while it drains", "draining " + b, 500 * time.Millisecond, false, Interrupted, []string{a}, nil, true},
		{"while its command runs", "restarting " + b, time.Second, false, Interrupted, []string{a, b}, nil, false},
		{"while it is checked", "restarted " + b, time.Second, false, Interrupted, []string{a, b}, nil, false},
		{"while it warms up", "back " + b, time.Second, false, Interrupted, []string{a, b}, nil, false},
		{"at the last step", "restarting " + c3, time.Second, false, Finished, []string{a, b, c3}, nil, false},
		{"twice while it drains", "draining " + b, 500 * time.Millisecond, true, Aborted, []string{a}, nil, false},
		{"twice while its command runs", "restarting " + b, time.Second, true, Aborted, []string{a}, []string{b}, false},
		{"twice while it is checked", "restarted " + b, time.Second, true, Aborted, []string{a}, []string{b}, false},
		{"twice while it warms up", "back " + b, time.Second, true, Aborted, []string{a, b}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := playOf(3)
				p.on[c.at] = after(c.later, func() {
					close(p.stop)
					if c.twice {
						p.abort()
					}
				})
				res := p.run(t)
				if res.Ending != c.want || !slices.Equal(res.Done, c.done) || !slices.Equal(res.Left, c.left) || len(res.Bad) > 0 {
					t.Errorf("%+v", res)
				}
				if got := slices.Contains(p.calls, "ready "+b) && !p.backends[1].fresh; got != c.put {
					t.Errorf("put back as it was: %t; %v", got, p.calls)
				}
				if !c.twice {
					for _, b := range p.backends {
						if b.State != admin.Ready {
							t.Errorf("%s is %s", b.Name, b.State)
						}
					}
				}
			})
		})
	}
}

const c3 = c // in tables whose row is called c

// TestOthersAway holds that capacity that others lose is not taken away once more.
func TestOthersAway(t *testing.T) {
	down := func(p *play, i int) {
		p.set(i, func(b *fakeBackend) { b.State, b.Why = admin.Down, "connection refused" })
	}
	up := func(p *play, i int) { p.set(i, func(b *fakeBackend) { b.State, b.Why = admin.Ready, "" }) }
	t.Run("between steps", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := playOf(3)
			p.on["back "+a] = func() { down(p, 2) }
			p.on["paused "+b] = after(7*time.Second, func() { up(p, 2) })
			if res := p.run(t); res.Ending != Finished || p.least != 2 {
				t.Errorf("%+v, %d were ready", res, p.least)
			}
			if !slices.Contains(p.events, "resumed "+b) {
				t.Errorf("%v", p.events)
			}
		})
	})
	t.Run("while one drains", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := playOf(3)
			p.backends[1].busy = 10 * time.Second
			p.on["draining "+b] = after(time.Second, func() { down(p, 2) })
			p.on["paused "+b] = after(7*time.Second, func() { up(p, 2) })
			res := p.run(t)
			if res.Ending != Finished || len(res.Done) != 3 {
				t.Errorf("%+v", res)
			}
			i := slices.Index(p.events, "put back "+b)
			if i < 0 || !slices.Equal(p.events[i-1:i+4], []string{"draining " + b, "put back " + b, "paused " + b, "resumed " + b, "draining " + b}) {
				t.Errorf("%v", p.events)
			}
		})
	})
	t.Run("for good", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := playOf(3)
			p.on["warm "+a] = func() { down(p, 2) }
			res := p.run(t)
			if res.Ending != Failed || !strings.Contains(res.Err.Error(), b+" was not taken out: after 1m0s, "+c+" is down (connection refused)") || !slices.Equal(res.Done, []string{a}) {
				t.Errorf("%+v", res)
			}
			if p.backends[1].State != admin.Ready || p.least != 2 {
				t.Errorf("%s is %s; %d were ready", b, p.backends[1].State, p.least)
			}
		})
	})
	t.Run("and there is room for it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := playOf(4)
			p.opt.AtOnce = Amount{N: 2}
			p.on["back "+a] = func() { down(p, 3) }
			p.on["restarting "+c] = func() { up(p, 3) }
			if res := p.run(t); res.Ending != Finished || p.least != 2 { // one is restarted while one is away
				t.Errorf("%+v, %d were ready", res, p.least)
			}
		})
	})
	t.Run("and so is the one whose turn it is", func(t *testing.T) { // to restart it costs nothing
		synctest.Test(t, func(t *testing.T) {
			p := playOf(4)
			p.on["back "+a] = func() {
				p.set(1, func(b *fakeBackend) { b.State = admin.Ejected })
				down(p, 2)
			}
			if res := p.run(t); res.Ending != Finished || slices.Contains(p.events, "paused "+b) || slices.Contains(p.events, "paused "+c) {
				t.Errorf("%+v %v", res, p.events)
			}
		})
	})
	t.Run("told so by somebody else", func(t *testing.T) { // which --force puts up with
		synctest.Test(t, func(t *testing.T) {
			p := playOf(3)
			p.opt.Force = true
			p.backends[2].State, p.backends[2].Out = admin.Draining, admin.OutOther
			if res := p.run(t); res.Ending != Finished || !slices.Equal(res.Done, []string{a, b}) || slices.Contains(p.calls, "drain "+c) {
				t.Errorf("%+v %v", res, p.calls)
			}
		})
	})
	t.Run("for a moment", func(t *testing.T) { // it is looked at more often in the first second
		took := func(away time.Duration) (d time.Duration) {
			synctest.Test(t, func(t *testing.T) {
				p := playOf(3)
				if away > 0 {
					p.on["warm "+a] = func() {
						down(p, 2)
						after(away, func() { up(p, 2) })()
					}
				}
				res := p.run(t)
				if res.Ending != Finished {
					t.Errorf("%+v", res)
				}
				d = res.Took
			})
			return d
		}
		base := took(0)
		for away, want := range map[time.Duration]time.Duration{
			250 * time.Millisecond: 300 * time.Millisecond, 950 * time.Millisecond: time.Second, 1100 * time.Millisecond: 1500 * time.Millisecond,
		} {
			if got := took(away) - base; got != want {
				t.Errorf("away for %v: the rollout took %v more, want %v", away, got, want)
			}
		}
	})
	t.Run("the last", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := playOf(2)
			p.opt.Force = true
			p.backends[1].State = admin.Down // its turn comes first, and it does not become well
			p.backends[1].checked = admin.RolloutChecked{Said: "connection refused"}
			if res := p.run(t); res.Ending != FoundBad || !slices.Equal(res.Bad, []string{b}) || slices.Contains(p.calls, "drain "+a) {
				t.Errorf("%+v %v", res, p.calls)
			}
		})
	})
}

// TestLBGoes holds that nothing goes on without lb, and that the words say so.
func TestLBGoes(t *testing.T) {
	for _, at := range []string{"draining " + b, "restarting " + b, "restarted " + b, "back " + b} {
		synctest.Test(t, func(t *testing.T) {
			p := playOf(3)
			p.on[at] = func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.gone = true
			}
			res := p.run(t)
			if res.Ending != Failed || !errors.Is(res.Err, ErrGone) || slices.Contains(p.calls, "drain "+c) {
				t.Errorf("%s: %+v", at, res)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // it comes back as another one, and the rollout with it
		p := playOf(2)
		p.totals = admin.RolloutTotals{Requests: 100, Failed: map[string]uint64{"no_backend": 1}}
		p.on["restarted "+a] = after(1500*time.Millisecond, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.id, p.totals = "two", admin.RolloutTotals{Requests: 11, Errors: 2, Failed: map[string]uint64{"no_backend": 1, "backend_cut": 1}}
		})
		res := p.run(t)
		want := "111 requests during the rollout, 3 failed (1 backend_cut, 2 no_backend), 6 WebSockets moved; the app itself answered 2 with 5xx; lb was restarted meanwhile, and what it counted in its last second is missing"
		if got := res.Proof.String(); res.Ending != Finished || got != want {
			t.Errorf("%+v\n%s", res, got)
		}
	})
}

// TestReloads holds that what a reload does to a backend whose turn is yet to come ends the rollout in words.
func TestReloads(t *testing.T) {
	for name, change := range map[string]func(p *play){
		"127.0.0.1:3001: not known: a reload took it out of pool app":             func(p *play) { p.backends = slices.Delete(p.backends, 1, 2) },
		"127.0.0.1:3001: a reload moved it from 127.0.0.1:3001 to 127.0.0.1:4001": func(p *play) { p.backends[1].Address = "127.0.0.1:4001" },
	} {
		synctest.Test(t, func(t *testing.T) {
			p := playOf(3)
			p.on["back "+a] = func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				change(p)
			}
			if res := p.run(t); res.Ending != Failed || res.Err.Error() != name || len(res.Done) != 1 {
				t.Errorf("%+v", res)
			}
		})
	}
}

// TestWaitIsTold: while one drains, people are told how much there is left.
func TestWaitIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := playOf(2)
		p.backends[0].Inflight, p.backends[0].Tunnels, p.backends[0].busy = 3, 2, 10*time.Second
		p.run(t)
		n := 0
		for _, e := range p.waits {
			if e.Name == a {
				n++
				if e.Requests != 3 || e.Tunnels != 2 {
					t.Errorf("%+v", e)
				}
			}
		}
		if n < 9 {
			t.Errorf("told %d times in 10 s", n)
		}
	})
}

func TestLeftovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // requests that outlast the wait meet the restart, and are counted
		p := playOf(2)
		p.backends[0].busy = time.Hour
		res := p.run(t)
		if res.Ending != Finished || res.Proof.Cut != 1 || res.Took != 31*time.Second+30*time.Second {
			t.Errorf("%+v", res)
		}
	})
	synctest.Test(t, func(t *testing.T) { // --in-place: the process may be the same
		p := playOf(2)
		p.opt.InPlace, p.opt.Warmup = true, -1
		if res := p.run(t); res.Ending != Finished || res.Took != 12*time.Second {
			t.Errorf("%+v", res)
		}
	})
}
