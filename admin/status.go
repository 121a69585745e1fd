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
	PID       int        `json:"pid"`
	File      string     `json:"file"`             // the configuration
	Reload    *Reloaded  `json:"reload,omitempty"` // the last one; none yet
	Started   time.Time  `json:"started"`
	Uptime    int64      `json:"uptime_seconds"`
	Listeners []Listener `json:"listeners"`
	Pools     []Pool     `json:"pools"`
}

// Reloaded is what came of reading the configuration again.
type Reloaded struct {
	Time  time.Time `json:"time"`
	OK    bool      `json:"ok"`              // what the file said then is in force
	Error string    `json:"error,omitempty"` // why it is not, a line for each fault
	By    string    `json:"by,omitempty"`    // who asked for it over the socket
}

// Listener is an address that clients connect to.
type Listener struct {
	Name        string `json:"name"`
	Address     string `json:"address"`
	Connections int64  `json:"connections"` // open, tunnels included
	Accepted    uint64 `json:"accepted"`
	Requests    uint64 `json:"requests"`
}

// Pool is a set of interchangeable backends. Counts are since it was first configured.
type Pool struct {
	Name     string         `json:"name"`
	Strategy string         `json:"strategy"`
	FailOpen bool           `json:"fail_open"` // nobody is ready: requests go to all that are not known to be dead
	Recent   Recent         `json:"recent"`
	Requests uint64         `json:"requests"` // each counted once, those that wait not yet
	Failed   uint64         `json:"failed"`   // that the app did not answer, or not to the end, and not because of the client
	Queue    Queue          `json:"queue"`
	Limited  bool           `json:"limited"` // requests wait in lb while every ready backend has its Limit in work
	Summary  string         `json:"summary"` // what goes on, in words: "8 in work, 3 waiting in lb"
	Affinity *Affinity      `json:"affinity,omitempty"`
	Backends []Backend      `json:"backends"`
	Removed  []Removed      `json:"removed,omitempty"` // what the file has, and lb remove took out
	Rollout  *RolloutStatus `json:"rollout,omitempty"` // that runs, or was over not long ago
}

// Removed is a backend of the configuration that was taken out while lb runs.
type Removed struct {
	Name    string    `json:"name"`
	Address string    `json:"address"`
	Time    time.Time `json:"time"`
	By      string    `json:"by,omitempty"`
}

// Queue is requests that wait for a backend. Counts are since lb began.
type Queue struct {
	Waiting  int64   `json:"waiting"`
	Waits    uint64  `json:"waits"`
	Timeouts uint64  `json:"timeouts"` // waits in vain
	Full     uint64  `json:"full"`     // requests that could not even wait
	Mean     float64 `json:"mean_ms"`  // of the waits that are over
}

// Recent is the last ten seconds: of a backend by attempts sent to it, of a pool by requests as clients saw them.
type Recent struct {
	Rate      float64 `json:"rate"`       // requests begun a second
	ErrorRate float64 `json:"error_rate"` // of those that ended, 0 to 1: failures and answers of status 5xx
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
}

// Affinity is what became of requests whose client could be known. Counts are since lb began.
type Affinity struct {
	Kind     string `json:"kind"` // off, cookie, app_cookie, hash
	SocketIO bool   `json:"socketio"`
	New      uint64 `json:"new"`     // they brought nothing to know their client by
	Hits     uint64 `json:"hits"`    // they went where their client's session is
	Misses   uint64 `json:"misses"`  // what they brought says nothing here
	Moved    uint64 `json:"moved"`   // their backend can serve them no more
	Strayed  uint64 `json:"strayed"` // it is well, but did not take them
}

// Backend is one instance of the app. Counts are since it joined its pool.
type Backend struct {
	Name    string    `json:"name"`
	Address string    `json:"address"`
	State   State     `json:"state"`
	Since   time.Time `json:"since"` // it is in that state
	Health
	Recent  Recent  `json:"recent"`
	Share   float64 `json:"share"`             // of the pool's requests in the last ten seconds, 0 to 1
	Differs string  `json:"differs,omitempty"` // from the file, by a change while lb runs, in words
	Summary string  `json:"summary"`           // what it does, in words: "2 of 2 in work, 3 waiting in lb"

	Weight   float64 `json:"weight"`
	Inflight int64   `json:"inflight"` // requests, parked ones included
	Parked   int64   `json:"parked"`   // those of them that only wait, such as long polls
	Tunnels  int64   `json:"tunnels"`
	Sessions int64   `json:"sessions"` // in use of late that lb remembers, and that are no tunnels

	Limit  int64   `json:"limit"`  // requests in work from which on others wait in lb, learned or max_inflight; 0: none
	Slow   float64 `json:"slow"`   // how long it takes against the mean of its pool, 1 being as long; 0: the strategy does not measure
	Excess float64 `json:"excess"` // share of requests that it fails above its pool's share and what chance explains

	Requests uint64  `json:"requests"` // attempts ended
	Retries  uint64  `json:"retries"`  // attempts sent here that were not their request's first
	Failures uint64  `json:"failures"` // attempts that went wrong by the backend's fault
	Errors   uint64  `json:"errors"`   // answers of status 5xx
	P50      float64 `json:"p50_ms"`   // of the time from choosing the backend to the end of its answer
	P99      float64 `json:"p99_ms"`

	Connections int64 `json:"connections"` // to the backend, idle ones included
	Idle        int64 `json:"idle_connections"`
}

// Health is why a backend is in its state.
type Health struct {
	Why   string     `json:"why,omitempty"`           // it is ejected or down
	Until *time.Time `json:"ejected_until,omitempty"` // at the latest
	Check *Check     `json:"check,omitempty"`         // the last one
}

// Check is what a backend said when it was asked whether it is well.
type Check struct {
	Time   time.Time `json:"time"`
	Passed bool      `json:"passed"`
	Said   string    `json:"said,omitempty"` // what was wrong
	Took   float64   `json:"took_ms"`
	Streak int       `json:"streak"` // so many in a row came out the same
}

// Event is something that happened to a backend, or with an empty Backend to a pool, or without that to lb itself.
type Event struct {
	Time    time.Time  `json:"time"`
	Pool    string     `json:"pool,omitempty"`
	Backend string     `json:"backend,omitempty"`
	Event   string     `json:"event"`
	Why     string     `json:"why,omitempty"`
	By      string     `json:"by,omitempty"` // who ordered it: "uid 1000 (ubuntu)" over the socket, "page at 10.0.0.7:51234"
	Until   *time.Time `json:"until,omitempty"`
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

// StateOf is the state of b.
func StateOf(b *upstream.Backend) State {
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

// PoolStatus is p now, but for the Health of its backends and for what is recent.
func PoolStatus(p *upstream.Pool, strategy string) Pool {
	snap, q := p.Snapshot(), p.Queue()
	failed, _ := p.Failed()
	out := Pool{Name: p.Name, Strategy: strategy, FailOpen: snap.Panic, Requests: p.Requests(), Failed: failed}
	out.Queue = Queue{Waiting: q.Waiting, Waits: q.Waits, Timeouts: q.Timeouts, Full: q.Full}
	if over := int64(q.Waits) - q.Waiting; over > 0 {
		out.Queue.Mean = millis(float64(q.Waited) / float64(over) / 1e9)
	}
	inWork := int64(0)
	out.Limited = len(snap.Ready) > 0
	for _, b := range snap.All {
		s := backendStatus(b, snap.Opinion(b), q.Waiting)
		inWork += s.Inflight - s.Parked
		out.Limited = out.Limited && (b.Index() < 0 || s.Limit > 0)
		out.Backends = append(out.Backends, s)
	}
	out.Summary = poolSummary(&out, inWork)
	return out
}

func backendStatus(b *upstream.Backend, o upstream.Opinion, waiting int64) Backend {
	load := b.Load()
	out := Backend{
		Name: b.Name, Address: b.Addr.String(), State: StateOf(b), Since: b.Since().UTC().Truncate(time.Millisecond), Weight: b.Weighs(),
		Inflight: load.Active() + load.Parked(), Parked: load.Parked(), Tunnels: load.Tunnels(), Sessions: b.Sessions(),
		Limit: o.Limit, Slow: thousandths(o.Slow), Excess: thousandths(o.Excess),
	}
	full := o.Limit > 0 && load.Active() >= o.Limit || b.MaxInflight > 0 && out.Inflight >= b.MaxInflight
	out.Summary = summary(&out, full, waiting)
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

func thousandths(x float64) float64 { return math.Round(x*1e3) / 1e3 }

// Millis is for a duration in seconds what the Status says of it.
func Millis(seconds float64) float64 { return millis(seconds) }

// millis keeps three digits behind the point: the histogram is no finer.
func millis(seconds float64) float64 { return math.Round(seconds*1e6) / 1e3 }
