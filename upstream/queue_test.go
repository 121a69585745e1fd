package upstream

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// crowd is exchanges that wait for a pool, by name, all on one goroutine.
type crowd struct {
	t     testing.TB
	p     *Pool
	who   map[string]*person
	woken []string // in the order of Wake
}

type person struct {
	w     Waiter
	s     Selection
	lease Lease
}

func newCrowd(t testing.TB, p *Pool) *crowd { return &crowd{t: t, p: p, who: map[string]*person{}} }

func (c *crowd) person(name string) *person {
	x := c.who[name]
	if x == nil {
		x = new(person)
		x.w.Wake = func() { c.woken = append(c.woken, name) }
		x.s.Reset(1, 0)
		c.who[name] = x
	}
	return x
}

// comes asks for a backend and says where the person went, or "waits", "full", or why not.
func (c *crowd) comes(name string) string {
	x := c.person(name)
	l, err := c.p.Acquire(&x.s)
	switch {
	case err == nil:
		x.lease = l
		return l.Backend().Name
	case x.w.state != notWaiting:
		return "waits"
	case errors.Is(err, ErrTried):
		return "tried"
	case !c.p.Wait(&x.w, &x.s):
		return "full"
	}
	return "waits"
}

func (c *crowd) goes(name string) {
	c.person(name).lease.Done(Outcome{Now: 2, Status: 200, Latency: 1})
}

// want compares who was woken since the last call.
func (c *crowd) want(names string) {
	c.t.Helper()
	if got := strings.Join(c.woken, " "); got != names {
		c.t.Errorf("woken: %q, want %q", got, names)
	}
	c.woken = nil
}

func (c *crowd) expect(name, what string) {
	c.t.Helper()
	if got := c.comes(name); got != what {
		c.t.Errorf("%s: %s, want %s", name, got, what)
	}
}

// limited is a pool of backends with a limit each: "a:2 b:1".
func limited(text string, set *Settings) *Pool {
	return NewPool("app", 2, limits(text), set, buildInOrder)
}

func limits(text string) []Spec {
	var sp []Spec
	for _, f := range strings.Fields(text) {
		name, max, _ := strings.Cut(f, ":")
		s := specs(name)[0]
		fmt.Sscan(max, &s.MaxInflight)
		sp = append(sp, s)
	}
	return sp
}

func TestQueueInOrder(t *testing.T) {
	p := limited("a:1 b:1", nil)
	c := newCrowd(t, p)
	c.expect("1", "a")
	c.expect("2", "b")
	for _, n := range []string{"3", "4", "5"} {
		c.expect(n, "waits")
	}
	c.want("")
	c.goes("2")
	c.want("3")
	c.expect("6", "waits") // though b is free: it is 3's
	c.expect("5", "waits") // not its turn
	c.expect("3", "b")
	c.want("")
	c.goes("1")
	c.goes("3")
	c.want("4 5")
	c.expect("5", "a")
	c.expect("4", "b")
	if n := p.Waiting(); n != 1 {
		t.Errorf("%d waiting, want 1", n)
	}
	c.goes("4")
	c.want("6")
	c.expect("6", "b")
	c.goes("6")
	c.expect("7", "b") // nobody waits any more
	if q := p.Queue(); q.Waiting != 0 || q.Waits != 4 || q.Timeouts != 0 || q.Full != 0 {
		t.Errorf("%+v", q)
	}
}

func TestQueueLeave(t *testing.T) {
	p := limited("a:1", &Settings{QueueLen: 10})
	c := newCrowd(t, p)
	c.expect("1", "a")
	for _, n := range []string{"2", "3", "4", "5"} {
		c.expect(n, "waits")
	}
	p.Leave(&c.person("3").w, true, 1e9+1)
	c.goes("1")
	c.want("2")
	p.Leave(&c.person("2").w, false, 1) // woken already: the wake goes on to the next
	p.Leave(&c.person("2").w, true, 1)  // nothing more
	c.want("4")
	c.expect("4", "a")
	c.goes("4")
	c.want("5")
	p.Leave(&c.person("5").w, true, 1)
	c.expect("6", "a")
	if q := p.Queue(); q.Waiting != 0 || q.Timeouts != 2 || q.Waits != 4 || q.Waited != 1e9 {
		t.Errorf("%+v", q)
	}
}

func TestQueueBounds(t *testing.T) {
	for _, x := range []struct {
		name    string
		pool    string
		set     Settings
		waiters int
	}{
		{"twice the places", "a:1 b:2", Settings{HoldRequests: 100}, 6},
		{"of its own", "a:1 b:2", Settings{QueueLen: 2}, 2},
		{"none", "a:1 b:2", Settings{QueueLen: -1}, 0},
		{"hold", "", Settings{HoldRequests: 5}, 5},
		{"no hold", "", Settings{}, 0},
		{"bytes", "", Settings{HoldRequests: 5, HoldBytes: 39}, 3},
	} {
		p := limited(x.pool, &x.set)
		c := newCrowd(t, p)
		for i, places := 0, 0; i < 20; i++ {
			name := fmt.Sprint(i)
			c.person(name).w.Size = 10
			switch c.comes(name) {
			case "full":
				if got := i - places; got != x.waiters {
					t.Errorf("%s: %d wait, want %d", x.name, got, x.waiters)
				}
				i = 20
			case "waits":
			default:
				places++
			}
		}
		if q := p.Queue(); q.Full != 1 || q.Waiting != int64(x.waiters) {
			t.Errorf("%s: %+v", x.name, q)
		}
	}
}

// TestHoldBytes: the memory of who waits no more is there for others, however that ended.
func TestHoldBytes(t *testing.T) {
	p := limited("", &Settings{HoldRequests: 9, HoldBytes: 20})
	c := newCrowd(t, p)
	comes := func(name, what string) {
		t.Helper()
		c.person(name).w.Size = 10
		c.expect(name, what)
	}
	comes("1", "waits")
	comes("2", "waits")
	comes("3", "full")
	p.Leave(&c.person("1").w, true, 1)
	comes("3", "waits")
	comes("4", "full")
	p.Update(limits("a:9"), nil, nil)
	for _, n := range []string{"2", "3"} {
		c.expect(n, "a")
		c.goes(n)
	}
	p.Update(nil, nil, nil)
	comes("5", "waits")
	comes("6", "waits")
	comes("7", "full")
}

// TestHold releases requests in order as soon as a backend is there.
func TestHold(t *testing.T) {
	p := newPool("a b")
	a, b := backend(t, p, "a"), backend(t, p, "b")
	p.SetDead(a, time.Unix(1, 0))
	p.SetProbed(b, Down)
	c := newCrowd(t, p)
	if _, err := p.Acquire(&c.person("1").s); !errors.Is(err, ErrNoBackend) {
		t.Errorf("Acquire: %v", err)
	}
	for _, n := range []string{"1", "2", "3"} {
		c.expect(n, "waits")
	}
	p.SetEjected(a, time.Time{})
	c.want("1 2 3")
	p.SetDead(a, time.Unix(1, 0)) // refuses again
	for _, n := range []string{"2", "1", "3"} {
		c.expect(n, "waits")
	}
	c.want("")
	p.Update(specs("a b c"), nil, nil)
	c.want("1 2 3")
	for _, n := range []string{"1", "2", "3", "4"} {
		c.expect(n, "c")
	}
}

// TestBurst: a backend without limit is not given all that have waited at once, and gets more by answering.
func TestBurst(t *testing.T) {
	p := NewPool("app", 1, nil, &Settings{HoldRequests: 1000}, buildInOrder)
	c := newCrowd(t, p)
	for i := range 1000 {
		c.expect(fmt.Sprint(i), "waits")
	}
	p.Update(specs("a"), nil, nil)
	if len(c.woken) != burst {
		t.Fatalf("%d woken at once, want %d", len(c.woken), burst)
	}
	for i := range burst {
		c.expect(fmt.Sprint(i), "a")
	}
	c.woken = nil
	c.goes("0")
	c.want("256 257")
	c.expect("257", "a")
	c.expect("256", "a")
	c.person("1").lease.Done(Outcome{Now: 2, Fault: FaultReset})
	c.want("") // to fail is no reason for more
	a := backend(t, p, "a")
	if got := a.Load().Active(); got != burst {
		t.Errorf("%d active", got)
	}
	a.shards[0].newest.Add(5)
	if !c.person("4").lease.Park(1e9) { // it only waits, and makes room
		t.Error("not parked")
	}
	c.want("258")
	c.expect("258", "a")
	p.Update(specs("b"), nil, nil)
	if len(c.woken) != burst {
		t.Errorf("%d woken for b, want %d", len(c.woken), burst)
	}
	c.woken = nil
	c.goes("2") // on a, which says nothing about b
	c.want("")
}

// TestQueueRetry: a retry goes ahead of those who came after it, and is not woken for backends it has tried.
func TestQueueRetry(t *testing.T) {
	p := limited("a:1 b:1", nil)
	c := newCrowd(t, p)
	c.expect("1", "a")
	c.expect("2", "b")
	c.expect("3", "waits")
	c.goes("1") // failed, to be tried again
	c.want("3")
	c.expect("1", "waits") // b is busy
	c.expect("3", "a")
	c.goes("3")
	c.want("") // a is free, but 1 has been there
	c.expect("4", "waits")
	c.want("4")
	c.expect("4", "a")
	c.expect("5", "waits")
	c.goes("2")
	c.want("1")
	c.expect("1", "b")
	c.goes("1")
	c.want("5")
	c.expect("1", "tried")
}

// TestQueueNothingLeft: when all that a waiter has not tried go away, it hears that there is nothing to wait for.
func TestQueueNothingLeft(t *testing.T) {
	p := limited("a:1 b:1", nil)
	c := newCrowd(t, p)
	c.expect("1", "a")
	c.expect("2", "b")
	c.goes("1")
	c.expect("1", "waits") // for b
	c.want("")
	p.SetProbed(backend(t, p, "a"), Up) // the only one
	c.want("1")
	c.expect("1", "tried")
	c.expect("3", "a")
	if p.Waiting() != 0 {
		t.Errorf("%d waiting", p.Waiting())
	}
}

// TestHoldForgets: a request that was refused everywhere is sent to the first that is back, also if it has been there.
func TestHoldForgets(t *testing.T) {
	p := newPool("a")
	c := newCrowd(t, p)
	c.expect("1", "a")
	c.person("1").lease.Done(Outcome{Fault: FaultRefused})
	p.SetDead(backend(t, p, "a"), time.Unix(1, 0))
	c.expect("1", "waits")
	c.want("")
	p.SetEjected(backend(t, p, "a"), time.Time{})
	c.want("1")
	c.expect("1", "a")
}

// BenchmarkWait is a request that comes in vain, waits, is woken by the end of another, and goes.
func BenchmarkWait(b *testing.B) {
	p := limited("a:1", nil)
	var s [2]Selection
	var w [2]Waiter
	var l [2]Lease
	for i := range w {
		w[i].Wake = func() {}
	}
	s[0].Reset(1, 0)
	l[0], _ = p.Acquire(&s[0])
	b.ReportAllocs()
	i := 1
	for b.Loop() {
		s[i].Reset(1, 0)
		if _, err := p.Acquire(&s[i]); err == nil || !p.Wait(&w[i], &s[i]) {
			b.Fatal("no wait")
		}
		l[1-i].Done(Outcome{Now: 2, Latency: 1, Status: 200})
		l[i], _ = p.Acquire(&s[i])
		i = 1 - i
	}
}

// Who has tried all that are left, and asks although it is not its turn, waits no more.
func TestQueueLeftByTried(t *testing.T) {
	p := limited("a:1 b:1", nil)
	c := newCrowd(t, p)
	c.expect("1", "a")
	c.goes("1")
	c.expect("2", "a") // while 1 has failed there
	c.expect("3", "b")
	c.expect("1", "waits")
	p.Update(limits("a:1"), nil, nil)
	if _, err := p.Acquire(&c.person("1").s); !errors.Is(err, ErrTried) {
		t.Fatal(err)
	}
	if n := p.Waiting(); n != 0 {
		t.Errorf("%d waiting", n)
	}
	c.goes("2")
	c.expect("4", "a") // and is owed nothing
}
