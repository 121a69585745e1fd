// Package admin is the window into a running lb: /metrics, whether it is well and ready, and its status as JSON.
// It is plain net/http on an address of its own, reads what the data plane counts, and changes nothing; but see Control.
package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Sources is what there is to see. The funcs are called for each request, on its goroutine.
type Sources struct {
	Status  func() Status
	Ready   func() error   // nil when requests are welcome, else why not
	Events  func() []Event // the oldest first
	Metrics http.Handler
	Live    *Live // nil: there is none, and no page
	Page    *Page // nil: it shows, and does nothing
}

// Handler serves what s holds.
//
//	/            the live page for browsers, and /index.txt for others
//	/index.txt   what there is
//	/live        the page's server-sent events
//	/page/...    what belongs to the page; see Page for what it may do
//	/-/healthy   200 as long as the process answers: restart it when it does not
//	/-/ready     200, or 503 and a reason while new requests had better go elsewhere
//	/metrics     for Prometheus
//	/status      Status as JSON
//	/events      what happened to backends of late, as JSON
func Handler(s Sources) http.Handler {
	mux := http.NewServeMux()
	list := func(w http.ResponseWriter, r *http.Request) { text(w, http.StatusOK, index(s.Status())) }
	mux.HandleFunc("GET /index.txt", list)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept")
		if s.Live == nil || !strings.Contains(r.Header.Get("Accept"), "text/html") {
			list(w, r)
			return
		}
		asset(w, "index.html")
	})
	if s.Live != nil {
		mux.Handle("GET /live", s.Live)
		servePage(mux, s.Page)
	}
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, r *http.Request) { text(w, http.StatusOK, "healthy\n") })
	mux.HandleFunc("GET /-/ready", func(w http.ResponseWriter, r *http.Request) {
		if err := s.Ready(); err != nil {
			text(w, http.StatusServiceUnavailable, "not ready: "+err.Error()+"\n")
			return
		}
		text(w, http.StatusOK, "ready\n")
	})
	mux.Handle("GET /metrics", s.Metrics)
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, s.Status())
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK, s.Events()) })
	return nosniff(mux)
}

// nosniff has browsers take every answer for what it says that it is.
func nosniff(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		h.ServeHTTP(w, r)
	})
}

func text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprint(w, body)
}

func index(s Status) string {
	var ready, all int
	for _, p := range s.Pools {
		for _, b := range p.Backends {
			all++
			if b.State == Ready {
				ready++
			}
		}
	}
	return fmt.Sprintf(`lb %s, %s for %s, %d of %d backends ready

/            in a browser: this page, alive
/live        what it shows, as server-sent events
/status      listeners, pools and backends now, as JSON
/events      what happened to backends of late, as JSON
/metrics     counters for Prometheus
/-/healthy   200: the process answers
/-/ready     200: requests are welcome; 503 and a reason: they had better go elsewhere
`, s.Version, s.State, (time.Duration(s.Uptime) * time.Second).String(), ready, all)
}

// NewServer is a server for h that no client can hold up: whoever is slow in asking or in reading is cut off.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	closing := make(chan struct{})
	var once sync.Once
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second, // Prometheus gives up after 10 s, people later
		IdleTimeout:       2 * time.Minute,  // above Prometheus's usual minute between scrapes
		MaxHeaderBytes:    16 << 10,
		ConnContext:       withCaller,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what strangers send is no event of ours
	}
	// A stream has no end to wait for.
	srv.RegisterOnShutdown(func() { once.Do(func() { close(closing) }) })
	srv.BaseContext = func(net.Listener) context.Context {
		return context.WithValue(context.Background(), closingKey{}, (<-chan struct{})(closing))
	}
	return srv
}
