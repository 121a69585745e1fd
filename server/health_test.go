package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lb/admin"
	"lb/upstream"
)

// instance is a process of an app that can end and begin again on its port. Like an old Node, it does not close idle
// connections when it stops listening.
type instance struct {
	t       *testing.T
	name    string
	addr    string
	handler http.HandlerFunc
	srv     *http.Server
	open    atomic.Int64 // connections
	asked   atomic.Int64 // requests
}

// newInstance begins one that answers with its name, or as h does.
func newInstance(t *testing.T, name string, h http.HandlerFunc) *instance {
	t.Helper()
	i := &instance{t: t, name: name, addr: "127.0.0.1:0", handler: h}
	if h == nil {
		i.handler = func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name) }
	}
	i.begin()
	t.Cleanup(func() { i.srv.Close() })
	return i
}

func (i *instance) begin() {
	i.t.Helper()
	var ln net.Listener
	var err error
	waitFor(i.t, "the port of "+i.name, func() bool {
		ln, err = plainListen("tcp", i.addr)
		return err == nil
	})
	i.addr = ln.Addr().String()
	i.srv = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.URL.Path, "/health") {
				i.asked.Add(1)
			}
			i.handler(w, r)
		}),
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				i.open.Add(1)
			case http.StateClosed, http.StateHijacked:
				i.open.Add(-1)
			}
		},
	}
	go i.srv.Serve(ln)
}

// die ends the process: nobody listens, connections are cut.
func (i *instance) die() { i.srv.Close() }

// health is what /status says about a backend.
func (h *house) health(name string) admin.Backend {
	h.t.Helper()
	for _, p := range h.Status().Pools {
		for _, b := range p.Backends {
			if b.Name == name {
				return b
			}
		}
	}
	h.t.Fatalf("no backend %s", name)
	return admin.Backend{}
}

func (h *house) awaitState(name string, want admin.State) {
	h.t.Helper()
	waitFor(h.t, name+" to be "+string(want), func() bool { return h.health(name).State == want })
}

// rare is active checks that find out nothing in the time of a test, unless there is a reason to look.
const rare = "health = { interval = \"1h\", changing = \"10ms\", down = \"10ms\" }\nslow_start = \"off\"\n"

func TestBackendDies(t *testing.T) {
	a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
	h := start(t, pools(a.addr, b.addr)+rare)
	l := h.load(4)
	waitFor(t, "traffic to both", func() bool { return a.asked.Load() > 20 && b.asked.Load() > 20 })
	b.die()
	h.awaitState(b.addr, admin.Down)
	if got := h.health(b.addr); got.Why == "" || got.Until == nil {
		t.Errorf("status: %+v", got)
	}
	before := l.answered()
	waitFor(t, "traffic to the other", func() bool { return l.answered() > before+100 })
	if code, body := h.admin("/-/ready"); code != 200 {
		t.Errorf("ready: %d %q", code, body)
	}

	b.begin()
	h.awaitState(b.addr, admin.Ready)
	n := b.asked.Load()
	waitFor(t, "traffic to who came back", func() bool { return b.asked.Load() > n+20 })
	l.end(t)

	_, body := h.admin("/events")
	var all []admin.Event
	if err := json.Unmarshal([]byte(body), &all); err != nil {
		t.Fatal(err)
	}
	var seen []string
	for _, e := range all {
		if e.Backend == b.addr {
			seen = append(seen, e.Event+" "+e.Why)
		}
	}
	if !slices.Contains(seen, "ejected connection refused") || !slices.ContainsFunc(seen, func(s string) bool { return strings.HasPrefix(s, "returned ") }) {
		t.Errorf("events: %q", seen)
	}
	if !strings.Contains(h.events.String(), `msg="backend is ejected"`) {
		t.Errorf("log:\n%s", h.events)
	}
	if _, m := h.admin("/metrics"); !strings.Contains(m, `lb_backend_ejections_total{backend="`+b.addr+`",pool="app"} 1`) {
		t.Error("no ejection in the metrics")
	}
}

// TestActiveChecks has a backend say that it is not well, while all its requests succeed.
func TestActiveChecks(t *testing.T) {
	var sick atomic.Int64
	a := newInstance(t, "a", nil)
	b := newInstance(t, "b", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" && r.Header.Get("X-Check") == "1" && r.Host == "app.test" {
			switch sick.Load() {
			case 1:
				w.WriteHeader(500)
			case 2:
				w.Header().Set("X-LB-Drain", "1")
				w.WriteHeader(503)
			}
		}
		fmt.Fprint(w, "b")
	})
	h := start(t, pools(a.addr, b.addr)+`slow_start = "off"
[pool.app.health]
path = "/health"
host = "app.test"
headers = { X-Check = "1" }
interval = "10ms"
changing = "10ms"
down = "10ms"
fall = 2
`)
	h.awaitState(b.addr, admin.Ready)
	for state, word := range map[int64]admin.State{1: admin.Down, 2: admin.Draining} {
		sick.Store(state)
		h.awaitState(b.addr, word)
		waitFor(t, "the streak", func() bool { c := h.health(b.addr).Check; return c.Streak > 3 && c.Passed == (state == 2) })
		n := b.asked.Load()
		for range 10 {
			if _, who := h.get("/"); who != "a" {
				t.Fatalf("%s answered, %s", who, word)
			}
		}
		if b.asked.Load() != n {
			t.Errorf("requests to one that is %s", word)
		}
		if said := h.health(b.addr).Check.Said; said == "" {
			t.Error("the status does not say why")
		}
		sick.Store(0)
		h.awaitState(b.addr, admin.Ready)
	}
}

// TestNobodyBeforeTheFirstCheck has a backend join that does not answer its check.
func TestNobodyBeforeTheFirstCheck(t *testing.T) {
	ok := make(chan struct{})
	a := newInstance(t, "a", nil)
	b := newInstance(t, "b", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			select {
			case <-ok:
			case <-r.Context().Done():
			}
		}
		fmt.Fprint(w, "b")
	})
	keys := "slow_start = \"off\"\nhealth = { path = \"/health\", timeout = \"1m\" }\n"
	h := start(t, pools(a.addr)+keys)
	h.reloadTo(pools(a.addr, b.addr) + keys)
	if got := h.health(b.addr).State; got != admin.Unchecked {
		t.Errorf("state %s", got)
	}
	for range 20 {
		h.get("/")
	}
	if n := b.asked.Load(); n > 0 {
		t.Errorf("%d requests before the first check", n)
	}
	close(ok)
	h.awaitState(b.addr, admin.Ready)
	waitFor(t, "requests", func() bool { h.get("/"); return b.asked.Load() > 0 })
}

// TestAwaitChecks begins with a backend that is not there: the first request does not find that out.
func TestAwaitChecks(t *testing.T) {
	a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
	b.die()
	h := start(t, pools(a.addr, b.addr))
	if got := h.health(b.addr); got.State != admin.Down {
		t.Errorf("%+v", got)
	}
	for range 5 {
		if code, who := h.get("/"); code != 200 || who != "a" {
			t.Errorf("%d %q", code, who)
		}
	}
	if n := h.health(b.addr).Requests; n != 0 {
		t.Errorf("%d attempts at it", n)
	}
}

// TestHold has the only instance restart: requests wait for it, and are served in the order in which they came.
func TestHold(t *testing.T) {
	var mu sync.Mutex
	var served []string
	a := newInstance(t, "a", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		served = append(served, r.URL.Path)
	})
	h := start(t, pools(a.addr)+rare+"hold = \"20s\"\nmax_inflight = 1\n[server]\nworkers = 1\n")
	a.die()
	const n = 30
	var want []string
	answers := make(chan int, n)
	for i := range n {
		path := fmt.Sprintf("/%d", i)
		want = append(want, path)
		go func() {
			res, err := h.client.Get(h.url + path)
			if err != nil {
				answers <- 0
				return
			}
			res.Body.Close()
			answers <- res.StatusCode
		}()
		waitFor(t, "the request to wait", func() bool { return h.Status().Pools[0].Queue.Waiting == int64(i+1) })
	}
	if code, body := h.admin("/-/ready"); code != 503 {
		t.Errorf("ready: %d %q", code, body)
	}
	a.begin()
	for range n {
		if code := <-answers; code != 200 {
			t.Fatalf("status %d", code)
		}
	}
	if !slices.Equal(served, want) {
		t.Errorf("out of order: %v", served)
	}
	if q := h.Status().Pools[0].Queue; q.Waits < n || q.Timeouts != 0 || q.Full != 0 || q.Mean <= 0 {
		t.Errorf("%+v", q)
	}
}

// TestQueue fills all places and the queue: what is beyond is told at once to come back later.
func TestQueue(t *testing.T) {
	const places, queue, all = 3, 4, 30
	release := make(chan struct{})
	var inside, most [2]atomic.Int64
	serve := func(i int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			n := inside[i].Add(1)
			for m := most[i].Load(); n > m && !most[i].CompareAndSwap(m, n); m = most[i].Load() {
			}
			<-release
			inside[i].Add(-1)
		}
	}
	a, b := newInstance(t, "a", serve(0)), newInstance(t, "b", serve(1))
	h := start(t, pools(a.addr, b.addr)+fmt.Sprintf("max_inflight = %d\nqueue = %d\nqueue_timeout = \"1m\"\n", places, queue))
	var ok, refused atomic.Int64
	var clients sync.WaitGroup
	for range all {
		clients.Go(func() {
			res, err := h.client.Get(h.url)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			io.Copy(io.Discard, res.Body)
			switch {
			case res.StatusCode == 200:
				ok.Add(1)
			case res.StatusCode == 503 && res.Header.Get("Retry-After") != "":
				refused.Add(1)
			default:
				t.Errorf("%s %v", res.Status, res.Header)
			}
		})
	}
	waitFor(t, "those beyond to be refused", func() bool { return refused.Load() == all-2*places-queue })
	waitFor(t, "all places to be taken", func() bool { return inside[0].Load() == places && inside[1].Load() == places })
	if n := h.Status().Pools[0].Queue.Waiting; n != queue {
		t.Errorf("%d wait", n)
	}
	close(release)
	clients.Wait()
	if n := ok.Load(); n != 2*places+queue {
		t.Errorf("%d were served", n)
	}
	for i := range most {
		if n := most[i].Load(); n != places {
			t.Errorf("up to %d at a time", n)
		}
	}
	if q := h.Status().Pools[0].Queue; q.Full != all-2*places-queue || q.Waiting != 0 {
		t.Errorf("%+v", q)
	}
}

// TestSlowStart counts what a backend gets that has come back.
func TestSlowStart(t *testing.T) {
	for keys, bounds := range map[string][2]int64{"slow_start = \"1h\"\n": {1, 120}, "slow_start = \"off\"\n": {180, 220}} {
		a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
		h := start(t, pools(a.addr, b.addr)+"strategy = \"round_robin\"\n"+strings.Replace(rare, "slow_start = \"off\"\n", keys, 1))
		b.die()
		waitFor(t, "it to be missed", func() bool { h.get("/"); return h.health(b.addr).State == admin.Down })
		b.begin()
		h.awaitState(b.addr, admin.Ready)
		n := b.asked.Load()
		for range 400 {
			h.get("/")
		}
		if n := b.asked.Load() - n; n < bounds[0] || n > bounds[1] {
			t.Errorf("%sgets %d of 400, want %d to %d", keys, n, bounds[0], bounds[1])
		}
	}
}

func TestReloadKeepsHealth(t *testing.T) {
	a, b, c := newInstance(t, "a", nil), newInstance(t, "b", nil), newInstance(t, "c", nil)
	keys := strings.Replace(rare, `down = "10ms"`, `down = "1h"`, 1)
	h := start(t, pools(a.addr, b.addr, c.addr)+keys)
	p := h.pool("app")
	b.die()
	// As active checks would after a while, which here they do not get.
	p.SetProbed(h.backend("app", b.addr), upstream.Down)
	if _, err := h.Drain(t.Context(), "app", c.addr); err != nil {
		t.Fatal(err)
	}
	checked := h.health(a.addr).Check
	for _, keys := range []string{keys + "retries = 1\n", keys + "strategy = \"ewma\"\n", keys + "ejection.faults = 7\n"} {
		h.reloadTo(pools(c.addr, b.addr, a.addr) + keys)
		for name, want := range map[string]admin.State{a.addr: admin.Ready, b.addr: admin.Down, c.addr: admin.Draining} {
			if got := h.health(name).State; got != want {
				t.Errorf("%s is %s after a reload, want %s", name, got, want)
			}
		}
	}
	if got := h.health(a.addr).Check; got == nil || checked == nil || *got != *checked {
		t.Errorf("checks begin anew: %+v, was %+v", got, checked)
	}
	for range 10 {
		if code, who := h.get("/"); code != 200 || who != "a" {
			t.Errorf("%d %q", code, who)
		}
	}
	// Another check is asked at once.
	h.reloadTo(pools(c.addr, b.addr, a.addr) + strings.Replace(keys, `interval = "1h"`, `interval = "30m"`, 1))
	waitFor(t, "the new check", func() bool { return h.health(a.addr).Check.Time.After(checked.Time) })
	// A pool that is gone is asked no more, and one of another name is asked.
	h.reloadTo(strings.Replace(pools(a.addr), "pool.app", "pool.other", 1) + keys)
	waitFor(t, "checks of the other pool", func() bool { return h.health(a.addr).Check != nil })
	h.checks.mu.Lock()
	if n := len(h.checks.of); n != 1 {
		t.Errorf("%d monitors", n)
	}
	h.checks.mu.Unlock()
}

func TestStopPause(t *testing.T) {
	a := newInstance(t, "a", nil)
	h := start(t, pools(a.addr)+"[server]\nstop_pause = \"1h\"\n")
	h.end()
	waitFor(t, "not ready", func() bool { code, _ := h.admin("/-/ready"); return code == 503 })
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 3 { // on new connections
		res, err := c.Get(h.url)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Error(res.Status)
		}
	}
	h.Cut()
	<-h.ended
	if _, err := c.Get(h.url); err == nil {
		t.Error("takes connections after the stop")
	}
}

func TestEvents(t *testing.T) {
	var r events
	if got := r.list(); got == nil || len(got) != 0 {
		t.Errorf("%v", got)
	}
	for i := range 450 {
		r.add(time.Unix(int64(i), 0), "app", fmt.Sprint(i), "up", "", time.Time{})
		got := r.list()
		if want := min(i+1, 200); len(got) != want || got[want-1].Backend != fmt.Sprint(i) || got[0].Backend != fmt.Sprint(i+1-want) {
			t.Fatalf("after %d: %d, from %s to %s", i, len(got), got[0].Backend, got[len(got)-1].Backend)
		}
	}
}
