package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lb/admin"
)

// seen is what /status says of the rollout of the only pool, in a line.
func (h *house) seen() string {
	r := h.Status().Pools[0].Rollout
	if r == nil {
		return "none"
	}
	words := []string{fmt.Sprintf("%d of %d", len(r.Done), r.Of)}
	for _, u := range r.Under {
		words = append(words, u.Backend+" "+u.Step)
	}
	for _, b := range r.Bad {
		words = append(words, b.Backend+" bad: "+b.Why)
	}
	if r.Waits != "" {
		words = append(words, "waits: "+r.Waits)
	}
	if r.Ended != nil {
		words = append(words, "ended "+r.Ending)
	}
	return strings.Join(words, ", ")
}

// TestRolloutStatus follows a rollout as people see it, by the orders alone and with what is told beside.
func TestRolloutStatus(t *testing.T) {
	a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
	h := start(t, pools(a.addr, b.addr)+rare)
	sees := func(want string) {
		t.Helper()
		want = strings.NewReplacer("A", a.addr, "B", b.addr).Replace(want)
		if got := h.seen(); got != want {
			t.Errorf("seen: %q, want %q", got, want)
		}
	}
	sees("none")
	r := h.holds(admin.RolloutOrder{Pool: "app", Who: "me"})
	sees("0 of 0")
	tell := func(p admin.RolloutProgress) {
		t.Helper()
		if err := h.rolloutProgress(t.Context(), r.id, p); err != nil {
			t.Fatal(err)
		}
	}
	through := func(addr string, checks func()) {
		t.Helper()
		before, err := h.rolloutRestart(within(t), r.id, addr)
		if err != nil {
			t.Fatal(err)
		}
		checks()
		if _, err := h.rolloutCheck(within(t), r.id, addr, ""); err != nil || before == "never" {
			t.Fatal(err)
		}
	}

	// By the orders alone.
	r.drains(a.addr)
	sees("0 of 0, A draining")
	through(a.addr, func() { sees("0 of 0, A restarting") })
	sees("0 of 0, A checking")
	if err := h.rolloutReady(t.Context(), r.id, a.addr); err != nil {
		t.Fatal(err)
	}
	sees("1 of 0")
	r.drains(b.addr)
	if err := h.rolloutReady(t.Context(), r.id, b.addr); err != nil { // as it was
		t.Fatal(err)
	}
	sees("1 of 0")
	if err := h.rolloutEnd(within(t), r.id); err != nil {
		t.Fatal(err)
	}
	sees("1 of 0, ended finished")

	// With what is told. The next takes the place of the one before.
	r = h.holds(admin.RolloutOrder{Pool: "app", Who: "me"})
	tell(admin.RolloutProgress{Of: 2})
	sees("0 of 2")
	r.drains(a.addr)
	through(a.addr, func() {})
	if err := h.rolloutReady(t.Context(), r.id, a.addr); err != nil {
		t.Fatal(err)
	}
	sees("0 of 2")
	tell(admin.RolloutProgress{Of: 2, Warming: []string{a.addr}})
	sees("0 of 2, A warming up")
	tell(admin.RolloutProgress{Of: 2, Done: []string{a.addr}, Waits: b.addr + " is down"})
	sees("1 of 2, waits: B is down")
	r.drains(b.addr)
	if err := h.rolloutBad(t.Context(), r.id, b.addr, "its command failed"); err != nil {
		t.Fatal(err)
	}
	tell(admin.RolloutProgress{Of: 2, Done: []string{a.addr}, Ending: "bad", Why: b.addr + " is bad"})
	r.hangUp()
	<-r.ended
	sees("1 of 2, B bad: its command failed, ended bad")
	if err := h.rolloutProgress(t.Context(), r.id, admin.RolloutProgress{}); err != admin.ErrRolloutOver {
		t.Errorf("told of one that is over: %v", err)
	}

	// It is seen for a while, and with what it left out for as long as that is out.
	p := h.pool("app")
	last := func(ago time.Duration) {
		h.rollouts.mu.Lock()
		defer h.rollouts.mu.Unlock()
		h.rollouts.last[p.Name].seen.ended = time.Now().Add(-ago)
	}
	last(rolloutKept + time.Second)
	if h.seen() == "none" {
		t.Error("nobody sees why one is out")
	}
	if _, err := h.TakeBack(within(t), "app", b.addr, false); err != nil {
		t.Fatal(err)
	}
	sees("none")

	// One that just goes away, in the middle of it.
	r = h.holds(admin.RolloutOrder{Pool: "app"})
	r.drains(a.addr)
	r.hangUp()
	<-r.ended
	sees("0 of 0, ended interrupted")
	last(rolloutKept - time.Minute)
	sees("0 of 0, ended interrupted")
	last(rolloutKept + time.Second)
	sees("none")
}
