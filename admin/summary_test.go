package admin

import (
	"testing"

	"lb/upstream"
	"lb/upstream/upstreamtest"
)

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		b       Backend
		full    bool
		waiting int64
		want    string
	}{
		{Backend{State: Ready}, false, 0, "idle"},
		{Backend{State: Ready, Limit: 2}, false, 0, "idle"},
		{Backend{State: Ready, Inflight: 1}, false, 3, "1 in work"},
		{Backend{State: Ready, Inflight: 1, Limit: 2}, false, 3, "1 of 2 in work"},
		{Backend{State: Ready, Inflight: 2, Limit: 2}, true, 3, "2 of 2 in work, 3 waiting in lb"},
		{Backend{State: Ready, Inflight: 2, Limit: 2}, true, 0, "2 of 2 in work"},
		{Backend{State: Ready, Inflight: 3, Limit: 2}, true, 30, "3 of 3 in work, 30 waiting in lb"}, // a deep queue allows one more
		{Backend{State: Ready, Inflight: 7, Parked: 5, Limit: 2}, true, 1, "2 of 2 in work, 1 waiting in lb, 5 parked"},
		{Backend{State: Ready, Inflight: 5, Parked: 5, Tunnels: 1}, false, 0, "idle, 5 parked, 1 tunnel"},
		{Backend{State: Draining, Inflight: 2, Limit: 2, Tunnels: 4}, true, 1, "2 in work, 4 tunnels"},
		{Backend{State: Down}, false, 0, ""},
		{Backend{State: Ready, Inflight: 1, Slow: 1.29, Excess: .009}, false, 0, "1 in work"},
		{Backend{State: Ready, Inflight: 1, Slow: 1.3, Excess: .01}, false, 0, "1 in work, takes 1.3 times as long as the mean, fails 1 % more than the mean"},
	} {
		if got := summary(&c.b, c.full, c.waiting); got != c.want {
			t.Errorf("%+v, full %t, %d waiting: %q, want %q", c.b, c.full, c.waiting, got, c.want)
		}
	}
	for _, c := range []struct {
		p      Pool
		inWork int64
		want   string
	}{
		{Pool{}, 0, "idle"},
		{Pool{Queue: Queue{Waiting: 3}}, 8, "8 in work, 3 waiting in lb"},
		{Pool{FailOpen: true}, 1, "1 in work, nobody is well: requests go to whoever is not known to be dead"},
	} {
		if got := poolSummary(&c.p, c.inWork); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// judge is a strategy with an opinion.
type judge struct {
	upstreamtest.InOrder
	says upstream.Opinion
}

func (j judge) Judge(*upstream.Backend) upstream.Opinion                       { return j.says }
func (j judge) Room(int64, int64, *upstream.Selection) (n int64, limited bool) { return 1, true }

// TestOpinion: what a strategy thinks arrives, and max_inflight where that is less.
func TestOpinion(t *testing.T) {
	for _, c := range []struct {
		says, want upstream.Opinion
		most       int64
		queue      int
		limited    bool
	}{
		{upstream.Opinion{Limit: 2, Slow: 1.5, Excess: .25}, upstream.Opinion{Limit: 2, Slow: 1.5, Excess: .25}, 0, 0, true},
		{upstream.Opinion{Limit: 2}, upstream.Opinion{Limit: 2}, 5, 0, true},
		{upstream.Opinion{Limit: 9}, upstream.Opinion{Limit: 5}, 5, 0, true},
		{upstream.Opinion{}, upstream.Opinion{Limit: 5}, 5, 0, true},
		{upstream.Opinion{}, upstream.Opinion{}, 0, 0, false},
		{upstream.Opinion{Limit: 2}, upstream.Opinion{}, 0, -1, false}, // nothing may wait
	} {
		set := upstream.DefaultSettings()
		set.QueueLen = c.queue
		specs := []upstream.Spec{{Name: "a", Weight: 1, MaxInflight: c.most}}
		p := upstream.NewPool("app", 1, specs, set, func(r []*upstream.Backend) upstream.Strategy { return judge{upstreamtest.InOrder(r), c.says} })
		st := PoolStatus(p, "judge")
		b := st.Backends[0]
		if got := (upstream.Opinion{Limit: b.Limit, Slow: b.Slow, Excess: b.Excess}); got != c.want || st.Limited != c.limited {
			t.Errorf("%+v with max_inflight %d: got %+v, limited %t; want %+v, %t", c.says, c.most, got, st.Limited, c.want, c.limited)
		}
	}
}
