package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"lb/config"
	"lb/route"
	"lb/upstream"
)

// Reload reads the configuration again and changes to it without a request lost: pools, their backends and settings,
// routes, and what clients are held to. It changes all of it or, when it returns an error, nothing.
//
// What is fixed for the life of the process (listeners, the admin server, the access log, the number of loops) is not
// changed: a file that differs there is refused, with the keys that need a restart.
func (s *Server) Reload(ctx context.Context) error {
	if s.opt.Load == nil {
		return errors.New("there is no configuration file to read again")
	}
	s.reload.Lock()
	defer s.reload.Unlock()
	defer s.reloading()()
	begin := time.Now()
	cfg, err := s.opt.Load()
	if err != nil {
		return err
	}
	if s.state.Load() != running {
		return errors.New("not while lb is " + stateNames[s.state.Load()])
	}
	if keys := fixed(s.Config(), cfg); len(keys) > 0 {
		return fmt.Errorf("%s: restart needed to change %s; nothing was changed", cfg.File, strings.Join(keys, ", "))
	}
	// An equal file is not the end of it: a host name may have another address by now.
	same := config.Equal(s.Config(), cfg)
	p, err := newPlan(ctx, cfg, s.names)
	if err != nil {
		return err
	}
	next, err := s.prepare(p)
	if err != nil {
		return err
	}
	left := s.commit(next)
	s.leaving.add(left)
	for _, b := range left {
		go s.seeOff(b)
	}
	s.log.Info("reloaded", "changed", !same || len(left) > 0, "pools", len(*s.pools.Load()), "left", len(left), "took", time.Since(begin).Round(time.Millisecond))
	return nil
}

// fixed lists the keys in which two configurations differ and that a running process does not change.
func fixed(a, b *config.Config) (keys []string) {
	addresses := func(c *config.Config) (all []string) {
		for _, l := range c.Listens {
			all = append(all, l.Name+" "+l.Address)
		}
		slices.Sort(all)
		return all
	}
	note := func(same bool, key string) {
		if !same {
			keys = append(keys, key)
		}
	}
	note(slices.Equal(addresses(a), addresses(b)), "[listen]")
	note(a.Admin.Address == b.Admin.Address, "admin.address")
	note(a.Admin.Socket == b.Admin.Socket, "admin.socket")
	note(a.AccessLog.Format == b.AccessLog.Format, "access_log.format")
	note(a.AccessLog.Path == b.AccessLog.Path, "access_log.path")
	note(workers(a) == workers(b), "server.workers")
	return keys
}

// change is a prepared reload.
type change struct {
	plan  *plan
	pools []*pool // new ones and those that stay, in the order of the file
	table *route.Table
}

// prepare makes all that a reload needs and changes nothing.
func (s *Server) prepare(p *plan) (*change, error) {
	c := &change{plan: p}
	byName := map[string]*upstream.Pool{}
	for _, pp := range p.pools {
		np := &pool{strategy: pp.strategy}
		if old := s.pool(pp.name); old != nil {
			np.Pool = old.Pool
		} else {
			np.Pool = upstream.NewPool(pp.name, s.group.Len(), pp.specs, pp.settings, pp.build)
		}
		byName[pp.name] = np.Pool
		c.pools = append(c.pools, np)
	}
	var err error
	c.table, err = table(p.cfg, byName)
	return c, err
}

// commit puts a change into force; it cannot fail. It returns the backends that get nothing new from now on.
//
// Pools that are gone are emptied after the routes to them: an exchange that matched before, and finds nobody there,
// looks at the new routes.
func (s *Server) commit(c *change) (left []*upstream.Backend) {
	old := *s.pools.Load()
	for i, pp := range c.plan.pools {
		was := s.pool(pp.name)
		if was == nil {
			continue
		}
		build := pp.build
		if was.strategy == pp.strategy {
			build = nil // the one in use goes on with what it knows
		}
		left = append(left, c.pools[i].Update(pp.specs, pp.settings, build)...)
	}
	s.pools.Store(&c.pools)
	s.proxy.Update(proxySettings(&c.plan.cfg.Server, c.table, s.access))
	s.cfg.Store(c.plan.cfg)
	for _, p := range old {
		if s.pool(p.Name) == nil {
			left = append(left, p.Update(nil, nil, nil)...)
		}
	}
	s.watch(c.plan.cfg)
	for _, b := range left {
		s.letGo(b, leaveOver)
	}
	return left
}

// pool is the pool of that name in force, nil when there is none.
func (s *Server) pool(name string) *pool {
	for _, p := range *s.pools.Load() {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// seeOff says when a backend that left has done what it had.
func (s *Server) seeOff(b *upstream.Backend) {
	select {
	case <-b.Drained():
		s.leaving.remove(b)
		s.log.Info("backend has left", "pool", b.Pool().Name, "backend", b.Name)
	case <-s.gone:
	}
}

// leaving is the backends that are no longer in a pool and still have requests.
type leaving struct {
	mu  sync.Mutex
	all []*upstream.Backend
}

func (l *leaving) add(b []*upstream.Backend) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, b...)
}

func (l *leaving) remove(b *upstream.Backend) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = slices.DeleteFunc(l.all, func(o *upstream.Backend) bool { return o == b })
}

func (l *leaving) each(f func(*upstream.Backend)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.all {
		f(b)
	}
}
