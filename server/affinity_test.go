package server

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb/admin"
	"lb/affinity"
)

const aKey = "0123456789abcdef0123456789abcdef"

func TestAffinityOptions(t *testing.T) {
	ring := &keyring{dir: t.TempDir()}
	given, err := affinity.NewKeys(aKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text string
		want *affinity.Options
		hold time.Duration
	}{
		{"backends = [\"3000-3001\"]\naffinity = { socketio = false }", nil, 0},
		{`backends = ["3000-3001"]`, &affinity.Options{SocketIO: true, Sessions: 65536, TTL: 10 * time.Minute}, 30 * time.Second},
		{"backends = [\"3000-3001\"]\naffinity = { kind = \"cookie\", name = \"n\", path = \"/p\", domain = \"d.example\", max_age = \"1h\", secure = \"always\", same_site = \"strict\", keys = [\"" + aKey + "\"], socketio = false, drain = \"1h\" }",
			&affinity.Options{Kind: affinity.Cookie, Sessions: 65536, TTL: 10 * time.Minute, Cookie: affinity.CookieOptions{
				Keys: given, Name: "n", Path: "/p", Domain: "d.example", MaxAge: time.Hour, Secure: affinity.SecureAlways, SameSite: affinity.SameSiteStrict,
			}}, time.Hour},
		{"backends = [\"3000-3001\"]\naffinity = { kind = \"app_cookie\", name = \"connect.sid\", sessions = 64, ttl = \"2m\", drain = \"off\" }",
			&affinity.Options{Kind: affinity.AppCookie, AppCookie: "connect.sid", SocketIO: true, Sessions: 64, TTL: 2 * time.Minute}, 0},
		{"backends = [3000]\naffinity = { socketio = false, kind = \"hash\", hash = \"path:3\" }",
			&affinity.Options{Kind: affinity.Hash, Hash: affinity.HashKey{Source: affinity.FromPath, Part: 3}, Sessions: 65536, TTL: 10 * time.Minute}, 0},
		{"backends = [3000]\nstrategy = \"hash\"\nhash = \"header:X\"",
			&affinity.Options{Kind: affinity.Hash, Hash: affinity.HashKey{Source: affinity.FromHeader, Name: "X"}, SocketIO: true, Sessions: 65536, TTL: 10 * time.Minute}, 30 * time.Second},
	} {
		p := &parse(t, "[pool.app]\n"+c.text).Pools[0]
		got, err := affinityOptions(p, ring)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, got, cmp.AllowUnexported(affinity.Keys{})); d != "" {
			t.Errorf("%s:\n-want +got:\n%s", c.text, d)
		}
		if hold := drainSessions(p, got); hold != c.hold {
			t.Errorf("%s: sessions are kept for %v", c.text, hold)
		}
	}
}

func TestKeyring(t *testing.T) {
	dir := t.TempDir()
	cookie := parse(t, "[pool.app]\nbackends = [3000]\naffinity = { kind = \"cookie\" }")
	a := &cookie.Pools[0].Affinity
	var warned []string
	ring := func(dir string) *keyring {
		return &keyring{dir: dir, warn: func(msg string, _ ...any) { warned = append(warned, msg) }}
	}
	of := func(k *keyring) *affinity.Keys {
		t.Helper()
		keys, err := k.of(a)
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	same := func(x, y *affinity.Keys) bool { return cmp.Equal(x, y, cmp.AllowUnexported(affinity.Keys{})) }
	if !same(of(ring(dir)), of(ring(dir))) || len(warned) > 0 {
		t.Errorf("the key of a directory does not last; %q", warned)
	}
	none := ring("")
	if !same(of(none), of(none)) || same(of(none), of(ring(""))) || len(warned) != 2 {
		t.Errorf("without a directory; %q", warned)
	}
	a.KeyFile = filepath.Join(dir, "mine")
	if err := os.WriteFile(a.KeyFile, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ring(dir).of(a); err == nil || !strings.Contains(err.Error(), "5 characters") {
		t.Errorf("a key that is too short: %v", err)
	}
	if got := stateDirectory(func(string) string { return "/var/lib/lb:/var/lib/x" }); got != "/var/lib/lb" {
		t.Error(got)
	}
}

// visit asks with a cookie jar of one, and returns who answered and what was set.
func (h *house) visit(cookie string) (body, set string) {
	h.t.Helper()
	r, err := http.NewRequest("GET", h.url, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	res, err := h.client.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	set, _, _ = strings.Cut(res.Header.Get("Set-Cookie"), ";")
	return string(b), set
}

// TestReloadKeepsClients changes everything about a pool but its cookie, and then its keys.
func TestReloadKeepsClients(t *testing.T) {
	a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
	text := func(more string) string {
		return pools(a.addr, b.addr) + more + kept + "\n[pool.app.affinity]\nkind = \"cookie\"\n"
	}
	h := start(t, text("")+"keys = [\""+aKey+"\"]\n")
	where, mine := h.visit("")
	if mine == "" {
		t.Fatal("no cookie was set")
	}
	stays := func(when string) {
		t.Helper()
		for range 5 {
			if got, set := h.visit(mine); got != where || set != "" {
				t.Fatalf("%s it is at %s, with %q", when, got, set)
			}
		}
	}
	stays("at first")
	h.reloadTo(text("strategy = \"round_robin\"\nretries = 1\n") + "keys = [\"" + aKey + "\"]\nrebalance = 10\n")
	stays("after a reload")
	h.reloadTo(text("") + "keys = [\"a new one, of more than 32 characters\", \"" + aKey + "\"]\n")
	got, set := h.visit(mine)
	if got != where || set == "" || set == mine {
		t.Fatalf("with a new key it is at %s, with %q", got, set)
	}
	mine = set
	h.reloadTo(text("") + "keys = [\"a new one, of more than 32 characters\"]\n")
	stays("without the old key")
	if st := h.Status().Pools[0].Affinity; st == nil || st.Kind != "cookie" || !st.SocketIO || st.Hits < 10 || st.New != 1 {
		t.Errorf("status: %+v", st)
	}
}

// TestDrainWaitsForSessions drains an instance whose clients lb cannot count.
func TestDrainWaitsForSessions(t *testing.T) {
	a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
	h := start(t, pools(a.addr, b.addr)+kept+"\n[pool.app.affinity]\nkind = \"cookie\"\ndrain = \"1h\"\n")
	where, mine := h.visit("")
	name := a.addr
	if where == "b" {
		name = b.addr
	}
	done := make(chan admin.Drained, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	go func() {
		d, _ := h.Drain(ctx, "app", name)
		done <- d
	}()
	h.awaitState(name, admin.Draining)
	if got, set := h.visit(mine); got != where || set != "" {
		t.Errorf("its client is at %s, with %q", got, set)
	}
	if got, _ := h.visit(""); got == where {
		t.Error("it takes new clients")
	}
	// Three quarters of the wait are over: whoever is left is sent elsewhere, and the drain ends well.
	if d := <-done; !d.Empty {
		t.Errorf("%+v", d)
	}
	if got, set := h.visit(mine); got == where || set == "" {
		t.Errorf("afterwards its client is at %s, with %q", got, set)
	}
	if _, err := h.TakeBack(within(t), "app", name, true); err != nil {
		t.Fatal(err)
	}
}
