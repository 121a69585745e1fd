// Package sim drives the real strategies and the real pool with a simulated fleet in simulated time: requests arrive,
// wait in their backend's queue, are served, and their leases are done. The same seed gives the same run.
package sim

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"lb/strategy"
	"lb/upstream"
)

// Backend is one simulated instance. It serves in order of arrival, Workers at a time.
type Backend struct {
	Workers int           // 1 if 0: a Node process
	Service time.Duration // mean time to serve one request
	Weight  int           // 1 if 0

	// Slow multiplies the service time of what starts at a time; nil is 1.
	Slow func(at time.Duration) float64
	// Fails is the chance of a failure at a time; nil is never. A failure is served in FailTime.
	Fails    func(at time.Duration) float64
	FailTime time.Duration

	Join time.Duration // it is not in the pool before
}

// Run is a fleet and what is asked of it.
type Run struct {
	Strategy string
	Backends []Backend
	Spread   float64       // standard deviation of service times over their mean, lognormal; 0: they are constant
	Rate     float64       // requests a second, at random times; or
	InFlight int           // so many clients, each of which asks again at once
	Network  time.Duration // one way
	Warm     time.Duration // not counted
	Length   time.Duration // counted, after Warm
	Seed     uint64

	// LongPolls clients each hold a request open for LongPoll, then ask again. They cost the backend nothing and are not
	// in the result.
	LongPolls int
	LongPoll  time.Duration
	// NoPark leaves out the calls of Lease.Park that the proxy makes.
	NoPark bool

	// Each, when set, is called after every lease with the backend's index.
	Each func(at time.Duration, i int, l *upstream.Lease)
}

// Result is what came of a Run.
type Result struct {
	Sent      []int // by backend
	Failed    []int
	Latencies []time.Duration // of all answers, sorted
}

// Total is the number of requests sent.
func (r *Result) Total() (n int) {
	for _, c := range r.Sent {
		n += c
	}
	return n
}

// Share is the part of all requests that backend i got.
func (r *Result) Share(i int) float64 { return float64(r.Sent[i]) / float64(r.Total()) }

// Errors is the part of all requests that failed.
func (r *Result) Errors() float64 {
	n := 0
	for _, c := range r.Failed {
		n += c
	}
	return float64(n) / float64(r.Total())
}

// Quantile is the latency that a share q of the answers does not exceed.
func (r *Result) Quantile(q float64) time.Duration {
	if len(r.Latencies) == 0 {
		return 0
	}
	return r.Latencies[min(len(r.Latencies)-1, int(q*float64(len(r.Latencies))))]
}

// Mean is the mean latency.
func (r *Result) Mean() time.Duration {
	var sum time.Duration
	for _, l := range r.Latencies {
		sum += l
	}
	return sum / time.Duration(max(1, len(r.Latencies)))
}

type world struct {
	*Run
	pool   *upstream.Pool
	free   [][]int64 // by backend and worker: when it has served all it got
	now    int64
	events events
	seq    int
	arrive *rand.Rand // apart, so that all strategies see the same arrivals
	serve  *rand.Rand
	res    Result
	sel    upstream.Selection
}

// epoch is the time at which runs start: clocks do not start at 0.
const epoch = int64(time.Hour)

// Do runs it to the end.
func (r *Run) Do() (*Result, error) {
	build, err := strategy.New(r.Strategy, strategy.Options{Seed: r.Seed})
	if err != nil {
		return nil, err
	}
	w := &world{
		Run: r, now: epoch,
		arrive: rand.New(rand.NewPCG(r.Seed, 1)),
		serve:  rand.New(rand.NewPCG(r.Seed, 2)),
	}
	w.res.Sent, w.res.Failed = make([]int, len(r.Backends)), make([]int, len(r.Backends))
	for _, b := range r.Backends {
		w.free = append(w.free, make([]int64, max(1, b.Workers)))
		if b.Join > 0 {
			w.at(epoch+int64(b.Join), func() { w.pool.Update(w.specs(b.Join), nil, nil) })
		}
	}
	w.pool = upstream.NewPool("sim", 1, w.specs(0), nil, build)
	if r.Rate > 0 {
		w.next()
	}
	for i := range r.InFlight {
		w.at(epoch+int64(i)*1000, func() { w.request(true) })
	}
	for i := range r.LongPolls {
		w.at(epoch+int64(i)*int64(time.Millisecond), w.poll)
	}
	end := epoch + int64(r.Warm+r.Length)
	for len(w.events) > 0 && w.events[0].at <= end {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	slices.Sort(w.res.Latencies)
	return &w.res, nil
}

// specs are the backends that are in the pool at a time.
func (w *world) specs(at time.Duration) (s []upstream.Spec) {
	for i, b := range w.Backends {
		if b.Join <= at {
			ap := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(i+1))
			s = append(s, upstream.Spec{Name: fmt.Sprintf("%03d", i), Addr: upstream.Addr{AddrPort: ap}, Weight: max(1, b.Weight)})
		}
	}
	return s
}

// index is a backend's place in Run.Backends.
func index(b *upstream.Backend) int { return int(b.Addr.AddrPort.Port()) - 1 }

// next lets a request arrive, and after it the next one.
func (w *world) next() {
	w.at(w.now+int64(w.arrive.ExpFloat64()/w.Rate*1e9), func() {
		w.request(false)
		w.next()
	})
}

func (w *world) request(again bool) {
	start := w.now
	w.sel.Reset(w.now, 0)
	l, err := w.pool.Acquire(&w.sel)
	if err != nil {
		panic(err) // some backend is always there
	}
	i := index(l.Backend())
	counted := start >= epoch+int64(w.Warm)
	if counted {
		w.res.Sent[i]++
	}
	if w.Each != nil {
		w.Each(time.Duration(start-epoch), i, &l)
	}
	end, failed := w.work(i, w.now+int64(w.Network))
	end += int64(w.Network)
	if !w.NoPark {
		for at := start + upstream.ParkAfter; at < end; at += upstream.ParkAfter {
			w.at(at, func() { l.Park(w.now) })
		}
	}
	w.at(end, func() {
		o := upstream.Outcome{Now: w.now, Latency: w.now - start, Status: 200}
		if failed {
			o.Status, o.Fault = 503, upstream.FaultStatus
		}
		l.Done(o)
		if counted {
			w.res.Latencies = append(w.res.Latencies, time.Duration(w.now-start))
			if failed {
				w.res.Failed[i]++
			}
		}
		if again {
			w.request(true)
		}
	})
}

// work puts a request that gets to backend i at a time into its queue and says when it is served. Since backends serve
// in order of arrival, that is known at once.
func (w *world) work(i int, at int64) (end int64, failed bool) {
	b := &w.Backends[i]
	q := w.free[i]
	k := 0
	for j := range q {
		if q[j] < q[k] {
			k = j
		}
	}
	begin := max(at, q[k])
	since := time.Duration(begin - epoch)
	service, luck := float64(b.Service), w.serve.Float64()
	if w.Spread > 0 {
		v := math.Log(1 + w.Spread*w.Spread)
		service *= math.Exp(w.serve.NormFloat64()*math.Sqrt(v) - v/2)
	}
	if b.Slow != nil {
		service *= b.Slow(since)
	}
	if b.Fails != nil && luck < b.Fails(since) {
		service, failed = float64(b.FailTime), true
	}
	q[k] = begin + int64(service)
	return q[k], failed
}

// poll holds a request open without work.
func (w *world) poll() {
	start := w.now
	w.sel.Reset(w.now, 0)
	l, err := w.pool.Acquire(&w.sel)
	if err != nil {
		panic(err)
	}
	if !w.NoPark {
		var look func()
		look = func() {
			if w.now < start+int64(w.LongPoll) && !l.Park(w.now) {
				w.at(w.now+upstream.ParkAfter, look)
			}
		}
		w.at(start+upstream.ParkAfter, look)
	}
	w.at(start+int64(w.LongPoll), func() {
		l.Done(upstream.Outcome{Now: w.now, Latency: w.now - start, Status: 200})
		w.poll()
	})
}

type event struct {
	at  int64
	seq int
	do  func()
}

func (w *world) at(at int64, do func()) {
	w.seq++
	heap.Push(&w.events, event{at, w.seq, do})
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}
