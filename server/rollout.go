package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"lb/admin"
	"lb/config"
	"lb/health"
	"lb/upstream"
)

// rollouts is who restarts the backends of which pool, and what they have taken out. A backend stays in out for as long
// as it is not wanted in, also when its rollout is over: so the next one knows whose doing that was.
type rollouts struct {
	mu   sync.Mutex
	all  []*rollout                  // guarded by mu: those that run
	out  map[*upstream.Live]*outside // guarded by mu
	last map[string]*rollout         // guarded by mu: of each pool the one that was over last, for people

	returns time.Duration // how long those of the lb before have to go on with this one; 0: rolloutReturns. For tests
}

// rollout is one that runs.
type rollout struct {
	admin.Rollout
	tally *tally
	end   context.CancelFunc
	ended chan struct{} // closed when all is put back
	seen  rolloutSeen   // guarded by mu of the rollouts
}

// rolloutActions is what the admin server may ask of rollouts.
func (s *Server) rolloutActions() admin.Rollouts {
	return admin.Rollouts{
		Hold: s.holdRollout, List: s.listRollouts, View: s.viewRollout, Drain: s.rolloutDrain, Restart: s.rolloutRestart,
		Check: s.rolloutCheck, Ready: s.rolloutReady, Bad: s.rolloutBad, End: s.rolloutEnd, Progress: s.rolloutProgress,
	}
}

// holdRollout is a rollout from its beginning to its end. What it leaves out at that is put back, but for what it
// declared bad: whoever carried it out may have been killed in the middle. A stop of lb puts nothing back: it would send
// the last requests to instances that restart.
func (s *Server) holdRollout(ctx context.Context, o admin.RolloutOrder, begun func(admin.Rollout)) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	r, err := s.beginRollout(ctx, o, end)
	if err != nil {
		return err
	}
	defer close(r.ended)
	begun(r.Rollout)
	select {
	case <-ctx.Done():
		if done, err := s.inTurn(context.WithoutCancel(ctx)); err == nil {
			s.endRollout(ctx, r)
			done()
			return nil
		}
		s.dropRollout(r) // the lb in charge sees to it
	case <-s.gone:
		s.dropRollout(r)
	}
	return nil
}

func (s *Server) beginRollout(ctx context.Context, o admin.RolloutOrder, end context.CancelFunc) (*rollout, error) {
	done, err := s.inTurn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if s.state.Load() != running {
		return nil, fmt.Errorf("lb is %s: %w", stateNames[s.state.Load()], admin.ErrNotNow)
	}
	p, err := s.findPool(o.Pool)
	if err != nil {
		return nil, err
	}
	var id [6]byte
	rand.Read(id[:])
	r := &rollout{end: end, ended: make(chan struct{}), Rollout: admin.Rollout{
		ID: hex.EncodeToString(id[:]), Pool: p.Name, Who: o.Who, Since: time.Now().UTC().Truncate(time.Millisecond),
	}}
	ro := &s.rollouts
	ro.mu.Lock()
	defer ro.mu.Unlock()
	for _, other := range ro.all {
		if other.Pool == r.Pool {
			return nil, fmt.Errorf("%w: by %s, since %s", admin.ErrRolloutRuns, nobody(other.Who), other.Since.Local().Format(time.TimeOnly))
		}
	}
	ro.sweep()
	r.tally = newTally(p.Pool)
	ro.all = append(ro.all, r)
	s.rolloutEvent(r, "rollout begins")
	for _, b := range p.Snapshot().All {
		if how := o.Out[b.Name]; how != "" { // lb was restarted, and it goes on
			is := &outside{by: r, how: how}
			if was := ro.out[b.Live]; was != nil && how == admin.OutBad {
				is.why = was.why
			}
			ro.take(b, is)
			p.SetWanted(b, upstream.Draining)
			s.letGo(b, time.Second, 0)
		}
	}
	return r, nil
}

func (s *Server) rolloutEvent(r *rollout, what string) {
	s.checks.events.put(admin.Event{Time: time.Now(), Pool: r.Pool, Event: what, By: r.Who})
	s.log.Info(what, "pool", r.Pool, "id", r.ID, "by", nobody(r.Who))
}

func nobody(who string) string {
	if who == "" {
		return "somebody"
	}
	return who
}

// endRollout ends r and puts back what it has out.
func (s *Server) endRollout(ctx context.Context, r *rollout) {
	s.rollouts.mu.Lock()
	said := s.putBack(r.Pool, s.rollouts.drop(r))
	s.rollouts.keep(r, s.pool(r.Pool))
	s.rollouts.mu.Unlock()
	s.rolloutEvent(r, "rollout is over")
	for _, say := range said {
		say(ctx)
	}
}

func (s *Server) listRollouts() []admin.Rollout {
	s.rollouts.mu.Lock()
	defer s.rollouts.mu.Unlock()
	all := []admin.Rollout{}
	for _, r := range s.rollouts.all {
		all = append(all, r.Rollout)
	}
	return all
}

// runningRollout is the one of that ID, and its pool.
func (s *Server) runningRollout(id string) (*rollout, *pool, error) {
	s.rollouts.mu.Lock()
	i := slices.IndexFunc(s.rollouts.all, func(r *rollout) bool { return r.ID == id })
	var r *rollout
	if i >= 0 {
		r = s.rollouts.all[i]
	}
	s.rollouts.mu.Unlock()
	if r == nil {
		return nil, nil, admin.ErrRolloutOver
	}
	p, err := s.findPool(r.Pool)
	return r, p, err
}

// step finds what an order of a rollout is about.
func (s *Server) step(id, backend string) (*rollout, *pool, *upstream.Backend, error) {
	r, _, err := s.runningRollout(id)
	if err != nil {
		return nil, nil, nil, err
	}
	p, b, err := s.find(r.Pool, backend)
	return r, p, b, err
}

// order is step for one that changes something, which it may until done is called.
func (s *Server) order(ctx context.Context, id, backend string) (r *rollout, p *pool, b *upstream.Backend, done func(), err error) {
	if done, err = s.inTurn(ctx); err != nil {
		return nil, nil, nil, nil, err
	}
	if r, p, b, err = s.step(id, backend); err != nil {
		done()
	}
	return r, p, b, done, err
}

// rolloutPace is how long apart the clients of tunnels are told to connect again: a hundred a second come back.
const rolloutPace = 10 * time.Millisecond

func (s *Server) rolloutDrain(ctx context.Context, id, backend string) (d admin.RolloutDrained, err error) {
	r, p, b, done, err := s.order(ctx, id, backend)
	if err != nil {
		return d, err
	}
	err = s.takeOut(r, p, b)
	done()
	if err != nil {
		return d, err
	}
	tunnels := b.Tunnels()
	over, sessions := time.Duration(tunnels)*rolloutPace, p.Snapshot().Settings.DrainSessions
	if at, ok := ctx.Deadline(); ok {
		left := max(0, time.Until(at))
		over, sessions = min(over, left/2), min(sessions, left*3/4) // and time for them to go
	}
	s.see(r, func(v *rolloutSeen) { v.at(b.Name, admin.StepDraining) })
	s.note(ctx, b, "draining", "rollout")
	s.letGo(b, over, sessions)
	if d.Drained, err = s.awaitEmpty(ctx, b); err != nil {
		s.see(r, func(v *rolloutSeen) { v.leave(b.Name) })
		return d, err
	}
	d.Moved = max(0, tunnels-d.Tunnels)
	return d, nil
}

func (s *Server) rolloutRestart(ctx context.Context, id, backend string) (before string, err error) {
	r, p, b, done, err := s.order(ctx, id, backend)
	if err != nil {
		return "", err
	}
	defer done()
	at := processAt(b.Addr).String()
	o, unlock, err := s.outBy(r, b)
	if err != nil {
		return "", err
	}
	defer unlock()
	o.how = admin.OutRestarting
	r.seen.at(b.Name, admin.StepRestarting)
	s.live.News()
	p.EndSessions(b) // it may have been given less time than those have
	s.proxy.Forget([]*upstream.Backend{b})
	return at, nil
}

func (s *Server) rolloutCheck(ctx context.Context, id, backend, before string) (c admin.RolloutChecked, err error) {
	r, p, b, err := s.step(id, backend)
	if err != nil {
		return c, err
	}
	still := func() bool {
		_, done, err := s.outBy(r, b)
		if err != nil {
			return false
		}
		done()
		return true
	}
	s.see(r, func(v *rolloutSeen) { v.at(b.Name, admin.StepChecking) })
	c = s.awaitWell(ctx, p, b, parseProcess(before), still)
	if !c.Passed && !still() {
		_, _, err = s.outBy(r, b)
	}
	return c, err
}

func (s *Server) rolloutReady(ctx context.Context, id, backend string) error {
	r, p, b, done, err := s.order(ctx, id, backend)
	if err != nil {
		return err
	}
	defer done()
	_, unlock, err := s.outBy(r, b)
	if err != nil {
		return err
	}
	delete(s.rollouts.out, b.Live)
	r.seen.putBack(b.Name)
	p.SetWanted(b, upstream.In)
	unlock()
	s.tellBefore(b)
	s.note(ctx, b, "put back", "rollout")
	return nil
}

func (s *Server) rolloutBad(ctx context.Context, id, backend, why string) error {
	r, _, b, done, err := s.order(ctx, id, backend)
	if err != nil {
		return err
	}
	defer done()
	o, unlock, err := s.outBy(r, b)
	if err != nil {
		return err
	}
	o.how, o.why = admin.OutBad, why
	r.seen.isBad(b.Name, why)
	unlock()
	s.note(ctx, b, "left out", why)
	return nil
}

func (s *Server) rolloutEnd(ctx context.Context, id string) error {
	r, _, err := s.runningRollout(id)
	if r == nil {
		return err
	}
	s.see(r, func(v *rolloutSeen) { v.asked = true })
	r.end()
	select {
	case <-r.ended:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// checkPace is between checks of a backend that has just been started, until the first one passes.
const checkPace = 250 * time.Millisecond

// awaitWell waits until b passes its checks as often in a row as its pool asks for, all of them while the process from
// before has gone, and is not ejected. It ends when ctx does, or b is not to be waited for any more.
func (s *Server) awaitWell(ctx context.Context, p *pool, b *upstream.Backend, before process, still func() bool) (c admin.RolloutChecked) {
	begin := time.Now()
	defer func() { c.Took = time.Since(begin) }()
	for {
		m, set := s.monitor(p)
		if m == nil || !still() {
			return c
		}
		err := m.Ask(ctx, b)
		if at, ok := ctx.Deadline(); ctx.Err() != nil || ok && !time.Now().Before(at) {
			return c // what the last one said may be that there was no time
		}
		c.Same = before.stillAt(b.Addr)
		if c.Listen == 0 && !c.Same && !refused(err) {
			c.Listen = time.Since(begin)
		}
		pace := min(checkPace, set.Changing)
		switch {
		case err != nil:
			c.Checks, c.Said = 0, err.Error()
		case c.Same:
			c.Checks, c.Said = 0, "the process from before still listens"
		default:
			c.Checks, c.Said, pace = c.Checks+1, "", set.Changing
		}
		if c.Checks >= set.Rise {
			if b.Life().Ejected.IsZero() {
				if b.Life().Probed == upstream.Down {
					s.recheck(p, b) // who checks all along is slower to see it
				}
				c.Passed = true
				return c
			}
			pace = min(checkPace, set.Changing) // its ejection is over soon
		}
		t := time.NewTimer(pace)
		select {
		case <-ctx.Done():
			t.Stop()
			return c
		case <-t.C:
		}
	}
}

// refused reports whether err is that nobody listens.
func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) || errors.Is(err, health.ErrTimeout)
}

// monitor is who checks the pool, and by which settings.
func (s *Server) monitor(p *pool) (*health.Monitor, config.Health) {
	s.checks.mu.Lock()
	m := s.checks.of[p.Pool]
	s.checks.mu.Unlock()
	for _, c := range s.Config().Pools {
		if c.Name == p.Name {
			return m, c.Health
		}
	}
	return nil, config.Health{}
}
