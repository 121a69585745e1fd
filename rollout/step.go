package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lb/admin"
)

// poll is between looks at the pool while something is waited for.
const poll = 500 * time.Millisecond

// shortly is how long others may be away without a word: one that was put back is not ready until lb has asked it.
const shortly = time.Second

// step restarts one backend. It is out of use when step returns a badError, and in use or untouched otherwise, unless
// ctx has ended.
func (r *run) step(ctx context.Context, t Target) error {
	if err := r.drain(ctx, t); err != nil {
		return err
	}
	before, err := r.LB.Restart(ctx, t.Name)
	if err != nil {
		return r.lost(ctx, t, err)
	}
	if r.plan.InPlace {
		before = ""
	}
	if err := r.restart(ctx, t); err != nil {
		return err
	}
	if err := r.check(ctx, t, before); err != nil {
		return err
	}
	if err := r.LB.Ready(ctx, t.Name); err != nil {
		return r.lost(ctx, t, err)
	}
	r.note(&r.done, t.Name)
	return r.warm(ctx, t)
}

// lost is what becomes of a step that lb did not let go on.
func (r *run) lost(ctx context.Context, t Target, err error) error {
	if ctx.Err() != nil {
		r.note(&r.left, t.Name)
		return errStopped
	}
	if errors.Is(err, ErrGone) {
		r.note(&r.left, t.Name)
	}
	return fmt.Errorf("%s: %w", t.Name, err)
}

// drain takes the backend out and waits until it is empty, or its time is over. When another one goes away meanwhile, or
// the rollout is told to stop, it is put back at once: nothing has been done to it yet.
func (r *run) drain(ctx context.Context, t Target) error {
	for {
		r.report(Event{Event: Draining, Target: t})
		d, room, err := r.drainOnce(ctx, t)
		switch {
		case ctx.Err() != nil:
			return errStopped // with the connection, lb puts it back
		case errors.Is(err, admin.ErrLastReady): // it has not been taken out
			if r.stopping() != nil {
				return errStopped
			}
			if err := r.awaitRoom(ctx, t); err != nil {
				return err
			}
			continue
		case err != nil:
			return fmt.Errorf("%s: %w", t.Name, err)
		}
		if r.stopping() != nil {
			if err := r.putBack(ctx, t); err != nil {
				return err
			}
			return errStopped
		}
		if room {
			r.mu.Lock()
			r.proof.Moved += d.Moved
			r.proof.Cut += d.Tunnels
			r.mu.Unlock()
			r.report(Event{Event: Drained, Target: t, Took: d.Took, Requests: d.Requests, Tunnels: d.Tunnels, Moved: d.Moved})
			return nil
		}
		if err := r.putBack(ctx, t); err != nil {
			return err
		}
		if err := r.awaitRoom(ctx, t); err != nil {
			return err
		}
	}
}

// putBack undoes a drain.
func (r *run) putBack(ctx context.Context, t Target) error {
	if err := r.LB.Ready(ctx, t.Name); err != nil {
		return r.lost(ctx, t, err)
	}
	r.report(Event{Event: PutBack, Target: t})
	return nil
}

// drainOnce drains until the backend is empty or has had its time; room is false when another one went away before. That is
// nothing to one that got no requests anyway.
func (r *run) drainOnce(ctx context.Context, t Target) (d admin.RolloutDrained, room bool, err error) {
	v, viewErr := r.view(ctx)
	asked := viewErr != nil || slices.ContainsFunc(v.Backends, func(b admin.RolloutBackend) bool { return b.Name == t.Name && costs(&v, &b) })
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d, err = r.LB.Drain(inner, t.Name, r.plan.Wait)
	}()
	giveUp := func(room bool) (admin.RolloutDrained, bool, error) {
		cancel()
		<-done
		if ctx.Err() == nil && !errors.Is(err, admin.ErrLastReady) {
			err = nil // it was we who did not wait
		}
		return d, room, err
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return d, true, err
		case <-r.Stop:
			return giveUp(true)
		case <-tick.C:
			if r.stopping() != nil { // another one is bad
				return giveUp(true)
			}
			v, viewErr := r.view(inner)
			if viewErr != nil {
				continue // the drain fails, too
			}
			if away := r.away(&v); asked && len(away) > 0 && len(r.others(t.Name))+1+len(away) > r.plan.AtOnce {
				return giveUp(false)
			}
			if i := slices.IndexFunc(v.Backends, named(t.Name)); i >= 0 {
				r.report(Event{Event: Waiting, Target: t, Requests: v.Backends[i].Inflight, Tunnels: v.Backends[i].Tunnels})
			}
		}
	}
}

func named(name string) func(admin.RolloutBackend) bool {
	return func(b admin.RolloutBackend) bool { return b.Name == name }
}

// others is who is out but for one.
func (r *run) others(name string) (list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for o := range r.out {
		if o != name {
			list = append(list, o)
		}
	}
	return list
}

// away is who is not ready by none of the rollout's doing, each with its reason. Whom it put up with at the beginning
// does not count until it has been restarted.
func (r *run) away(v *admin.RolloutView) (list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range v.Backends {
		excused := r.plan.away[b.Name] && !slices.Contains(r.done, b.Name)
		if b.Weight > 0 && b.State != admin.Ready && !broken(&b) && !r.out[b.Name] && !excused {
			list = append(list, fmt.Sprintf("%s is %s%s", b.Name, b.State, because(b.Why)))
		}
	}
	return list
}

// onlyReady reports whether nobody but the named backend is ready, if that is.
func onlyReady(v *admin.RolloutView, name string) bool {
	return !slices.ContainsFunc(v.Backends, func(b admin.RolloutBackend) bool { return b.Name != name && b.State == admin.Ready })
}

// costs reports whether b gets requests that others would have to take. When nobody is ready, they go to whoever is not known
// to be down.
func costs(v *admin.RolloutView, b *admin.RolloutBackend) bool {
	return b.State == admin.Ready || b.State != admin.Down && onlyReady(v, b.Name)
}

// awaitRoom waits until one more may be taken out. Others may be away for a moment, such as one that was ejected.
func (r *run) awaitRoom(ctx context.Context, t Target) error {
	begin, paused := time.Now(), false
	for {
		v, err := r.view(ctx)
		if err != nil {
			return r.lostView(ctx, err)
		}
		i := slices.IndexFunc(v.Backends, named(t.Name))
		if i < 0 {
			return fmt.Errorf("%s: %w: a reload took it out of pool %s", t.Name, admin.ErrUnknown, v.Pool)
		}
		if v.Backends[i].Address != t.Address {
			return fmt.Errorf("%s: a reload moved it from %s to %s", t.Name, t.Address, v.Backends[i].Address)
		}
		away := r.away(&v)
		last := onlyReady(&v, t.Name)
		if !costs(&v, &v.Backends[i]) || !last && len(away)+len(r.others(t.Name))+1 <= r.plan.AtOnce {
			if paused {
				r.report(Event{Event: Resumed, Target: t, Took: time.Since(begin)})
			}
			return nil
		}
		if last && len(away) == 0 {
			away = []string{"no other backend is ready"}
		}
		if time.Since(begin) >= r.plan.StartTimeout {
			return fmt.Errorf("%s was not taken out: after %v, %s", t.Name, r.plan.StartTimeout, strings.Join(away, ", "))
		}
		if !paused && time.Since(begin) >= shortly {
			paused = true
			r.report(Event{Event: Paused, Target: t, Why: strings.Join(away, ", ")})
		}
		wait := poll
		if time.Since(begin) < shortly {
			wait = shortly / 10
		}
		if !r.sleep(ctx, wait) {
			return errStopped
		}
	}
}

func (r *run) lostView(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errStopped
	}
	return err
}

// restart runs the command.
func (r *run) restart(ctx context.Context, t Target) error {
	r.report(Event{Event: Restarting, Target: t})
	begin := time.Now()
	inner, cancel := context.WithTimeout(ctx, r.plan.Timeout)
	defer cancel()
	err := r.Command(inner, t, func(line string) { r.report(Event{Event: Output, Target: t, Line: line}) })
	took := time.Since(begin)
	switch {
	case err == nil:
		r.report(Event{Event: Restarted, Target: t, Took: took})
		return nil
	case ctx.Err() != nil:
		r.note(&r.left, t.Name)
		return errStopped
	case inner.Err() != nil:
		return r.spoil(ctx, t, fmt.Sprintf("its command was not done after %v, and was killed", r.plan.Timeout))
	}
	return r.spoil(ctx, t, "its command failed: "+err.Error())
}

// check waits until the instance is new and well.
func (r *run) check(ctx context.Context, t Target, before string) error {
	c, err := r.LB.Check(ctx, t.Name, before, r.plan.StartTimeout)
	limit := r.plan.StartTimeout
	switch {
	case err != nil:
		return r.lost(ctx, t, err)
	case c.Passed:
		r.report(Event{Event: Passed, Target: t, Took: c.Took, Listen: c.Listen, Checks: c.Checks})
		return nil
	case ctx.Err() != nil:
		r.note(&r.left, t.Name)
		return errStopped
	case c.Same:
		return r.spoil(ctx, t, fmt.Sprintf("%v after the command the process from before still listens there, so it was not restarted. If the command is not meant to, say --in-place", limit))
	case c.Listen == 0:
		return r.spoil(ctx, t, fmt.Sprintf("it does not listen %v after the command%s", limit, because(c.Said)))
	}
	return r.spoil(ctx, t, fmt.Sprintf("it does not pass its checks %v after the command%s", limit, because(c.Said)))
}

// spoil declares a backend bad that is out.
func (r *run) spoil(ctx context.Context, t Target, why string) error {
	bad := &badError{t.Name, why}
	r.halt(bad) // before the next one is begun
	if err := r.LB.Bad(ctx, t.Name, why); err != nil {
		return errors.Join(bad, r.lost(ctx, t, err))
	}
	r.mu.Lock()
	r.done = slices.DeleteFunc(r.done, func(name string) bool { return name == t.Name })
	r.mu.Unlock()
	r.note(&r.bad, t.Name)
	r.report(Event{Event: Bad, Target: t, Why: why})
	return bad
}

// withdraw takes a backend out that turned out to be bad while it was in use. Others serve its requests to the end of
// the wait.
func (r *run) withdraw(ctx context.Context, t Target, why string) error {
	r.halt(&badError{t.Name, why})
	if _, err := r.LB.Drain(ctx, t.Name, r.plan.Wait); err != nil {
		return errors.Join(&badError{t.Name, why}, fmt.Errorf("it could not be taken out: %w", err))
	}
	return r.spoil(ctx, t, why)
}

// warm watches a backend that is back until it has its whole share.
func (r *run) warm(ctx context.Context, t Target) error {
	r.report(Event{Event: Back, Target: t})
	begin := time.Now()
	for left := r.plan.Warmup; left > 0; left = r.plan.Warmup - time.Since(begin) {
		if !r.sleep(ctx, min(poll, left)) {
			return nil // it is in use, so there is nothing to undo
		}
		v, err := r.view(ctx)
		if err != nil {
			return r.lostView(ctx, err)
		}
		if why := unwell(&v, t); why != "" {
			return r.withdraw(ctx, t, why)
		}
	}
	r.report(Event{Event: Warm, Target: t, Took: time.Since(begin)})
	return nil
}

// unwell is what is wrong with a backend that is to be in use; "" when all is well.
func unwell(v *admin.RolloutView, t Target) string {
	i := slices.IndexFunc(v.Backends, named(t.Name))
	if i < 0 {
		return "" // a reload took it away: that was somebody's wish
	}
	if b := &v.Backends[i]; b.State == admin.Down || b.State == admin.Ejected {
		return fmt.Sprintf("soon after its restart it is %s%s", b.State, because(b.Why))
	}
	return ""
}
