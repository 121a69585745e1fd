package strategy_test

import (
	"math"
	"testing"
	"time"

	"lb/strategy"
	"lb/upstream"
)

// ramped is a pool in which b0 came back at the client's next request.
func ramped(tb testing.TB, name string, weights ...int) *upstream.Pool {
	p := pool(tb, name, 1, weights...)
	set := *p.Snapshot().Settings
	set.SlowStart = 100 * time.Second // long against the time of a test's requests
	p.Update(specs(weights...), &set, nil)
	for _, b := range p.Snapshot().All {
		p.SetProbed(b, upstream.Up)
	}
	p.SetProbed(p.Snapshot().All[0], upstream.Down)
	p.SetProbed(p.Snapshot().All[0], upstream.Up)
	return p
}

// TestSlowStart checks each strategy's share for a backend that came back, at several moments of its ramp.
func TestSlowStart(t *testing.T) {
	const n = 20_000
	for _, name := range strategy.Names() {
		for _, weights := range [][]int{{1, 1, 1, 1}, {3, 2, 1, 6}} {
			for _, hold := range []int{1, 24} {
				if hold > 1 && (name == "ewma" || name == "adaptive") {
					continue // the client answers in order, whoever has it: latency says nothing there
				}
				p := ramped(t, name, weights...)
				c := newClient(p, 0, hold)
				c.keys = name == "hash"
				c.do(t, 1) // the ramp begins
				for _, at := range []float64{.1, .3, .6, 1} {
					c.end() // nothing is in flight over the jump in time
					c.open = nil
					begin := (at - .1) / .9 * 100e9
					c.now = 1e12 + 1e6 + int64(begin)
					c.sent = map[string]int{}
					c.step = 1000
					c.do(t, n)
					fair := float64(weights[0]) / float64(weights[0]+weights[1]+weights[2]+weights[3])
					// Against the rest, which have their whole weight.
					want := fair * at / (1 - fair + fair*at)
					low, high := .7*want, 1.4*want
					if hold > 1 || name == "p2c" { // by load
						low, high = .4*want, 3*want
					}
					if got := float64(c.sent["b0"]) / n; got < low || got > high {
						t.Errorf("%s %v, %d in flight, at %.0f %%: share %.4f, want %.4f", name, weights, hold, at*100, got, want)
					}
				}
				c.end()
				c.sel.Reset(c.now+2e12, 0)
				l, err := p.Acquire(&c.sel)
				if err != nil {
					t.Fatal(err)
				}
				l.Done(upstream.Outcome{})
				if share := p.Snapshot().All[0].Share(c.now + 2e12); share != 1 {
					t.Errorf("%s: share %v in the end", name, share)
				}
			}
		}
	}
}

// TestSlowStartMovesKeysOnce: while a backend ramps, a key moves to it at most once, and to nobody else.
func TestSlowStartMovesKeysOnce(t *testing.T) {
	p := ramped(t, "hash", 1, 1, 1)
	s := new(upstream.Selection)
	was := map[uint64]string{}
	for at := int64(0); at <= 110; at += 5 {
		for k := range uint64(1000) {
			s.Reset(1e12+at*1e9, 0)
			s.Key, s.HasKey = upstream.KeyOf([]byte{byte(k), byte(k >> 8)}), true
			l, err := p.Acquire(s)
			if err != nil {
				t.Fatal(err)
			}
			name := l.Backend().Name
			if before := was[k]; before != "" && before != name && name != "b0" {
				t.Fatalf("at %d s: key %d moved from %s to %s", at, k, before, name)
			}
			was[k] = name
			l.Done(upstream.Outcome{})
		}
	}
	n := 0
	for _, name := range was {
		if name == "b0" {
			n++
		}
	}
	if math.Abs(float64(n)-333) > 60 {
		t.Errorf("b0 has %d of 1000 keys in the end", n)
	}
}

// TestSlowStartTogether: all come back after an outage, the first a little before the others. They share the load as
// ever, whoever was first.
func TestSlowStartTogether(t *testing.T) {
	for _, name := range strategy.Names() {
		for _, hold := range []int{1, 24} {
			if hold > 1 && (name == "ewma" || name == "adaptive") {
				continue // as above
			}
			p := pool(t, name, 1, ones(4)...)
			set := *p.Snapshot().Settings
			set.SlowStart = 100 * time.Second
			p.Update(specs(ones(4)...), &set, nil)
			for _, b := range p.Snapshot().All {
				p.SetProbed(b, upstream.Down)
			}
			c := newClient(p, 0, hold)
			c.keys = name == "hash"
			c.step = 1000
			p.SetProbed(p.Snapshot().All[0], upstream.Up)
			c.do(t, 100)
			c.now += 200e6
			for _, b := range p.Snapshot().All[1:] {
				p.SetProbed(b, upstream.Up)
			}
			c.sent = map[string]int{}
			const n = 10_000
			c.do(t, n)
			c.end()
			for name2, got := range c.sent {
				if got < n/4*8/10 || got > n/4*12/10 {
					t.Errorf("%s, %d in flight: %s got %d of %d", name, hold, name2, got, n)
				}
			}
		}
	}
}
