package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

// TestDrainOfOneWithoutClients drains an instance that has joined, and so has nobody's session before somebody comes.
func TestDrainOfOneWithoutClients(t *testing.T) {
	a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
	text := kept + "\n[pool.app.affinity]\nkind = \"cookie\"\ndrain = \"1h\"\n"
	h := start(t, pools(a.addr)+text)
	h.reloadTo(pools(a.addr, b.addr) + text)
	h.awaitState(b.addr, admin.Ready)
	if d, err := h.Drain(within(t), "app", b.addr); err != nil || !d.Empty || d.Took > 10*time.Second { // of 15 s that it could wait
		t.Errorf("%+v %v", d, err)
	}
	if _, err := h.TakeBack(within(t), "app", b.addr, true); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a client of it", func() bool { where, _ := h.visit(""); return where == "b" })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.Drain(ctx, "app", b.addr)
	}()
	h.awaitState(b.addr, admin.Draining)
	for range 3 { // looks at whether it still has any
		waitFor(t, "a look", func() bool { return h.backend("app", b.addr).Life().Sessions })
		time.Sleep(look)
	}
	cancel()
	<-ended
	if !h.backend("app", b.addr).Life().Sessions {
		t.Error("it does not keep the client it has")
	}
}

// A drain goes by its own patience, and not by that of one before it, which was called off a moment ago: with that, it
// would never end.
func TestDrainAgainWithSessions(t *testing.T) {
	a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
	h := start(t, pools(a.addr, b.addr)+kept+"\n[pool.app.affinity]\nkind = \"cookie\"\ndrain = \"1h\"\n")
	for round := range 3 { // of which each would meet what the one before began
		waitFor(t, "a client of it", func() bool { where, _ := h.visit(""); return where == "a" })
		patient, cancel := context.WithTimeout(context.Background(), time.Hour)
		first := make(chan error, 1)
		go func() {
			_, err := h.Drain(patient, "app", a.addr)
			first <- err
		}()
		h.awaitState(a.addr, admin.Draining)
		waitFor(t, "its sessions are kept", func() bool { return h.backend("app", a.addr).Life().Sessions })
		if _, err := h.TakeBack(within(t), "app", a.addr, true); err != nil {
			t.Fatal(err)
		}
		if err := <-first; err != admin.ErrTakenBack {
			t.Errorf("the first: %v", err)
		}
		cancel()
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		if d, err := h.Drain(ctx, "app", a.addr); err != nil || !d.Empty {
			t.Errorf("round %d: %+v %v", round, d, err)
		}
		cancel()
		if _, err := h.TakeBack(within(t), "app", a.addr, true); err != nil {
			t.Fatal(err)
		}
	}
}

// talker is an instance with sessions as Engine.IO has them.
func talker(t *testing.T, name string) *instance {
	var mu sync.Mutex
	known := map[string]bool{}
	return newInstance(t, name, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		mu.Lock()
		defer mu.Unlock()
		switch sid := q.Get("sid"); {
		case q.Get("EIO") == "":
			io.WriteString(w, name)
		case sid == "":
			sid = fmt.Sprint(name, "-", len(known))
			known[sid] = true
			io.WriteString(w, `0{"sid":"`+sid+`"}`)
		case known[sid]:
			io.WriteString(w, name)
		default:
			w.WriteHeader(400)
			io.WriteString(w, `{"code":1,"message":"Session ID unknown"}`)
		}
	})
}

// begin begins sessions.
func (h *house) begin(n int) (sids []string) {
	h.t.Helper()
	for range n {
		_, body := h.get("/?EIO=4&transport=polling")
		sid, ok := strings.CutPrefix(body, `0{"sid":"`)
		if !ok {
			h.t.Fatal(body)
		}
		sids = append(sids, strings.TrimSuffix(sid, `"}`))
	}
	return sids
}

// found asks for sessions, and wants no more than an attempt for each.
func (h *house) found(when string, sids []string) {
	h.t.Helper()
	attempts := func() (n uint64) {
		for _, b := range h.Status().Pools[0].Backends {
			n += b.Retries
		}
		return n
	}
	before := attempts()
	for _, sid := range sids {
		if code, body := h.get("/?EIO=4&transport=polling&sid=" + sid); code != 200 || !strings.HasPrefix(sid, body+"-") {
			h.t.Errorf("%s: session %s: %d %s", when, sid, code, body)
		}
	}
	if n := attempts() - before; n > 0 {
		h.t.Errorf("%s: sessions were looked for, in %d attempts", when, n)
	}
}

// TestSessionsOutlive holds that sessions of Socket.IO are known after a reload that changes their table, and after a
// restart.
func TestSessionsOutlive(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("STATE_DIRECTORY", dir)
	a, b, c := talker(t, "a"), talker(t, "b"), talker(t, "c")
	text := pools(a.addr, b.addr, c.addr) + kept
	h := start(t, text)
	sids := h.begin(60)
	h.found("at first", sids)
	h.reloadTo(text + "affinity = { sessions = 1024, ttl = \"1h\" }\n")
	h.found("after a reload", sids)
	h.reloadTo(text + "strategy = \"ewma\"\n")
	h.found("after another", sids)
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.state"))
	if len(files) != 1 {
		t.Fatalf("kept for the next process: %v", files)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	h = start(t, text)
	h.found("after a restart", sids)
	if _, err := os.Stat(files[0]); err == nil {
		t.Error("what was kept is still there: it is old now")
	}
	// What makes no sense is no reason not to start.
	h.stop()
	if err := os.WriteFile(files[0], []byte("lb affinity 1\nnonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	h = start(t, text)
	if !strings.Contains(h.events.String(), "what was known of sessions is lost") {
		t.Error("nothing is said about it")
	}
	h.found("nobody knows them, but the budget of retries finds a few", nil)
}

// TestRebalance adds an instance to two that have all WebSockets.
func TestRebalance(t *testing.T) {
	a, b, c := sockets(t, "a"), sockets(t, "b"), sockets(t, "c")
	h := start(t, pools(a.addr, b.addr)+kept+"affinity = { rebalance = 20 }\n")
	for range 20 {
		h.tunnel()
	}
	tunnels := func() (all []int64) {
		for _, b := range h.Status().Pools[0].Backends {
			all = append(all, b.Tunnels)
		}
		return all
	}
	waitFor(t, "the tunnels", func() bool { return slices.Equal(tunnels(), []int64{10, 10}) })
	p := h.pool("app")
	h.rebalance(p, time.Minute)
	if got := p.owed; len(got) > 0 {
		t.Errorf("equals owe each other %v", got)
	}
	h.reloadTo(pools(a.addr, b.addr, c.addr) + kept + "affinity = { rebalance = 20 }\n")
	waitFor(t, "the new one", func() bool { return len(h.pool("app").Snapshot().Ready) == 3 })
	// A fifth of ten in a minute, of each of the two: by loops, so that one more or less may be meant.
	h.rebalance(h.pool("app"), time.Minute)
	waitFor(t, "some to go", func() bool {
		got := tunnels()
		return got[0] < 10 && got[1] < 10
	})
	for range 3 {
		h.rebalance(h.pool("app"), time.Millisecond)
	}
	if got := tunnels(); got[0] < 6 || got[1] < 6 {
		t.Errorf("more went than may: %v", got)
	}
	// In time all that are too much go, and no more.
	for range 2 {
		before := tunnels()
		h.rebalance(h.pool("app"), time.Minute)
		waitFor(t, "the next", func() bool {
			now := tunnels()
			return !slices.Equal(now, before) || float64(now[0]) <= max(slack*float64(now[0]+now[1])/3, float64(now[0]+now[1])/3+1)
		})
	}
	if got := tunnels(); got[2] != 0 {
		t.Errorf("somebody came back: %v", got)
	}
}
