// Package rollout restarts the backends of a pool without losing a request: one after the other is taken out of use,
// restarted by a command, and put back when it is well. The first that is not stops it.
//
// It knows lb by an interface, and what restarts an instance by a function: Run is the story, a file each tells of the
// plan, of one step, and of the verdict on a canary.
package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"lb/admin"
)

// LB is what a rollout asks of lb. Errors are those of package admin; ErrGone means that lb itself is away for longer
// than a restart of it takes.
type LB interface {
	// View is the pool now.
	View(ctx context.Context) (admin.RolloutView, error)
	// Drain takes a backend out and waits until it is empty, at most so long.
	Drain(ctx context.Context, backend string, wait time.Duration) (admin.RolloutDrained, error)
	// Restart says that one that is out is about to be restarted, and gives what its process is known by.
	Restart(ctx context.Context, backend string) (before string, err error)
	// Check waits until another process than the one before passes its checks, at most so long.
	Check(ctx context.Context, backend, before string, wait time.Duration) (admin.RolloutChecked, error)
	// Ready puts a backend back.
	Ready(ctx context.Context, backend string) error
	// Bad leaves one that is out there for good, also when the rollout is over.
	Bad(ctx context.Context, backend, why string) error
}

// ErrGone means that there is no lb any more to talk to.
var ErrGone = errors.New("lb is gone")

// Command restarts an instance, and gives each line that it says to out. It ends when ctx does.
type Command func(ctx context.Context, t Target, out func(line string)) error

// World is what a rollout works with.
type World struct {
	LB      LB
	Command Command
	Report  func(Event)     // is told of what happens, one event at a time
	Stop    <-chan struct{} // closed when the rollout is to end as soon as it can without harm
}

// How a rollout ended.
type Ending string

// The endings.
const (
	Finished    Ending = "finished"    // every instance was restarted
	FoundBad    Ending = "bad"         // an instance is bad, and was left out
	Interrupted Ending = "interrupted" // it was told to stop
	Aborted     Ending = "aborted"     // it was told to stop at once: lb puts back what is out
	Failed      Ending = "failed"      // lb, or another instance, did not let it go on
)

// Result is what came of a rollout.
type Result struct {
	Ending Ending
	Done   []string // were restarted, and are in use
	Bad    []string // are bad, and out
	Left   []string // aborted in the middle: lb puts them back when they pass their checks
	Rest   []string // were not touched
	Err    error    // why it did not finish
	Took   time.Duration
	Proof  Proof
}

// Run carries out p. When ctx ends it stops at once: it kills commands, and what is out is lb's to put back.
func Run(ctx context.Context, p *Plan, w World) Result {
	r := &run{World: w, plan: p, began: time.Now(), out: map[string]bool{}}
	counting := r.count(ctx)
	err := r.all(ctx)
	counting()
	return r.result(ctx, err)
}

// all restarts the canaries, watches them, and restarts the rest.
func (r *run) all(ctx context.Context) error {
	first, rest := r.plan.Steps[:r.plan.Canaries], r.plan.Steps[r.plan.Canaries:]
	if err := r.each(ctx, first); err != nil {
		return err
	}
	if len(first) > 0 {
		if err := r.watch(ctx, first); err != nil {
			return err
		}
	}
	return r.each(ctx, rest)
}

// run is a rollout under way.
type run struct {
	World
	plan  *Plan
	began time.Time

	mu    sync.Mutex
	out   map[string]bool // guarded by mu: backends that are out, or not warm yet
	done  []string        // guarded by mu
	bad   []string        // guarded by mu
	left  []string        // guarded by mu
	why   error           // guarded by mu: the first reason to stop
	proof Proof           // guarded by mu
}

// each carries out steps, as many at a time as may be out.
func (r *run) each(ctx context.Context, steps []Target) error {
	places := make(chan struct{}, r.plan.AtOnce)
	var under sync.WaitGroup
	for _, t := range steps {
		places <- struct{}{}
		if r.stopping() != nil {
			break
		}
		if err := r.awaitRoom(ctx, t); err != nil {
			r.halt(err)
			break
		}
		r.setOut(t.Name, true)
		under.Go(func() {
			defer func() { <-places }()
			defer r.setOut(t.Name, false)
			if err := r.step(ctx, t); err != nil {
				r.halt(err)
			}
		})
	}
	under.Wait()
	return r.stopping()
}

// errStopped is the reason of a rollout that was told to end.
var errStopped = errors.New("interrupted")

// stopping is why the rollout has to end, nil when it goes on.
func (r *run) stopping() error {
	select {
	case <-r.Stop:
		r.halt(errStopped)
	default:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why
}

// halt has no further step begun.
func (r *run) halt(why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.why == nil {
		r.why = why
	}
}

func (r *run) setOut(name string, out bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if out {
		r.out[name] = true
	} else {
		delete(r.out, name)
	}
}

func (r *run) note(list *[]string, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(*list, name) {
		*list = append(*list, name)
	}
}

// report tells of an event.
func (r *run) report(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Time, e.Pool, e.Of = time.Now(), r.plan.Pool, len(r.plan.Steps)
	r.Report(e)
}

// sleep waits, and reports whether it did to the end. It does not when the rollout has to stop.
func (r *run) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Stop:
	case <-ctx.Done():
	}
	return false
}

// view asks lb for the pool, and counts by what it says.
func (r *run) view(ctx context.Context) (admin.RolloutView, error) {
	v, err := r.LB.View(ctx)
	if err == nil {
		r.mu.Lock()
		r.proof.see(&v)
		r.mu.Unlock()
	}
	return v, err
}

// count looks at lb's counters once a second, so that little is missing when lb is restarted. The func it returns ends
// that after a last look.
func (r *run) count(ctx context.Context) (end func()) {
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			r.view(ctx)
			select {
			case <-tick.C:
			case <-over:
				return
			}
		}
	}()
	return func() {
		close(over)
		<-done
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		r.view(last)
	}
}

func (r *run) result(ctx context.Context, err error) Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	res := Result{Ending: Finished, Done: r.done, Bad: r.bad, Left: r.left, Err: err, Took: time.Since(r.began), Proof: r.proof}
	for _, t := range r.plan.Steps {
		if !slices.Contains(r.done, t.Name) && !slices.Contains(r.bad, t.Name) && !slices.Contains(r.left, t.Name) {
			res.Rest = append(res.Rest, t.Name)
		}
	}
	switch {
	case err == nil:
	case len(r.bad) > 0:
		res.Ending = FoundBad
	case ctx.Err() != nil:
		res.Ending = Aborted
	case errors.Is(err, errStopped) && len(res.Rest) == 0 && len(r.left) == 0:
		res.Ending, res.Err = Finished, nil // it came too late
	case errors.Is(err, errStopped):
		res.Ending = Interrupted
	default:
		res.Ending = Failed
	}
	return res
}

// badError is that an instance is bad.
type badError struct{ name, why string }

func (e *badError) Error() string { return fmt.Sprintf("%s is bad: %s", e.name, e.why) }
