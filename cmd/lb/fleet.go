package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"lb/config"
)

// How long instances of the demo think, on average. What lb does about the slow one is what the demo shows.
const (
	fast = 12 * time.Millisecond
	slow = 15 * fast
)

//go:embed demo.html
var demoPage string

// fleet is the instances of the demo's app.
type fleet struct {
	instances []*instance
	moved     []string
}

// instance is one server of the app: a small stand-in for a Node.js process.
type instance struct {
	name   string // its backend's in the configuration
	mean   time.Duration
	served atomic.Int64
	http   *http.Server
}

// startFleet starts an instance for each backend of cfg, the last of each pool a slow one. Where an address cannot be
// had, the instance takes another port and cfg is changed to say so.
func startFleet(cfg *config.Config) (*fleet, error) {
	f := new(fleet)
	var ports portFinder
	for p := range cfg.Pools {
		pool := &cfg.Pools[p]
		for i := range pool.Backends {
			b := &pool.Backends[i]
			ln, err := ports.listen("tcp", b.Address)
			if err != nil {
				f.stop()
				return nil, fmt.Errorf("instance for %s: %w", b.Address, err)
			}
			if b.Name == b.Address {
				b.Name = ln.Addr().String()
			}
			b.Address = ln.Addr().String()
			mean := fast
			if i > 0 && i == len(pool.Backends)-1 {
				mean = slow
			}
			f.start(b.Name, mean, ln)
		}
	}
	f.moved = ports.moved
	return f, nil
}

func (f *fleet) start(name string, mean time.Duration, ln net.Listener) {
	in := &instance{name: name, mean: mean}
	in.http = &http.Server{
		Handler:           in,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Second, // as Node.js does
	}
	f.instances = append(f.instances, in)
	go in.http.Serve(ln)
}

func (f *fleet) stop() {
	for _, in := range f.instances {
		in.http.Close()
	}
}

// label is what a table calls the backend of that name.
func (f *fleet) label(name string) string {
	for _, in := range f.instances {
		if in.name == name && in.mean == slow {
			return name + " (slow)"
		}
	}
	return name
}

// ServeHTTP thinks for a while, then says who it is.
func (in *instance) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := in.served.Add(1)
	// Half of the mean always, the other half at random with a long tail, as work of unlike size has it.
	think := in.mean/2 + time.Duration(rand.ExpFloat64()*float64(in.mean)/2)
	time.Sleep(min(think, 10*in.mean))
	w.Header().Set("X-Instance", in.name)
	w.Header().Set("Cache-Control", "no-store")
	switch r.URL.Path {
	case "/":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, strings.NewReplacer("{{instance}}", html.EscapeString(in.name), "{{served}}", fmt.Sprint(n),
			"{{id}}", html.EscapeString(r.Header.Get("X-Request-Id")), "{{from}}", html.EscapeString(r.Header.Get("X-Forwarded-For"))).Replace(demoPage))
	case "/whoami":
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"instance": in.name, "served": n, "thought_ms": think.Milliseconds()})
	default:
		http.NotFound(w, r)
	}
}
