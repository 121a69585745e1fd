package affinity

import (
	"fmt"
	"testing"
)

func TestSaveLoad(t *testing.T) {
	p := newPool("a b c")
	o := Options{SocketIO: true, Kind: AppCookie, AppCookie: "connect.sid"}
	a := newAffinity(t, p, o)
	const n = 600
	for i := range n {
		ask{now: int64(i) * sec, query: polling, other: string("abc"[i%3]), body: open4(fmt.Sprint("S", i)),
			set: []string{fmt.Sprint("connect.sid=C", i)}}.of(t, a)
	}
	state := a.Save(n * sec)

	// Another process, with another clock, and one backend the less.
	p2 := newPool("a c d")
	b := newAffinity(t, p2, o)
	if err := b.Load(state, 10*n*sec); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		where, result := string("abc"[i%3]), "hit"
		if where == "b" {
			where, result = "d", "moved"
		}
		q := ask{now: 10 * n * sec, other: "d", cookies: []string{fmt.Sprint("connect.sid=C", i)}, status: 503}
		q.of(t, b).want(t, where+" app_cookie "+result, false)
		q.query = fmt.Sprint(polling, "&sid=S", i)
		q.of(t, b).want(t, where+" sid "+result, false)
	}
	// The time that they were idle goes on: those of the beginning are forgotten first.
	b = newAffinity(t, p2, o)
	if err := b.Load(state, 10*n*sec); err != nil {
		t.Fatal(err)
	}
	later := (10*n + 400) * sec
	ask{now: later, query: polling + "&sid=S120", other: "d", status: 400}.of(t, b).want(t, "d sid miss", false)
	ask{now: later, query: polling + "&sid=S420", other: "d"}.of(t, b).want(t, "a sid hit", false)

	// A smaller table keeps the latest; a cookie of another name is another.
	o.Sessions, o.AppCookie = 128, "session"
	c := newAffinity(t, p2, o)
	if err := c.Load(state, 10*n*sec); err != nil {
		t.Fatal(err)
	}
	kept := 0
	for i := range n {
		if r := c.sids.get(c.sids.key([]byte(fmt.Sprint("S", i))), 10*n*sec); r != nil {
			if kept++; i < n/2 {
				t.Errorf("session %d of %d was kept in a table of 128", i, n)
			}
		}
	}
	if kept < 100 {
		t.Errorf("%d were kept", kept)
	}
	ask{now: 10 * n * sec, other: "d", cookies: []string{"session=C0"}}.of(t, c).want(t, "d app_cookie miss", false)
}

func TestLoadRefuses(t *testing.T) {
	p := newPool("a b c")
	o := Options{SocketIO: true}
	a := newAffinity(t, p, o)
	ask{query: polling, other: "b", body: open4("S1")}.of(t, a)
	state := a.Save(2 * sec)
	for n := range state {
		b := newAffinity(t, p, o)
		if err := b.Load(state[:n], 2*sec); err == nil {
			t.Errorf("%d of %d bytes were accepted", n, len(state))
		}
		ask{query: polling, other: "c", body: open4("S2")}.of(t, b)
		ask{query: polling + "&sid=S2"}.of(t, b).want(t, "c sid hit", false)
	}
	if err := a.Load(append(state, 0), 2*sec); err == nil {
		t.Error("a byte too many was accepted")
	}
}

func FuzzLoad(f *testing.F) {
	p := newPool("a b")
	a := newAffinity(f, p, Options{SocketIO: true})
	ask{query: polling, other: "b", body: open4("S1")}.of(f, a)
	f.Add(a.Save(2 * sec))
	f.Fuzz(func(t *testing.T, state []byte) {
		b := newAffinity(t, p, Options{SocketIO: true, Sessions: 64})
		if b.Load(state, 2*sec) == nil && len(b.Save(2*sec)) > len(state)+10 {
			t.Error("it grew")
		}
	})
}
