package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"lb/affinity"
	"lb/upstream"
)

func sticky(o affinity.Options) option { return func(p *plan) { p.sticky = &o } }

// ask sends one request on a connection of its own, without cookies.
func (l *lab) ask(method, target, body string, header ...string) *http.Response {
	l.t.Helper()
	r, err := http.NewRequest(method, "http://"+l.addr+target, strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}, Timeout: patience}
	res, err := c.Do(r)
	if err != nil {
		l.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	res.Body = io.NopCloser(bytes.NewReader(b))
	return res
}

func text(r *http.Response) string {
	b, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(b))
	return string(b)
}

// sumStats adds up what the loops counted.
func sumStats(a *affinity.Affinity) *affinity.Stats {
	sum := new(affinity.Stats)
	for i := range a.Loops() {
		st := a.Stats(i)
		sum.Unread.Add(st.Unread.Load())
		sum.Learned.Add(st.Learned.Load())
		for by := range st.Visits {
			for r := range st.Visits[by] {
				sum.Visits[by][r].Add(st.Visits[by][r].Load())
			}
		}
	}
	return sum
}

// tries is how many attempts were made.
func (l *lab) tries() (n uint64) {
	for i := range l.pool.Snapshot().All {
		n += l.sum(i, func(s *upstream.Stats) uint64 { return s.Picks.Load() })
	}
	return n
}

func TestCookieStays(t *testing.T) {
	_, backends := engines(t, 3)
	keys, err := affinity.NewKeys(strings.Repeat("k", 32))
	if err != nil {
		t.Fatal(err)
	}
	o := affinity.Options{Kind: affinity.Cookie, Cookie: affinity.CookieOptions{Keys: keys, Name: "lb"}}
	l := newLab(t, backends, sticky(o), trust("127.0.0.0/8"))
	first := l.ask("GET", "/", "")
	where, set := text(first), first.Header.Get("Set-Cookie")
	value, rest, _ := strings.Cut(set, "; ")
	if rest != "Path=/; HttpOnly; SameSite=Lax" {
		t.Errorf("%q", set)
	}
	for range 6 {
		res := l.ask("GET", "/", "", "Cookie", "a=b; "+value)
		if text(res) != where || res.Header.Get("Set-Cookie") != "" {
			t.Errorf("it went to %s, with %q", text(res), res.Header.Get("Set-Cookie"))
		}
	}
	if set := l.ask("GET", "/", "", "X-Forwarded-Proto", "https").Header.Get("Set-Cookie"); !strings.HasSuffix(set, "; Secure") {
		t.Errorf("behind TLS: %q", set)
	}
	for _, bad := range []string{"lb=", "lb=" + strings.Repeat("x", 22), "lb=" + strings.Repeat("x", 4000), value + "x", "lb=\"" + value + "\"", "lb"} {
		if res := l.ask("GET", "/", "", "Cookie", bad); res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Set-Cookie"), "lb=") {
			t.Errorf("%.50q: %s, %q", bad, res.Status, res.Header.Get("Set-Cookie"))
		}
	}
	// Its backend leaves: from now on it is another's.
	var left []upstream.Spec
	for i, s := range specs(t, backends) {
		if fmt.Sprint(i) != where {
			left = append(left, s)
		}
	}
	l.pool.Update(left, nil, nil)
	res := l.ask("GET", "/", "", "Cookie", value)
	again, _, _ := strings.Cut(res.Header.Get("Set-Cookie"), ";")
	if text(res) == where || again == value || again == "" {
		t.Errorf("it is at %s still, %q", text(res), again)
	}
	where = text(res)
	for range 4 {
		if res := l.ask("GET", "/", "", "Cookie", again); text(res) != where {
			t.Errorf("it went to %s, not to %s", text(res), where)
		}
	}
}

func TestAppCookieStays(t *testing.T) {
	var backends []string
	for i := range 3 {
		backends = append(backends, handler(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/login" {
				http.SetCookie(w, &http.Cookie{Name: "theme", Value: "dark"})
				http.SetCookie(w, &http.Cookie{Name: "sid", Value: fmt.Sprint("session-", i)})
			}
			fmt.Fprint(w, i)
		}))
	}
	l := newLab(t, backends, sticky(affinity.Options{Kind: affinity.AppCookie, AppCookie: "sid"}))
	for range 3 {
		where := text(l.ask("GET", "/login", ""))
		for range 5 {
			if got := text(l.ask("POST", "/", "x", "Cookie", "sid=session-"+where)); got != where {
				t.Errorf("session %s went to %s", where, got)
			}
		}
	}
}

func handler(t testing.TB, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// TestHashStays sends what has a key to one backend, as long as that is there, and what has none to any.
func TestHashStays(t *testing.T) {
	for _, c := range []struct {
		key affinity.HashKey
		ask func(l *lab, who string) *http.Response
	}{
		{affinity.HashKey{Source: affinity.FromHeader, Name: "x-user"},
			func(l *lab, who string) *http.Response { return l.ask("GET", "/", "", "X-User", who) }},
		{affinity.HashKey{Source: affinity.FromCookie, Name: "user"},
			func(l *lab, who string) *http.Response { return l.ask("POST", "/", "x", "Cookie", "a=b; user="+who) }},
		{affinity.HashKey{Source: affinity.FromQuery, Name: "user"},
			func(l *lab, who string) *http.Response { return l.ask("GET", "/?a=b&user="+who, "") }},
		{affinity.HashKey{Source: affinity.FromPath, Part: 2},
			func(l *lab, who string) *http.Response { return l.ask("GET", "/rooms/"+who+"/x?y", "") }},
		{affinity.HashKey{Source: affinity.FromIP},
			func(l *lab, who string) *http.Response {
				return l.ask("GET", "/", "", "X-Forwarded-For", "203.0.113."+who)
			}},
	} {
		_, backends := engines(t, 4)
		l := newLab(t, backends, sticky(affinity.Options{Kind: affinity.Hash, Hash: c.key}), trust("127.0.0.0/8"), func(p *plan) { p.strategy = "hash" })
		at := map[string]string{}
		used := map[string]bool{}
		for i := range 40 {
			who := fmt.Sprint(i)
			at[who] = text(c.ask(l, who))
			used[at[who]] = true
		}
		if len(used) != 4 {
			t.Errorf("%v: only %v are used", c.key, used)
		}
		for who, where := range at {
			if got := text(c.ask(l, who)); got != where {
				t.Errorf("%v: %s went to %s, not to %s", c.key, who, got, where)
			}
		}
		strangers := map[string]bool{}
		for range 20 {
			strangers[text(l.ask("GET", "/", ""))] = true
		}
		if c.key.Source != affinity.FromPath && c.key.Source != affinity.FromIP && len(strangers) != 4 {
			t.Errorf("%v: without a key, only %v are used", c.key, strangers)
		}
		// One leaves: its keys move, and no others.
		l.pool.Update(specs(t, backends[1:]), nil, nil)
		for who, where := range at {
			if got := text(c.ask(l, who)); where != "0" && got != where || got == "0" {
				t.Errorf("%v: %s went from %s to %s", c.key, who, where, got)
			}
		}
	}
}

// TestHashOnAStaleConnection: who is asked again on a new connection is still the backend of the key.
func TestHashOnAStaleConnection(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single, func(p *plan) { p.strategy = "hash" },
		sticky(affinity.Options{Kind: affinity.Hash, Hash: affinity.HashKey{Source: affinity.FromHeader, Name: "x-user"}}))
	c := l.client()
	c.send(get("/", "X-User: 1"))
	b := o.accept()
	b.head()
	b.send(ok(""))
	c.status(200)
	l.idle(1)
	c.send(get("/", "X-User: 1"))
	b.head()
	b.close()
	b = o.accept()
	b.head()
	b.send(ok(""))
	c.status(200)
	l.idle(1)
	v := &sumStats(l.sticky).Visits[affinity.ByHash]
	if hits, strayed := v[affinity.Hit].Load(), v[affinity.Strayed].Load(); hits != 2 || strayed != 0 {
		t.Errorf("%d hits, %d strayed", hits, strayed)
	}
}
