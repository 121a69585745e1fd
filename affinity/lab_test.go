package affinity

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lb/upstream"
	"lb/upstream/upstreamtest"
)

const sec = int64(time.Second)

func specs(names string) (s []upstream.Spec) {
	for _, f := range strings.Fields(names) {
		sp := upstream.Spec{Weight: 1}
		f, at, ok := strings.Cut(f, "@")
		port := uint16(3000) + uint16(f[0])
		if ok {
			fmt.Sscan(at, &port)
		}
		if name, zero := strings.CutSuffix(f, "*0"); zero {
			f, sp.Weight = name, 0
		}
		sp.Name = f
		sp.Addr.AddrPort = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), port)
		s = append(s, sp)
	}
	return s
}

func newPool(names string) *upstream.Pool {
	set := upstream.DefaultSettings()
	set.DrainSessions = 30 * time.Second
	return upstream.NewPool("app", 2, specs(names), set, upstreamtest.BuildInOrder)
}

// backend is the one of that name in the newest snapshot.
func backend(t testing.TB, p *upstream.Pool, name string) *upstream.Backend {
	t.Helper()
	for _, b := range p.Snapshot().All {
		if b.Name == name {
			return b
		}
	}
	t.Fatalf("no backend %s", name)
	return nil
}

const (
	key1 = "the first key, of at least 32 characters"
	key2 = "another key, of at least 32 characters too"
)

func keys(t testing.TB, texts ...string) *Keys {
	t.Helper()
	k, err := NewKeys(texts...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func cookieOptions(t testing.TB) Options {
	return Options{Kind: Cookie, Cookie: CookieOptions{Keys: keys(t, key1), Name: "lb"}, SocketIO: true}
}

func newAffinity(t testing.TB, p *upstream.Pool, o Options) *Affinity {
	t.Helper()
	a, err := New(p, 2, sec, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// ask is one request, served by whom the visit prefers, or else by other. It returns who served it, what was appended, and
// how the visit ended.
type ask struct {
	now       int64
	query     string
	cookies   []string
	other     string
	preflight bool
	always    bool // other serves it, whatever is preferred
	status    int
	set       []string // Set-Cookie fields of the answer
	body      string
}

type told struct {
	by, line string
	added    string
	only     bool
}

func (q ask) of(t testing.TB, a *Affinity) told {
	t.Helper()
	r := Request{Now: q.now, Query: []byte(q.query), Preflight: q.preflight}
	if r.Now == 0 {
		r.Now = 2 * sec
	}
	for _, c := range q.cookies {
		r.Cookies = append(r.Cookies, []byte(c))
	}
	var v Visit
	v.Begin(a, &r)
	b, only := v.Prefer()
	if b == nil || q.always {
		b = backend(t, a.pool, q.other)
	}
	if q.status == 0 {
		q.status = 200
	}
	added := v.Answer(nil, &Answer{Now: r.Now, Backend: b, Status: q.status})
	if v.Learns() {
		for _, f := range q.set {
			v.SetCookie([]byte(f))
		}
	}
	if v.Reading() {
		v.Feed([]byte(q.body), true)
	}
	v.End()
	line := b.Name
	if v.By() != ByNothing {
		line += " " + v.By().String() + " " + v.Result().String()
	}
	return told{v.By().String(), line, string(added), only}
}

// value is the value of the cookie that was set.
func (w told) value(t testing.TB) string {
	t.Helper()
	v, ok := strings.CutPrefix(w.added, "Set-Cookie: lb=")
	if !ok {
		t.Fatalf("%s: no cookie was set", w.line)
	}
	v, _, _ = strings.Cut(v, ";")
	return v
}

func (w told) want(t testing.TB, line string, set bool) told {
	t.Helper()
	if w.line != line || (w.added != "") != set {
		t.Errorf("got %q and %q, want %q and cookie %v", w.line, w.added, line, set)
	}
	return w
}
