package health

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"lb/upstream"
)

// watch is what a Monitor does with one backend: a goroutine that asks it, and what is known from its requests.
type watch struct {
	m     *Monitor
	b     *upstream.Backend
	kick  chan struct{} // has room for one: look again at what to do
	stop  context.CancelFunc
	ended chan struct{}
	asked atomic.Bool // the backend asked to be drained

	// The goroutine's own. A new goroutine begins after the one before has ended.
	check Check
	probe Probe
	began time.Time // of the last probe
	done  time.Time // of the same

	// Guarded by Monitor.mu.
	faults   window
	out      *ejection // nil: it is not ejected
	why      string    // it is
	times    int       // ejections, without those forgotten until back
	back     time.Time // when the last ejection ended
	urgent   bool      // to be asked at once
	eager    time.Time // up to when one that is not up is asked often
	spared   time.Time // when it was last told that it would be ejected, if that were allowed
	knocking bool      // somebody looks whether it listens, or will
	knocked  time.Time // when somebody did
	last     Status
}

// start begins to ask, after a goroutine that was stopped has ended.
func (w *watch) start(c Check, probe Probe) {
	ctx, stop := context.WithCancel(context.Background())
	before, ended := w.ended, make(chan struct{})
	w.stop, w.ended = stop, ended
	w.m.running.Go(func() {
		defer close(ended)
		if before != nil {
			<-before
		}
		w.check, w.probe = c, probe
		w.began, w.done = time.Time{}, time.Time{} // ask at once
		w.run(ctx)
	})
}

// run asks the backend until ctx ends. Where it stands is what it thinks of the backend.
func (w *watch) run(ctx context.Context) {
	if w.check.Kind == Off {
		w.set(ctx, upstream.Unknown, nil)
		w.unask(ctx)
		for w.rest(ctx, math.MaxInt64) {
			w.ask(ctx)
		}
		return
	}
	up := w.b.Life().Probed == upstream.Up
	if w.b.Life().Probed == upstream.Unknown {
		// Nothing is known: the first answer decides, so that a pool is at work as soon as its backends are.
		err := w.ask(ctx)
		up = well(err)
		w.report(ctx, up, err)
	}
	for ctx.Err() == nil {
		if up {
			up = !w.until(ctx, false, w.check.Fall)
		} else {
			up = w.until(ctx, true, w.check.Rise)
		}
	}
}

// until returns true when n probes in a row said that the backend is well, or not well; false when ctx ends.
func (w *watch) until(ctx context.Context, want bool, n int) bool {
	for streak := 0; ; {
		pause := w.check.Interval
		switch {
		case streak > 0:
			pause = w.check.Changing
		case want:
			pause = w.check.Down
		}
		if !w.rest(ctx, pause) {
			return false
		}
		hungry := w.m.isHungry()
		err := w.ask(ctx)
		if well(err) != want {
			streak = 0
			continue
		}
		// When requests wait for anybody, the first who accepts is taken.
		if streak++; streak >= n || want && hungry {
			return w.report(ctx, want, err)
		}
	}
}

func well(err error) bool { return err == nil || errors.Is(err, ErrDrain) }

func (w *watch) report(ctx context.Context, up bool, err error) bool {
	if up {
		return w.set(ctx, upstream.Up, nil)
	}
	return w.set(ctx, upstream.Down, err)
}

// set writes what the checks think; false when ctx has ended, and another goroutine may know better.
func (w *watch) set(ctx context.Context, p upstream.Probed, err error) bool {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	if p == upstream.Up {
		w.eager = time.Time{}
	}
	if w.b.Life().Probed == p {
		return true
	}
	w.m.pool.SetProbed(w.b, p)
	switch p {
	case upstream.Up:
		w.emit(Event{What: WentUp})
	case upstream.Down:
		w.emit(Event{What: WentDown, Why: err.Error()})
	}
	w.m.changed()
	return true
}

// hungryPause is between probes while requests wait for somebody to be ready.
const hungryPause = 100 * time.Millisecond

// rest waits until the backend is to be asked, which is pause after it was last asked unless there is a reason to do so
// sooner; meanwhile it ends an ejection whose time is over. It returns false when ctx ends.
func (w *watch) rest(ctx context.Context, pause time.Duration) bool {
	if pause != math.MaxInt64 {
		pause = w.m.jittered(pause, w.check.Jitter)
	}
	for {
		wait := w.wait(pause)
		if wait <= 0 {
			return ctx.Err() == nil
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-w.kick:
		case <-t.C:
		}
		t.Stop()
		if ctx.Err() != nil {
			return false
		}
	}
}

// wait is how long rest has to wait before it looks again.
func (w *watch) wait(pause time.Duration) time.Duration {
	hungry := w.m.isHungry()
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	now := time.Now()
	if w.out != nil && w.out.over(now) {
		w.comeBack("its time is over")
	}
	if w.urgent {
		w.urgent = false
		return 0
	}
	if w.out != nil || now.Before(w.eager) {
		pause = min(pause, w.check.Changing)
	}
	if hungry && pause != math.MaxInt64 {
		pause = min(pause, hungryPause)
	}
	if pause == math.MaxInt64 {
		return pause
	}
	// A probe that took long leaves some air before the next.
	wait := max(w.began.Add(pause).Sub(now), w.done.Add(pause/4).Sub(now))
	if w.out != nil && !w.out.dead {
		if left := w.out.until.Sub(now); left < wait {
			return left
		}
	}
	return wait
}

// ask probes the backend once and books what it said, but for whether it is up or down.
func (w *watch) ask(ctx context.Context) error {
	w.began = time.Now()
	err := w.probe.run(ctx, w.b.Addr, w.check.Timeout)
	if took := time.Since(w.began); err != nil && took > w.check.Timeout*3/2 {
		// Its timer was late, so it was this process that stood still, and the answer may be there long since.
		w.began = time.Now()
		err = w.probe.run(ctx, w.b.Addr, w.check.Timeout)
	}
	hungry := w.m.isHungry()
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if ctx.Err() != nil {
		return err
	}
	w.done = time.Now()
	if w.last.Checked.IsZero() || well(w.last.Err) != well(err) {
		w.last.Streak = 0
	}
	w.b.Checked(well(err))
	w.last = Status{Checked: w.done, Took: w.done.Sub(w.began), Err: err, Streak: w.last.Streak + 1}
	w.heed(err)
	if w.out != nil && w.out.probed(well(err), w.done, w.check.Rise, hungry) {
		why := "it answers again"
		if hungry {
			why = "it answers again, and requests wait"
		}
		w.comeBack(why)
	}
	return err
}

// heed drains the backend if it asks for that, and takes it back when it no longer does. What a person or the
// configuration wanted before is left alone.
func (w *watch) heed(err error) {
	switch wanted := w.b.Life().Wanted; {
	case errors.Is(err, ErrDrain) && !w.asked.Load() && wanted == upstream.In:
		w.asked.Store(true)
		w.m.pool.StartDraining(w.b)
		w.emit(Event{What: Drains, Why: err.Error()})
	case err == nil && w.asked.Load():
		w.asked.Store(false)
		if wanted == upstream.Draining {
			w.m.pool.SetWanted(w.b, upstream.In)
			w.emit(Event{What: TakenBack})
		}
	default:
		return
	}
	w.m.changed()
}

// unask takes the backend back if it was drained because it asked for that: it is not going to be asked any more.
func (w *watch) unask(ctx context.Context) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if ctx.Err() == nil {
		w.heed(nil)
	}
}

// knockPause is between two looks at whether a backend listens: one that closes all its connections after a short while
// would otherwise be connected to for each.
const knockPause = 100 * time.Millisecond

// knock sees, after a pause, whether the backend listens, and ejects it if it does not.
func (w *watch) knock(pause time.Duration) {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.m.ctx.Done():
		return
	}
	w.m.mu.Lock()
	w.knocking, w.knocked = false, time.Now() // what it closes from now on may be a reason to look again
	timeout := w.m.check.Timeout
	w.m.mu.Unlock()
	err := w.m.opt.Knock.run(w.m.ctx, w.b.Addr, timeout)
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if upstream.ConnectFault(err) == upstream.FaultRefused && w.m.watches[w.b.Live] == w && w.b.Life().Probed != upstream.Down && !w.m.passive.Off {
		w.dead()
	}
}

// dead ejects the backend because it refused a connection. The caller holds Monitor.mu.
func (w *watch) dead() {
	const why = "connection refused"
	switch {
	case w.out == nil:
		w.eject(ejection{dead: true}, why)
	case !w.out.dead:
		w.out.dead, w.why = true, why
		w.m.pool.SetDead(w.b, w.out.until)
		w.m.changed()
	}
}

// eject begins an ejection and has the backend asked at once. The caller holds Monitor.mu.
func (w *watch) eject(e ejection, why string) {
	m, now := w.m, time.Now()
	n := remembered(w.times, now.Sub(w.back))
	w.times = n + 1
	e.nth = w.times
	e.until = now.Add(m.passive.out(n, m.opt.Chance()))
	w.out, w.why = &e, why
	if e.dead {
		m.pool.SetDead(w.b, e.until)
	} else {
		m.pool.SetEjected(w.b, e.until)
	}
	w.emit(Event{What: Ejected, Why: why, Until: e.until})
	m.changed()
	w.urgent = true
	w.wake()
}

// comeBack ends the ejection. The caller holds Monitor.mu.
func (w *watch) comeBack(why string) {
	w.out, w.why, w.back = nil, "", time.Now()
	w.faults = window{}
	w.m.pool.SetEjected(w.b, time.Time{})
	w.emit(Event{What: Returned, Why: why})
	w.m.changed()
}

func (w *watch) wake() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

func (w *watch) emit(e Event) {
	e.Backend = w.b.Name
	w.m.emit(e)
}
