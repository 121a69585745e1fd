package health

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"lb/upstream"
	"lb/upstream/upstreamtest"
)

// TestHungUp: who closes kept connections is asked at once whether it listens, not more often than ten times a second,
// and is out in that moment if it does not; on another machine, and where nobody is ever ejected, it is not asked.
func TestHungUp(t *testing.T) {
	var says atomic.Pointer[error]
	var knocks atomic.Int64
	answer := func(err error) { says.Store(&err) }
	begin := func(t *testing.T, pas Passive, f func(l *lab)) {
		t.Helper()
		answer(nil)
		knocks.Store(0)
		play(t, "a b C", DefaultCheck(), pas, func(l *lab) {
			l.m.opt.Knock = func(context.Context, upstream.Addr) error {
				knocks.Add(1)
				return *says.Load()
			}
			f(l)
		})
	}
	hangUp := func(l *lab, name string, times, want int64) {
		t.Helper()
		before := knocks.Load()
		for range times {
			l.backend(name).HungUp()
		}
		synctest.Wait()
		if got := knocks.Load() - before; got != want {
			t.Errorf("after %v, %s was asked %d times, want %d", time.Since(l.begin), name, got, want)
		}
	}
	begin(t, Passive{}, func(l *lab) {
		l.at(10 * time.Second)
		hangUp(l, "a", 50, 1) // it listens
		l.wantReady("a b C")
		hangUp(l, "a", 50, 0) // soon after: once more, later
		answer(errors.New("no route to host"))
		l.at(10*time.Second + 99*time.Millisecond)
		if n := knocks.Load(); n != 1 {
			t.Errorf("asked %d times, want once", n)
		}
		l.at(10*time.Second + 100*time.Millisecond)
		if n := knocks.Load(); n != 2 {
			t.Errorf("asked %d times, want twice", n)
		}
		l.wantReady("a b C") // it may well be listening
		answer(syscall.ECONNREFUSED)
		hangUp(l, "C", 1, 0)
		l.wantReady("a b C")
		l.at(20 * time.Second)
		hangUp(l, "a", 1, 1)
		l.wantReady("b C")
		hangUp(l, "a", 1, 0) // it is known
		l.at(20*time.Second + 600*time.Millisecond)
		l.wantReady("a b C") // two checks passed since
		// What is down for its checks is not ejected besides.
		l.set("b", errRefused)
		l.at(30 * time.Second)
		l.wantReady("a C")
		hangUp(l, "b", 1, 1)
		if !l.backend("b").Life().Ejected.IsZero() {
			t.Error("b is ejected")
		}
	})
	begin(t, Passive{Off: true}, func(l *lab) {
		answer(syscall.ECONNREFUSED)
		hangUp(l, "a", 1, 0)
	})
	begin(t, Passive{}, func(l *lab) { // the Monitor ends while somebody is about to ask
		hangUp(l, "a", 1, 1)
		hangUp(l, "a", 1, 0)
	})
}

// TestKnockByDefault: a Monitor that is not told how asks with a connection of its own.
func TestKnockByDefault(t *testing.T) {
	p := upstream.NewPool("app", 1, []upstream.Spec{{Name: "a", Addr: closedPort(t), Weight: 1}, {Name: "b", Addr: closedPort(t), Weight: 1}}, nil,
		upstreamtest.BuildInOrder)
	events := make(chan Event, 10)
	m := New(p, Check{Kind: Off}, Passive{}, Options{OnEvent: func(e Event) { events <- e }})
	defer m.Close()
	p.Snapshot().All[0].HungUp()
	if e := <-events; e.What != Ejected || e.Backend != "a" || e.Why != "connection refused" {
		t.Errorf("%+v", e)
	}
}

// TestKnock: with real sockets.
func TestKnock(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, err := upstream.ParseAddr(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := knock(t.Context(), a); err != nil {
		t.Errorf("somebody listens: %v", err)
	}
	ln.Close()
	if err := knock(t.Context(), a); upstream.ConnectFault(err) != upstream.FaultRefused {
		t.Errorf("nobody listens: %v", err)
	}
}
