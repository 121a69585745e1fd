package admin

import (
	"math"
	"time"

	"lb/upstream"
)

// Status is lb at one moment. Its JSON is an interface: fields may be added, none changes its meaning.
type Status struct {
	Version   string     `json:"version"`
	State     string     `json:"state"` // starting, running, stopping
	Started   time.Time  `json:"started"`
	Uptime    int64      `json:"uptime_seconds"`
	Listeners []Listener `json:"listeners"`
	Pools     []Pool     `json:"pools"`
}

// Listener is an address that clients connect to.
type Listener struct {
	Name        string `json:"name"`
	Address     string `json:"address"`
	Connections int64  `json:"connections"` // open, tunnels included
	Accepted    uint64 `json:"accepted"`
	Requests    uint64 `json:"requests"`
}

// Pool is a set of interchangeable backends.
type Pool struct {
	Name     string    `json:"name"`
	Strategy string    `json:"strategy"`
	Backends []Backend `json:"backends"`
}

// Backend is one instance of the app. Counts are since it joined its pool.
type Backend struct {
	Name     string `json:"name"`
	Address  string `json:"address"`
	State    State  `json:"state"`
	Weight   int    `json:"weight"`
	Inflight int64  `json:"inflight"` // requests, parked ones included
	Parked   int64  `json:"parked"`   // those of them that only wait, such as long polls
	Tunnels  int64  `json:"tunnels"`

	Requests uint64  `json:"requests"` // attempts ended
	Retries  uint64  `json:"retries"`  // attempts sent here that were not their request's first
	Failures uint64  `json:"failures"` // attempts that went wrong by the backend's fault
	Errors   uint64  `json:"errors"`   // answers of status 5xx
	P50      float64 `json:"p50_ms"`   // of the time from choosing the backend to the end of its answer
	P99      float64 `json:"p99_ms"`

	Connections int64 `json:"connections"` // to the backend, idle ones included
	Idle        int64 `json:"idle_connections"`
}

// State says in a word whether a backend gets requests, or why it does not.
type State string

// The states of a backend.
const (
	Ready     State = "ready"
	Draining  State = "draining"  // finishes what it has
	Down      State = "down"      // active checks say so, or it refuses connections
	Ejected   State = "ejected"   // failed too many requests
	Resting   State = "resting"   // weight 0
	Unchecked State = "unchecked" // waits for its first active check
)

func stateOf(b *upstream.Backend) State {
	life := b.Life()
	switch {
	case life.Wanted != upstream.In:
		return Draining
	case life.Probed == upstream.Down, life.Dead && !life.Ejected.IsZero():
		return Down
	case !life.Ejected.IsZero():
		return Ejected
	case b.Weight <= 0:
		return Resting
	case b.Index() < 0:
		return Unchecked
	}
	return Ready
}

// PoolStatus is p now.
func PoolStatus(p *upstream.Pool, strategy string) Pool {
	out := Pool{Name: p.Name, Strategy: strategy}
	for _, b := range p.Snapshot().All {
		out.Backends = append(out.Backends, backendStatus(b))
	}
	return out
}

func backendStatus(b *upstream.Backend) Backend {
	load := b.Load()
	out := Backend{
		Name: b.Name, Address: b.Addr.String(), State: stateOf(b), Weight: b.Weight,
		Inflight: load.Active() + load.Parked(), Parked: load.Parked(), Tunnels: load.Tunnels(),
	}
	var h upstream.HistogramSnapshot
	for loop := range b.Loops() {
		s := b.Stats(loop)
		for i := range s.Requests {
			out.Requests += s.Requests[i].Load()
		}
		out.Errors += s.Requests[5].Load()
		out.Retries += s.Retries.Load()
		for f := range s.Faults {
			if upstream.Fault(f).Blames() {
				out.Failures += s.Faults[f].Load()
			}
		}
		out.Connections += s.ConnsOpen.Load()
		out.Idle += s.ConnsIdle.Load()
		h.Add(&s.Latency)
	}
	out.P50, out.P99 = millis(h.Quantile(.5)), millis(h.Quantile(.99))
	return out
}

// millis keeps three digits behind the point: the histogram is no finer.
func millis(seconds float64) float64 { return math.Round(seconds*1e6) / 1e3 }
