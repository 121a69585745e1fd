package server

import (
	"context"
	"fmt"
	"net/http"

	"lb/accesslog"
	"lb/affinity"
	"lb/config"
	"lb/health"
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
	specs    []upstream.Spec // as there shall be
	file     []upstream.Spec // as the file has them
	settings *upstream.Settings
	build    upstream.Build
	variant  string            // other than before: the build in use is not the one that is wanted
	affinity *affinity.Options // nil: none
	percent  int               // of tunnels above the mean that are moved in a minute
}

// pool is what people want to know of the pool that p asks for, without the pool.
func (p *poolPlan) pool() *pool {
	return &pool{strategy: p.strategy, file: p.file, variant: p.variant, options: p.affinity, percent: p.percent}
}

// newPlan turns cfg into a plan. This is where host names are looked up, and so all that can fail; the error has a
// line for each fault.
func newPlan(ctx context.Context, cfg *config.Config, names *resolver, keys *keyring) (*plan, error) {
	var faults faults
	hosts := names.lookup(ctx, backendHosts(cfg))
	p := &plan{cfg: cfg}
	for i := range cfg.Pools {
		c := &cfg.Pools[i]
		pool := poolPlan{name: c.Name, strategy: c.Strategy, settings: poolSettings(c), percent: c.Affinity.Rebalance}
		for _, b := range c.Backends {
			addr, err := hosts.addr(b.Address)
			if err != nil {
				faults.add(cfg, b.Pos, "pool."+c.Name+".backends", err)
				continue
			}
			pool.specs = append(pool.specs, upstream.Spec{Name: b.Name, Addr: addr, Weight: b.Weight, MaxInflight: b.MaxInflight})
		}
		var err error
		if pool.affinity, err = affinityOptions(c, keys); err != nil {
			faults.add(cfg, c.Pos, "pool."+c.Name+".affinity", err)
		}
		pool.settings.DrainSessions = drainSessions(c, pool.affinity)
		if pool.affinity != nil && pool.affinity.Kind == affinity.Hash {
			pool.strategy = "hash"
			pool.build = strategy.NewHash(float64(c.HashBound) / 100)
			pool.variant = fmt.Sprint("hash ", c.HashBound)
		} else if pool.build, err = strategy.New(c.Strategy); err != nil {
			faults.add(cfg, c.Pos, "pool."+c.Name+".strategy", err)
		} else {
			pool.variant = c.Strategy
		}
		pool.file = pool.specs
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
	s.RetryShare = float64(c.RetryBudget) / 100
	s.TryTimeout = c.TryTimeout
	s.QueueLen = c.QueueLen
	s.QueueTimeout = c.QueueTimeout
	s.HoldTimeout = c.HoldTimeout
	s.HoldRequests = c.HoldRequests
	s.HoldBytes = c.HoldBytes
	s.SlowStart = c.SlowStart
	return s
}

// poolChecks is how the health of the backends of c is found out.
func poolChecks(c *config.Pool) (health.Check, health.Passive) {
	h, e := &c.Health, &c.Ejection
	check := health.Check{
		Kind: checkKinds[h.Kind], Port: uint16(h.Port), Method: h.Method, Path: h.Path, Host: h.Host, Body: h.Body,
		Interval: h.Interval, Changing: h.Changing, Down: h.Down, Timeout: h.Timeout,
		Fall: h.Fall, Rise: h.Rise, Jitter: float64(h.Jitter) / 100,
	}
	for name, value := range h.Headers {
		if check.Header == nil {
			check.Header = http.Header{}
		}
		check.Header.Set(name, value)
	}
	for _, r := range h.Status {
		check.Status = append(check.Status, health.Range{From: r.From, To: r.To})
	}
	return check, health.Passive{
		Off: e.Faults == 0, Faults: e.Faults, Ratio: float64(e.Share) / 100, Window: e.Window, Out: e.Out, MaxOut: e.MaxOut,
	}
}

var checkKinds = map[string]health.Kind{"tcp": health.TCP, "http": health.HTTP, "off": health.Off}

// table is the routes of cfg, to pools by their names.
func table(cfg *config.Config, pools map[string]*pool) (*route.Table, error) {
	var rules []route.Rule
	for _, r := range cfg.Routes {
		to := pools[r.Pool]
		rules = append(rules, route.Rule{Name: r.Name, Host: r.Host, Path: r.Path, Pool: to.Pool, Affinity: to.affinity})
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
	s.MaxConns = c.MaxConns
	s.MaxConnsPerClient = c.MaxConnsPerClient
	return &s
}
