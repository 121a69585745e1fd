package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"lb/accesslog"
	"lb/admin"
	"lb/metrics"
	"lb/route"
	"lb/upstream"
)

// Reload reads the configuration again and changes to it without a request lost. It changes to all of it or, when it
// returns an error, to nothing of it; the error has a line for each fault. Only the number of loops is that of the
// start for as long as the process lives: connections belong to one loop, and cannot change it.
func (s *Server) Reload(ctx context.Context) error {
	_, err := s.reloadOnce(ctx, false)
	return err
}

// reloadOnce is Reload with its verdict. One at a time: others wait. With reset, what was changed while lb runs is as the
// file says again.
func (s *Server) reloadOnce(ctx context.Context, reset bool) (admin.Verdict, error) {
	s.reload.Lock()
	defer s.reload.Unlock()
	begin := time.Now()
	v, err := s.change(ctx, reset)
	took := time.Since(begin)
	v.File, v.Took, v.Reloaded = s.Config().File, took.Seconds(), err == nil
	s.reloads.done(time.Now(), err, admin.By(ctx))
	if err != nil {
		v.Faults = strings.Split(err.Error(), "\n")
		s.checks.events.put(admin.Event{Time: time.Now(), Event: "not reloaded", Why: strings.Join(v.Faults, "; "), By: admin.By(ctx)})
		s.log.Error("not reloaded, all goes on as before", "err", err)
		return v, err
	}
	if len(v.Changes) > 0 {
		s.checks.events.put(admin.Event{Time: time.Now(), Event: "reloaded", Why: strings.Join(v.Changes, "; "), By: admin.By(ctx)})
	}
	if len(v.Notes) > 0 {
		s.log.Warn("reloaded, but for this", "notes", strings.Join(v.Notes, "; "))
	}
	s.log.Info("reloaded", "changed", len(v.Changes) > 0, "changes", strings.Join(v.Changes, "; "), "took", took.Round(time.Millisecond))
	return v, nil
}

// verdict is Reload for those who ask from outside.
func (s *Server) verdict(ctx context.Context, reset bool) admin.Verdict {
	v, _ := s.reloadOnce(ctx, reset) // its faults are the error's
	return v
}

func (s *Server) change(ctx context.Context, reset bool) (v admin.Verdict, err error) {
	if s.opt.Load == nil {
		return v, errors.New("there is no configuration file to read again")
	}
	if err := s.mayChange(); err != nil {
		return v, err
	}
	defer s.reloading()()
	cfg, err := s.opt.Load()
	if err != nil {
		return v, err
	}
	p, err := newPlan(ctx, cfg, s.names, s.keys)
	if err != nil {
		return v, err
	}
	deviations, notes := s.deviatePlan(p, reset)
	next, err := s.prepare(p)
	if err != nil {
		return v, err
	}
	next.deviations = deviations
	v = s.describe(next)
	v.Notes = append(v.Notes, notes...)
	if len(v.Changes) == 0 {
		next.discard()
		s.cfg.Store(cfg) // for where things stand in it
		s.deviations.store(deviations)
		return v, nil
	}
	s.turn.Lock()
	if err := errors.Join(ctx.Err(), s.mayChange()); err != nil {
		s.turn.Unlock()
		next.discard()
		return v, err
	}
	left := s.commit(next)
	s.turn.Unlock()

	s.leave(&next.places.gone)
	if next.log != nil {
		if err := next.log.Use(); err != nil {
			s.log.Error("access log", "err", err)
		}
	}
	for _, b := range left {
		s.tasks.Go(func() { s.seeOff(b) })
	}
	return v, nil
}

// mayChange says whether lb is up and does not stop.
func (s *Server) mayChange() error {
	if st := s.state.Load(); st != running {
		if s.upgrades.hasHanded() {
			return errHanded
		}
		return errors.New("not while lb is " + stateNames[st])
	}
	if s.before != nil && !s.before.isCharged() {
		return errTaking
	}
	return nil
}

// change is a prepared reload.
type change struct {
	plan   *plan
	pools  []*pool // new ones and those that stay, in the order of the file
	table  *route.Table
	places *opening
	log    *accesslog.Next // nil: as it is

	deviations map[string]map[string]*deviation
}

// discard lets go of what prepare opened.
func (c *change) discard() {
	if c.places != nil {
		c.places.discard()
	}
	if c.log != nil {
		c.log.Discard()
	}
}

// prepare makes and opens all that a reload needs, reports all that is in the way, and changes nothing.
func (s *Server) prepare(p *plan) (*change, error) {
	c := &change{plan: p}
	byName := map[string]*pool{}
	var all [4]error
	for _, pp := range p.pools {
		np := pp.pool()
		old := s.pool(pp.name)
		if old != nil {
			np.Pool = old.Pool
		} else {
			np.Pool = upstream.NewPool(pp.name, s.group.Len(), pp.specs, pp.settings, pp.build)
		}
		var err error
		if np.affinity, err = s.newAffinity(np.Pool, pp.affinity, old); err != nil {
			all[3] = errors.Join(all[3], fmt.Errorf("pool %s: %w", pp.name, err))
		}
		byName[pp.name] = np
		c.pools = append(c.pools, np)
	}
	c.table, all[0] = table(p.cfg, byName)
	c.places, all[1] = s.open(p.cfg, s.places.Load())
	if was, is := &s.Config().AccessLog, &p.cfg.AccessLog; was.Format != is.Format || was.Path != is.Path {
		var err error
		if c.log, err = s.access.Prepare(s.logOptions(p.cfg)); err != nil {
			all[2] = logFault(p.cfg, err)
		}
	}
	if err := errors.Join(all[:]...); err != nil {
		c.discard()
		return nil, err
	}
	return c, nil
}

// commit puts a change into force; it cannot fail. It returns the backends that get nothing new from now on.
//
// Pools that are gone are emptied after the routes to them: an exchange that matched before, and finds nobody there,
// looks at the new routes.
func (s *Server) commit(c *change) (left []*upstream.Backend) {
	old, was := *s.pools.Load(), s.Config()
	for _, k := range c.places.sockets {
		if k.Name() != k.name {
			k.Rename(k.name)
		}
	}
	for i, pp := range c.plan.pools {
		was := s.pool(pp.name)
		if was == nil {
			continue
		}
		build := pp.build
		if was.variant == pp.variant {
			build = nil // the one in use goes on with what it knows
		}
		left = append(left, c.pools[i].Update(pp.specs, pp.settings, build)...)
	}
	s.pools.Store(&c.pools)
	s.deviations.store(c.deviations)
	s.proxy.Update(proxySettings(&c.plan.cfg.Server, c.table, s.access))
	s.cfg.Store(c.plan.cfg)
	for _, p := range old {
		if s.pool(p.Name) == nil {
			left = append(left, p.Update(nil, nil, nil)...)
		}
	}
	s.places.Store(&c.places.places)
	s.serve(c.places)
	s.watch(c.plan.cfg)
	if is := &c.plan.cfg.Admin; is.PageActions && (!was.Admin.PageActions || is.Address != was.Admin.Address) {
		s.warnPage()
	}
	s.leaving.add(left)
	for _, b := range left {
		s.letGo(b, leaveOver, 0)
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

func (l *leaving) appendTo(all []*upstream.Backend) []*upstream.Backend {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(all, l.all...)
}

// reloads counts what came of reading the configuration.
type reloads struct {
	mu   sync.Mutex
	last metrics.Reloads // guarded by mu

	told *admin.Reloaded // guarded by mu; what people are told of the last one, nil before the first
}

func (r *reloads) done(at time.Time, err error, by string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = &admin.Reloaded{Time: at.UTC().Truncate(time.Millisecond), OK: err == nil, By: by}
	if err != nil {
		r.told.Error = err.Error()
	}
	r.last.OK = err == nil
	if err != nil {
		r.last.Failed++
		return
	}
	r.last.Time = at
	r.last.Succeeded++
}

func (r *reloads) status() *admin.Reloaded {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told
}

func (r *reloads) count() metrics.Reloads {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}
