package affinity

import (
	"testing"

	"lb/upstream"
)

// TestQuiet: a backend is quiet when no session of it that is known has been used for as long as one counts as in use.
func TestQuiet(t *testing.T) {
	const idle = int64(inUse)
	p := newPool("a b")
	a := newAffinity(t, p, cookieOptions(t)) // at 1 s
	quiet := func(name string, now int64, want bool) {
		t.Helper()
		a.Sweep(now)
		if got := a.Quiet(name, now); got != want {
			t.Errorf("%s at %d s is quiet: %v, want %v", name, now/sec, got, want)
		}
	}
	// Nothing is known of who came before lb began.
	quiet("a", sec+idle-1, false)
	quiet("a", sec+idle, true)
	quiet("nobody", sec, true)
	// A cookie that is set counts, and each time it comes, but for those that come soon after another.
	now := 200 * sec
	cookie := "lb=" + ask{now: now, other: "a"}.of(t, a).value(t)
	quiet("a", now+idle-1, false)
	quiet("b", now, true)
	quiet("a", now+idle, true)
	for range 5 {
		now += idle - 1
		ask{now: now, cookies: []string{cookie}}.of(t, a)
		quiet("a", now+idle-1, false)
	}
	ask{now: now + idle/16, cookies: []string{cookie}}.of(t, a)
	quiet("a", now+idle, true)
	// Who comes with something else is not seen.
	ask{now: now + idle, cookies: []string{"lb=0123456789012345678901"}, other: "b"}.of(t, a)
	quiet("a", now+idle, true)
	// A session of Socket.IO counts beside it.
	ask{now: 900 * sec, query: "EIO=4&transport=polling", other: "a", body: `0{"sid":"abcdefghijklmnopqrst"}`}.of(t, a)
	a.view.Load().refs["a"].seen.Store(0)
	quiet("a", 901*sec, false)
	quiet("a", 900*sec+idle, true)
	// Who joins, and another process, have nobody's session.
	ask{now: 1200 * sec, cookies: []string{cookie}}.of(t, a)
	quiet("a", 1200*sec, false)
	p.SetProbed(backend(t, p, "a"), upstream.Down)
	p.SetProbed(backend(t, p, "a"), upstream.Up)
	quiet("a", 1200*sec, true)
	p.Update(specs("a b c"), nil, nil)
	quiet("c", 1200*sec, true)
}
