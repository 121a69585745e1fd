package strategy_test

import (
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"lb/strategy"
	"lb/upstream"
)

const picks = 100_000

func TestNew(t *testing.T) {
	for _, name := range strategy.Names() {
		if b, err := strategy.New(name); b == nil || err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !slices.Contains(strategy.Names(), strategy.Default()) {
		t.Errorf("the default %s is not a strategy", strategy.Default())
	}
	_, err := strategy.New("least_con")
	want := `unknown strategy "least_con", want one of adaptive, ewma, hash, least_conn, p2c, random, round_robin`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// client asks on one loop and keeps a number of leases open; the oldest ends first.
type client struct {
	p    *upstream.Pool
	sel  upstream.Selection
	loop int
	now  int64
	open []upstream.Lease
	hold int
	keys bool
	step int64 // ns between requests
	sent map[string]int
}

func newClient(p *upstream.Pool, loop, hold int) *client {
	return &client{p: p, loop: loop, hold: hold, now: 1e12, step: 1e6, sent: map[string]int{}}
}

func (c *client) do(tb testing.TB, n int) {
	for range n {
		if len(c.open) >= max(1, c.hold) {
			c.open[0].Done(upstream.Outcome{Now: c.now, Latency: c.now - c.open[0].Start(), Status: 200})
			c.open = c.open[1:]
		}
		c.now += c.step
		c.sel.Reset(c.now, c.loop)
		if c.keys {
			c.sel.Key, c.sel.HasKey = upstream.KeyOf([]byte{byte(c.now), byte(c.now >> 8), byte(c.now >> 16), byte(c.now >> 24)}), true
		}
		l, err := c.p.Acquire(&c.sel)
		if err != nil {
			tb.Error(err)
			return
		}
		c.sent[l.Backend().Name]++
		c.open = append(c.open, l)
	}
}

func (c *client) end() {
	for i := range c.open {
		c.open[i].Done(upstream.Outcome{Now: c.now, Status: 200, Latency: 1})
	}
}

// TestShares checks how 10^5 requests are spread by weight, with one request at a time and with 24 in flight.
func TestShares(t *testing.T) {
	if race {
		t.Skip("one goroutine")
	}
	noise := 5 / math.Sqrt(picks/20) // of a backend with a twentieth of the requests, five standard deviations
	for _, c := range []struct {
		strategy string
		weights  []int
		hold     int
		keys     bool
		off      float64 // how far from its share a backend may be
	}{
		{"round_robin", ones(8), 1, false, .001},
		{"round_robin", []int{5, 1, 1}, 1, false, .001},
		{"round_robin", []int{1, 2, 3, 4, 10}, 24, false, .001},
		{"least_conn", ones(8), 1, false, .001},
		{"least_conn", ones(7), 24, false, .01},
		{"least_conn", []int{1, 2, 3, 4, 10}, 1, false, .001},
		{"least_conn", []int{1, 2, 3, 4, 10}, 40, false, .02},
		{"ewma", ones(8), 1, false, .01},
		{"ewma", ones(8), 24, false, .05},
		{"ewma", []int{1, 2, 3, 4, 10}, 1, false, .02},
		{"adaptive", ones(8), 1, false, .01},
		{"adaptive", ones(8), 24, false, .05},
		{"adaptive", []int{1, 2, 3, 4, 10}, 1, false, .02},
		{"p2c", ones(8), 1, false, noise},
		{"p2c", []int{1, 2, 3, 4, 10}, 40, false, .2}, // 1 of 20 in flight is all or nothing
		{"random", ones(8), 1, false, noise},
		{"random", []int{1, 2, 3, 4, 10}, 1, false, noise},
		{"hash", ones(8), 1, true, .05},
		{"hash", []int{1, 2, 3, 4, 10}, 1, true, .1},
		{"hash", ones(8), 1, false, .001}, // without a key, least_conn
	} {
		cl := newClient(pool(t, c.strategy, 1, c.weights...), 0, c.hold)
		cl.keys = c.keys
		cl.do(t, picks)
		sum := 0
		for _, w := range c.weights {
			sum += w
		}
		for i, b := range cl.p.Snapshot().All {
			want := float64(picks) * float64(c.weights[i]) / float64(sum)
			if got := float64(cl.sent[b.Name]); math.Abs(got/want-1) > c.off {
				t.Errorf("%s %v, %d in flight: %s got %v, want %v within %.1f %%", c.strategy, c.weights, c.hold, b.Name, got, want, c.off*100)
			}
		}
	}
}

// TestSharesOfLoops has four loops pick at once. What goes by load is uneven for a reason: a loop that the system
// stops for a while holds its leases meanwhile.
func TestSharesOfLoops(t *testing.T) {
	const loops = 4
	for name, off := range map[string]float64{"round_robin": 1.0001, "least_conn": 2, "ewma": 2, "adaptive": 2, "p2c": 2, "random": 1.05} {
		p := pool(t, name, loops, ones(8)...)
		var wg sync.WaitGroup
		for loop := range loops {
			wg.Go(func() {
				c := newClient(p, loop, 6)
				c.do(t, picks/loops)
				c.end()
			})
		}
		wg.Wait()
		most, sum := uint64(0), uint64(0)
		for _, b := range p.Snapshot().All {
			n := uint64(0)
			for loop := range loops {
				n += b.Stats(loop).Picks.Load()
			}
			most = max(most, n)
			sum += n
			if b.Load() != 0 {
				t.Errorf("%s: load %x left", name, b.Load())
			}
		}
		if sum != picks {
			t.Errorf("%s: %d picks counted, want %d", name, sum, picks)
		}
		if x := float64(most) * 8 / picks; x > off {
			t.Errorf("%s: max/mean %.4f, want at most %v", name, x, off)
		}
	}
}

// TestRoundRobinGoesOn: the cursor outlives snapshots, so frequent changes do not favour the first.
func TestRoundRobinGoesOn(t *testing.T) {
	p := pool(t, "round_robin", 1, 1, 1, 1)
	c := newClient(p, 0, 1)
	for range 300 {
		c.do(t, 1)
		build, err := strategy.New("round_robin")
		if err != nil {
			t.Fatal(err)
		}
		p.Update(specs(1, 1, 1), nil, build)
	}
	for name, n := range c.sent {
		if n != 100 {
			t.Errorf("%s got %d of 300", name, n)
		}
	}
}

// TestRoundRobinRetries: the share of a backend that always fails is spread over all others, not on its neighbour.
func TestRoundRobinRetries(t *testing.T) {
	p := pool(t, "round_robin", 1, ones(4)...)
	s := new(upstream.Selection)
	served := map[string]int{}
	for i := range int64(3000) {
		s.Reset(i, 0)
		for {
			l, err := p.Acquire(s)
			if err != nil {
				t.Fatal(err)
			}
			name := l.Backend().Name
			if name != "b1" {
				l.Done(upstream.Outcome{Now: i, Status: 200, Latency: 1})
				served[name]++
				break
			}
			l.Done(upstream.Outcome{Now: i, Fault: upstream.FaultConnect})
		}
	}
	for name, n := range served {
		if n < 990 || n > 1010 {
			t.Errorf("%s served %d of 3000, want 1000", name, n)
		}
	}
}

// TestEachOnce holds for every strategy, weight and kind of request: attempts of one exchange go to each backend once,
// then nobody is left.
func TestEachOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(strategy.Names()).Draw(t, "strategy")
		weights := rapid.SliceOfN(rapid.IntRange(0, 5), 1, 12).Draw(t, "weights")
		build, _ := strategy.New(name, strategy.Options{Seed: rapid.Uint64().Draw(t, "seed")})
		p := upstream.NewPool("app", 2, specs(weights...), nil, build)
		s := new(upstream.Selection)
		for range rapid.IntRange(1, 3).Draw(t, "exchanges") {
			s.Reset(rapid.Int64Range(0, 1e12).Draw(t, "now"), rapid.IntRange(0, 1).Draw(t, "loop"))
			s.Tunnel = rapid.Bool().Draw(t, "tunnel")
			s.HasKey = rapid.Bool().Draw(t, "has key")
			s.Key = rapid.Uint64().Draw(t, "key")
			left := map[string]bool{}
			for _, b := range p.Snapshot().All {
				if b.Weight > 0 {
					left[b.Name] = true
				}
			}
			for len(left) > 0 {
				l, err := p.Acquire(s)
				if err != nil {
					t.Fatalf("%v with %v left", err, left)
				}
				if !left[l.Backend().Name] {
					t.Fatalf("%s came twice or has no weight", l.Backend().Name)
				}
				delete(left, l.Backend().Name)
				if rapid.Bool().Draw(t, "done") {
					l.Done(upstream.Outcome{Now: s.Now + 1, Latency: 1, Status: 200})
				}
			}
			if l, err := p.Acquire(s); err == nil {
				t.Fatalf("all tried, and then %s", l.Backend().Name)
			}
		}
	})
}

// TestLeastConnIsLeast compares with the formula.
func TestLeastConnIsLeast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, 5), 1, 10).Draw(t, "weights")
		build, _ := strategy.New("least_conn", strategy.Options{Seed: 1})
		p := upstream.NewPool("app", 1, specs(weights...), nil, build)
		s := new(upstream.Selection)
		var open []upstream.Lease
		for now := range rapid.Int64Range(1, 80).Draw(t, "steps") {
			if len(open) > 0 && rapid.IntRange(0, 2).Draw(t, "op") == 0 {
				i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
				open[i].Done(upstream.Outcome{Now: now})
				open = slices.Delete(open, i, i+1)
				continue
			}
			least, busy := math.Inf(1), false
			for _, b := range p.Snapshot().Ready {
				least = min(least, float64(b.Inflight()+1)/float64(b.Weight))
				busy = busy || b.Inflight() > 0
			}
			s.Reset(now, 0)
			l, err := p.Acquire(s)
			if err != nil {
				t.Fatal(err)
			}
			if got := float64(l.Ahead()+1) / float64(l.Backend().Weight); busy && got > least {
				t.Fatalf("took %v, the least is %v", got, least)
			}
			open = append(open, l)
		}
	})
}

// TestTunnels: an upgrade goes where the fewest tunnels are, and tunnels do not keep requests away.
func TestTunnels(t *testing.T) {
	for _, name := range []string{"least_conn", "ewma", "adaptive"} {
		p := pool(t, name, 1, ones(4)...)
		s := new(upstream.Selection)
		for i := range int64(400) {
			s.Reset(i, 0)
			s.Tunnel = true
			l, err := p.Acquire(s)
			if err != nil {
				t.Fatal(err)
			}
			l.Tunnel()
		}
		// One backend is new and has none: the next hundred go there.
		p.Update(specs(ones(5)...), &upstream.Settings{}, nil)
		for i := range int64(100) {
			s.Reset(i, 0)
			s.Tunnel = true
			l, _ := p.Acquire(s)
			l.Tunnel()
		}
		for _, b := range p.Snapshot().All {
			if b.Tunnels() != 100 || b.Inflight() != 0 {
				t.Errorf("%s: %s has %d tunnels and %d in flight, want 100 and 0", name, b.Name, b.Tunnels(), b.Inflight())
			}
		}
		c := newClient(p, 0, 1)
		c.do(t, 1000)
		for name2, n := range c.sent {
			if n < 150 || n > 250 {
				t.Errorf("%s: %s got %d of 1000 requests", name, name2, n)
			}
		}
	}
}

func TestPicksAllocateNothing(t *testing.T) {
	for _, name := range strategy.Names() {
		for _, weights := range [][]int{ones(8), {1, 2, 3, 4}} {
			p := pool(t, name, 1, weights...)
			s := new(upstream.Selection)
			now := int64(0)
			if n := testing.AllocsPerRun(1000, func() {
				now += 30e6
				s.Reset(now, 0)
				s.Key, s.HasKey, s.Tunnel = uint64(now), now%3 > 0, now%5 == 0
				for i := range 3 {
					l, err := p.Acquire(s)
					if err != nil {
						t.Fatal(err)
					}
					if i == 2 {
						l.Done(upstream.Outcome{Now: now + 1e6, Latency: 1e6, Status: 200})
					} else {
						l.Done(upstream.Outcome{Now: now + 1e6, Fault: upstream.FaultReset})
					}
				}
			}); n != 0 {
				t.Errorf("%s: %v allocations", name, n)
			}
		}
	}
}

func TestHashOrder(t *testing.T) {
	p := pool(t, "hash", 1, ones(6)...)
	q := pool(t, "hash", 1, ones(6)...) // another balancer with the same configuration
	for key := range uint64(1000) {
		if a, b := order(t, p, key), order(t, q, key); a != b {
			t.Fatalf("key %d: %s and %s", key, a, b)
		}
	}
	// After the first, the next in order gets the attempt; it is not the same one for all keys of a backend.
	second := map[string]int{}
	for key := range uint64(6000) {
		o := strings.Fields(order(t, p, key))
		if o[0] == "b0" {
			second[o[1]]++
		}
	}
	for name, n := range second {
		if n < 150 || n > 250 {
			t.Errorf("%s is second for %d of about 1000 keys of b0, want 200", name, n)
		}
	}
}

// order is the backends in the order in which a key's attempts go to them.
func order(t testing.TB, p *upstream.Pool, key uint64) string {
	t.Helper()
	s := new(upstream.Selection)
	s.Reset(0, 0)
	s.Key, s.HasKey = upstream.KeyOf([]byte{byte(key), byte(key >> 8)}), true
	var names []string
	for range p.Snapshot().Ready {
		l, err := p.Acquire(s)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, l.Backend().Name)
		l.Done(upstream.Outcome{})
	}
	return strings.Join(names, " ")
}

// TestHashMovesLittle: whoever joins takes only its own share, and whoever leaves gives away only its own.
func TestHashMovesLittle(t *testing.T) {
	if race {
		t.Skip("one goroutine")
	}
	const keys = 20_000
	for _, weights := range [][]int{ones(9), {1, 2, 3, 4, 10, 2}} {
		n := len(weights)
		sum := 0
		for _, w := range weights {
			sum += w
		}
		owner := func(p *upstream.Pool) (o [keys]string) {
			for k := range o {
				o[k], _, _ = strings.Cut(order(t, p, uint64(k)), " ")
			}
			return o
		}
		p := pool(t, "hash", 1, weights[:n-1]...)
		before := owner(p)
		p.Update(specs(weights...), &upstream.Settings{}, nil)
		with := owner(p)
		p.Update(specs(weights...)[1:], nil, nil)
		after := owner(p)
		last := p.Snapshot().All[n-2].Name
		joined, left := 0, 0
		for k := range keys {
			if before[k] != with[k] {
				joined++
				if with[k] != last {
					t.Fatalf("key %d went from %s to %s, not to the new %s", k, before[k], with[k], last)
				}
			}
			if with[k] != after[k] {
				left++
				if with[k] != "b0" {
					t.Fatalf("key %d left %s, which is still there", k, with[k])
				}
			}
		}
		for what, c := range map[string]struct{ got, weight int }{"join": {joined, weights[n-1]}, "leave": {left, weights[0]}} {
			want := float64(c.weight) / float64(sum)
			if got := float64(c.got) / keys; got > want*1.1 || got < want*.9 {
				t.Errorf("%v: a %s moved %.4f of the keys, want %.4f", weights, what, got, want)
			}
		}
	}
}

// TestHashBound has many clients behind one key: its backend gives way at twice the mean, to the same next one, and keys
// that have little traffic stay.
func TestHashBound(t *testing.T) {
	const hot, n = 7, 120
	ask := func(p *upstream.Pool, key uint64) upstream.Lease {
		s := new(upstream.Selection)
		s.Reset(1, 0)
		s.Key, s.HasKey = upstream.KeyOf([]byte{byte(key), byte(key >> 8)}), true
		l, err := p.Acquire(s)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for _, c := range []struct {
		bound   float64
		weights []int
		most    float64 // over the mean, of the key's own backend
	}{{2, ones(6), 2}, {1.25, ones(6), 1.25}, {0, ones(6), 6}, {2, []int{1, 2, 3, 4, 10, 2}, 2}} {
		p := upstream.NewPool("app", 1, specs(c.weights...), nil, strategy.NewHash(c.bound))
		own := strings.Fields(order(t, p, hot))
		sum := 0
		for _, w := range c.weights {
			sum += w
		}
		got := map[string]int{}
		for i := range n {
			l := ask(p, hot)
			defer l.Done(upstream.Outcome{})
			name := l.Backend().Name
			got[name]++
			if i < 10 && name != own[0] {
				t.Errorf("bound %v: request %d went to %s: ten may always go to %s", c.bound, i, name, own[0])
			}
			if gave := l.Note() != 0; gave != (name != own[0]) {
				t.Errorf("bound %v: of %s it is said %v that others gave way", c.bound, name, gave)
			}
		}
		used := 0
		for i, name := range own {
			if got[name] > 0 {
				used = i + 1
			}
		}
		for _, name := range own[:used] {
			if got[name] == 0 {
				t.Errorf("bound %v: %s was passed over in %v: %v", c.bound, name, own, got)
			}
		}
		for _, b := range p.Snapshot().Ready {
			mean := float64(n) * float64(b.Weight) / float64(sum)
			if limit := max(10, c.most*mean+1); float64(got[b.Name]) > limit {
				t.Errorf("bound %v: %s has %d, the most is %.1f", c.bound, b.Name, got[b.Name], limit)
			}
		}
		// Others whose backend is below the bound are where they were.
		for key := range uint64(200) {
			l := ask(p, key)
			name := l.Backend().Name
			l.Done(upstream.Outcome{})
			if first := firstOf(p, key); got[first] < 10 && name != first {
				t.Errorf("bound %v: key %d left %s, which has %d", c.bound, key, first, got[first])
			}
		}
	}
}

// firstOf is the backend of a key where nobody gives way.
func firstOf(p *upstream.Pool, key uint64) string {
	var specs []upstream.Spec
	for _, b := range p.Snapshot().All {
		specs = append(specs, b.Spec)
	}
	q := upstream.NewPool("app", 1, specs, nil, strategy.NewHash(0))
	s := new(upstream.Selection)
	s.Reset(1, 0)
	s.Key, s.HasKey = upstream.KeyOf([]byte{byte(key), byte(key >> 8)}), true
	l, err := q.Acquire(s)
	if err != nil {
		return ""
	}
	defer l.Done(upstream.Outcome{})
	return l.Backend().Name
}

// TestSessionsCount: what lasts goes where the fewest tunnels and sessions are, with every strategy that goes by load.
func TestSessionsCount(t *testing.T) {
	for _, name := range []string{"least_conn", "ewma", "adaptive"} {
		p := pool(t, name, 1, ones(3)...)
		var counts [3]atomic.Int64
		for i, b := range p.Snapshot().All {
			counts[i].Store(int64(10 * i))
			b.CountSessions(&counts[i])
		}
		got := map[string]int{}
		for range 20 {
			s := new(upstream.Selection)
			s.Reset(1e12, 0)
			s.Session = true
			l, err := p.Acquire(s)
			if err != nil {
				t.Fatal(err)
			}
			got[l.Backend().Name]++
			counts[l.Backend().Index()].Add(1)
			l.Done(upstream.Outcome{Now: 1e12})
		}
		if got["b0"] != 15 || got["b1"] != 5 {
			t.Errorf("%s: %v", name, got)
		}
	}
}
