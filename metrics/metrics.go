// Package metrics shows Prometheus what the other parts count.
//
// Nothing is registered and nothing is counted here: a scrape walks the pools' snapshots and the listeners, and adds
// up what each loop counted for itself, so that requests pay for an increment of a plain word and no more. The number
// of series follows from the configuration alone. No label has a value that a client chose, and a backend that left
// its pool takes its series along.
//
// docs/metrics.md lists them all.
package metrics

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lb/upstream"
)

// Sources is where the numbers come from. The funcs are called once a scrape, by one scrape at a time, on a goroutine
// that is not a loop's; each may be nil.
type Sources struct {
	Version string // of lb, for lb_build_info

	Pools     func() []*upstream.Pool
	Listeners func() []Listener
	Affinity  func() []Affinity

	LogLines   func() uint64 // access log lines written
	LogDropped func() uint64 // access log lines lost
	Reloads    func() Reloads
	Upgrades   func() Upgrades

	// OnError hears of a scrape that went wrong in part or in whole.
	OnError func(error)
}

// Affinity is what became of the requests of a pool whose client could be known.
type Affinity struct {
	Pool    string
	Visits  []Visits // all there can be, also those that have not occurred
	Learned uint64   // sessions whose backend was learned
	Evicted uint64   // sessions that were forgotten for want of room
	Unread  uint64   // answers in which no session of Socket.IO was found
}

// Visits is a count of requests by how their client was known and what became of it, both words of lb's own.
type Visits struct {
	By, Result string
	Count      uint64
}

// Reloads is how often the configuration was read again.
type Reloads struct {
	Succeeded, Failed uint64
	OK                bool      // the last time, or at the start
	Time              time.Time // when it last succeeded
}

// Upgrades is how often a process was to take over from the one before, since the first of them began.
type Upgrades struct{ Succeeded, Failed uint64 }

// Listener is an address that clients connect to. Several of one name, as while an old one drains after a reload,
// are added up.
type Listener interface {
	Name() string
	Stats() ListenerStats
}

// ListenerStats is what a listener counted since it was opened.
type ListenerStats struct {
	Accepted uint64 // connections
	Open     int64  // connections, tunnels included
	Paused   uint64 // times that accepting paused for want of descriptors
	Requests uint64
	BytesIn  uint64 // of request bodies
	BytesOut uint64 // of response bodies

	// Failed are the requests that the application did not answer, or not to the end, by reason. It lists every
	// reason there is, also those that have not occurred, so that a series is there before its first event. Reasons
	// are lb's own words, never a client's; "" is passed over.
	Failed []Reason
}

// Reason is a count under a name.
type Reason struct {
	Name  string
	Count uint64
}

// Handler serves the metrics in the text formats and as protobuf, the only one that carries native histograms,
// whichever the scraper asks for.
func Handler(s Sources) http.Handler {
	return promhttp.HandlerFor(registry(s), promhttp.HandlerOpts{
		EnableOpenMetrics: true,
		// Scrapers that come faster than we answer share an answer.
		CoalesceGather: true,
		// One odd series must not hide all others in an incident.
		ErrorHandling: promhttp.ContinueOnError,
		ErrorLog:      errorLog(s.OnError),
	})
}

// registry is one of our own: the default one shows what any imported package puts there.
func registry(s Sources) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		newCollector(s),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

type errorLog func(error)

func (f errorLog) Println(v ...any) {
	if f == nil {
		return
	}
	for _, x := range v {
		if err, ok := x.(error); ok {
			f(fmt.Errorf("metrics: %w", err))
			return
		}
	}
	f(errors.New("metrics: " + fmt.Sprint(v...)))
}
