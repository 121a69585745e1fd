package health

import (
	"errors"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"lb/upstream"
)

// process is an application instance: it refuses while it is down, and cuts what it has when it goes down.
type process struct {
	up   bool
	life int // how often it has been started
}

// fleet is processes behind a lab's pool, and clients that come at a steady rate. As a proxy does, they try another
// backend when one fails and wait when there is none.
type fleet struct {
	*lab
	mu     sync.Mutex
	procs  map[string]*process
	served func(name string) // is called, without lock, after each answer
	fail   []error
	sent   int
	worst  time.Duration
}

func newFleet(l *lab, names ...string) *fleet {
	f := &fleet{lab: l, procs: map[string]*process{}}
	for _, name := range names {
		f.procs[name] = &process{up: true}
		l.mu.Lock()
		l.says[name] = func() error {
			if !f.alive(name) {
				return syscall.ECONNREFUSED
			}
			return nil
		}
		l.mu.Unlock()
	}
	return f
}

func (f *fleet) alive(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.procs[name].up
}

// restart takes the process down for a while.
func (f *fleet) restart(name string, d time.Duration) {
	f.mu.Lock()
	p := f.procs[name]
	was := p.up
	p.up = false
	f.mu.Unlock()
	if !was {
		return
	}
	time.Sleep(d)
	f.mu.Lock()
	p.up = true
	p.life++
	f.mu.Unlock()
}

// try sends one request to a backend that takes 5 ms for it.
func (f *fleet) try(name string) upstream.Fault {
	f.mu.Lock()
	p := f.procs[name]
	up, life := p.up, p.life
	f.mu.Unlock()
	if !up {
		return upstream.FaultRefused
	}
	time.Sleep(5 * ms)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !p.up || p.life != life {
		return upstream.FaultReset
	}
	return upstream.FaultNone
}

// client is one request, from its arrival to its answer.
func (f *fleet) client(i int) error {
	var s upstream.Selection
	begin := time.Now()
	s.Reset(f.now(), i%2)
	all := f.p.Snapshot().All
	s.Key = uint64(all[i%len(all)].ID)
	woken := make(chan struct{}, 1)
	w := upstream.Waiter{Wake: func() { woken <- struct{}{} }}
	deadline := time.After(5 * sec)
	for {
		l, err := f.p.Acquire(&s)
		if errors.Is(err, upstream.ErrTried) { // all have failed it, and nobody knows better yet
			time.Sleep(100 * ms)
			s.Forget()
			continue
		}
		if err != nil && !f.p.Wait(&w, &s) {
			return errors.New("full")
		}
		for err != nil {
			select {
			case <-woken:
			case <-deadline:
				f.p.Leave(&w, true, f.now())
				return errors.New("waited too long")
			}
			s.Now = f.now()
			l, err = f.p.Acquire(&s)
			if errors.Is(err, upstream.ErrTried) {
				return err
			}
		}
		name := l.Backend().Name
		fault := f.try(name)
		l.Done(upstream.Outcome{Now: f.now(), Latency: 1, Fault: fault})
		if fault == upstream.FaultNone {
			f.mu.Lock()
			f.worst = max(f.worst, time.Since(begin))
			f.mu.Unlock()
			if f.served != nil {
				f.served(name)
			}
			return nil
		}
	}
}

// load sends rate requests a second for d and waits for the last answer.
func (f *fleet) load(rate int, d time.Duration) {
	var wg sync.WaitGroup
	for range int(d.Seconds() * float64(rate)) {
		f.sent++
		n := f.sent
		wg.Go(func() {
			if err := f.client(n); err != nil {
				f.mu.Lock()
				f.fail = append(f.fail, err)
				f.mu.Unlock()
			}
		})
		time.Sleep(sec / time.Duration(rate))
	}
	wg.Wait()
	synctest.Wait()
}

func (f *fleet) report(what string, most time.Duration) {
	f.t.Helper()
	if len(f.fail) > 0 {
		f.t.Errorf("%s: %d of %d requests failed, the first: %v", what, len(f.fail), f.sent, f.fail[0])
	}
	if f.worst > most {
		f.t.Errorf("%s: a request took %v, want at most %v", what, f.worst, most)
	}
	f.t.Logf("%s: %d requests, the slowest %v, %+v", what, f.sent, f.worst, f.p.Queue())
	if q := f.p.Queue(); q.Waiting != 0 {
		f.t.Errorf("%s: %+v", what, q)
	}
}

// TestRestartOfOne is "pm2 restart" of a single instance: 800 ms of nobody there, under 500 requests a second. All
// wait, and the first probe after that, 100 ms later at most, lets them go.
func TestRestartOfOne(t *testing.T) {
	play(t, "a", DefaultCheck(), Passive{}, func(l *lab) {
		f := newFleet(l, "a")
		go func() {
			for range 5 {
				time.Sleep(4 * sec)
				f.restart("a", 800*ms)
			}
		}()
		f.load(500, 25*sec)
		f.report("restart", 910*ms)
	})
}

// TestWorkersThatExit: four workers, each of which exits one second after its first request and needs half a second to
// start, under 100 requests a second.
func TestWorkersThatExit(t *testing.T) {
	play(t, "a b c d", DefaultCheck(), Passive{}, func(l *lab) {
		f := newFleet(l, "a", "b", "c", "d")
		exits := map[string]bool{}
		f.served = func(name string) {
			f.mu.Lock()
			was := exits[name]
			exits[name] = true
			f.mu.Unlock()
			if was {
				return
			}
			time.Sleep(sec)
			f.mu.Lock()
			exits[name] = false
			f.mu.Unlock()
			f.restart(name, 500*ms)
		}
		f.load(100, time.Minute)
		f.report("exits", 1200*ms)
	})
}

// TestRolling restarts one after the other; nobody waits.
func TestRolling(t *testing.T) {
	play(t, "a b c d", DefaultCheck(), Passive{}, func(l *lab) {
		f := newFleet(l, "a", "b", "c", "d")
		go func() {
			for _, name := range []string{"a", "b", "c", "d", "a", "b", "c", "d"} {
				time.Sleep(4 * sec)
				f.restart(name, sec)
			}
		}()
		f.load(300, 45*sec)
		f.report("rolling", 30*ms)
		if q := f.p.Queue(); q.Waits != 0 {
			t.Errorf("%d had to wait", q.Waits)
		}
	})
}

// TestAllDown: all die, and come back one after the other.
func TestAllDown(t *testing.T) {
	play(t, "a b c", DefaultCheck(), Passive{}, func(l *lab) {
		f := newFleet(l, "a", "b", "c")
		go func() {
			time.Sleep(5 * sec)
			go f.restart("a", 3*sec)
			go f.restart("b", 4*sec)
			go f.restart("c", 20*sec)
		}()
		f.load(200, 30*sec)
		f.report("all down", 3110*ms)
		l.wantReady("a b c")
	})
}
