package server

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"lb/admin"
	"lb/upstream"
)

// upgrade is one of a house to another, both in this process.
type upgrade struct {
	next    chan *house         // the other one, when it is about to run
	verdict chan admin.Upgraded // what came of it
	off     context.CancelFunc  // calls it off
}

// upgrades begins one to a house with the same text. Rollouts have so long to go on there.
func (h *house) upgradesTo(watch string, returns time.Duration) *upgrade {
	u := &upgrade{next: make(chan *house, 1), verdict: make(chan admin.Upgraded, 1)}
	h.upgrades.start = func(string) (*successor, error) {
		ours, theirs := pair(h.t)
		go func() {
			b := newPredecessor(theirs)
			err := b.greet()
			var next *house
			if err == nil {
				next, err = newHouse(h.t, h.text, Options{Before: b, Sockets: b.Sockets()})
			}
			if err != nil {
				h.t.Error(err)
				b.Fail(err)
				close(u.next)
				return
			}
			next.rollouts.returns = returns
			next.run()
			u.next <- next
		}()
		return h.newSuccessor(ours, &os.Process{Pid: -1}), nil
	}
	ctx, off := context.WithCancel(context.Background())
	u.off = off
	h.t.Cleanup(off)
	go func() { u.verdict <- h.Upgrade(ctx, admin.UpgradeOrder{Binary: "itself", Watch: watch}) }()
	return u
}

// upgraded is the house that took over from h.
func (h *house) upgraded(returns time.Duration) *house {
	h.t.Helper()
	u := h.upgradesTo("0s", returns)
	next := <-u.next
	if v := <-u.verdict; !v.Upgraded {
		h.t.Fatalf("not upgraded: %q", v.Faults)
	}
	waitFor(h.t, "the next lb is in charge", next.before.isCharged)
	return next
}

// What a rollout has out when lb is upgraded is still its own, and comes back if it does not go on: whoever carried it out
// may have died in that moment.
func TestUpgradeKeepsWhoseDrainItIs(t *testing.T) {
	var addrs []string
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		addrs = append(addrs, newInstance(t, name, nil).addr)
	}
	h := start(t, pools(addrs...)+rare)
	r := h.holds(admin.RolloutOrder{Pool: "app"})
	for _, a := range addrs[:3] {
		r.drains(a)
	}
	if _, err := r.rolloutRestart(within(t), r.id, addrs[1]); err != nil {
		t.Fatal(err)
	}
	if err := r.rolloutBad(within(t), r.id, addrs[2], "it is bad"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Drain(within(t), "app", addrs[3]); err != nil {
		t.Fatal(err)
	}
	is := map[string]string{addrs[0]: admin.OutDraining, addrs[1]: admin.OutRestarting, addrs[2]: admin.OutBad, addrs[3]: admin.OutOther}

	// It goes on with the next lb. Who waits for a check is told to ask there.
	waits := make(chan error, 1)
	go func() {
		_, err := r.rolloutCheck(within(t), r.id, addrs[1], processAt(h.backend("app", addrs[1]).Addr).String())
		waits <- err
	}()
	next := h.upgraded(time.Hour)
	<-r.ended
	if err := <-waits; !errors.Is(err, admin.ErrRolloutOver) {
		t.Errorf("a check: %v", err)
	}
	r = next.holds(admin.RolloutOrder{Pool: "app", Out: map[string]string{addrs[0]: admin.OutDraining, addrs[1]: admin.OutRestarting, addrs[2]: admin.OutBad}})
	r.is(is)
	if st := next.health(addrs[2]); st.Why != "left out by a rollout: it is bad" {
		t.Errorf("%+v", st)
	}
	if err := r.rolloutReady(within(t), r.id, addrs[0]); err != nil {
		t.Error(err)
	}
	r.drains(addrs[0])

	// And with the one after that it does not.
	last := next.upgraded(time.Millisecond)
	last.awaitState(addrs[0], admin.Ready)
	last.awaitState(addrs[1], admin.Ready)
	r = last.holds(admin.RolloutOrder{Pool: "app"})
	r.is(map[string]string{addrs[2]: admin.OutBad, addrs[3]: admin.OutOther})
}

// A rollout that goes on with the next lb is not disturbed by the end of its time for that.
func TestUpgradeLeavesRolloutsAlone(t *testing.T) {
	a, b, c := newInstance(t, "a", nil), newInstance(t, "b", nil), newInstance(t, "c", nil)
	h := start(t, pools(a.addr, b.addr, c.addr)+rare)
	r := h.holds(admin.RolloutOrder{Pool: "app"})
	r.drains(a.addr)
	u := h.upgradesTo("0s", time.Millisecond)
	next := <-u.next
	// It asks for it before the next one is in charge, or soon after; what it has out is out at the end in any case.
	r = next.holds(admin.RolloutOrder{Pool: "app", Out: map[string]string{a.addr: admin.OutDraining}})
	if v := <-u.verdict; !v.Upgraded {
		t.Fatalf("%q", v.Faults)
	}
	r.drains(a.addr)
	r.is(map[string]string{a.addr: admin.OutDraining})
}

// startBusy has one of two instances work on a request until it is released, and gives the status of its answer.
func startBusy(t *testing.T) (h *house, busy, idle *instance, release func(), answers chan int) {
	gate := make(chan struct{})
	release = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(release)
	begun := make(chan string, 10)
	slow := func(name string) *instance {
		return newInstance(t, name, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				begun <- name
				<-gate
			}
		})
	}
	a, b := slow("a"), slow("b")
	h = start(t, pools(a.addr, b.addr)+rare)
	answers = make(chan int, 1)
	go func() {
		code, _ := h.fetch(h.url + "/slow")
		answers <- code
	}()
	busy, idle = a, b
	if <-begun == "b" {
		busy, idle = b, a
	}
	return h, busy, idle, release, answers
}

// A backend is empty when neither the lb in charge has anything for it nor the one before, which ends what it has: who
// restarted it sooner would cut that off.
func TestDrainWaitsForTheLBBefore(t *testing.T) {
	h, busy, idle, release, answers := startBusy(t)
	next := h.upgraded(time.Hour)
	drain := func(of func(context.Context) (admin.Drained, error), wait time.Duration) admin.Drained {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		d, err := of(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	byHand := func(ctx context.Context) (admin.Drained, error) { return next.Drain(ctx, "app", busy.addr) }
	if d := drain(byHand, 100*time.Millisecond); d.Empty || d.Requests != 1 {
		t.Errorf("with a request in the lb before: %+v", d)
	}
	waitFor(t, "the one before uses it no more", func() bool { return h.backend("app", busy.addr).Life().Wanted == upstream.Draining })
	if _, err := next.TakeBack(within(t), "app", busy.addr, true); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the one before uses it again", func() bool { return h.backend("app", busy.addr).Life().Wanted == upstream.In })
	if d := drain(func(ctx context.Context) (admin.Drained, error) { return next.Drain(ctx, "app", idle.addr) }, 20*time.Second); !d.Empty {
		t.Errorf("the other one: %+v", d)
	}
	if _, err := next.TakeBack(within(t), "app", idle.addr, true); err != nil {
		t.Fatal(err)
	}

	// The same of a rollout, which meets a third lb.
	last := next.upgraded(time.Hour)
	r := last.holds(admin.RolloutOrder{Pool: "app"})
	byRollout := func(ctx context.Context) (admin.Drained, error) {
		d, err := r.rolloutDrain(ctx, r.id, busy.addr)
		return d.Drained, err
	}
	if d := drain(byRollout, 100*time.Millisecond); d.Empty || d.Requests != 1 {
		t.Errorf("with a request in the first of three: %+v", d)
	}
	ended := make(chan admin.Drained, 1)
	go func() { ended <- drain(byRollout, 20*time.Second) }()
	release()
	if code := <-answers; code != 200 {
		t.Errorf("the request: %d", code)
	}
	if d := <-ended; !d.Empty || d.Requests != 0 {
		t.Errorf("at the end: %+v", d)
	}
}

// Until it is decided which of two is in charge, orders wait: what one was told, the other would not know.
func TestOrdersWaitForTheDecision(t *testing.T) {
	for _, succeeds := range []bool{true, false} {
		a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
		h := start(t, pools(a.addr, b.addr)+rare)
		watch := "1s"
		if !succeeds {
			watch = "1h"
		}
		u := h.upgradesTo(watch, time.Hour)
		next := <-u.next
		waitFor(t, "the next one is watched", func() bool { return strings.Contains(h.events.String(), "and is watched") })
		errs := map[*house]chan error{h: make(chan error, 1), next: make(chan error, 1)}
		for of, err := range errs {
			go func() {
				_, e := of.Drain(within(t), "app", a.addr)
				err <- e
			}()
		}
		if !succeeds {
			u.off()
		}
		v := <-u.verdict
		if v.Upgraded != succeeds {
			t.Fatalf("upgraded: %t, %q", v.Upgraded, v.Faults)
		}
		winner, loser := next, h
		if !succeeds {
			winner, loser = h, next
		}
		if err := <-errs[winner]; err != nil {
			t.Errorf("succeeds %t, whoever is in charge: %v", succeeds, err)
		}
		if err := <-errs[loser]; !errors.Is(err, admin.ErrNotNow) || !strings.Contains(err.Error(), "ask again") {
			t.Errorf("succeeds %t, the other one: %v", succeeds, err)
		}
		if got := winner.health(a.addr).State; got != admin.Draining {
			t.Errorf("succeeds %t: it is %s", succeeds, got)
		}
	}
}

// Who waits when another lb comes into charge is told to ask that one: it has what was moved, and knows when all is done.
func TestWaitingOrdersGoOnWithTheNextLB(t *testing.T) {
	h, busy, idle, release, answers := startBusy(t)
	if _, err := h.Drain(within(t), "app", idle.addr); err != nil {
		t.Fatal(err)
	}
	idle.die()
	drains, comesBack := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := h.Drain(within(t), "app", busy.addr)
		drains <- err
	}()
	h.awaitState(busy.addr, admin.Draining)
	go func() {
		_, err := h.TakeBack(within(t), "app", idle.addr, false)
		comesBack <- err
	}()
	waitFor(t, "it is wanted", func() bool { return h.backend("app", idle.addr).Life().Wanted == upstream.In })
	next := h.upgraded(time.Hour)
	for of, err := range map[string]chan error{"the drain": drains, "the one that is to come back": comesBack} {
		if err := <-err; !errors.Is(err, admin.ErrNotNow) {
			t.Fatalf("%s: %v", of, err)
		}
	}
	ended := make(chan admin.Drained, 1)
	go func() {
		d, err := next.Drain(within(t), "app", busy.addr)
		if err != nil {
			t.Error(err)
		}
		ended <- d
	}()
	release()
	if code := <-answers; code != 200 {
		t.Errorf("the request: %d", code)
	}
	if d := <-ended; !d.Empty || d.Requests != 0 {
		t.Errorf("%+v", d)
	}
}
