package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"sync/atomic"
	"time"

	"lb/history"
)

const (
	// maxViewers is how many may follow /live at a time.
	maxViewers = 64
	// backlog is how many messages a viewer may be behind before it is dropped: one comes each second.
	backlog = 4
	// viewerWait is how long a viewer may take for one message, above what the kernel holds for it.
	viewerWait = 5 * time.Second
	// newsPause is at least between two messages that come before their second is over.
	newsPause = 100 * time.Millisecond
)

// Live streams what Status says to everybody who looks, once a second and when something happens. What it sends is
// encoded once for all.
type Live struct {
	src     LiveSources
	tick    chan struct{} // has room for one: there is a new sample
	news    chan struct{} // has room for one: something happened
	joins   chan *viewer
	leaves  chan *viewer
	ended   chan struct{}
	viewers atomic.Int32
}

// LiveSources is what a Live looks at. The funcs are called on its goroutine.
type LiveSources struct {
	Status func() Status
	// Samples are the last n of a backend, or with backend "" of a pool; see history.Recorder.
	Samples func(pool, backend string, n int) []history.Sample
	// Events are those after the first n ever, as far as they are kept, and how many there ever were.
	Events  func(n int) ([]Event, int)
	Actions func() bool // whether the page may act; nil: it may not
}

// viewer is one who follows.
type viewer struct {
	messages chan []byte // closed when it is dropped
}

// NewLive makes a Live; Run makes it go.
func NewLive(src LiveSources) *Live {
	return &Live{
		src: src, tick: make(chan struct{}, 1), news: make(chan struct{}, 1),
		joins: make(chan *viewer), leaves: make(chan *viewer), ended: make(chan struct{}),
	}
}

// Tick says that there is a new sample of everything.
func (l *Live) Tick() { poke(l.tick) }

// News says that something happened that is not to wait for the next Tick.
func (l *Live) News() { poke(l.news) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run serves viewers until ctx ends.
func (l *Live) Run(ctx context.Context) {
	all := map[*viewer]bool{}
	defer func() {
		close(l.ended)
		for v := range all {
			close(v.messages)
		}
	}()
	var full []byte // for who comes before anything else is sent
	seen := 0       // events that were sent
	var last time.Time
	var soon <-chan time.Time
	send := func(kind string, samples int) {
		full, last, soon = nil, time.Now(), nil
		if len(all) == 0 {
			return
		}
		var m message
		m, seen = l.message(samples, seen)
		b := m.encode(kind)
		for v := range all {
			select {
			case v.messages <- b:
			default: // it does not keep up, and may come again
				delete(all, v)
				close(v.messages)
			}
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case v := <-l.joins:
			if full == nil {
				m, ever := l.message(history.Length, 0)
				full = m.encode("full")
				if len(all) == 0 { // else others have not seen all of its events yet
					seen = ever
				}
			}
			all[v] = true
			v.messages <- full
		case v := <-l.leaves:
			if all[v] {
				delete(all, v)
				close(v.messages)
			}
		case <-l.tick:
			send("tick", 1)
		case <-l.news:
			if wait := newsPause - time.Since(last); wait > 0 {
				if soon == nil {
					soon = time.After(wait)
				}
				continue
			}
			send("news", 0)
		case <-soon:
			send("news", 0)
		}
	}
}

// message is what /live sends. Its samples are for the pools of status and their backends, in the same order: of each
// pool first its own.
type message struct {
	Now     int64        `json:"now"` // ms, Unix time
	Actions bool         `json:"actions"`
	Status  Status       `json:"status"`
	Samples [][][]sample `json:"samples,omitempty"`
	Events  []Event      `json:"events,omitempty"`
	Ever    int          `json:"ever"` // events up to here, these included
}

// sample is, of one second: requests a second, failed ones a second, p50 and p99 in ms, requests in flight, requests
// that wait, tunnels, bytes a second to and from backends.
type sample [8]float64

func sampleOf(s *history.Sample) sample {
	per := 1 / s.Took.Seconds()
	out := sample{
		float64(s.Requests) * per, float64(s.Errors) * per, s.P50 * 1e3, s.P99 * 1e3,
		float64(s.Inflight), float64(s.Waiting), float64(s.Tunnels), float64(s.Sent+s.Received) * per,
	}
	for i, x := range out {
		out[i] = math.Round(x*1e3) / 1e3
	}
	return out
}

// message gathers the last samples, and the events after so many.
func (l *Live) message(samples, after int) (m message, ever int) {
	m.Now, m.Status = time.Now().UnixMilli(), l.src.Status()
	m.Events, m.Ever = l.src.Events(after)
	m.Actions = l.src.Actions != nil && l.src.Actions()
	if samples == 0 {
		return m, m.Ever
	}
	of := func(pool, backend string) []sample {
		all := l.src.Samples(pool, backend, samples)
		out := make([]sample, len(all))
		for i := range all {
			out[i] = sampleOf(&all[i])
		}
		return out
	}
	for _, p := range m.Status.Pools {
		these := [][]sample{of(p.Name, "")}
		for _, b := range p.Backends {
			these = append(these, of(p.Name, b.Name))
		}
		m.Samples = append(m.Samples, these)
	}
	return m, m.Ever
}

// encode makes m a server-sent event.
func (m *message) encode(kind string) []byte {
	b, err := json.Marshal(m)
	if err != nil { // a number that is none, which is a bug
		return []byte(": " + kind + " cannot be encoded\n\n")
	}
	out := make([]byte, 0, len(b)+64)
	out = append(out, "event: "+kind+"\n"...)
	if kind == "full" {
		out = append(out, "retry: 1000\n"...)
	}
	out = append(out, "data: "...)
	out = append(out, b...)
	return append(out, "\n\n"...)
}

// ServeHTTP follows until the client goes, does not keep up, or lb ends.
func (l *Live) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if l.viewers.Add(1) > maxViewers {
		l.viewers.Add(-1)
		w.Header().Set("Retry-After", "10")
		text(w, http.StatusServiceUnavailable, fmt.Sprintf("%d pages are open already: close one\n", maxViewers))
		return
	}
	defer l.viewers.Add(-1)
	v := &viewer{messages: make(chan []byte, backlog)}
	select {
	case l.joins <- v:
	case <-l.ended:
		text(w, http.StatusServiceUnavailable, "lb is not running\n")
		return
	case <-r.Context().Done():
		return
	}
	defer func() {
		select {
		case l.leaves <- v:
		case <-l.ended:
		}
	}()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // an nginx before it is not to hold it back
	c := http.NewResponseController(w)
	c.SetReadDeadline(time.Time{}) // else the server's own ends it
	closing, _ := r.Context().Value(closingKey{}).(<-chan struct{})
	for {
		select {
		case b, ok := <-v.messages:
			if !ok {
				panic(http.ErrAbortHandler) // so that the client can tell from an end
			}
			c.SetWriteDeadline(time.Now().Add(viewerWait))
			if _, err := w.Write(b); err != nil {
				return
			}
			if c.Flush() != nil {
				return
			}
		case <-r.Context().Done():
			return
		case <-closing:
			return
		}
	}
}

// closingKey is under which a request's context has what is closed when its server is about to shut down.
type closingKey struct{}
