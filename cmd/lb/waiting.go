package main

import (
	"fmt"
	"strings"
	"time"

	"lb/admin"
)

// How long a command that waits for a backend says nothing, and how often it looks then.
const (
	silence = time.Second
	glances = time.Second
)

// awaited is an order that lb answers once a backend is as it shall be, or the wait is over.
type awaited struct {
	path, pool, backend string
	wait                time.Duration
	order               func(wait string) any       // its body
	says                func(*admin.Backend) string // what is waited for; "": nothing
}

// wait sends an order, and again with the rest of the wait when an upgrade of lb overtakes it: the new lb goes on. Whoever
// waits is told, on standard error, what it is that is waited for: once after a second, and whenever that changes. It
// returns how long all of it took.
func (t *target) wait(w world, o *awaited, answer any) (took time.Duration, err error) {
	begin := time.Now()
	done := make(chan error, 1)
	go func() {
		done <- t.ask("POST", o.path, func() any { return o.order(max(0, o.wait-time.Since(begin)).String()) }, answer)
	}()
	clock := time.NewTimer(silence)
	defer clock.Stop()
	for said := ""; ; clock.Reset(glances) {
		select {
		case err := <-done:
			return time.Since(begin), err
		case <-clock.C:
		}
		b := t.backend(o.pool, o.backend)
		if b == nil {
			continue
		}
		if text := o.says(b); text != "" && text != said {
			fmt.Fprintf(w.stderr, "lb: waiting: %s %s %s\n", o.pool, b.Name, text)
			said = text
		}
	}
}

// backend is how lb sees a backend now: by its name, or by its port where that says which. nil: it cannot be told.
func (t *target) backend(pool, name string) (found *admin.Backend) {
	var st admin.Status
	if t.get("/status", &st) != nil {
		return nil
	}
	for _, p := range st.Pools {
		for i := range p.Backends {
			b := &p.Backends[i]
			switch {
			case p.Name != pool:
			case b.Name == name:
				return b
			case b.Address == name, strings.HasSuffix(b.Address, ":"+name):
				if found != nil {
					return nil
				}
				found = b
			}
		}
	}
	return found
}

// unready says why a backend gets no requests.
func unready(b *admin.Backend) string {
	why := b.Why
	if c := b.Check; why == "" && c != nil && !c.Passed {
		why = c.Said
	}
	switch {
	case b.State == admin.Ready:
		return ""
	case why != "":
		return "is " + string(b.State) + ": " + printable(why)
	}
	return "is " + string(b.State)
}

// unfinished says what a backend still has.
func unfinished(b *admin.Backend) string {
	var has []string
	if b.Inflight > 0 {
		has = append(has, plural(b.Inflight, "request"))
	}
	if b.Tunnels > 0 {
		has = append(has, plural(b.Tunnels, "WebSocket"))
	}
	switch {
	case len(has) > 0:
		return "still has " + strings.Join(has, " and ")
	case b.Sessions > 0:
		return "goes on for the " + plural(b.Sessions, "session") + " that it has"
	}
	return "goes on for the clients whose sessions it has"
}
