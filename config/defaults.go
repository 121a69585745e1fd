package config

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
)

// Default is what a file means that says nothing, but for the pool that it must have: Pools and Routes are empty.
func Default() *Config {
	c := &Config{}
	setDefaults("server", c.Server.fields())
	setDefaults("admin", c.Admin.fields())
	setDefaults("access_log", c.AccessLog.fields())
	l := Listen{Name: "default"}
	setDefaults("listen.NAME", l.fields())
	c.Listens = []Listen{l}
	return c
}

// DefaultPool is a pool with every default and no backends.
func DefaultPool(name string) Pool {
	p := Pool{Name: name}
	setDefaults("pool.NAME", p.fields())
	setDefaults("pool.NAME.health", p.Health.fields())
	setDefaults("pool.NAME.ejection", p.Ejection.fields())
	setDefaults("pool.NAME.affinity", p.Affinity.fields())
	setDefaults("pool.NAME.rollout", p.Rollout.fields())
	return p
}

func setDefaults(table string, fields map[string]any) {
	r := &reader{}
	for _, k := range keysOf(table) {
		if d, ok := defaults()[k.Path()]; ok {
			k.assign(r, "", d, fields[k.Name])
		}
	}
}

func (s *Server) fields() map[string]any {
	return map[string]any{
		"workers": &s.Workers, "trusted_proxies": &s.TrustedProxies, "grace": &s.Grace, "header_timeout": &s.HeaderTimeout,
		"body_timeout": &s.BodyTimeout, "idle_timeout": &s.IdleTimeout, "write_timeout": &s.WriteTimeout,
		"max_header_bytes": &s.MaxHeaderBytes, "max_header_fields": &s.MaxHeaderFields, "max_body": &s.MaxBody,
		"stop_pause": &s.StopPause, "max_connections": &s.MaxConns, "max_connections_per_client": &s.MaxConnsPerClient,
	}
}

func (a *Admin) fields() map[string]any {
	return map[string]any{"address": &a.Address, "socket": &a.Socket, "socket_mode": &a.SocketMode,
		"socket_owner": &a.SocketOwner, "socket_group": &a.SocketGroup, "page_actions": &a.PageActions, "page_host": &a.PageHost}
}

func (a *AccessLog) fields() map[string]any {
	return map[string]any{"format": &a.Format, "path": &a.Path}
}

func (l *Listen) fields() map[string]any { return map[string]any{"address": &l.Address} }

func (p *Pool) fields() map[string]any {
	return map[string]any{
		"backends": &p.Backends, "strategy": &p.Strategy, "hash": &p.Hash, "hash_bound": &p.HashBound, "connect_timeout": &p.ConnectTimeout,
		"response_timeout": &p.ResponseTimeout, "read_timeout": &p.ReadTimeout, "tunnel_idle": &p.TunnelIdle,
		"max_idle": &p.MaxIdle, "idle_timeout": &p.IdleTimeout, "reuse": &p.Reuse, "retries": &p.Retries, "max_inflight": &p.MaxInflight,
		"retry_budget": &p.RetryBudget, "try_timeout": &p.TryTimeout, "queue": &p.QueueLen, "queue_timeout": &p.QueueTimeout,
		"hold": &p.HoldTimeout, "hold_requests": &p.HoldRequests, "hold_bytes": &p.HoldBytes, "slow_start": &p.SlowStart,
	}
}

func (t *Route) fields() map[string]any {
	return map[string]any{"host": &t.Host, "path": &t.Path, "pool": &t.Pool}
}

// Equal says whether a and b would run alike: where something stands in its file, and in which order the tables
// and the backends are, does not matter.
func Equal(a, b *Config) bool {
	if a == nil || b == nil {
		return a == b
	}
	return reflect.DeepEqual(a.essence(), b.essence())
}

// essence is a copy of c without places and in one order.
func (c *Config) essence() Config {
	e := *c
	e.File, e.Admin.Pos, e.AccessLog.Pos = "", Pos{}, Pos{}
	e.Server.TrustedProxies = append(e.Server.TrustedProxies[:0:0], e.Server.TrustedProxies...)
	slices.SortFunc(e.Server.TrustedProxies, func(a, b netip.Prefix) int { return a.Compare(b) })
	if len(e.Server.TrustedProxies) == 0 {
		e.Server.TrustedProxies = nil
	}
	e.Listens = slices.Clone(c.Listens)
	for i := range e.Listens {
		e.Listens[i].Pos = Pos{}
	}
	slices.SortFunc(e.Listens, func(a, b Listen) int { return strings.Compare(a.Name, b.Name) })
	e.Routes = slices.Clone(c.Routes)
	for i := range e.Routes {
		e.Routes[i].Pos = Pos{}
	}
	slices.SortFunc(e.Routes, func(a, b Route) int { return strings.Compare(a.Name, b.Name) })
	e.Pools = slices.Clone(c.Pools)
	for i := range e.Pools {
		p := &e.Pools[i]
		p.Pos = Pos{}
		p.Backends = slices.Clone(p.Backends)
		for j := range p.Backends {
			p.Backends[j].Pos = Pos{}
		}
		slices.SortFunc(p.Backends, func(a, b Backend) int { return strings.Compare(a.Name, b.Name) })
	}
	slices.SortFunc(e.Pools, func(a, b Pool) int { return strings.Compare(a.Name, b.Name) })
	return e
}
