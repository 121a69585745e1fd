package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"lb/config"
	"lb/upstream"
)

// lookupTimeout bounds all look-ups of a start or a reload together: a resolver asks its first server twice within it.
const lookupTimeout = 12 * time.Second

// resolver looks host names of backends up.
type resolver struct {
	query func(ctx context.Context, host string) ([]netip.Addr, error)

	// last is what each host was taken to be. A name with several addresses keeps the one it has as long as that is
	// among them, so that a reload does not change backends because DNS shuffled its answer.
	last map[string]netip.Addr
}

func newResolver(query func(context.Context, string) ([]netip.Addr, error)) *resolver {
	if query == nil {
		query = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return &resolver{query: query, last: map[string]netip.Addr{}}
}

// hosts are the answers to one lookup.
type hosts map[string]answer

type answer struct {
	addr netip.Addr
	err  error
}

// backendHosts lists the host names that cfg's backends are at, each once.
func backendHosts(cfg *config.Config) (names []string) {
	for _, p := range cfg.Pools {
		for _, b := range p.Backends {
			if host := hostName(b.Address); host != "" && !slices.Contains(names, host) {
				names = append(names, host)
			}
		}
	}
	return names
}

// hostName is what has to be looked up of the address of a backend, "" for nothing.
func hostName(address string) string {
	if _, err := upstream.ParseAddr(address); err == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(address)
	if _, other := netip.ParseAddr(host); err != nil || other == nil {
		return ""
	}
	return host
}

// lookup asks for all names at once.
func (r *resolver) lookup(ctx context.Context, names []string) hosts {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var mu sync.Mutex
	out := hosts{}
	var g errgroup.Group
	g.SetLimit(16)
	for _, name := range names {
		g.Go(func() error {
			all, err := r.query(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			out[name] = r.choose(name, all, err)
			return nil
		})
	}
	g.Wait()
	for name, a := range out {
		if a.err == nil {
			r.last[name] = a.addr
		}
	}
	return out
}

// choose takes one of the addresses of a name: the one it had, else the first that the resolver recommends, where what is
// below localhost is IPv4 first, as localhost itself is, see upstream.Addr.
func (r *resolver) choose(name string, all []netip.Addr, err error) answer {
	if err != nil {
		return answer{err: lookupFault(name, err)}
	}
	for i := range all {
		all[i] = all[i].Unmap()
	}
	if len(all) == 0 {
		return answer{err: fmt.Errorf("host %q has no address", name)}
	}
	if had, ok := r.last[name]; ok && slices.Contains(all, had) {
		return answer{addr: had}
	}
	if strings.HasSuffix(name, ".localhost") {
		slices.SortStableFunc(all, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	}
	return answer{addr: all[0]}
}

func lookupFault(name string, err error) error {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Errorf("host %q is not known: check its spelling, or write its address", name)
	case errors.As(err, &dns) && dns.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("host %q: no answer from the name servers in time", name)
	}
	return fmt.Errorf("host %q cannot be looked up: %w", name, err)
}

// addr is where a backend with the given address in the file is connected to.
func (h hosts) addr(address string) (upstream.Addr, error) {
	if a, err := upstream.ParseAddr(address); err == nil {
		return a, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return upstream.Addr{}, err
	}
	a, ok := h[host]
	if !ok {
		return upstream.ParseAddr(address) // for its error
	}
	if a.err != nil {
		return upstream.Addr{}, a.err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return upstream.Addr{}, fmt.Errorf("address %q: %q is not a port", address, port)
	}
	return upstream.Addr{AddrPort: netip.AddrPortFrom(a.addr, uint16(n))}, nil
}
