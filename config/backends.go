package config

import (
	"strconv"
)

// backendAddress is the address of a backend's table before it is read: it may stand for several.
type backendAddress struct {
	path string
	v    any
}

// backends reads the list of a pool's backends, expands its ranges and finds what is there twice.
func (r *reader) backends(path string, v any) []Backend {
	var items []any
	switch v := v.(type) {
	case []any:
		items = v
	case []map[string]any:
		for _, m := range v {
			items = append(items, m)
		}
	case string, int64:
		hint := r.found(path, v)
		if n, ok := v.(int64); ok {
			r.fault(path, "wants a list: write [%d], found %s", n, hint)
		} else {
			r.fault(path, "wants a list: write [%s], found %s", quote(v.(string)), hint)
		}
		return nil
	default:
		r.fault(path, "wants %s, found %s", kinds[kindBackends].wants, r.found(path, v))
		return nil
	}
	if len(items) == 0 {
		r.fault(path, "is empty: a pool has at least one backend, as in [\"127.0.0.1:3000\"]")
		return nil
	}
	set := &backendSet{r: r, path: path, spans: map[string][]placed{}, names: map[string]string{}}
	for i, item := range items {
		if at := joinIndex(path, i); !r.bad[at] {
			set.read(at, item)
		}
	}
	if len(set.list) > maxBackends {
		r.fault(path, "has %d backends, %d is the most in one pool", len(set.list), maxBackends)
	}
	weight := 0
	for _, b := range set.list {
		weight += b.Weight
	}
	if weight == 0 && !r.badBelow(path) {
		r.fault(path, "every weight is 0, so nobody would get a request: give one a weight of 1")
	}
	return set.list
}

// backendSet is a list of backends as it grows.
type backendSet struct {
	r     *reader
	path  string
	list  []Backend
	spans map[string][]placed // by host
	names map[string]string   // name -> path
}

type placed struct {
	span
	path string
}

func (s *backendSet) read(at string, item any) {
	b := Backend{Weight: 1, MaxInflight: -1, Pos: s.r.pos(at)}
	address := backendAddress{at, item}
	if m, ok := item.(map[string]any); ok {
		address = backendAddress{}
		s.r.table("pool.NAME.backends", at, m, map[string]any{
			"address": &address, "name": &b.Name, "weight": &b.Weight, "max_inflight": &b.MaxInflight,
		})
		if _, ok := m["max_inflight"]; !ok {
			b.MaxInflight = -1
		}
		if _, ok := m["address"]; !ok {
			return
		}
	}
	got, ok := s.span(address)
	if !ok || !s.place(got, address.path) {
		return
	}
	ports := got.hi - got.lo + 1
	if b.Name != "" && ports > 1 {
		s.r.fault(joinKey(at, "name"), "one name for the %d backends of %s: leave it out, or write a table for each", ports, quote(got.String()))
		b.Name = ""
	}
	for port := got.lo; port <= got.hi; port++ {
		one := b
		one.Address = got.address(port)
		if one.Name == "" {
			one.Name = one.Address
		}
		if other, ok := s.names[one.Name]; ok {
			s.r.fault(s.nameAt(at, b.Name), "the name %s is taken by %s", quote(one.Name), s.where(other))
			return
		}
		s.names[one.Name] = at
		s.list = append(s.list, one)
	}
}

func (s *backendSet) nameAt(at, name string) string {
	if name != "" {
		return joinKey(at, "name")
	}
	return at
}

// where names another element of the list: its index and its line.
func (s *backendSet) where(path string) string {
	return "backends" + path[len(s.path):] + " on line " + strconv.Itoa(s.r.pos(path).Line)
}

func (s *backendSet) span(a backendAddress) (span, bool) {
	switch v := a.v.(type) {
	case string:
		v, err := expand(v, s.r.lookup)
		if err == nil {
			var got span
			if got, err = parseBackend(v); err == nil {
				return got, true
			}
		}
		s.r.fault(a.path, "%s", err)
	case int64:
		if v >= 1 && v <= 65535 {
			return span{"127.0.0.1", int(v), int(v)}, true
		}
		s.r.fault(a.path, "there is no port %d; ports go from 1 to 65535", v)
	default:
		s.r.fault(a.path, "wants %s, found %s", kinds[kindBackend].wants, s.r.found(a.path, v))
	}
	return span{}, false
}

// place finds addresses that are there twice.
func (s *backendSet) place(got span, path string) bool {
	home := got.host
	if home == "localhost" { // it is 127.0.0.1 first
		home = "127.0.0.1"
	}
	for _, p := range s.spans[home] {
		lo, hi := max(p.lo, got.lo), min(p.hi, got.hi)
		if lo > hi {
			continue
		}
		same, alias := p.lo == got.lo && p.hi == got.hi, ""
		if p.host != got.host {
			alias = ": localhost is 127.0.0.1, and ::1 where that refuses"
		}
		switch {
		case same && alias == "":
			s.r.fault(path, "%s is there twice, first as %s", quote(got.String()), s.where(p.path))
		case same:
			s.r.fault(path, "%s is %s, first as %s%s", quote(got.String()), quote(p.String()), s.where(p.path), alias)
		default:
			s.r.fault(path, "%s and %s overlap: both have %s, first as %s%s", quote(got.String()), quote(p.String()), span{got.host, lo, hi}, s.where(p.path), alias)
		}
		return false
	}
	s.spans[home] = append(s.spans[home], placed{got, path})
	return true
}

// capBackends gives each backend without a limit of its own that of the pool.
func (p *Pool) capBackends() {
	for i := range p.Backends {
		if p.Backends[i].MaxInflight < 0 {
			p.Backends[i].MaxInflight = p.MaxInflight
		}
	}
}
