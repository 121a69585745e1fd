package upstream

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// sleeper is an exchange that waits on a channel, as the proxy's waits on its loop.
type sleeper struct {
	p    *Pool
	w    Waiter
	s    Selection
	wake chan struct{}
	rnd  *rand.Rand
	now  int64
}

func newSleeper(p *Pool, loop int) *sleeper {
	x := &sleeper{p: p, wake: make(chan struct{}, 1), rnd: rand.New(rand.NewPCG(uint64(loop), 1))}
	x.s.Loop = loop
	x.w.Wake = func() {
		select {
		case x.wake <- struct{}{}:
		default:
		}
	}
	return x
}

// lease waits for as long as it takes, unless patience is set: then it sometimes leaves.
func (x *sleeper) lease(impatient bool) (l Lease, waited, ok bool) {
	x.now++
	x.s.Reset(x.now, x.s.Loop)
	select {
	case <-x.wake: // late, of a wait that is over
	default:
	}
	l, err := x.p.Acquire(&x.s)
	if err == nil {
		return l, false, true
	}
	if !x.p.Wait(&x.w, &x.s) {
		return l, false, false
	}
	for err != nil {
		if impatient && x.rnd.IntN(4) == 0 {
			if x.rnd.IntN(2) == 0 {
				<-x.wake // it leaves just as it is woken
			}
			x.p.Leave(&x.w, true, x.now)
			return l, true, false
		}
		<-x.wake
		l, err = x.p.Acquire(&x.s)
	}
	return l, true, true
}

func (p *Pool) checkIdle(t *testing.T) {
	t.Helper()
	q := &p.queue
	if q.listed != 0 || q.owed != 0 || q.size != 0 || q.first != nil || q.last != nil || p.attention.Load()&waiters != 0 {
		t.Errorf("the queue is left with %d listed, %d owed, %d bytes, %d waiting", q.listed, q.owed, q.size, p.Waiting())
	}
	for _, b := range p.Snapshot().All {
		if b.Load()&^draining != 0 {
			t.Errorf("%s: load %x left", b.Name, b.Load())
		}
	}
}

// TestQueueOrderUnderLoad: with one place, leases are given in the order of tickets, whatever runs at once. A wake that
// is lost stops the test for good.
func TestQueueOrderUnderLoad(t *testing.T) {
	const loops, rounds = 8, 3000
	p := NewPool("app", loops, limits("a:1"), &Settings{QueueLen: 100}, buildInOrder)
	var last uint64 // held by whoever has the lease
	var waits atomic.Int64
	var wg sync.WaitGroup
	for loop := range loops {
		wg.Go(func() {
			x := newSleeper(p, loop)
			for range rounds {
				l, waited, ok := x.lease(loop%2 == 1)
				if !ok {
					continue
				}
				if waited {
					waits.Add(1)
					if x.w.ticket <= last {
						t.Errorf("ticket %d after %d", x.w.ticket, last)
					}
					last = x.w.ticket
				}
				if x.rnd.IntN(8) == 0 {
					runtime.Gosched() // so that others meet it
				}
				l.Done(Outcome{Now: x.now, Status: 200})
			}
		})
	}
	wg.Wait()
	p.checkIdle(t)
	if waits.Load() == 0 {
		t.Error("nobody waited")
	}
}

// TestQueueUnderChange has backends come, go and change their limits under load. Everybody is served in the end, and
// no limit is passed.
func TestQueueUnderChange(t *testing.T) {
	const loops, rounds = 8, 1500
	p := NewPool("app", loops, limits("a:1 b:2 c:0"), &Settings{QueueLen: 100, HoldRequests: 100, SlowStart: 50}, buildInOrder)
	var wg, changes sync.WaitGroup
	var stop atomic.Bool
	changes.Go(func() {
		rnd := rand.New(rand.NewPCG(1, 2))
		for !stop.Load() {
			all := p.Snapshot().All
			op := rnd.IntN(7)
			if len(all) == 0 {
				op = 6
				all = make([]*Backend, 1)
			}
			b := all[rnd.IntN(len(all))]
			switch op {
			case 0:
				p.SetProbed(b, Down)
			case 1:
				p.SetProbed(b, Up)
			case 2:
				p.SetDead(b, time.Unix(1, 0))
			case 3:
				p.SetEjected(b, time.Time{})
			case 4:
				p.SetWanted(b, Draining)
			case 5:
				p.SetWanted(b, In)
			case 6:
				p.Update(limits([]string{"a:1 b:2 c:0", "b:2", "c:0 a:1", ""}[rnd.IntN(4)]), nil, nil)
			}
			time.Sleep(time.Duration(rnd.IntN(50)) * time.Microsecond)
		}
		p.Update(limits("a:1 b:2 c:0"), nil, nil)
		for _, b := range p.Snapshot().All {
			p.SetWanted(b, In)
			p.SetEjected(b, time.Time{})
			p.SetProbed(b, Up)
		}
	})
	for loop := range loops {
		wg.Go(func() {
			x := newSleeper(p, loop)
			for range rounds {
				l, _, ok := x.lease(loop%4 == 3)
				if !ok {
					continue
				}
				b := l.Backend()
				if n := b.Inflight(); b.MaxInflight > 0 && n > b.MaxInflight {
					t.Errorf("%s has %d", b.Name, n)
				}
				if x.rnd.IntN(4) == 0 {
					time.Sleep(time.Duration(x.rnd.IntN(100)) * time.Microsecond)
				}
				if x.rnd.IntN(8) == 0 {
					l.Tunnel()
				}
				l.Done(Outcome{Now: x.now, Status: 200})
				if loop == 0 {
					p.AllowRetry(x.now)
				}
			}
		})
	}
	// Those who still wait are served after the changes have ended, so the changes end with the work of one loop.
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
	}
	stop.Store(true)
	changes.Wait()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("stuck: %+v, %+v", p.Queue(), &p.queue)
	}
	p.checkIdle(t)
}

// TestQueueIsExact does whatever can be done with a queue, in any order, on one goroutine, and compares with what must
// hold after each step: nobody sleeps while there is room that is not promised, and who is woken was first.
func TestQueueIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := limited("a:1 b:2", &Settings{QueueLen: 1000, HoldRequests: 1000})
		ready := map[string]bool{"a": true, "b": true}
		type guest struct {
			w     Waiter
			s     Selection
			lease Lease
			woken bool
		}
		var line, holders []*guest // in order of arrival
		owed := func() (n int64) {
			for _, g := range line {
				if g.woken {
					n++
				}
			}
			return n
		}
		out := func(g *guest) {
			for i := range line {
				if line[i] == g {
					line = append(line[:i:i], line[i+1:]...)
					return
				}
			}
		}
		for step := range rapid.IntRange(1, 80).Draw(t, "steps") {
			at := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "which") }
			switch op := rapid.SampledFrom([]string{"come", "come", "go", "go", "tunnel", "acquire", "acquire", "leave", "toggle"}).Draw(t, "op"); {
			case op == "come":
				g := new(guest)
				g.s.Reset(int64(step), 0)
				g.w.Wake = func() {
					g.woken = true
					if first := p.queue.first; first != nil && first.ticket < g.w.ticket {
						t.Fatalf("step %d: %d was woken before %d", step, g.w.ticket, first.ticket)
					}
				}
				waiting := int64(len(line))
				room := p.Snapshot().free() - owed()
				l, err := p.Acquire(&g.s)
				if (err == nil) != (room > 0 && waiting-owed() == 0) {
					t.Fatalf("step %d: newcomer got %v; room %d, %d in the line, %d woken", step, err, room, waiting, owed())
				}
				if err == nil {
					g.lease = l
					holders = append(holders, g)
				} else if !p.Wait(&g.w, &g.s) {
					t.Fatal("full")
				} else {
					line = append(line, g)
				}
			case (op == "go" || op == "tunnel") && len(holders) > 0:
				i := at(len(holders))
				if op == "tunnel" {
					holders[i].lease.Tunnel()
					break
				}
				holders[i].lease.Done(Outcome{Status: 200})
				holders = append(holders[:i:i], holders[i+1:]...)
			case op == "acquire" && len(line) > 0:
				g := line[at(len(line))]
				was, room := g.woken, p.Snapshot().free()
				g.woken = false
				l, err := p.Acquire(&g.s)
				if !was {
					if err == nil {
						t.Fatalf("step %d: a lease before its turn", step)
					}
					break
				}
				if (err == nil) != (room > 0) {
					t.Fatalf("step %d: woken, and got %v with room for %d", step, err, room)
				}
				if err == nil {
					g.lease = l
					holders = append(holders, g)
					out(g)
				}
			case op == "leave" && len(line) > 0:
				g := line[at(len(line))]
				out(g)
				p.Leave(&g.w, true, int64(step))
			case op == "toggle":
				name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name")
				ready[name] = !ready[name]
				for _, b := range p.Snapshot().All {
					if b.Name == name {
						p.SetProbed(b, map[bool]Probed{true: Up, false: Down}[ready[name]])
					}
				}
			}
			if p.Waiting() != int64(len(line)) {
				t.Fatalf("step %d: %d waiting, want %d", step, p.Waiting(), len(line))
			}
			if room := p.Snapshot().free() - p.queue.owed; p.queue.listed > 0 && room > 0 {
				t.Fatalf("step %d: %d sleep with room for %d", step, p.queue.listed, room)
			}
			if p.queue.owed != owed() {
				t.Fatalf("step %d: owed %d, want %d", step, p.queue.owed, owed())
			}
		}
		for len(line) > 0 {
			p.Leave(&line[0].w, false, 0)
			line = line[1:]
		}
		for _, g := range holders {
			g.lease.Done(Outcome{})
		}
		if p.queue.owed != 0 || p.queue.listed != 0 || p.Waiting() != 0 {
			t.Fatalf("left: %+v", p.Queue())
		}
	})
}
