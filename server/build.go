package server

import (
	"context"
	"fmt"

	"lb/accesslog"
	"lb/config"
	"lb/proxy"
	"lb/route"
	"lb/strategy"
	"lb/upstream"
)

// This file is the one place where a line of TOML becomes something that runs. Nothing in it listens, connects or
// changes what runs already: it says what there shall be, for New to begin and for Reload to change to.

// plan is what a Config asks for.
type plan struct {
	cfg   *config.Config
	pools []poolPlan
}

// poolPlan is what upstream.NewPool and Pool.Update take.
type poolPlan struct {
	name     string
	strategy string
	specs    []upstream.Spec
	settings *upstream.Settings
	build    upstream.Build
}

// newPlan turns cfg into a plan. This is where host names are looked up, and so all that can fail; the error has a
// line for each fault.
func newPlan(ctx context.Context, cfg *config.Config, names *resolver) (*plan, error) {
	var faults faults
	hosts := names.lookup(ctx, backendHosts(cfg))
	p := &plan{cfg: cfg}
	for i := range cfg.Pools {
		c := &cfg.Pools[i]
		pool := poolPlan{name: c.Name, strategy: c.Strategy, settings: poolSettings(c)}
		for _, b := range c.Backends {
			addr, err := hosts.addr(b.Address)
			if err != nil {
				faults.add(cfg, b.Pos, "pool."+c.Name+".backends", err)
				continue
			}
			pool.specs = append(pool.specs, upstream.Spec{Name: b.Name, Addr: addr, Weight: b.Weight, MaxInflight: b.MaxInflight})
		}
		var err error
		if pool.build, err = strategy.New(c.Strategy); err != nil {
			faults.add(cfg, c.Pos, "pool."+c.Name+".strategy", err)
		}
		p.pools = append(p.pools, pool)
	}
	return p, faults.err()
}

// poolSettings is how the pool of c is talked to: the defaults, and over them every key there is.
func poolSettings(c *config.Pool) *upstream.Settings {
	s := upstream.DefaultSettings()
	s.ConnectTimeout = c.ConnectTimeout
	s.ResponseTimeout = c.ResponseTimeout
	s.ReadTimeout = c.ReadTimeout
	s.TunnelIdle = c.TunnelIdle
	s.MaxIdle = c.MaxIdle
	s.IdleTimeout = c.IdleTimeout
	s.Reuse = c.Reuse
	s.Retries = c.Retries
	s.Hash = upstream.HashKey{Source: hashSources[c.Hash.Source], Name: c.Hash.Name}
	return s
}

var hashSources = map[string]upstream.HashSource{
	"ip":     upstream.HashIP,
	"header": upstream.HashHeader,
	"cookie": upstream.HashCookie,
	"query":  upstream.HashQuery,
}

// table is the routes of cfg, to pools by their names.
func table(cfg *config.Config, pools map[string]*upstream.Pool) (*route.Table, error) {
	var rules []route.Rule
	for _, r := range cfg.Routes {
		rules = append(rules, route.Rule{Name: r.Name, Host: r.Host, Path: r.Path, Pool: pools[r.Pool]})
	}
	t, err := route.New(rules)
	if err != nil {
		return nil, fmt.Errorf("%s: routes: %w", cfg.File, err)
	}
	return t, nil
}

// proxySettings is what requests are held to.
func proxySettings(c *config.Server, t *route.Table, log *accesslog.Log) *proxy.Settings {
	s := proxy.Defaults()
	s.Table = t
	s.Log = log
	s.Trusted = c.TrustedProxies
	s.HeaderTimeout = c.HeaderTimeout
	s.BodyTimeout = c.BodyTimeout
	s.IdleTimeout = c.IdleTimeout
	s.WriteTimeout = c.WriteTimeout
	s.MaxHeaderBytes = c.MaxHeaderBytes
	s.MaxHeaderFields = c.MaxHeaderFields
	s.MaxBody = c.MaxBody
	return &s
}
