package affinity

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lb/upstream"
	"lb/upstream/upstreamtest"
)

func open4(sid string) string {
	return `0{"sid":"` + sid + `","upgrades":["websocket"],"pingInterval":25000}`
}

const polling = "EIO=4&transport=polling&t=50rkgk5r"

func TestCookieAffinity(t *testing.T) {
	p := newPool("a b c")
	a := newAffinity(t, p, cookieOptions(t))
	first := ask{other: "b"}.of(t, a).want(t, "b cookie new", true)
	mine := "lb=" + first.value(t)
	if strings.Contains(first.added, "b=b") || len(first.value(t)) != tokenLen {
		t.Errorf("the cookie %q tells too much", first.added)
	}
	ask{cookies: []string{"x=y; " + mine}}.of(t, a).want(t, "b cookie hit", false)
	ask{cookies: []string{"x=y", `lb="` + first.value(t) + `"`}}.of(t, a).want(t, "b cookie hit", false)
	// Others' cookies of the name do no harm.
	ask{cookies: []string{"lb=old; lb=" + strings.Repeat("x", tokenLen) + "; " + mine}}.of(t, a).want(t, "b cookie hit", false)
	ask{cookies: []string{"lb=forged"}, other: "c"}.of(t, a).want(t, "c cookie miss", true)
	ask{cookies: []string{"lb=" + strings.Repeat("A", tokenLen)}, other: "c"}.of(t, a).want(t, "c cookie miss", true)
	ask{cookies: []string{"lb=" + first.value(t)[:21] + "!"}, other: "c"}.of(t, a).want(t, "c cookie miss", true)
	// A gateway's error is no place to stay.
	for status, stays := range map[int]bool{500: true, 501: true, 502: false, 503: false, 504: false, 505: true} {
		ask{other: "a", status: status}.of(t, a).want(t, "a cookie new", stays)
	}
	// Full, or an attempt there failed: next time again.
	ask{cookies: []string{mine}, other: "a", always: true}.of(t, a).want(t, "a cookie strayed", false)

	// Another lb with the same key understands it, one with another key or pool does not.
	other := newAffinity(t, newPool("b c d"), cookieOptions(t))
	ask{cookies: []string{mine}}.of(t, other).want(t, "b cookie hit", false)
	o := cookieOptions(t)
	o.Cookie.Keys = keys(t, key2)
	ask{cookies: []string{mine}, other: "c"}.of(t, newAffinity(t, newPool("b c"), o)).want(t, "c cookie miss", true)
	q := upstream.NewPool("other", 1, specs("b c"), nil, upstreamtest.BuildInOrder)
	ask{cookies: []string{mine}, other: "c"}.of(t, newAffinity(t, q, cookieOptions(t))).want(t, "c cookie miss", true)
}

func TestCookieMoves(t *testing.T) {
	p := newPool("a b c")
	a := newAffinity(t, p, cookieOptions(t))
	mine := []string{"lb=" + ask{other: "b"}.of(t, a).value(t)}
	b := backend(t, p, "b")

	p.SetEjected(b, time.Now().Add(time.Minute))
	moved := ask{cookies: mine, other: "c"}.of(t, a).want(t, "c cookie moved", true)
	ask{cookies: []string{"lb=" + moved.value(t)}}.of(t, a).want(t, "c cookie hit", false)
	p.SetEjected(b, time.Time{})
	ask{cookies: mine}.of(t, a).want(t, "b cookie hit", false)
	p.SetDead(b, time.Now().Add(time.Minute))
	ask{cookies: mine, other: "c"}.of(t, a).want(t, "c cookie moved", true)
	p.SetDead(b, time.Time{})
	p.SetProbed(b, upstream.Down)
	ask{cookies: mine, other: "c"}.of(t, a).want(t, "c cookie moved", true)
	p.SetProbed(b, upstream.Up)
	ask{cookies: mine}.of(t, a).want(t, "b cookie hit", false)

	// By name, not by address; and who left and comes back is who it was.
	p.Update(specs("a b@9 c"), nil, nil)
	ask{cookies: mine}.of(t, a).want(t, "b cookie hit", false)
	p.Update(specs("a c"), nil, nil)
	ask{cookies: mine, other: "a"}.of(t, a).want(t, "a cookie moved", true)
	p.Update(specs("a b c"), nil, nil)
	ask{cookies: mine}.of(t, a).want(t, "b cookie hit", false)

	// Weight 0: nothing new, but what it has stays.
	p.Update(specs("a b*0 c"), nil, nil)
	if w := (ask{cookies: mine}).of(t, a).want(t, "b cookie hit", false); !w.only {
		t.Error("a backend of weight 0 is preferred as if it took new clients")
	}
	// Whoever got there last is not told to come back.
	ask{other: "b"}.of(t, a).want(t, "b cookie new", false)
}

func TestDraining(t *testing.T) {
	p := newPool("a b")
	a := newAffinity(t, p, cookieOptions(t))
	mine := []string{"lb=" + ask{other: "b"}.of(t, a).value(t)}
	begun := polling
	ask{query: begun, other: "b", body: open4("S1")}.of(t, a).want(t, "b sid new", true)
	b := backend(t, p, "b")

	p.StartDraining(b)
	for range 2 {
		for _, q := range []ask{{cookies: mine}, {query: polling + "&sid=S1"}} {
			if w := q.of(t, a); !w.only || !strings.HasSuffix(w.line, " hit") {
				t.Errorf("%s, only %v", w.line, w.only)
			}
		}
		p.SetProbed(backend(t, p, "a"), upstream.Up) // something else changes the pool
	}
	p.EndSessions(b)
	ask{now: 130 * sec, cookies: mine, other: "a"}.of(t, a).want(t, "a cookie moved", true)
	ask{now: 130 * sec, query: polling + "&sid=S1", other: "a"}.of(t, a).want(t, "a sid moved", false)
	p.StartDraining(b) // said again, it does not begin again
	ask{now: 130 * sec, cookies: mine, other: "a"}.of(t, a).want(t, "a cookie moved", true)
	p.SetWanted(b, upstream.In)
	p.SetProbed(b, upstream.Up)
	if w := (ask{now: 131 * sec, cookies: mine}).of(t, a).want(t, "b cookie hit", false); w.only {
		t.Error("it was taken back, but takes nothing new")
	}
	p.StartDraining(b)
	ask{now: 140 * sec, cookies: mine}.of(t, a).want(t, "b cookie hit", false)
	// One that dies meanwhile keeps nobody.
	p.SetDead(b, time.Now())
	ask{now: 141 * sec, cookies: mine, other: "a"}.of(t, a).want(t, "a cookie moved", true)
}

func TestKeyRotation(t *testing.T) {
	p := newPool("a b")
	o := cookieOptions(t)
	a := newAffinity(t, p, o)
	old := ask{other: "b"}.of(t, a).value(t)
	o.Cookie.Keys = keys(t, key2, key1)
	a2, err := New(p, 2, sec, o, a)
	if err != nil {
		t.Fatal(err)
	}
	w := ask{cookies: []string{"lb=" + old}}.of(t, a2).want(t, "b cookie hit", true)
	ask{cookies: []string{"lb=" + w.value(t)}}.of(t, a2).want(t, "b cookie hit", false)
	o.Cookie.Keys = keys(t, key2)
	a3, err := New(p, 2, sec, o, a2)
	if err != nil {
		t.Fatal(err)
	}
	ask{cookies: []string{"lb=" + w.value(t)}}.of(t, a3).want(t, "b cookie hit", false)
	ask{cookies: []string{"lb=" + old}, other: "a"}.of(t, a3).want(t, "a cookie miss", true)
}

func TestAppCookie(t *testing.T) {
	p := newPool("a b c")
	o := Options{Kind: AppCookie, AppCookie: "connect.sid", TTL: time.Minute}
	a := newAffinity(t, p, o)
	set := []string{"theme=dark; Path=/", `connect.sid=s%3Aabc.def; Path=/; HttpOnly`}
	ask{other: "b", set: set}.of(t, a).want(t, "b app_cookie new", false)
	mine := []string{"theme=dark; connect.sid=s%3Aabc.def"}
	ask{cookies: mine, set: set}.of(t, a).want(t, "b app_cookie hit", false)
	ask{cookies: []string{"connect.sid=other"}, other: "c"}.of(t, a).want(t, "c app_cookie miss", false)
	ask{cookies: []string{"connect.sid=; connect.sid=other; connect.sid=s%3Aabc.def"}}.of(t, a).want(t, "b app_cookie hit", false)
	// What a client claims is not learned.
	ask{cookies: []string{"connect.sid=other"}, other: "a"}.of(t, a).want(t, "a app_cookie miss", false)
	if n := a.Stats(0).Learned.Load(); n != 1 {
		t.Errorf("learned %d times", n)
	}

	// Its backend dies. Who shares sessions serves it, and keeps it when the old one is back.
	b := backend(t, p, "b")
	p.SetDead(b, time.Now())
	ask{cookies: mine, other: "c", status: 502}.of(t, a).want(t, "c app_cookie moved", false)
	ask{cookies: mine, other: "a"}.of(t, a).want(t, "a app_cookie moved", false)
	p.SetDead(b, time.Time{})
	ask{cookies: mine}.of(t, a).want(t, "a app_cookie hit", false)
	// A login gives the session another ID.
	ask{cookies: mine, set: []string{"connect.sid=s%3Anew"}}.of(t, a).want(t, "a app_cookie hit", false)
	ask{cookies: []string{"connect.sid=s%3Anew"}}.of(t, a).want(t, "a app_cookie hit", false)
	ask{cookies: []string{"connect.sid=" + strings.Repeat("x", maxRemembered+1)}, other: "a"}.of(t, a).want(t, "a app_cookie new", false)

	// Renewed by use, forgotten without.
	for at := int64(50); at < 500; at += 50 {
		ask{now: at * sec, cookies: mine}.of(t, a).want(t, "a app_cookie hit", false)
	}
	ask{now: 520 * sec, cookies: []string{"connect.sid=s%3Anew"}, other: "c"}.of(t, a).want(t, "c app_cookie miss", false)

	// Another cookie, another memory.
	o.AppCookie = "session"
	a2, err := New(p, 2, 500*sec, o, a)
	if err != nil {
		t.Fatal(err)
	}
	ask{now: 500 * sec, cookies: []string{"session=s%3Aabc.def"}, other: "c"}.of(t, a2).want(t, "c app_cookie miss", false)
}

// TestTTLChanges: what is remembered counts by the time that a reload says, also where the memory stays as it is.
func TestTTLChanges(t *testing.T) {
	o := Options{Kind: AppCookie, AppCookie: "sid", TTL: time.Minute}
	mine := []string{"sid=mine"}
	for ttl, want := range map[time.Duration]string{89 * time.Second: "c app_cookie miss", 91 * time.Second: "b app_cookie hit"} {
		p := newPool("a b c")
		a := newAffinity(t, p, o)
		ask{now: 1000 * sec, other: "b", set: []string{"sid=mine"}}.of(t, a).want(t, "b app_cookie new", false)
		next := o
		next.TTL = ttl
		a, err := New(p, 2, 1001*sec, next, a)
		if err != nil {
			t.Fatal(err)
		}
		ask{now: 1090 * sec, cookies: mine, other: "c"}.of(t, a).want(t, want, false)
	}
}

func TestSocketIO(t *testing.T) {
	p := newPool("a b c")
	a := newAffinity(t, p, Options{SocketIO: true})
	ask{other: "a"}.of(t, a).want(t, "a", false)
	ask{query: "q=1", other: "a"}.of(t, a).want(t, "a", false)
	// Thousands behind one address, without cookies: sessions are all that tells them apart.
	for i := range 3000 {
		where := string("abc"[i%3])
		ask{query: polling, other: where, body: open4(fmt.Sprint("S", i))}.of(t, a).want(t, where+" sid new", false)
	}
	for i := range 3000 {
		ask{query: fmt.Sprint(polling, "&sid=S", i)}.of(t, a).want(t, string("abc"[i%3])+" sid hit", false)
	}
	ask{query: "EIO=4&transport=websocket&sid=S4"}.of(t, a).want(t, "b sid hit", false)
	ask{query: "EIO=4&transport=websocket", other: "c", status: 101, body: open4("no")}.of(t, a).want(t, "c sid new", false)
	ask{query: polling + "&sid=no", other: "c", status: 400}.of(t, a).want(t, "c sid miss", false)
	ask{query: polling, other: "c", status: 400, body: `{"code":0,"message":"Transport unknown"}`}.of(t, a).want(t, "c sid new", false)
	if n := a.Stats(0).Unread.Load(); n != 0 {
		t.Errorf("%d answers were not read", n)
	}
	ask{query: polling, other: "c", body: "hello"}.of(t, a).want(t, "c sid new", false)
	st := a.Stats(0)
	if st.Unread.Load() != 1 || st.Learned.Load() != 3000 || st.Visits[BySID][Hit].Load() != 3001 || st.Visits[BySID][Miss].Load() != 1 || st.Visits[BySID][Newcomer].Load() != 3003 {
		t.Errorf("unread %d, learned %d, hits %d, misses %d", st.Unread.Load(), st.Learned.Load(), st.Visits[BySID][Hit].Load(), st.Visits[BySID][Miss].Load())
	}
	if n := a.Sessions("a"); n != 1000 {
		t.Errorf("%d sessions", n)
	}
	a.Sweep(60 * sec)
	if n := a.Sessions("a"); n != 1000 {
		t.Errorf("%d sessions after a sweep", n)
	}
	if n := backend(t, p, "a").Live.Sessions(); n != 1000 {
		t.Errorf("%d sessions for the strategy", n)
	}
	// One that became a tunnel is counted as that, and found if the upgrade fails yet.
	ask{now: 61 * sec, query: "EIO=4&transport=websocket&sid=S3", status: 101}.of(t, a).want(t, "a sid hit", false)
	if n := a.Sessions("a"); n != 999 {
		t.Errorf("%d sessions beside a tunnel", n)
	}
	ask{now: 61 * sec, query: polling + "&sid=S3"}.of(t, a).want(t, "a sid hit", false)
	// A post that came after the upgrade made it one in use: until its tunnel ends.
	if a.Sweep(62 * sec); a.Sessions("a") != 1000 {
		t.Errorf("%d sessions with one that posted", a.Sessions("a"))
	}
	var v Visit
	v.Begin(a, &Request{Now: 62 * sec, Query: []byte(polling + "&sid=S3")})
	if a.Ended(v.Session(), 63*sec); a.Sessions("a") != 999 {
		t.Errorf("%d sessions after the end of a tunnel", a.Sessions("a"))
	}
	// Who has not asked for long is remembered, but no load.
	ask{now: 100 * sec, query: polling + "&sid=S6"}.of(t, a).want(t, "a sid hit", false)
	a.Sweep(180 * sec)
	if n := a.Sessions("a"); n != 1 {
		t.Errorf("%d sessions in use", n)
	}
	ask{now: 181 * sec, query: polling + "&sid=S0"}.of(t, a).want(t, "a sid hit", false)
	a.Sweep(1000 * sec)
	if n := a.Sessions("a"); n != 0 || a.Sessions("nobody") != 0 {
		t.Errorf("%d sessions are left", n)
	}
	ask{now: 1000 * sec, query: polling + "&sid=S0", other: "b"}.of(t, a).want(t, "b sid miss", false)
}

// The session decides; the cookie follows it, or helps where the session is not known.
func TestSocketIOBesideCookie(t *testing.T) {
	p := newPool("a b c")
	a := newAffinity(t, p, cookieOptions(t))
	w := ask{query: polling, other: "b", body: open4("S1")}.of(t, a).want(t, "b sid new", true)
	onB := []string{"lb=" + w.value(t)}
	onC := []string{"lb=" + ask{other: "c"}.of(t, a).value(t)}
	ask{query: polling + "&sid=S1", cookies: onB}.of(t, a).want(t, "b sid hit", false)
	ask{query: polling + "&sid=S1", cookies: onC}.of(t, a).want(t, "b sid hit", false)
	ask{query: polling + "&sid=unknown", cookies: onC}.of(t, a).want(t, "c cookie hit", false)
	ask{query: polling + "&sid=unknown"}.of(t, a).want(t, "c sid hit", false)
	ask{query: polling + "&sid=unheard", other: "a", status: 400}.of(t, a).want(t, "a sid miss", true)
	ask{query: polling, cookies: onC, body: open4("S2")}.of(t, a).want(t, "c cookie hit", false)
	ask{query: polling + "&sid=S2"}.of(t, a).want(t, "c sid hit", false)

	h := newAffinity(t, p, Options{SocketIO: true, Kind: Hash, Hash: HashKey{Source: FromQuery, Name: "room"}})
	var v Visit
	v.Begin(h, &Request{Now: 1, Query: []byte("room=7")})
	if key, ok := v.HashKey(); !ok || key != upstream.KeyOf([]byte("7")) || v.By() != ByHash {
		t.Errorf("by %s, key %x", v.By(), key)
	}
}

// A session that lb does not know is learned where it turns out to be.
func TestSocketIOStranger(t *testing.T) {
	p := newPool("a b c")
	a := newAffinity(t, p, Options{SocketIO: true})
	elsewhere := 0
	for _, c := range captures(t) {
		var v Visit
		v.Begin(a, &Request{Now: 1, Query: []byte(polling + "&sid=nobodyknowsthissid")})
		if unknown := strings.Contains(c.name, "unknown_sid"); v.MayBeElsewhere(c.status, c.body) != unknown {
			t.Errorf("%s: elsewhere %v", c.name, !unknown)
		} else if unknown {
			elsewhere++
		}
	}
	if elsewhere < 4 {
		t.Errorf("only %d captures", elsewhere)
	}
	const q = polling + "&sid=S1"
	ask{query: q, other: "a", status: 400, body: `{"code":1,"message":"Session ID unknown"}`}.of(t, a).want(t, "a sid miss", false)
	ask{query: q, other: "a", preflight: true}.of(t, a).want(t, "a sid miss", false)
	ask{query: q, other: "b", body: "2:40"}.of(t, a).want(t, "b sid miss", false)
	ask{query: q}.of(t, a).want(t, "b sid hit", false)
	ask{query: polling + "&sid=S2", other: "c", status: 101}.of(t, a).want(t, "c sid miss", false)
	ask{query: polling + "&sid=S2"}.of(t, a).want(t, "c sid hit", false)
	var v Visit
	v.Begin(a, &Request{Now: 1, Query: []byte(q)})
	if v.MayBeElsewhere(400, []byte(`{"code":1,`)) {
		t.Error("a session that is known is looked for elsewhere")
	}
	v.Begin(a, &Request{Now: 1, Query: []byte(polling), Preflight: true})
	if v.Handshake() {
		t.Error("a preflight request is a handshake")
	}
	ask{query: polling + "&sid=" + strings.Repeat("x", 3*maxSID+1), other: "a"}.of(t, a).want(t, "a sid miss", false)
}

// A reload keeps what is known, also when the size changes; turning it off forgets.
func TestReloadKeeps(t *testing.T) {
	p := newPool("a b c")
	o := Options{SocketIO: true, Sessions: 1000}
	a := newAffinity(t, p, o)
	for i := range 300 {
		ask{query: polling, other: string("abc"[i%3]), body: open4(fmt.Sprint("S", i))}.of(t, a)
	}
	for _, size := range []int{1000, 5000, 700} {
		o.Sessions = size
		next, err := New(p, 2, 3*sec, o, a)
		if err != nil {
			t.Fatal(err)
		}
		a = next
		for i := range 300 {
			ask{query: fmt.Sprint(polling, "&sid=S", i)}.of(t, a).want(t, string("abc"[i%3])+" sid hit", false)
		}
	}
	o.SocketIO = false
	off, err := New(p, 2, 3*sec, o, a)
	if err != nil {
		t.Fatal(err)
	}
	ask{query: polling + "&sid=S1", other: "c"}.of(t, off).want(t, "c", false)
}

// Backends come and go under ever new names: what is known of them stays bounded.
func TestNamesAreBounded(t *testing.T) {
	p := newPool("a b")
	a := newAffinity(t, p, cookieOptions(t))
	for i := range 2000 {
		p.Update(specs(fmt.Sprintf("a n%d m%d", i, i)), nil, nil)
		ask{other: "a"}.of(t, a)
	}
	if n := len(a.memory.refs); n > maxGone+3 || len(a.tokens) > maxGone+3 {
		t.Errorf("%d names, %d tokens", n, len(a.tokens))
	}
}

func TestNewRefuses(t *testing.T) {
	for _, o := range []Options{
		{Sessions: -1}, {Sessions: maxSessions + 1}, {TTL: -1}, {Kind: AppCookie}, {Kind: AppCookie, AppCookie: "a b"}, {Kind: Cookie},
	} {
		if _, err := New(newPool("a"), 1, 0, o, nil); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

func TestNeeds(t *testing.T) {
	p := newPool("a")
	for _, c := range []struct {
		o       Options
		cookies bool
		header  string
	}{
		{Options{SocketIO: true}, false, ""},
		{cookieOptions(t), true, ""},
		{Options{Kind: AppCookie, AppCookie: "sid"}, true, ""},
		{Options{Kind: Hash}, false, ""},
		{Options{Kind: Hash, Hash: HashKey{Source: FromCookie, Name: "u"}}, true, ""},
		{Options{Kind: Hash, Hash: HashKey{Source: FromHeader, Name: "x-user"}}, false, "x-user"},
	} {
		a := newAffinity(t, p, c.o)
		if a.NeedsCookies() != c.cookies || a.NeedsHeader() != c.header || a.Loops() != 2 {
			t.Errorf("%+v: needs %v, %q", c.o, a.NeedsCookies(), a.NeedsHeader())
		}
	}
}

// A backend may leave the pool while it answers, or join it while nobody has looked.
func TestServedByOthers(t *testing.T) {
	p := newPool("a b")
	a := newAffinity(t, p, cookieOptions(t))
	var v Visit
	r := Request{Now: 1, Query: []byte(polling)}
	v.Begin(a, &r)
	b := backend(t, p, "b")
	p.Update(specs("a c"), nil, nil)
	a.look(2)
	if line := v.Answer(nil, &Answer{Now: 2, Backend: b, Status: 200}); len(line) > 0 || v.Reading() {
		t.Error("a client is bound to a backend that left")
	}
	v.Begin(a, &r)
	p.Update(specs("a d"), nil, nil)
	if line := v.Answer(nil, &Answer{Now: 2, Backend: backend(t, p, "d"), Status: 200}); len(line) == 0 || !v.Reading() {
		t.Error("a client is not bound to a backend that joined")
	}
	v.End()
}

func TestEvicted(t *testing.T) {
	a := newAffinity(t, newPool("a"), Options{SocketIO: true, Sessions: 64})
	for i := range 164 {
		ask{query: polling, other: "a", body: open4(fmt.Sprint("S", i))}.of(t, a)
	}
	if n := a.Evicted(); n < 100 || n > 130 || a.Sessions("a") != 164-int64(n) {
		t.Errorf("%d evicted, %d left", n, a.Sessions("a"))
	}
}

func TestNoAffinity(t *testing.T) {
	var v Visit
	v.Begin(nil, &Request{})
	b, only := v.Prefer()
	_, hashed := v.HashKey()
	line := v.Answer([]byte("x"), &Answer{Status: 200})
	v.SetCookie([]byte("a=b"))
	v.Feed([]byte("0"), true)
	v.End()
	if b != nil || only || hashed || string(line) != "x" || v.Learns() || v.Reading() || v.Handshake() || v.By() != ByNothing || v.Result() != NoResult {
		t.Errorf("%+v", v)
	}
}

// Two loops and a pool that changes all the time: a client is never sent to a backend that is not in the pool, and the
// sessions of those that stay are kept.
func TestLoopsAndChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool("a b c")
		a := newAffinity(t, p, cookieOptions(t))
		began := time.Now()
		clock := func() int64 { return int64(time.Since(began)) + sec }
		stop := make(chan struct{})
		go func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				p.Update(specs([]string{"a b c", "a b", "a b c d", "a b d"}[i%4]), nil, nil)
				if i%10 == 0 {
					a.Sweep(clock())
				}
			}
		}()
		sids := make(chan string, 1000)
		done := make(chan bool)
		for loop := range 2 {
			go func() {
				var v Visit
				var line []byte
				for i := range 2000 {
					if i%10 == 0 {
						time.Sleep(time.Millisecond)
					}
					query, sid := polling, fmt.Sprintf("S%d-%d", loop, i)
					v.Begin(a, &Request{Now: clock(), Query: []byte(query)})
					line = v.Answer(line[:0], &Answer{Now: clock(), Loop: loop, Backend: p.Snapshot().All[i%2], Status: 200})
					v.Feed([]byte(open4(sid)), true)
					select {
					case sids <- sid:
					default:
					}
					select {
					case sid := <-sids:
						v.Begin(a, &Request{Now: clock(), Query: []byte(polling + "&sid=" + sid)})
						b, _ := v.Prefer()
						if b == nil || b.Name != "a" && b.Name != "b" {
							t.Errorf("session %s goes to %v", sid, b)
						}
					default:
					}
				}
				v.End()
				done <- true
			}()
		}
		<-done
		<-done
		close(stop)
	})
}

// A process that died has no sessions any more, whatever came in its place; its cookies are good for that.
func TestProcessEnds(t *testing.T) {
	for what, end := range map[string]func(p *upstream.Pool, b *upstream.Backend){
		"refuses": func(p *upstream.Pool, b *upstream.Backend) {
			p.SetDead(b, time.Now())
			p.SetDead(b, time.Time{})
		},
		"is down": func(p *upstream.Pool, b *upstream.Backend) {
			p.SetProbed(b, upstream.Down)
			p.SetProbed(b, upstream.Up)
		},
		"was drained": func(p *upstream.Pool, b *upstream.Backend) {
			p.SetWanted(b, upstream.Draining)
			p.SetWanted(b, upstream.In)
			p.SetProbed(b, upstream.Up)
		},
		"moved": func(p *upstream.Pool, b *upstream.Backend) {
			p.Update(specs("a b@9"), nil, nil)
			p.SetProbed(backend(t, p, "b"), upstream.Up)
		},
	} {
		p := newPool("a b")
		p.SetProbed(backend(t, p, "a"), upstream.Up)
		p.SetProbed(backend(t, p, "b"), upstream.Up)
		a := newAffinity(t, p, cookieOptions(t))
		mine := []string{"lb=" + ask{other: "b"}.of(t, a).value(t)}
		ask{query: polling, other: "b", body: open4("S1")}.of(t, a)
		ask{query: polling + "&sid=S1"}.of(t, a).want(t, "b sid hit", false)
		if n := backend(t, p, "b").Live.Sessions(); n != 1 {
			t.Errorf("%s: %d sessions before", what, n)
		}
		end(p, backend(t, p, "b"))
		ask{query: polling + "&sid=S1", other: "a", status: 400}.of(t, a).want(t, "a sid moved", false)
		if n := backend(t, p, "b").Live.Sessions() + a.Sessions("b"); n != 0 {
			t.Errorf("%s: it keeps new sessions away with %d old ones", what, n)
		}
		ask{cookies: mine}.of(t, a).want(t, "b cookie hit", false)
	}
	// One that was ejected for its failures may well remember.
	p := newPool("a b")
	a := newAffinity(t, p, cookieOptions(t))
	ask{query: polling, other: "b", body: open4("S1")}.of(t, a)
	p.SetEjected(backend(t, p, "b"), time.Now())
	ask{query: polling + "&sid=S1", other: "a", status: 400}.of(t, a).want(t, "a sid moved", false)
	p.SetEjected(backend(t, p, "b"), time.Time{})
	ask{query: polling + "&sid=S1"}.of(t, a).want(t, "b sid hit", false)
}
