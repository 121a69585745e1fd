package strategy_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"lb/strategy"
	"lb/upstream"
)

// pool makes a pool of backends with the given weights, named b0, b1 and so on, in which nobody waits.
func pool(tb testing.TB, name string, loops int, weights ...int) *upstream.Pool {
	tb.Helper()
	build, err := strategy.New(name, strategy.Options{Seed: 1})
	if err != nil {
		tb.Fatal(err)
	}
	set := upstream.DefaultSettings()
	set.QueueLen = -1
	return upstream.NewPool("app", loops, specs(weights...), set, build)
}

func specs(weights ...int) []upstream.Spec {
	var s []upstream.Spec
	for i, w := range weights {
		ap := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80)
		s = append(s, upstream.Spec{Name: fmt.Sprintf("b%d", i), Addr: upstream.Addr{AddrPort: ap}, Weight: w})
	}
	return s
}

func ones(n int) []int {
	w := make([]int, n)
	for i := range w {
		w[i] = 1
	}
	return w
}

// BenchmarkPick is the choice alone among 8 backends, all of them busy, so that a scan goes to its end.
func BenchmarkPick(b *testing.B) {
	for _, name := range append(strategy.Names(), "hash weighted") {
		b.Run(name, func(b *testing.B) {
			weights := ones(8)
			name, uneven := strings.CutSuffix(name, " weighted")
			if uneven {
				weights[0] = 2
			}
			build, err := strategy.New(name)
			if err != nil {
				b.Fatal(err)
			}
			var pick upstream.Strategy
			p := upstream.NewPool("app", 1, specs(weights...), nil, func(r []*upstream.Backend) upstream.Strategy {
				pick = build(r)
				return pick
			})
			s := new(upstream.Selection)
			for i := range int64(16) {
				s.Reset(i*1e6, 0)
				if _, err := p.Acquire(s); err != nil {
					b.Fatal(err)
				}
			}
			now := int64(16e6)
			b.ReportAllocs()
			for b.Loop() {
				now += 1000
				s.Reset(now, 0)
				s.Key, s.HasKey = uint64(now), true
				pick.Pick(s)
			}
		})
	}
}

// BenchmarkAcquireDone is what a request costs in this package and upstream: choice, count, statistics, and what the
// strategy learns, with 16 requests in flight on 8 backends.
func BenchmarkAcquireDone(b *testing.B) {
	for _, name := range strategy.Names() {
		b.Run(name, func(b *testing.B) {
			p := pool(b, name, 1, ones(8)...)
			var leases [16]upstream.Lease
			s := new(upstream.Selection)
			for i := range leases {
				s.Reset(int64(i), 0)
				leases[i], _ = p.Acquire(s)
			}
			now, i := int64(1e9), 0
			b.ReportAllocs()
			for b.Loop() {
				now += 10_000
				l := &leases[i&15]
				l.Done(upstream.Outcome{Now: now, Latency: 160_000, Status: 200})
				s.Reset(now, 0)
				s.Key, s.HasKey = uint64(now), true
				*l, _ = p.Acquire(s)
				i++
			}
		})
	}
}

// BenchmarkAcquireDoneLoops is the same from as many loops as there are processors, which share the counts.
func BenchmarkAcquireDoneLoops(b *testing.B) {
	for _, name := range strategy.Names() {
		b.Run(name, func(b *testing.B) {
			p := pool(b, name, runtime.GOMAXPROCS(0), ones(8)...)
			var loops atomic.Int64
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				c := newClient(p, int(loops.Add(1)-1), 8)
				c.open = make([]upstream.Lease, 0, 8)
				c.do(b, 8)
				for i := 0; pb.Next(); i++ {
					l := &c.open[i&7]
					c.now += 10_000
					l.Done(upstream.Outcome{Now: c.now, Latency: 160_000, Status: 200})
					c.sel.Reset(c.now, c.loop)
					*l, _ = p.Acquire(&c.sel)
				}
				c.end()
			})
		})
	}
}
