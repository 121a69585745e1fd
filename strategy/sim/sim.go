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

// Demand is what one request asks of a backend: CPU, in chunks around waits that cost the backend nothing (for a database,
// say).
type Demand struct {
	CPU   float64       // in mean service times of the backend, all chunks together
	Wait  time.Duration // all waits together
	Waits int           // their number
}

// Span is a period of time.
type Span struct{ From, To time.Duration }

// Backend is one simulated instance. It serves in order of arrival, Workers at a time.
type Backend struct {
	Workers int           // 1 if 0: a Node process
	Service time.Duration // mean time to serve one request
	Weight  int           // 1 if 0

	MaxInflight int64 // what the configuration allows; 0: no limit

	// Slow multiplies the service time of what starts at a time; nil is 1.
	Slow func(at time.Duration) float64
	// Warm multiplies the service time of what starts after so many requests were served and so long a rest; nil is 1.
	Warm func(served int, rest time.Duration) float64
	// Stops are when nothing moves, in order: a process that collects garbage, or hangs.
	Stops []Span
	// Fails is the chance of a failure at a time; nil is never. A failure is served in FailTime.
	Fails    func(at time.Duration) float64
	FailTime time.Duration

	Join time.Duration // it is not in the pool before
}

// Run is a fleet and what is asked of it.
type Run struct {
	Strategy string // or OneQueue, or LeastWork
	Backends []Backend
	Spread   float64                                     // standard deviation of service times over their mean, lognormal; 0: they are constant
	Kind     func(r *rand.Rand, at time.Duration) Demand // in place of Spread; draws as many numbers each time
	LBs      int                                         // load balancers that share the backends and know nothing of each other; 1 if 0
	Rate     float64                                     // requests a second, at random times; or
	Load     func(at time.Duration) float64              // multiplies Rate; nil is 1
	InFlight int                                         // so many clients, each of which asks again at once
	Burst    int                                         // so many more requests at once, at BurstAt
	BurstAt  time.Duration
	Network  time.Duration // one way
	Warm     time.Duration // not counted
	Length   time.Duration // counted, after Warm
	Seed     uint64

	QueueLen  int           // as Settings.QueueLen
	SlowStart time.Duration // of backends that join; 0: at once
	// LongPolls clients each hold a request open for LongPoll, then ask again. They cost the backend nothing and are not
	// in the result.
	LongPolls int
	LongPoll  time.Duration
	// PollsApart is how long after each other their first ones come; 0: 1 ms, as after a restart.
	PollsApart time.Duration
	PollsFrom  time.Duration // when the first one comes
	PollsSay   bool          // that they are streams, from the first
	// Patience is how long clients wait before they go away; 0: for ever. Who waits in lb then is sent to nobody. A backend
	// that has got the request works on it all the same, and Lease.Done says that the client was gone.
	Patience time.Duration
	// NoPark leaves out the calls of Lease.Park that the proxy makes.
	NoPark bool

	// Each, when set, is called after every lease with the backend's index.
	Each func(at time.Duration, i int, l *upstream.Lease)
	// Answer, when set, is called for every answer, with the time at which its request arrived.
	Answer func(at, latency time.Duration)
}

// Result is what came of a Run.
type Result struct {
	Sent      []int // by backend
	Failed    []int
	Latencies []time.Duration // of all answers, from arrival at lb, sorted
	Good      []time.Duration // of those that are no failures, sorted
	Held      int             // requests that waited in lb
	MostHeld  int             // at a time
	Refused   int             // that found the queue full
	Overdue   int             // that waited in lb in vain
	Gone      int             // whose client lost patience
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
	pools  []*upstream.Pool
	oracle *oracle
	free   [][]int64 // by backend and worker: when it has served all it got
	served []int     // by backend
	later  []int64   // by backend: CPU of chunks to come, ns
	now    int64
	events events
	seq    int
	arrive *rand.Rand // apart, so that all strategies see the same arrivals, and the same demand
	demand *rand.Rand
	res    Result
}

// epoch is the time at which runs start: clocks do not start at 0.
const epoch = int64(time.Hour)

// Do runs it to the end.
func (r *Run) Do() (*Result, error) {
	w := &world{
		Run: r, now: epoch,
		arrive: rand.New(rand.NewPCG(r.Seed, 1)),
		demand: rand.New(rand.NewPCG(r.Seed, 2)),
	}
	w.res.Sent, w.res.Failed = make([]int, len(r.Backends)), make([]int, len(r.Backends))
	w.later, w.served = make([]int64, len(r.Backends)), make([]int, len(r.Backends))
	for _, b := range r.Backends {
		w.free = append(w.free, make([]int64, max(1, b.Workers)))
		if b.Join > 0 {
			w.at(epoch+int64(b.Join), func() {
				for _, p := range w.pools {
					p.Update(w.specs(b.Join), nil, nil)
				}
			})
		}
	}
	if w.oracle = newOracle(w); w.oracle == nil {
		for i := range max(1, r.LBs) {
			build, err := strategy.New(r.Strategy, strategy.Options{Seed: r.Seed + uint64(i)<<32})
			if err != nil {
				return nil, err
			}
			set := upstream.DefaultSettings()
			set.HoldRequests = 1 << 20 // there is no lack of memory here
			set.SlowStart, set.QueueLen = r.SlowStart, r.QueueLen
			w.pools = append(w.pools, upstream.NewPool("sim", 1, w.specs(0), set, build))
		}
	}
	if r.Rate > 0 {
		w.next()
	}
	for i := range r.InFlight {
		w.at(epoch+int64(i)*1000, func() { w.request(true) })
	}
	for i := range r.Burst {
		w.at(epoch+int64(r.BurstAt)+int64(i), func() { w.request(false) })
	}
	for i := range r.LongPolls {
		apart := time.Millisecond
		if r.PollsApart > 0 {
			apart = r.PollsApart
		}
		w.at(epoch+int64(r.PollsFrom)+int64(i)*int64(apart), w.poll)
	}
	end := epoch + int64(r.Warm+r.Length)
	for len(w.events) > 0 && w.events[0].at <= end {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	slices.Sort(w.res.Latencies)
	slices.Sort(w.res.Good)
	return &w.res, nil
}

// specs are the backends that are in the pool at a time.
func (w *world) specs(at time.Duration) (s []upstream.Spec) {
	for i, b := range w.Backends {
		if b.Join <= at {
			ap := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(i+1))
			s = append(s, upstream.Spec{Name: fmt.Sprintf("%03d", i), Addr: upstream.Addr{AddrPort: ap}, Weight: max(1, b.Weight), MaxInflight: b.MaxInflight})
		}
	}
	return s
}

// index is a backend's place in Run.Backends.
func index(b *upstream.Backend) int { return int(b.Addr.AddrPort.Port()) - 1 }

// next lets a request arrive, and after it the next one.
func (w *world) next() {
	rate := w.Rate
	if w.Load != nil {
		rate *= w.Load(time.Duration(w.now - epoch))
	}
	w.at(w.now+int64(w.arrive.ExpFloat64()/rate*1e9), func() {
		w.request(false)
		w.next()
	})
}

// request is one exchange.
type request struct {
	w       *world
	start   int64
	counted bool
	again   bool // its client asks anew when it has the answer
	demand  Demand
	luck    float64
	failed  bool
	pool    *upstream.Pool
	sel     upstream.Selection
	wait    upstream.Waiter
	waits   bool
	lease   upstream.Lease
	sent    int64
	done    bool
	gone    bool
}

func (w *world) request(again bool) {
	at := time.Duration(w.now - epoch)
	r := &request{w: w, start: w.now, again: again, counted: at >= w.Warm, luck: w.demand.Float64()}
	lb := w.demand.IntN(max(1, w.LBs))
	switch {
	case w.Kind != nil:
		r.demand = w.Kind(w.demand, at)
	case w.Spread > 0:
		r.demand = Demand{CPU: LogNormal(w.demand, w.Spread)}
	default:
		r.demand = Demand{CPU: 1}
	}
	if w.oracle != nil {
		w.oracle.arrive(r)
		return
	}
	r.pool = w.pools[lb]
	r.sel.Reset(w.now, 0)
	if r.pool.Snapshot().Holds() {
		r.sel.Kind = 1
	}
	if w.Patience > 0 {
		w.at(w.now+int64(w.Patience), r.goes)
	}
	r.ask()
}

// goes is the end of the client's patience.
func (r *request) goes() {
	if r.done {
		return
	}
	r.gone = true
	if r.counted {
		r.w.res.Gone++
	}
	if r.waits && r.sent == 0 {
		r.done = true
		r.pool.Leave(&r.wait, false, r.w.now)
	}
}

// lookAround is how often, in ns, the proxy looks at what waits.
const lookAround = 500e6

func (r *request) lookAround() {
	w := r.w
	switch {
	case r.done || r.sent > 0:
	case r.pool.Overdue(&r.wait, w.now):
		r.done = true
		r.pool.Leave(&r.wait, true, w.now)
		if r.counted {
			w.res.Overdue++
		}
	default:
		w.at(w.now+lookAround, r.lookAround)
	}
}

// LogNormal draws a number with mean 1 and the given standard deviation.
func LogNormal(r *rand.Rand, spread float64) float64 {
	v := math.Log(1 + spread*spread)
	return math.Exp(r.NormFloat64()*math.Sqrt(v) - v/2)
}

// ask does as the proxy does: if nobody is free, it waits in the pool's queue.
func (r *request) ask() {
	w := r.w
	if r.done { // it left after it had been woken
		return
	}
	r.sel.Now = w.now
	l, err := r.pool.Acquire(&r.sel)
	switch {
	case err == nil:
		r.lease = l
		r.send(index(l.Backend()))
	case r.waits: // in its place, until it is woken again
	default:
		r.wait.Wake = func() { w.at(w.now, r.ask) }
		if !r.pool.Wait(&r.wait, &r.sel) {
			w.res.Refused++
			return
		}
		r.waits = true
		w.at(w.now+lookAround, r.lookAround)
		if r.counted {
			w.res.Held++
		}
		w.res.MostHeld = max(w.res.MostHeld, int(r.pool.Waiting()))
	}
}

// send is the way to backend i and back.
func (r *request) send(i int) {
	w := r.w
	r.sent = w.now
	if r.counted {
		w.res.Sent[i]++
	}
	if w.Each != nil && w.oracle == nil {
		w.Each(time.Duration(r.start-epoch), i, &r.lease)
	}
	b := &w.Backends[i]
	since := time.Duration(w.now - epoch)
	if b.Fails != nil && r.luck < b.Fails(since) {
		r.failed = true
		r.demand = Demand{CPU: float64(b.FailTime) / float64(b.Service)}
	}
	network := int64(w.Network)
	if w.oracle != nil {
		network = 0
	}
	if r.demand.Waits == 0 { // since backends serve in order of arrival, the end is known at once
		end := w.work(i, w.now+network, r.demand.CPU) + network
		if w.oracle == nil && !w.NoPark && end > r.sent+upstream.ParkAfter {
			w.at(r.sent+upstream.ParkAfter, r.look)
		}
		w.at(end, func() { r.end(i) })
		return
	}
	if w.oracle == nil && !w.NoPark {
		w.at(r.sent+upstream.ParkAfter, r.look)
	}
	chunk := r.demand.CPU / float64(r.demand.Waits+1)
	w.later[i] += int64(float64(b.Service) * r.demand.CPU)
	left := r.demand.Waits
	var next func()
	next = func() {
		w.later[i] -= int64(float64(b.Service) * chunk)
		end := w.work(i, w.now, chunk)
		if left == 0 {
			w.at(end+network, func() { r.end(i) })
			return
		}
		left--
		w.at(end+int64(r.demand.Wait)/int64(r.demand.Waits), next)
	}
	w.at(w.now+network, next)
}

// look is what the proxy does with old requests.
func (r *request) look() {
	if !r.done && !r.lease.Park(r.w.now) {
		r.w.at(r.w.now+upstream.ParkAfter, r.look)
	}
}

func (r *request) end(i int) {
	w := r.w
	r.done = true
	latency := w.now - r.start
	if w.oracle != nil {
		latency += 2 * int64(w.Network)
		w.oracle.ended(i)
	} else {
		o := upstream.Outcome{Now: w.now, Latency: w.now - r.sent, Status: 200}
		if r.failed {
			o.Status, o.Fault = 503, upstream.FaultStatus
		}
		if r.gone {
			o.Status, o.Fault, o.Latency = 0, upstream.FaultClient, 0
		}
		r.lease.Done(o)
		if r.gone {
			return
		}
	}
	if w.Answer != nil {
		w.Answer(time.Duration(r.start-epoch), time.Duration(latency))
	}
	if r.counted {
		w.res.Latencies = append(w.res.Latencies, time.Duration(latency))
		if r.failed {
			w.res.Failed[i]++
		} else {
			w.res.Good = append(w.res.Good, time.Duration(latency))
		}
	}
	if r.again {
		w.request(true)
	}
}

// work puts CPU into the queue of backend i at a time, and says when it is done.
func (w *world) work(i int, at int64, cpu float64) (end int64) {
	b := &w.Backends[i]
	q := w.free[i]
	k := 0
	for j := range q {
		if q[j] < q[k] {
			k = j
		}
	}
	begin := max(at, q[k])
	cost := float64(b.Service) * cpu
	if b.Slow != nil {
		cost *= b.Slow(time.Duration(begin - epoch))
	}
	if b.Warm != nil {
		cost *= b.Warm(w.served[i], time.Duration(begin-q[k]))
	}
	w.served[i]++
	left := int64(cost)
	for _, s := range b.Stops {
		from, to := epoch+int64(s.From), epoch+int64(s.To)
		if to <= begin {
			continue
		}
		if begin+left <= from {
			break
		}
		left -= max(0, from-begin)
		begin = to
	}
	q[k] = begin + left
	return q[k]
}

// poll is a request that is held open without work.
type poll struct {
	w     *world
	start int64
	sel   upstream.Selection
	wait  upstream.Waiter
	waits bool
	lease upstream.Lease
}

func (w *world) poll() {
	p := &poll{w: w}
	p.sel.Reset(w.now, 0)
	if p.sel.Stream = w.PollsSay; w.pools[0].Snapshot().Holds() {
		p.sel.Kind = 3
	}
	p.ask()
}

func (p *poll) ask() {
	w := p.w
	p.sel.Now = w.now
	l, err := w.pools[0].Acquire(&p.sel)
	switch {
	case err == nil:
		p.lease, p.start = l, w.now
		if !w.NoPark {
			w.at(w.now+upstream.ParkAfter, p.look)
		}
		w.at(w.now+int64(w.LongPoll), p.end)
	case p.waits:
	default:
		p.wait.Wake = func() { w.at(w.now, p.ask) }
		if p.waits = w.pools[0].Wait(&p.wait, &p.sel); !p.waits {
			panic("no place to wait")
		}
	}
}

func (p *poll) look() {
	if w := p.w; w.now < p.start+int64(w.LongPoll) && !p.lease.Park(w.now) {
		w.at(w.now+upstream.ParkAfter, p.look)
	}
}

func (p *poll) end() {
	p.lease.Done(upstream.Outcome{Now: p.w.now, Latency: p.w.now - p.start, Status: 200})
	p.w.poll()
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
