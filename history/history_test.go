package history

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"lb/upstream"
	"lb/upstream/upstreamtest"
)

func spec(name string, port uint16) upstream.Spec {
	return upstream.Spec{Name: name, Addr: upstream.Addr{AddrPort: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)}, Weight: 1}
}

func newPool(specs ...upstream.Spec) *upstream.Pool {
	return upstream.NewPool("app", 2, specs, nil, upstreamtest.BuildInOrder)
}

// lab drives a pool and a Recorder by a clock of its own.
type lab struct {
	t    *testing.T
	pool *upstream.Pool
	rec  *Recorder
	now  time.Time
	mono int64
	loop int
	sel  upstream.Selection
}

func newLab(t *testing.T, specs ...upstream.Spec) *lab {
	l := &lab{t: t, pool: newPool(specs...), rec: New(), now: time.Unix(1e9, 0)}
	l.tick()
	return l
}

func (l *lab) tick() {
	l.rec.Record(l.now, []*upstream.Pool{l.pool})
	l.now = l.now.Add(Interval)
}

// begin sends a request to the first ready backend, on one loop after the other.
func (l *lab) begin(sel *upstream.Selection, again bool) upstream.Lease {
	l.t.Helper()
	l.mono++
	if !again {
		l.loop = 1 - l.loop
		sel.Reset(l.mono, l.loop)
	}
	lease, err := l.pool.Acquire(sel)
	if err != nil {
		l.t.Fatal(err)
	}
	return lease
}

func (l *lab) end(lease upstream.Lease, took time.Duration, status int, f upstream.Fault) {
	lease.Done(upstream.Outcome{Now: lease.Start() + int64(took), Latency: 1, Status: status, Fault: f})
}

func (l *lab) serve(n int, took time.Duration, status int) {
	l.t.Helper()
	for range n {
		l.end(l.begin(&l.sel, false), took, status, upstream.FaultNone)
	}
}

func (l *lab) last(backend string) Sample {
	l.t.Helper()
	all := l.rec.Samples("app", backend, 1)
	if len(all) != 1 {
		l.t.Fatalf("%d samples of %q", len(all), backend)
	}
	return all[0]
}

// near is by how much the histogram may be off.
func near(got float64, want time.Duration) bool {
	return got >= want.Seconds() && got <= want.Seconds()*1.1
}

func TestSamples(t *testing.T) {
	l := newLab(t, spec("a", 3000), spec("b", 3001))
	l.serve(90, 10*time.Millisecond, 200)
	l.serve(10, 100*time.Millisecond, 500)
	var sel upstream.Selection
	failed := l.begin(&sel, false)
	l.end(failed, time.Millisecond, 0, upstream.FaultReset)
	second := l.begin(&sel, true) // at b
	l.tick()

	a, b, p := l.last("a"), l.last("b"), l.last("")
	if a.Requests != 101 || a.Ended != 101 || a.Errors != 11 || a.Retries != 0 || a.Inflight != 0 {
		t.Errorf("a: %+v", a)
	}
	if !near(a.P50, 10*time.Millisecond) || !near(a.P99, 100*time.Millisecond) {
		t.Errorf("a: p50 %v, p99 %v", a.P50, a.P99)
	}
	if b.Requests != 1 || b.Ended != 0 || b.Retries != 1 || b.Inflight != 1 || b.P50 != 0 {
		t.Errorf("b: %+v", b)
	}
	// The failed attempt is no error of a client's: the request goes on.
	if p.Requests != 101 || p.Errors != 10 || p.Retries != 1 || p.Inflight != 1 || p.Took != Interval {
		t.Errorf("pool: %+v", p)
	}
	if !near(p.P50, 10*time.Millisecond) {
		t.Errorf("pool: p50 %v", p.P50)
	}

	// The next interval knows nothing of the one before, but Recent does.
	l.end(second, time.Millisecond, 200, upstream.FaultNone)
	l.tick()
	if a := l.last("a"); a != (Sample{Took: Interval}) {
		t.Errorf("a without requests: %+v", a)
	}
	if p := l.last(""); p.Ended != 1 || p.Requests != 0 || p.Errors != 0 || !near(p.P99, time.Millisecond) {
		t.Errorf("pool: %+v", p)
	}
	r := l.rec.Recent("app", "a")
	if got, want := r.Share, 101./102; math.Abs(got-want) > 1e-9 {
		t.Errorf("share %v, want %v", got, want)
	}
	if got, want := r.Rate, 101./3; math.Abs(got-want) > 1e-9 { // three samples, the first of them empty
		t.Errorf("rate %v, want %v", got, want)
	}
	if got, want := r.ErrorRate, 11./101; math.Abs(got-want) > 1e-9 {
		t.Errorf("error rate %v, want %v", got, want)
	}
	if !near(r.P50, 10*time.Millisecond) || !near(r.P99, 100*time.Millisecond) {
		t.Errorf("p50 %v, p99 %v", r.P50, r.P99)
	}
}

func TestUnservedRequestsCount(t *testing.T) {
	l := newLab(t, spec("a", 3000))
	l.serve(3, time.Millisecond, 200)
	l.pool.Fail(0, false) // nobody was there to ask
	l.tick()
	if p := l.last(""); p.Requests != 4 || p.Ended != 4 || p.Errors != 1 {
		t.Errorf("%+v", p)
	}
	if r := l.rec.Recent("app", ""); r.ErrorRate != .25 {
		t.Errorf("error rate %v", r.ErrorRate)
	}
}

func TestRecentForgets(t *testing.T) {
	l := newLab(t, spec("a", 3000))
	l.serve(10, time.Second, 500)
	l.tick()
	for i := range Window - 1 {
		if r := l.rec.Recent("app", "a"); r.Rate == 0 || r.ErrorRate != 1 || !near(r.P99, time.Second) {
			t.Fatalf("after %d s: %+v", i, r)
		}
		l.tick()
	}
	l.tick()
	if r := l.rec.Recent("app", "a"); r != (Recent{}) {
		t.Errorf("after the window: %+v", r)
	}
	l.serve(1, time.Millisecond, 200)
	l.tick()
	if r := l.rec.Recent("app", "a"); r.ErrorRate != 0 || !near(r.P99, time.Millisecond) {
		t.Errorf("what is long past counts: %+v", r)
	}
}

func TestOnlySoManySamplesAreKept(t *testing.T) {
	l := newLab(t, spec("a", 3000))
	for i := range Length + 5 {
		l.serve(i, time.Millisecond, 200)
		l.tick()
	}
	for _, n := range []int{Length - 1, Length, Length + 1} {
		all := l.rec.Samples("app", "a", n)
		if len(all) != min(n, Length) || all[len(all)-1].Requests != Length+4 || all[0].Requests != uint64(Length+5-len(all)) {
			t.Errorf("asked for %d: %d, from %d to %d", n, len(all), all[0].Requests, all[len(all)-1].Requests)
		}
	}
}

func TestReloads(t *testing.T) {
	l := newLab(t, spec("a", 3000), spec("b", 3001))
	l.serve(5, time.Millisecond, 200)
	l.tick()
	// a moves to another address: its counters begin anew, its history goes on.
	l.pool.Update([]upstream.Spec{spec("a", 4000)}, nil, nil)
	l.serve(2, time.Millisecond, 200)
	l.tick()
	all := l.rec.Samples("app", "a", Length)
	if len(all) != 3 || all[1].Requests != 5 || all[2].Requests != 2 || !near(all[2].P50, time.Millisecond) {
		t.Errorf("%+v", all)
	}
	if got := l.rec.Samples("app", "b", Length); got != nil {
		t.Errorf("of a backend that left: %+v", got)
	}
	if got := l.rec.Samples("app", "", Length); len(got) != 3 || got[2].Requests != 2 {
		t.Errorf("pool: %+v", got)
	}
	l.rec.Record(l.now, nil)
	if got := l.rec.Samples("app", "", Length); got != nil {
		t.Errorf("of a pool that is gone: %+v", got)
	}
	if r := l.rec.Recent("app", "a"); r != (Recent{}) {
		t.Errorf("of a pool that is gone: %+v", r)
	}
}

// TestLateTicks holds that a process that stood still does not look busier than it was.
func TestLateTicks(t *testing.T) {
	l := newLab(t, spec("a", 3000))
	l.serve(100, time.Millisecond, 200)
	l.now = l.now.Add(9 * time.Second)
	l.tick()
	if r := l.rec.Recent("app", "a"); math.Abs(r.Rate-100./11) > 1e-9 {
		t.Errorf("rate %v", r.Rate)
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(spec("a", 3000))
		r := New()
		ctx, cancel := context.WithCancel(t.Context())
		told := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.Run(ctx, func() []*upstream.Pool { return []*upstream.Pool{p} }, func() { told++ })
		}()
		time.Sleep(3*Interval + Interval/2)
		cancel()
		<-done
		if n := len(r.Samples("app", "a", Length)); n != 4 || told != 3 {
			t.Errorf("%d samples, told %d times", n, told)
		}
	})
}

func TestRecordAllocatesNothing(t *testing.T) {
	l := newLab(t, spec("a", 3000), spec("b", 3001))
	pools := []*upstream.Pool{l.pool}
	if n := testing.AllocsPerRun(100, func() {
		l.serve(1, time.Millisecond, 200)
		l.now = l.now.Add(Interval)
		l.rec.Record(l.now, pools)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkRecord is a second's work for a hundred busy backends.
func BenchmarkRecord(b *testing.B) {
	var specs []upstream.Spec
	for i := range 100 {
		specs = append(specs, spec(fmt.Sprint(i), uint16(3000+i)))
	}
	p := upstream.NewPool("app", 4, specs, nil, upstreamtest.BuildInOrder)
	pools := []*upstream.Pool{p}
	r, now := New(), time.Unix(1e9, 0)
	var sel upstream.Selection
	for b.Loop() {
		for range 100 {
			sel.Reset(1, 0)
			for range 100 {
				if l, err := p.Acquire(&sel); err == nil {
					l.Done(upstream.Outcome{Now: 1e6, Latency: 1, Status: 200})
				}
			}
		}
		now = now.Add(Interval)
		r.Record(now, pools)
	}
}

// TestRestore has another process go on: its counters begin anew, the samples do not.
func TestRestore(t *testing.T) {
	l := newLab(t, spec("a", 3000), spec("gone", 3001))
	l.serve(7, time.Millisecond, 200)
	l.tick()
	b, err := json.Marshal(l.rec.Keep())
	if err != nil {
		t.Fatal(err)
	}
	var kept []Kept
	if err := json.Unmarshal(b, &kept); err != nil {
		t.Fatal(err)
	}
	was := l.rec.Samples("app", "a", Length)
	next := &lab{t: t, pool: newPool(spec("a", 3000), spec("new", 3002)), rec: New(), now: l.now}
	next.rec.Restore(append(kept, Kept{Pool: "app", Backend: "new", Samples: make([]Sample, 3)})) // what nobody sends
	if got := next.rec.Samples("app", "a", Length); !slices.Equal(got, was) || len(got) != 2 {
		t.Errorf("restored %+v, want %+v", got, was)
	}
	next.serve(3, time.Millisecond, 200)
	next.tick()
	for _, backend := range []string{"a", ""} {
		all := next.rec.Samples("app", backend, Length)
		if len(all) != 3 || all[1].Requests != 7 || all[2].Requests != 3 {
			t.Errorf("%q: %+v", backend, all)
		}
	}
	if r := next.rec.Recent("app", "a"); math.Abs(r.Rate-10./3) > 1e-9 || !near(r.P99, time.Millisecond) {
		t.Errorf("%+v", r)
	}
	if got := next.rec.Samples("app", "gone", Length); got != nil {
		t.Errorf("of who is not there any more: %+v", got)
	}
	// More than there is room for, as from a version that keeps more.
	full := New()
	full.Restore([]Kept{{Pool: "app", Samples: slices.Repeat([]Sample{{Took: Interval}}, Length+9)}})
	if n := len(full.Samples("app", "", 1000)); n != Length {
		t.Errorf("%d samples", n)
	}
}
