package server

import (
	"fmt"
	"strings"

	"lb/admin"
	"lb/config"
	"lb/upstream"
)

// describe says in words what c changes and what it does not. No changes means that there is nothing to do.
func (s *Server) describe(c *change) admin.Verdict {
	was, is := s.Config(), c.plan.cfg
	d := &words{was: map[string]*pool{}, touched: map[string]bool{}}
	for _, p := range *s.pools.Load() {
		d.was[p.Name] = p
	}
	d.sockets(s.places.Load(), c.places)
	if a, b := was.Admin.Address, is.Admin.Address; a != b {
		d.say("admin server moved from %s to %s", orOff(a), orOff(b))
	}
	if a, b := was.Admin.Socket, is.Admin.Socket; a != b {
		d.say("admin socket moved from %s to %s", orOff(a), orOff(b))
	}
	for _, p := range c.plan.pools {
		d.pool(&p)
	}
	for _, p := range was.Pools {
		if !has(is.Pools, p.Name, func(p *config.Pool) string { return p.Name }) {
			d.say("pool %s is gone, with %s", p.Name, count(len(p.Backends), "backend"))
		}
	}
	name := func(r *config.Route) string { return r.Name }
	for _, r := range is.Routes {
		if !has(was.Routes, r.Name, name) {
			d.say("route %s leads to pool %s", r.Name, r.Pool)
		}
	}
	for _, r := range was.Routes {
		if !has(is.Routes, r.Name, name) {
			d.say("route %s is gone", r.Name)
		}
	}
	for _, x := range config.Diff(was, is) {
		if x.Table == "admin" && (x.Key == "address" || x.Key == "socket") || x.Table == "server" && x.Key == "workers" {
			continue
		}
		d.say("%s.%s is %s, was %s", x.Table, x.Key, x.Is, x.Was)
		d.touched[x.Table] = true
	}
	if len(d.Changes) == 0 && !config.Equal(without(was), without(is)) {
		d.say("settings changed") // whatever has no words yet
	}
	if len(d.Changes) > 0 {
		d.kept(c)
	}
	if n := s.group.Len(); workers(is) != n {
		d.Notes = append(d.Notes, fmt.Sprintf("server.workers: %d run, %d will from the next start on: connections cannot change their event loop", n, workers(is)))
	}
	return d.Verdict
}

// without is c but for what a reload does not change.
func without(c *config.Config) *config.Config {
	d := *c
	d.Server.Workers = 0
	return &d
}

func orOff(address string) string {
	if address == "" {
		return "nowhere"
	}
	return address
}

// words gathers what a verdict says.
type words struct {
	admin.Verdict
	was     map[string]*pool
	touched map[string]bool // tables with a change
}

func (d *words) say(format string, args ...any) {
	d.Changes = append(d.Changes, fmt.Sprintf(format, args...))
}

func (d *words) sockets(was *places, o *opening) {
	gone := map[string]*socket{}
	for _, k := range o.gone.sockets {
		gone[k.name] = k
	}
	opened := map[*socket]bool{}
	for _, k := range o.opened.sockets {
		opened[k] = true
	}
	for _, k := range o.sockets {
		old := gone[k.name]
		switch {
		case !opened[k] && k.Name() != k.name:
			d.say("listener %s at %s is named %s now", k.Name(), k.address, k.name)
		case !opened[k]:
		case old != nil:
			d.say("listener %s moved from %s to %s", k.name, old.address, k.address)
			delete(gone, k.name)
		default:
			d.say("listener %s opened at %s", k.name, k.address)
		}
	}
	for _, k := range was.sockets {
		if gone[k.name] == k {
			d.say("listener %s at %s closed", k.name, k.address)
		}
	}
}

// pool says which backends come and go, and which change.
func (d *words) pool(p *poolPlan) {
	old := d.was[p.name]
	if old == nil {
		d.say("pool %s is new, with %s", p.name, count(len(p.specs), "backend"))
		return
	}
	before := len(d.Changes)
	gone := map[string]*upstream.Backend{}
	var left, joined []string
	for _, b := range old.Snapshot().All {
		gone[b.Name] = b
	}
	for _, spec := range p.specs {
		name := spec.Name
		if name == "" {
			name = spec.Addr.String()
		}
		b := gone[name]
		delete(gone, name)
		switch {
		case b == nil:
			joined = append(joined, name)
			continue
		case b.Addr != spec.Addr:
			d.say("backend %s of pool %s moved from %s to %s", name, p.name, b.Addr, spec.Addr)
		}
		if was, is := b.Weighs(), spec.Weighs(); was != is {
			d.say("backend %s of pool %s has weight %.4g, had %.4g", name, p.name, is, was)
		}
		if b.MaxInflight != spec.MaxInflight {
			d.say("backend %s of pool %s may have %s at once, was %s", name, p.name, most(spec.MaxInflight), most(b.MaxInflight))
		}
	}
	for _, b := range old.Snapshot().All {
		if gone[b.Name] == b {
			left = append(left, b.Name)
		}
	}
	if len(joined) > 0 {
		d.say("%s joined pool %s: %s", count(len(joined), "backend"), p.name, some(joined))
	}
	if len(left) > 0 {
		d.say("%s left pool %s: %s", count(len(left), "backend"), p.name, some(left))
	}
	if newKeys(old.options, p.affinity) {
		d.say("cookies of pool %s are signed with other keys", p.name)
	}
	if len(d.Changes) > before {
		d.touched["pool."+p.name] = true
	}
}

// kept names what people worry about and need not: listeners and pools that go on as they are.
func (d *words) kept(c *change) {
	opened := map[*socket]bool{}
	for _, k := range c.places.opened.sockets {
		opened[k] = true
	}
	for _, k := range c.places.sockets {
		if !opened[k] && k.Name() == k.name {
			d.Kept = append(d.Kept, "listener "+k.name)
		}
	}
	for _, p := range c.plan.pools {
		touched := d.was[p.name] == nil
		for table := range d.touched {
			touched = touched || table == "pool."+p.name || strings.HasPrefix(table, "pool."+p.name+".")
		}
		if !touched {
			d.Kept = append(d.Kept, "pool "+p.name)
		}
	}
}

func has[T any](all []T, name string, of func(*T) string) bool {
	for i := range all {
		if of(&all[i]) == name {
			return true
		}
	}
	return false
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func most(n int64) string {
	if n == 0 {
		return "any number of requests"
	}
	return count(int(n), "request")
}
