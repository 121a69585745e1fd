// Package route finds the route of a request by its host and path. A Table never changes: a reload makes another.
package route

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"lb/affinity"
	"lb/upstream"
)

// Rule is a line of the configuration: requests for Host whose path begins with Path go to Pool.
type Rule struct {
	Name string
	Host string // "app.example.com", "*.example.com", or "" for any
	Path string // a prefix that ends at a segment: "/api" is /api and /api/x, not /apix; "/api/" only what is below; "" is "/"
	Pool *upstream.Pool

	Affinity *affinity.Affinity // of the pool; nil: none
}

// Route is where a request goes.
type Route struct {
	Name string
	Pool *upstream.Pool

	Affinity *affinity.Affinity
}

// Table is a set of rules in the order in which they are looked at.
type Table struct {
	exact []site // sorted by host
	wild  []site // longest suffix first; host is ".example.com"
	any   []prefix
}

type site struct {
	host  string // lower case
	paths []prefix
}

type prefix struct {
	path  string // longest first
	route *Route
}

// New makes a table. It refuses hosts and paths that cannot match and pairs of rules for the same host and path, of
// which one would never be used.
func New(rules []Rule) (*Table, error) {
	type key struct{ host, path string }
	seen := map[key]string{}
	paths := map[string][]prefix{}
	for _, r := range rules {
		host, err := hostPattern(r.Host)
		if err != nil {
			return nil, fmt.Errorf("route %s: %w", r.Name, err)
		}
		path := r.Path
		if path == "" {
			path = "/"
		}
		if path[0] != '/' || strings.ContainsAny(path, "?# \t\r\n") {
			return nil, fmt.Errorf("route %s: path %q: want a prefix such as /api, without a query", r.Name, r.Path)
		}
		k := key{host, path}
		if other, ok := seen[k]; ok {
			return nil, fmt.Errorf("routes %s and %s: both are for %s", other, r.Name, describe(host, path))
		}
		seen[k] = r.Name
		p := prefix{path: path, route: &Route{r.Name, r.Pool, r.Affinity}}
		paths[host] = append(paths[host], p)
	}
	t := new(Table)
	for host, ps := range paths {
		slices.SortFunc(ps, func(a, b prefix) int { return len(b.path) - len(a.path) })
		switch {
		case host == "":
			t.any = ps
		case host[0] == '.':
			t.wild = append(t.wild, site{host, ps})
		default:
			t.exact = append(t.exact, site{host, ps})
		}
	}
	slices.SortFunc(t.exact, func(a, b site) int { return strings.Compare(a.host, b.host) })
	slices.SortFunc(t.wild, func(a, b site) int { return len(b.host) - len(a.host) })
	return t, nil
}

// hostPattern is the lower case of an exact host, and ".example.com" for "*.example.com".
func hostPattern(s string) (string, error) {
	h := strings.TrimSuffix(strings.ToLower(s), ".")
	h, wild := strings.CutPrefix(h, "*")
	switch {
	case s == "":
		return "", nil
	case wild && (len(h) < 2 || h[0] != '.'),
		!wild && (h == "" || h[0] == '.'),
		strings.ContainsAny(h, "*/ \t"),
		strings.Contains(h, ":") && h[0] != '[':
		return "", fmt.Errorf("host %q: want app.example.com or *.example.com, without a port", s)
	}
	return h, nil
}

func describe(host, path string) string {
	switch {
	case host == "":
		return "any host, path " + path
	case host[0] == '.':
		return "host *" + host + ", path " + path
	}
	return "host " + host + ", path " + path
}

// Match is the route of a request, nil when there is none. The host is as a Host field has it, in any case and perhaps
// with a port, which plays no part; a path may carry its query. The exact host comes first, then the longest wildcard, then rules for any host; within each the longest path.
// A host whose rules have no such path falls through to the next.
func (t *Table) Match(host, path []byte) *Route {
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	if len(t.exact)+len(t.wild) == 0 {
		return find(t.any, path)
	}
	host = name(host)
	if len(t.exact) > 0 {
		if i, ok := slices.BinarySearchFunc(t.exact, host, compareFold); ok {
			if r := find(t.exact[i].paths, path); r != nil {
				return r
			}
		}
	}
	for i := range t.wild {
		s := &t.wild[i]
		if n := len(host) - len(s.host); n > 0 && compareFold(*s, host[n:]) == 0 {
			if r := find(s.paths, path); r != nil {
				return r
			}
		}
	}
	return find(t.any, path)
}

// name is host without its port and without the root's dot, which leave it the same host.
func name(host []byte) []byte {
	end := len(host)
	for end > 0 && host[end-1] >= '0' && host[end-1] <= '9' {
		end--
	}
	if end > 0 && host[end-1] == ':' { // the last one of an IPv6 address stands before a bracket
		host = host[:end-1]
	}
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	return host
}

// compareFold orders a site's host against one in any case, as ASCII: other names come in punycode.
func compareFold(s site, host []byte) int {
	for i := range min(len(s.host), len(host)) {
		c := host[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != s.host[i] {
			return int(s.host[i]) - int(c)
		}
	}
	return len(s.host) - len(host)
}

func find(ps []prefix, path []byte) *Route {
	for i := range ps {
		p := &ps[i]
		n := len(p.path)
		if len(path) < n || string(path[:n]) != p.path {
			continue
		}
		if len(path) == n || p.path[n-1] == '/' || path[n] == '/' {
			return p.route
		}
	}
	// "OPTIONS *" and an absolute target without a path are for the whole host.
	if n := len(ps); n > 0 && ps[n-1].path == "/" && (len(path) == 0 || path[0] != '/') {
		return ps[n-1].route
	}
	return nil
}
