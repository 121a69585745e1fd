package upstream

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// holder gives each backend as many requests as limit says, in order, and lets others wait; 0 is no limit.
type holder struct {
	ready []*Backend
	limit *atomic.Int64
}

func holding(limit *atomic.Int64) Build {
	return func(ready []*Backend) Strategy { return &holder{ready, limit} }
}

func (h *holder) Pick(s *Selection) *Backend {
	for _, b := range h.ready {
		if k := h.limit.Load(); !s.Has(b.Live) && (k == 0 || !s.MayWait() || s.Lasts() || b.Load().Active() < k) {
			s.Note(uint8(b.Load().Active()) + 1)
			return b
		}
	}
	return nil
}

func (h *holder) Room(_, _ int64, s *Selection) (n int64, limited bool) {
	k := h.limit.Load()
	for _, b := range h.ready {
		if s == nil || !s.Has(b.Live) {
			n += max(0, k-b.Load().Active())
		}
	}
	return n, k > 0
}

func held(backends string, limit int64, set *Settings) (*Pool, *atomic.Int64) {
	l := new(atomic.Int64)
	l.Store(limit)
	if set == nil {
		set = DefaultSettings()
	}
	return NewPool("app", 8, limits(backends), set, holding(l)), l
}

func TestHolder(t *testing.T) {
	p, limit := held("a:0 b:0", 1, nil)
	c := newCrowd(t, p)
	c.expect("1", "a")
	c.expect("2", "b")
	if l := c.person("1").lease; l.Note() != 1 || !l.Active() {
		t.Errorf("note %d, active %v", l.Note(), l.Active())
	}
	for _, n := range []string{"3", "4", "5", "6", "7"} {
		c.expect(n, "waits")
	}
	c.want("")
	c.goes("2")
	c.want("3")
	c.expect("8", "waits") // b is 3's
	c.expect("3", "b")

	// A parked request makes room, and so does a tunnel.
	l := &c.person("1").lease
	l.b.Stats(0).newest.Add(int64(time.Hour))
	if !l.Park(int64(time.Second)) {
		t.Fatal("not parked")
	}
	c.want("4")
	c.expect("4", "a")
	c.person("4").lease.Tunnel()
	c.want("5")
	c.expect("5", "a")
	c.goes("1") // frees nothing
	c.want("")

	// A higher limit is noticed with the next event.
	limit.Store(2)
	c.goes("4")
	c.want("6 7")
	c.expect("7", "a")
	c.expect("6", "b")
	c.want("")

	// None at all lets everybody go.
	limit.Store(0)
	c.expect("9", "waits")
	c.want("8 9")
	c.expect("9", "a")
	c.expect("8", "a")
	c.expect("10", "a")
	for _, n := range []string{"3", "5", "6", "7", "8", "9", "10"} {
		c.goes(n)
	}
	p.checkIdle(t)
}

// TestHolderRetry: a request that failed on one backend waits for another, and others do not wait for it.
func TestHolderRetry(t *testing.T) {
	p, _ := held("a:0 b:0", 1, nil)
	c := newCrowd(t, p)
	c.expect("1", "a")
	c.expect("2", "b")
	c.person("1").lease.Done(Outcome{Now: 2, Fault: FaultReset})
	c.expect("1", "waits") // a is free, but it has been there
	c.want("")
	c.expect("3", "waits") // somebody does, so that it has to ask for its turn
	c.want("3")
	c.expect("3", "a")
	c.expect("4", "waits")
	c.goes("3")
	c.want("4")
	c.expect("4", "a")
	c.goes("2")
	c.want("1")
	c.expect("1", "b")
	c.goes("1")
	c.goes("4")
	p.checkIdle(t)
}

// TestHolderMayNot: where nobody may wait, a limit that nobody has asked for refuses nobody.
func TestHolderMayNot(t *testing.T) {
	for _, change := range []func(*Settings){
		func(s *Settings) { s.QueueLen = -1 },
		func(s *Settings) { s.HoldRequests = 0 },
		func(s *Settings) { s.QueueTimeout = 0 },
	} {
		set := DefaultSettings()
		change(set)
		p, _ := held("a:0 b:0", 1, set)
		c := newCrowd(t, p)
		for _, n := range []string{"1", "2", "3"} {
			c.comes(n)
		}
		if n := p.Waiting(); n != 0 {
			t.Errorf("%+v: %d wait", set, n)
		}
	}
	set := DefaultSettings()
	set.QueueLen = 2
	p, _ := held("a:0 b:0", 1, set)
	c := newCrowd(t, p)
	for _, n := range []string{"1", "2", "3", "4"} {
		c.comes(n)
	}
	c.expect("5", "full")
}

// TestHolderUnderLoad: the limit holds but for what loops do at the same moment, and no wake is lost, whatever the limit
// does meanwhile. A wake that is lost stops the test for good.
func TestHolderUnderLoad(t *testing.T) {
	const loops, rounds = 8, 2000
	p, limit := held("a:0 b:0 c:2", 1, nil)
	var wg, changes sync.WaitGroup
	stop := make(chan struct{})
	changes.Go(func() {
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				limit.Store(i % 4)
			}
		}
	})
	var waits atomic.Int64
	for loop := range loops {
		wg.Go(func() {
			x := newSleeper(p, loop)
			for range rounds {
				l, waited, ok := x.lease(loop%4 == 1)
				if !ok {
					continue
				}
				if waited {
					waits.Add(1)
				}
				if x.rnd.IntN(8) == 0 {
					time.Sleep(10 * time.Microsecond) // work, so that others meet it
				}
				l.Done(Outcome{Now: x.now, Status: 200})
			}
		})
	}
	wg.Wait()
	close(stop)
	changes.Wait()
	p.checkIdle(t)
	if waits.Load() == 0 {
		t.Error("nobody waited")
	}
}

// TestOverdue: who waits because the strategy wants it gives up only when a queue that is not short has been slow for twice
// as long as it may be.
func TestOverdue(t *testing.T) {
	const s = int64(time.Second)
	for _, c := range []struct {
		name     string
		backends string
		waiting  int
		looks    []int64 // when something ended, and the queue was looked at
		late     bool    // the one in question came at 8 s, the others at 0
		at       int64
		want     bool
	}{
		{"not for long enough", "a:0 b:0", 4, []int64{5 * s, 9 * s}, false, 10 * s, false},
		{"a burst that does not end", "a:0 b:0", 4, []int64{5*s + 1, 9 * s}, false, 10*s + 1, true},
		{"nothing ends at all", "a:0 b:0", 4, nil, false, 10*s + 1, true},
		{"quick until then", "a:0 b:0", 4, []int64{5*s - 1}, false, 15*s - 2, false},
		{"slow since then", "a:0 b:0", 4, []int64{5*s - 1}, false, 15*s - 1, true},
		{"a few for slow ones", "a:0 b:0", 3, []int64{5 * s, 9 * s}, false, 12 * s, false},
		{"a newcomer", "a:0 b:0", 4, []int64{5 * s, 9 * s}, true, 12 * s, false},
		{"it has waited too", "a:0 b:0", 4, []int64{5 * s, 9 * s}, true, 13 * s, true},
		{"max_inflight has a deadline", "a:1 b:1", 4, []int64{5 * s, 9 * s}, false, 12 * s, false},
	} {
		p, _ := held(c.backends, 1, nil)
		crowd := newCrowd(t, p)
		for _, n := range []string{"1", "2"} {
			crowd.comes(n)
		}
		for i := range c.waiting {
			crowd.expect(string(rune('a'+i)), "waits")
		}
		who := crowd.person("a")
		if c.late {
			who = crowd.person("late")
			who.s.Now = 8 * s
			crowd.expect("late", "waits")
		}
		for _, now := range c.looks {
			p.freed(now, 0)
		}
		if got := p.Overdue(&who.w, c.at); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

// TestLostPatience: when a client left a long queue after waiting for long, who came last goes first for a while.
func TestLostPatience(t *testing.T) {
	const s = int64(time.Second)
	for _, c := range []struct {
		name     string
		waiting  int
		timedOut bool
		left     int64 // when one of those that wait goes, all of whom came at 1 ns
		at       int64 // when something ends
		want     string
	}{
		{"soon", 5, false, s + 1, s + 2, "a"},
		{"late", 5, false, s + 2, s + 3, "e"},
		{"late, by a deadline", 5, true, s + 2, s + 3, "a"},
		{"late, from a short queue", 4, false, s + 2, s + 3, "a"},
		{"a while ago", 5, false, s + 2, 6*s + 1, "e"},
		{"long ago", 5, false, s + 2, 6*s + 2, "a"},
	} {
		p, _ := held("a:0 b:0", 1, nil)
		crowd := newCrowd(t, p)
		crowd.expect("1", "a")
		crowd.expect("2", "b")
		for i := range c.waiting {
			crowd.expect(string(rune('a'+i)), "waits")
		}
		p.Leave(&crowd.person("b").w, c.timedOut, c.left)
		crowd.want("")
		crowd.person("1").lease.Done(Outcome{Now: c.at, Status: 200, Latency: 1})
		t.Run(c.name, func(t *testing.T) {
			crowd.t = t
			crowd.want(c.want)
		})
	}
}

// TestHeldRequests: as many may wait for a strategy as would be with the backends otherwise.
func TestHeldRequests(t *testing.T) {
	set := DefaultSettings()
	set.HoldRequests, set.HoldBytes = 2, 0
	p, _ := held("a:0", 1, set)
	c := newCrowd(t, p)
	c.expect("1", "a")
	for i := range 5000 {
		c.expect(fmt.Sprint("w", i), "waits")
	}
	p, _ = held("a:1", 1, set) // two for the place there is
	c = newCrowd(t, p)
	for i, want := range []string{"a", "waits", "waits", "full"} {
		c.expect(fmt.Sprint(i), want)
	}
}
