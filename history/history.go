// Package history is the last two minutes of each pool and backend, second by second: what /metrics gives to those who
// keep it, for those who only look. It reads what the loops count for themselves; requests pay nothing for it.
package history

import (
	"context"
	"sync"
	"time"

	"lb/upstream"
)

const (
	// Interval is what one Sample covers.
	Interval = time.Second
	// Length is how many samples are kept.
	Length = 120
	// Window is how many of the last samples Recent sums up.
	Window = 10
)

// Sample is what happened in one interval, and what was the case at its end.
type Sample struct {
	Took     time.Duration `json:"took"`               // the interval: Interval, or more when the process stood still
	Requests uint64        `json:"requests,omitempty"` // that began; of a backend: attempts sent to it
	Ended    uint64        `json:"ended,omitempty"`    // of them and of earlier ones
	Errors   uint64        `json:"errors,omitempty"`   // of Ended; of a pool: those that clients saw, of a backend: failed attempts and answers 5xx
	Retries  uint64        `json:"retries,omitempty"`  // attempts that were not their request's first
	Sent     uint64        `json:"sent,omitempty"`     // bytes to backends
	Received uint64        `json:"received,omitempty"` // bytes from backends
	P50      float64       `json:"p50,omitempty"`      // s, of the requests that ended; 0 when none did
	P99      float64       `json:"p99,omitempty"`

	Inflight int64 `json:"inflight,omitempty"` // parked ones included
	Waiting  int64 `json:"waiting,omitempty"`  // of a pool: requests in its queue
	Tunnels  int64 `json:"tunnels,omitempty"`
}

// Recent sums up the last Window samples.
type Recent struct {
	Rate      float64 // requests/s, see Sample.Requests
	ErrorRate float64 // share of the requests that ended, see Sample.Errors; 0 when none did
	Share     float64 // of the requests of all backends of the pool that this one got; 0 without requests, and of a pool
	P50, P99  float64 // s; 0 when no request ended
}

// Recorder keeps the samples. A backend's go on, by the names of its pool and its own, across reloads, also when it
// moves to another address; they go when it leaves its pool.
type Recorder struct {
	mu    sync.Mutex
	last  time.Time
	pools map[string]*poolSeries
	round uint64 // which Record it is
}

type poolSeries struct {
	series
	pool             *upstream.Pool
	failed, unserved uint64 // so far
	backends         map[string]*backendSeries
	round            uint64 // when it was last seen
}

type backendSeries struct {
	series
	live  *upstream.Live // who counted so far
	base  counts
	hist  upstream.HistogramSnapshot // of live
	round uint64
}

// counts are a backend's, so far or of an interval.
type counts struct {
	picks, ended, retries, sent, received uint64

	answered uint64 // 5xx
	failed   uint64 // attempts
}

// read sums up what the loops counted.
func read(b *upstream.Backend) (c counts) {
	for loop := range b.Loops() {
		s := b.Stats(loop)
		// What ends is read before what begins, so that no more seems to end than began.
		for i := range s.Requests {
			c.ended += s.Requests[i].Load()
		}
		c.answered += s.Requests[5].Load()
		for f := range s.Faults {
			// FaultStatus is of answers, which are counted as such.
			if fault := upstream.Fault(f); fault.Blames() && fault != upstream.FaultStatus {
				c.failed += s.Faults[f].Load()
			}
		}
		c.picks += s.Picks.Load()
		c.retries += s.Retries.Load()
		c.sent += s.BytesSent.Load()
		c.received += s.BytesReceived.Load()
	}
	return c
}

func (c counts) minus(b counts) counts {
	return counts{
		c.picks - b.picks, c.ended - b.ended, c.retries - b.retries, c.sent - b.sent, c.received - b.received,
		c.answered - b.answered, c.failed - b.failed,
	}
}

// New makes an empty Recorder.
func New() *Recorder { return &Recorder{pools: map[string]*poolSeries{}} }

// Run records pools every Interval until ctx ends; each, if not nil, is called after each time.
func (r *Recorder) Run(ctx context.Context, pools func() []*upstream.Pool, each func()) {
	r.Record(time.Now(), pools())
	t := time.NewTicker(Interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			r.Record(now, pools())
			if each != nil {
				each()
			}
		}
	}
}

// Record adds a sample for each of pools and of their backends. Whatever is seen for the first time is taken to have
// begun to count since the last Record.
func (r *Recorder) Record(now time.Time, pools []*upstream.Pool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	took := Interval
	if !r.last.IsZero() {
		took = max(now.Sub(r.last), time.Millisecond)
	}
	r.last = now
	r.round++
	for _, p := range pools {
		s := r.pools[p.Name]
		if s == nil || s.pool != nil && s.pool != p {
			s = &poolSeries{pool: p, backends: map[string]*backendSeries{}}
			r.pools[p.Name] = s
		}
		s.pool, s.round = p, r.round
		s.record(took)
	}
	for name, s := range r.pools {
		if s.round != r.round {
			delete(r.pools, name)
		}
	}
}

func (p *poolSeries) record(took time.Duration) {
	failed, unserved := p.pool.Failed()
	all := Sample{Took: took, Waiting: p.pool.Waiting()}
	all.Errors, all.Ended = failed-p.failed, unserved-p.unserved // who was never sent anywhere has ended, too
	all.Requests = all.Ended
	p.failed, p.unserved = failed, unserved
	p.begin()
	for _, b := range p.pool.Snapshot().All {
		s := p.backends[b.Name]
		if s == nil {
			s = &backendSeries{}
			p.backends[b.Name] = s
		}
		s.round = p.round
		x, answered := s.record(b, took)
		p.end(s.now(), s.before())
		all.Requests += x.Requests - min(x.Requests, x.Retries)
		all.Ended += x.Ended - min(x.Ended, x.Retries)
		all.Errors += answered
		all.Retries += x.Retries
		all.Sent += x.Sent
		all.Received += x.Received
		all.Inflight += x.Inflight
		all.Tunnels += x.Tunnels
	}
	p.add(all)
	p.sum()
	picks := uint64(0)
	for name, s := range p.backends {
		if s.round != p.round {
			delete(p.backends, name)
			continue
		}
		picks += s.sum()
	}
	for _, s := range p.backends {
		if picks > 0 {
			s.recent.Share = float64(s.requests) / float64(picks)
		}
	}
}

// record adds a sample, and says how many answers of it were 5xx.
func (s *backendSeries) record(b *upstream.Backend, took time.Duration) (x Sample, answered uint64) {
	if s.live != b.Live {
		s.live, s.base, s.hist = b.Live, counts{}, upstream.HistogramSnapshot{}
	}
	c := read(b)
	d := c.minus(s.base)
	s.base = c
	load := b.Load()
	s.begin()
	if d.ended > 0 {
		var h upstream.HistogramSnapshot
		for loop := range b.Loops() {
			h.Add(&b.Stats(loop).Latency)
		}
		s.end(&h, &s.hist)
		s.hist = h
	}
	x = Sample{
		Took: took, Requests: d.picks, Ended: d.ended, Errors: min(d.answered+d.failed, d.ended), Retries: d.retries,
		Sent: d.sent, Received: d.received,
		Inflight: load.Active() + load.Parked(), Tunnels: load.Tunnels(),
	}
	s.add(x)
	return x, d.answered
}

// find gives the series of a backend, or with backend "" of a pool; nil when there is none yet.
func (r *Recorder) find(pool, backend string) *series {
	p := r.pools[pool]
	if p == nil {
		return nil
	}
	if backend == "" {
		return &p.series
	}
	if b := p.backends[backend]; b != nil {
		return &b.series
	}
	return nil
}

// Recent is how a backend, or with backend "" a pool, did of late. It is zero for whom there are no samples yet.
func (r *Recorder) Recent(pool, backend string) Recent {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.find(pool, backend); s != nil {
		return s.recent
	}
	return Recent{}
}

// Samples are the last n, or as many as there are, of a backend, or with backend "" of a pool; the oldest first.
func (r *Recorder) Samples(pool, backend string, n int) []Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.find(pool, backend)
	if s == nil {
		return nil
	}
	return s.last(n)
}

// Kept is the samples of a backend, or with Backend "" of a pool, for a process that goes on where this one ends.
type Kept struct {
	Pool    string   `json:"pool"`
	Backend string   `json:"backend,omitempty"`
	Samples []Sample `json:"samples"` // the oldest first
}

// Keep gives all there is.
func (r *Recorder) Keep() (all []Kept) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for pool, p := range r.pools {
		all = append(all, Kept{Pool: pool, Samples: p.last(Length)})
		for name, b := range p.backends {
			all = append(all, Kept{pool, name, b.last(Length)})
		}
	}
	return all
}

// Restore has a Recorder that has recorded nothing yet begin with what another kept. What is not there any more goes with
// the first Record.
func (r *Recorder) Restore(all []Kept) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range all {
		p := r.pools[k.Pool]
		if p == nil {
			p = &poolSeries{backends: map[string]*backendSeries{}}
			r.pools[k.Pool] = p
		}
		s := &p.series
		if k.Backend != "" {
			b := &backendSeries{}
			p.backends[k.Backend] = b
			s = &b.series
		}
		for _, x := range k.Samples[max(0, len(k.Samples)-Length):] {
			if x.Took > 0 { // else it is none
				s.ring[s.n] = x
				s.n++
			}
		}
	}
}
