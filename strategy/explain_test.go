package strategy_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lb/strategy"
	"lb/upstream"
)

// explained is the decision of the next request.
func explained(t *testing.T, p *upstream.Pool, c *client) upstream.Decision {
	t.Helper()
	var all []upstream.Decision
	stop := p.Record(0, func(d upstream.Decision) { all = append(all, d) })
	defer stop()
	c.do(t, 1)
	if len(all) != 1 {
		t.Fatalf("%d decisions of one request", len(all))
	}
	return all[0]
}

// TestAllExplain has each strategy say why it chose, in the words in which it chooses, and holds that it chose whom it says.
func TestAllExplain(t *testing.T) {
	for _, name := range strategy.Names() {
		t.Run(name, func(t *testing.T) {
			p := pool(t, name, 1, 1, 1, 2)
			if _, ok := build(t, name)(p.Snapshot().Ready).(upstream.Explainer); !ok {
				t.Fatal("does not explain itself")
			}
			c := newClient(p, 0, 7)
			for i := range 50 {
				c.keys = i%2 == 0
				before := map[string]int64{}
				for _, b := range p.Snapshot().All {
					before[b.Name] = b.Load().Active()
				}
				full := len(c.open) >= 7
				d := explained(t, p, c)
				got := c.open[len(c.open)-1].Backend().Name
				if d.Chosen != got || d.Why == "" || d.Attempt != 1 || d.Pool != p.Name || len(d.Candidates) != 3 {
					t.Fatalf("sent to %s: %+v", got, d)
				}
				for _, x := range d.Candidates {
					if x.Score == "" || x.Out != "" || x.Share != 1 {
						t.Errorf("%+v", x)
					}
					if !full && x.Load.Active() != before[x.Name] {
						t.Errorf("%s had %d in flight before the choice, the decision says %d", x.Name, before[x.Name], x.Load.Active())
					}
				}
				if i == 20 {
					t.Logf("%+v", d)
				}
			}
			c.end()
		})
	}
}

func build(t *testing.T, name string) upstream.Build {
	b, err := strategy.New(name, strategy.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestExplainWords: what is said of a choice is the reason of it.
func TestExplainWords(t *testing.T) {
	score := func(d upstream.Decision, name string) string {
		i := slices.IndexFunc(d.Candidates, func(c upstream.Candidate) bool { return c.Name == name })
		return d.Candidates[i].Score
	}
	t.Run("least_conn", func(t *testing.T) {
		p := pool(t, "least_conn", 1, 1, 2)
		c := newClient(p, 0, 100)
		if d := explained(t, p, c); d.Why != "all are idle: by turns" {
			t.Errorf("%+v", d)
		}
		c.do(t, 4)
		d := explained(t, p, c)
		for i, x := range d.Candidates {
			want := fmt.Sprintf("%d in flight of weight %d", x.Load.Active(), i+1)
			if x.Score != want {
				t.Errorf("%q, want %q", x.Score, want)
			}
		}
		if d.Why != "fewest in flight for its weight" {
			t.Errorf("%+v", d)
		}
		c.end()
	})
	t.Run("a retry", func(t *testing.T) {
		p := pool(t, "least_conn", 1, 1, 1, 1)
		var all []upstream.Decision
		defer p.Record(0, func(d upstream.Decision) { all = append(all, d) })()
		var s upstream.Selection
		s.Reset(1e12, 0)
		var leases []upstream.Lease
		for range 3 {
			l, err := p.Acquire(&s)
			if err != nil {
				t.Fatal(err)
			}
			leases = append(leases, l)
		}
		if _, err := p.Acquire(&s); err == nil {
			t.Fatal("a fourth")
		}
		for i, d := range all[:3] {
			tried := 0
			for _, x := range d.Candidates {
				if x.Out == "tried before" {
					tried++
				} else if x.Out != "" {
					t.Errorf("%+v", x)
				}
			}
			if d.Attempt != i+1 || tried != i {
				t.Errorf("attempt %d: %+v", i+1, d)
			}
		}
		if all[2].Why != "the only one that is left" || all[3].Chosen != "" || all[3].Why != "all backends have been tried" {
			t.Errorf("%+v", all)
		}
		for i := range leases {
			leases[i].Done(upstream.Outcome{Now: 1e12 + 1})
		}
	})
	t.Run("ewma", func(t *testing.T) {
		p := pool(t, "ewma", 1, 1, 1)
		c := newClient(p, 0, 2)
		if s := score(explained(t, p, c), p.Snapshot().All[0].Name); s != "not measured yet x (0+1)" {
			t.Error(s)
		}
		c.step = 3e6
		c.do(t, 300)
		if s := score(explained(t, p, c), p.Snapshot().All[0].Name); !regexp.MustCompile(`^[1-6](\.\d+)? ms x \([01]\+1`).MatchString(s) {
			t.Error(s)
		}
		c.end()
	})
	t.Run("hash", func(t *testing.T) {
		p := pool(t, "hash", 1, 1, 1, 1)
		c := newClient(p, 0, 1)
		if d := explained(t, p, c); !strings.HasPrefix(d.Why, "the request has no key: ") {
			t.Errorf("%+v", d)
		}
		c.keys = true
		d := explained(t, p, c)
		top := slices.MaxFunc(d.Candidates, func(a, b upstream.Candidate) int { return strings.Compare(a.Score, b.Score) })
		if top.Name != d.Chosen || !strings.HasPrefix(d.Why, "highest for key ") {
			t.Errorf("%+v", d)
		}
		c.end()
	})
	t.Run("p2c", func(t *testing.T) {
		p := pool(t, "p2c", 1, 1, 1, 1, 1)
		c := newClient(p, 0, 1)
		for range 100 {
			d := explained(t, p, c)
			drawn := 0
			for _, x := range d.Candidates {
				if !strings.HasPrefix(x.Score, "not drawn: ") {
					drawn++
				} else if x.Name == d.Chosen {
					t.Errorf("%+v", d)
				}
			}
			if drawn > 2 || drawn == 1 && d.Why != "drawn twice" {
				t.Errorf("%d drawn: %+v", drawn, d)
			}
		}
		c.end()
	})
	t.Run("slow start", func(t *testing.T) {
		set := upstream.DefaultSettings()
		set.SlowStart = 10 * time.Second
		specs := []upstream.Spec{{Name: "a", Weight: 1}}
		p := upstream.NewPool("app", 1, specs, set, build(t, "least_conn"))
		p.Update(append(specs, upstream.Spec{Name: "b", Weight: 1, Addr: upstream.Addr{Path: "/b"}}), nil, nil)
		c := newClient(p, 0, 3)
		warm := false
		for range 300 {
			d := explained(t, p, c)
			if d.Candidates[1].Share < 1 && !strings.Contains(d.Candidates[1].Score, "starts slowly with") {
				t.Errorf("%+v", d)
			}
			warm = warm || d.Chosen == "b" && strings.HasPrefix(d.Why, "it starts slowly")
		}
		if !warm {
			t.Error("nobody says that the one that starts gets its share by chance")
		}
		c.end()
	})
}
