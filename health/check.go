// Package health finds out which backends are well, and tells their pools.
//
// Active checks ask each backend again and again, passive ones go by what became of requests. Each writes one fact of
// upstream.Life, and the pool alone decides by these facts who gets requests. A Monitor does both for one pool. Nothing
// here runs on the way of a request, but for Monitor.Fault, which is called for those that failed.
package health

import (
	"net/http"
	"slices"
	"time"
)

// Kind is how an active check asks.
type Kind uint8

// The kinds of checks.
const (
	Off  Kind = iota // not at all: only passive checks say something, and backends that are out are asked by TCP
	TCP              // a connection is made and closed
	HTTP             // a request is answered as it should be
)

// Check is how the backends of a pool are asked whether they are well. Times and counts of 0 are those of
// DefaultCheck.
type Check struct {
	Kind   Kind
	Port   uint16      // asked in place of the backend's own; 0: its own
	Method string      // GET
	Path   string      // with a query, if any
	Host   string      // the Host header; empty: the address
	Header http.Header // further ones
	Status []Range     // what counts as well; empty: 200 to 399
	Body   string      // must occur within the first 64 KiB of the answer's body

	Interval time.Duration // between checks of a backend that is well
	Changing time.Duration // between checks while they say something new, or the backend is ejected
	Down     time.Duration // between checks of a backend that is not well
	Timeout  time.Duration // for one check
	Fall     int           // so many in a row must fail to take a backend out
	Rise     int           // so many in a row must pass to take it in again
	Jitter   float64       // part of a time by which it is changed by chance, in both directions
}

// Range is a range of status codes, both ends included.
type Range struct{ From, To int }

// DefaultCheck is what a pool gets that sets nothing. A dead process is out after 1.5 s by active checks alone, and back
// 1 s after it listens again; 2 s of timeout and three tries outlast the pauses of a garbage collector.
func DefaultCheck() Check {
	return Check{
		Kind:     TCP,
		Interval: 2 * time.Second,
		Changing: 500 * time.Millisecond,
		Down:     time.Second,
		Timeout:  2 * time.Second,
		Fall:     3,
		Rise:     2,
		Jitter:   .1,
	}
}

// complete fills in what is not set.
func (c Check) complete() Check {
	d := DefaultCheck()
	or(&c.Interval, d.Interval)
	or(&c.Changing, d.Changing)
	or(&c.Down, d.Down)
	or(&c.Timeout, d.Timeout)
	or(&c.Fall, d.Fall)
	or(&c.Rise, d.Rise)
	or(&c.Method, http.MethodGet)
	if c.Path == "" {
		c.Path = "/"
	}
	if len(c.Status) == 0 {
		c.Status = []Range{{200, 399}}
	}
	return c
}

func or[T comparable](v *T, other T) {
	var zero T
	if *v == zero {
		*v = other
	}
}

// equal reports whether c and d ask the same in the same way.
func (c *Check) equal(d *Check) bool {
	for k, v := range c.Header {
		if !slices.Equal(v, d.Header[k]) {
			return false
		}
	}
	return len(c.Header) == len(d.Header) && slices.Equal(c.Status, d.Status) &&
		c.Kind == d.Kind && c.Port == d.Port && c.Method == d.Method && c.Path == d.Path && c.Host == d.Host && c.Body == d.Body &&
		c.Interval == d.Interval && c.Changing == d.Changing && c.Down == d.Down && c.Timeout == d.Timeout &&
		c.Fall == d.Fall && c.Rise == d.Rise && c.Jitter == d.Jitter
}

// Passive is when a backend is ejected for what became of its requests. Values of 0 are those of DefaultPassive.
type Passive struct {
	Off    bool
	Faults int           // within Window
	Window time.Duration // that is looked at
	Ratio  float64       // of its requests in that time that must have failed
	Out    time.Duration // for how long the first time; twice as long each time after
	MaxOut time.Duration // at most
}

// DefaultPassive is what a pool gets that sets nothing. Single failures are normal; five of them that are half of all
// are not.
func DefaultPassive() Passive {
	return Passive{Faults: 5, Window: 10 * time.Second, Ratio: .5, Out: 5 * time.Second, MaxOut: time.Minute}
}

func (p Passive) complete() Passive {
	d := DefaultPassive()
	or(&p.Faults, d.Faults)
	or(&p.Window, d.Window)
	or(&p.Ratio, d.Ratio)
	or(&p.Out, d.Out)
	or(&p.MaxOut, d.MaxOut)
	return p
}
