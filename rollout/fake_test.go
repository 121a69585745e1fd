package rollout

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lb/admin"
)

// fake is an lb whose instances take time: to be empty, to listen, to pass their checks.
type fake struct {
	mu       sync.Mutex
	id       string
	backends []*fakeBackend
	least    int // ready backends that there were
	mostOut  int // that the rollout had out at once
	calls    []string
	gone     bool // lb does not answer
	totals   admin.RolloutTotals
	slow     time.Duration
}

type fakeBackend struct {
	admin.RolloutBackend
	busy    time.Duration // a drain takes
	starts  time.Duration // a check takes
	checked admin.RolloutChecked
	sick    time.Duration // after so long in use it goes down; 0: never
	back    time.Time
	errors  uint64 // of a hundred requests a second, once restarted
	late    time.Duration
	fresh   bool // restarted
	rate    uint64
}

func newFake(n int) *fake {
	f := &fake{id: "one", least: n, slow: 10 * time.Second}
	for i := range n {
		addr := fmt.Sprintf("127.0.0.1:%d", 3000+i)
		f.backends = append(f.backends, &fakeBackend{
			RolloutBackend: admin.RolloutBackend{Name: addr, Address: addr, Weight: 1, State: admin.Ready},
			busy:           time.Second, starts: 2 * time.Second, checked: admin.RolloutChecked{Passed: true, Listen: time.Second, Checks: 2}, rate: 100,
		})
	}
	return f
}

func (f *fake) find(name string) (*fakeBackend, error) {
	for _, b := range f.backends {
		if b.Name == name {
			return b, nil
		}
	}
	return nil, admin.ErrUnknown
}

// call notes an order, and fails when lb is gone.
func (f *fake) call(what, name string) (*fakeBackend, error) {
	f.calls = append(f.calls, what+" "+name)
	if f.gone {
		return nil, ErrGone
	}
	return f.find(name)
}

func (f *fake) look() {
	ready, out := 0, 0
	for _, b := range f.backends {
		if b.State == admin.Ready {
			ready++
		}
		if b.Out == admin.OutDraining || b.Out == admin.OutRestarting {
			out++
		}
	}
	f.least, f.mostOut = min(f.least, ready), max(f.mostOut, out)
}

func (f *fake) View(context.Context) (admin.RolloutView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return admin.RolloutView{}, ErrGone
	}
	v := admin.RolloutView{Rollout: admin.Rollout{ID: f.id, Pool: "app"}, SlowStart: f.slow, Rise: 2, Totals: f.totals}
	for _, b := range f.backends {
		if b.fresh && b.sick > 0 && b.State == admin.Ready && time.Since(b.back) >= b.sick {
			b.State, b.Why = admin.Down, "connection refused"
		}
		x := b.RolloutBackend
		if seconds := uint64(time.Since(zero) / time.Second); b.State == admin.Ready {
			x.Requests = b.rate * seconds
			took := int64(10 * time.Millisecond)
			if b.fresh {
				took += int64(b.late)
				x.Errors = b.errors * uint64(time.Since(b.back)/time.Second)
			}
			x.Latency = [][2]int64{{took, int64(x.Requests)}}
		}
		v.Backends = append(v.Backends, x)
	}
	return v, nil
}

var zero time.Time // of the bubble

func (f *fake) Drain(ctx context.Context, name string, wait time.Duration) (d admin.RolloutDrained, err error) {
	f.mu.Lock()
	b, err := f.call("drain", name)
	if err == nil && b.State == admin.Ready && !slices.ContainsFunc(f.backends, func(o *fakeBackend) bool { return o != b && o.State == admin.Ready }) {
		err = admin.ErrLastReady
	}
	if err != nil {
		f.mu.Unlock()
		return d, err
	}
	b.State, b.Out = admin.Draining, admin.OutDraining
	f.look()
	busy := b.busy
	f.mu.Unlock()
	select {
	case <-time.After(min(busy, wait)):
	case <-ctx.Done():
		return d, ctx.Err()
	}
	d.Took, d.Empty, d.Moved = min(busy, wait), busy <= wait, 3
	if !d.Empty {
		d.Requests, d.Tunnels = 2, 1
	}
	return d, nil
}

func (f *fake) Restart(_ context.Context, name string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.call("restart", name)
	if err != nil {
		return "", err
	}
	b.Out = admin.OutRestarting
	return "before " + name, nil
}

func (f *fake) Check(ctx context.Context, name, before string, wait time.Duration) (admin.RolloutChecked, error) {
	f.mu.Lock()
	b, err := f.call("check", name)
	if before != "" && before != "before "+name {
		err = fmt.Errorf("before is %q", before)
	}
	f.mu.Unlock()
	if err != nil {
		return admin.RolloutChecked{}, err
	}
	took := b.starts
	if !b.checked.Passed {
		took = wait
	}
	select {
	case <-time.After(took):
		return b.checked, nil
	case <-ctx.Done():
		return admin.RolloutChecked{}, ctx.Err()
	}
}

func (f *fake) Ready(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.call("ready", name)
	if err != nil {
		return err
	}
	b.fresh = b.fresh || b.Out == admin.OutRestarting
	b.State, b.Out, b.back = admin.Ready, "", time.Now()
	return nil
}

func (f *fake) Bad(_ context.Context, name, why string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.call("bad", name)
	if err != nil {
		return err
	}
	b.Out, b.Why = admin.OutBad, why
	return nil
}

// set changes a backend.
func (f *fake) set(i int, change func(*fakeBackend)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f.backends[i])
}

// options are those of a plain rollout.
func options() Options {
	return Options{
		Exec: "restart {name}", Wait: 30 * time.Second, Timeout: 2 * time.Minute, StartTimeout: time.Minute, AtOnce: Amount{N: 1},
		Watch: time.Minute, Rule: Rule{Errors: 1, Slower: 50},
	}
}

// play is a rollout of f in a bubble, with what is to happen meanwhile.
type play struct {
	*fake
	opt     Options
	command Command
	stop    chan struct{}
	abort   context.CancelFunc
	ctx     context.Context
	on      map[string]func() // by "event name": what happens then
	events  []string
	waits   []Event
}

func playOf(n int) *play {
	p := &play{fake: newFake(n), opt: options(), stop: make(chan struct{}), on: map[string]func(){}}
	p.ctx, p.abort = context.WithCancel(context.Background())
	p.command = func(ctx context.Context, t Target, out func(string)) error {
		out("restarting " + t.Name)
		select {
		case <-time.After(3 * time.Second):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return p
}

func (p *play) run(t *testing.T) Result {
	t.Helper()
	zero = time.Now()
	defer p.abort()
	v, _ := p.View(p.ctx)
	plan, err := NewPlan(&v, p.opt)
	if err != nil {
		t.Fatal(err)
	}
	return Run(p.ctx, plan, World{LB: p, Command: p.command, Stop: p.stop, Report: func(e Event) {
		text := strings.TrimSpace(e.Event + " " + e.Name)
		switch e.Event {
		case Output:
		case Waiting:
			p.waits = append(p.waits, e)
		default:
			p.events = append(p.events, text)
		}
		if f := p.on[text]; f != nil {
			delete(p.on, text)
			f()
		}
	}})
}

// after has something happen later in the bubble.
func after(d time.Duration, f func()) func() {
	return func() {
		go func() {
			time.Sleep(d)
			f()
		}()
	}
}

const a, b, c = "127.0.0.1:3000", "127.0.0.1:3001", "127.0.0.1:3002"
