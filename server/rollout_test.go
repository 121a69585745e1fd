package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lb/admin"
	"lb/upstream"
	"lb/upstream/upstreamtest"
)

// holding is a rollout under way.
type holding struct {
	*house
	id     string
	hangUp context.CancelFunc
	ended  chan error
}

func (h *house) holds(o admin.RolloutOrder) *holding {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &holding{house: h, hangUp: cancel, ended: make(chan error, 1)}
	begun := make(chan admin.Rollout, 1)
	go func() { r.ended <- h.holdRollout(ctx, o, func(b admin.Rollout) { begun <- b }) }()
	h.t.Cleanup(cancel)
	select {
	case b := <-begun:
		r.id = b.ID
	case err := <-r.ended:
		h.t.Fatal(err)
	}
	return r
}

func (r *holding) drains(name string) admin.RolloutDrained {
	r.t.Helper()
	d, err := r.rolloutDrain(within(r.t), r.id, name)
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

func (r *holding) out() map[string]string {
	r.t.Helper()
	v, err := r.viewRollout(r.id)
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]string{}
	for _, b := range v.Backends {
		if b.Out != "" {
			out[b.Name] = b.Out
		}
	}
	return out
}

func (r *holding) is(want map[string]string) {
	r.t.Helper()
	if got := r.out(); !maps.Equal(got, want) {
		r.t.Errorf("out is %v, want %v", got, want)
	}
}

// TestRollout is a rollout under load, as `lb rollout` carries it out.
func TestRollout(t *testing.T) {
	a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
	h := start(t, pools(a.addr, b.addr)+rare)
	l := h.load(8)
	r := h.holds(admin.RolloutOrder{Pool: "app", Who: "me"})
	for _, i := range []*instance{a, b} {
		waitFor(t, "traffic to both", func() bool { return a.open.Load() > 0 && b.open.Load() > 0 })
		if d := r.drains(i.addr); !d.Empty || d.Others != 1 {
			t.Errorf("%+v", d)
		}
		r.is(map[string]string{i.addr: admin.OutDraining})
		n := i.asked.Load()
		before, err := r.rolloutRestart(within(t), r.id, i.addr)
		if err != nil || runtime.GOOS == "linux" && before == "" {
			t.Fatalf("%q %v", before, err)
		}
		r.is(map[string]string{i.addr: admin.OutRestarting})
		if got := h.health(i.addr).Why; got != "a rollout restarts it" {
			t.Errorf("why is %q", got)
		}
		i.die()
		// While nobody listens there, and while the old process goes on, it is not well.
		short, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		c, err := r.rolloutCheck(short, r.id, i.addr, before)
		cancel()
		if err != nil || c.Passed || c.Listen != 0 || !strings.Contains(c.Said, "refused") {
			t.Errorf("%+v %v", c, err)
		}
		i.begin()
		if c, err = r.rolloutCheck(within(t), r.id, i.addr, before); err != nil || !c.Passed || c.Checks < 2 || c.Listen == 0 || c.Took < c.Listen || c.Same {
			t.Errorf("%+v %v", c, err)
		}
		if got := i.asked.Load(); got != n {
			t.Errorf("%d requests while it was out", got-n)
		}
		if err := r.rolloutReady(context.Background(), r.id, i.addr); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "traffic to who is back", func() bool { return i.asked.Load() > n+10 })
		r.is(map[string]string{})
	}
	l.end(t)
	v, err := r.viewRollout(r.id)
	if err != nil || v.Totals.Requests < 20 || v.Totals.Lost() != 0 || v.Totals.Errors != 0 || len(v.Backends) != 2 || v.Rise != 2 {
		t.Errorf("%+v %v", v, err)
	}
	for _, x := range v.Backends {
		var n int64
		for _, cell := range x.Latency {
			n += cell[1]
		}
		if x.State != admin.Ready || x.Requests == 0 || uint64(n) != x.Requests || x.Errors != 0 || x.Weight != 1 {
			t.Errorf("%+v", x)
		}
	}
	if err := h.rolloutEnd(within(t), r.id); err != nil {
		t.Error(err)
	}
	if got := h.listRollouts(); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if _, err := h.viewRollout(r.id); !errors.Is(err, admin.ErrRolloutOver) {
		t.Errorf("%v", err)
	}
}

// TestRolloutSameProcess holds that the old process does not pass for the new one.
func TestRolloutSameProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux says who listens")
	}
	a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
	h := start(t, pools(a.addr, b.addr)+rare)
	r := h.holds(admin.RolloutOrder{Pool: "app"})
	r.drains(a.addr)
	before, err := r.rolloutRestart(within(t), r.id, a.addr)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if c, err := r.rolloutCheck(short, r.id, a.addr, before); err != nil || c.Passed || !c.Same || c.Listen != 0 {
		t.Errorf("%+v %v", c, err)
	}
	if c, err := r.rolloutCheck(within(t), r.id, a.addr, ""); err != nil || !c.Passed { // --in-place
		t.Errorf("%+v %v", c, err)
	}
}

// TestRolloutEnds holds what becomes of what is out when whoever carried the rollout out is gone.
func TestRolloutEnds(t *testing.T) {
	var all []*instance
	var addrs []string
	var sick atomic.Bool
	for i := range 4 {
		n := newInstance(t, fmt.Sprint(i), func(w http.ResponseWriter, r *http.Request) {
			if sick.Load() && r.URL.Path == "/health" {
				w.WriteHeader(503)
			}
		})
		all, addrs = append(all, n), append(addrs, n.addr)
	}
	h := start(t, pools(addrs...)+"slow_start = \"off\"\nhealth = { path = \"/health\", interval = \"1h\", changing = \"10ms\", down = \"10ms\" }\n")
	r := h.holds(admin.RolloutOrder{Pool: "app"})
	for _, i := range all[:3] {
		r.drains(i.addr)
	}
	if _, err := r.rolloutRestart(within(t), r.id, addrs[1]); err != nil {
		t.Fatal(err)
	}
	if err := r.rolloutBad(context.Background(), r.id, addrs[2], "it is bad"); err != nil {
		t.Fatal(err)
	}
	r.is(map[string]string{addrs[0]: admin.OutDraining, addrs[1]: admin.OutRestarting, addrs[2]: admin.OutBad})
	sick.Store(true) // the one that was being restarted has yet to become well
	r.hangUp()
	<-r.ended
	h.awaitState(addrs[0], admin.Ready)
	h.awaitState(addrs[1], admin.Down)
	if st := h.health(addrs[2]); st.State != admin.Draining || st.Why != "left out by a rollout: it is bad" {
		t.Errorf("%+v", st)
	}
	sick.Store(false)
	h.awaitState(addrs[1], admin.Ready)

	// The next one knows that it was bad, and whose drain is another's.
	if _, err := h.Drain(within(t), "app", addrs[3]); err != nil {
		t.Fatal(err)
	}
	r = h.holds(admin.RolloutOrder{Pool: "app"})
	r.is(map[string]string{addrs[2]: admin.OutBad, addrs[3]: admin.OutOther})
	if _, err := r.rolloutDrain(within(t), r.id, addrs[3]); !errors.Is(err, admin.ErrNotOut) {
		t.Errorf("somebody else's: %v", err)
	}
	r.drains(addrs[2])
	r.is(map[string]string{addrs[2]: admin.OutDraining, addrs[3]: admin.OutOther})
	// Taken back by a person, it is no longer the rollout's.
	if _, err := h.TakeBack(within(t), "app", addrs[2], false); err != nil {
		t.Fatal(err)
	}
	if _, err := r.rolloutRestart(within(t), r.id, addrs[2]); !errors.Is(err, admin.ErrNotOut) {
		t.Errorf("%v", err)
	}
	if err := r.rolloutReady(within(t), r.id, addrs[2]); !errors.Is(err, admin.ErrNotOut) {
		t.Errorf("%v", err)
	}
	if err := r.rolloutBad(within(t), r.id, addrs[2], ""); !errors.Is(err, admin.ErrNotOut) {
		t.Errorf("%v", err)
	}
	if _, err := r.rolloutCheck(within(t), r.id, addrs[2], ""); !errors.Is(err, admin.ErrNotOut) {
		t.Errorf("%v", err)
	}
}

// A rollout ends while somebody takes back what it has out: whoever is first, the backend is in use, and lb goes on
// answering for its rollouts.
func TestRolloutEndsAsOneIsTakenBack(t *testing.T) {
	a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
	h := start(t, pools(a.addr, b.addr)+rare)
	live := h.backend("app", a.addr).Live
	h.events.mu.Lock()
	h.events.told = func(line string) {
		if strings.Contains(line, "rollout is over") {
			h.rollouts.forget(live) // as whoever takes it back does first
		}
	}
	h.events.mu.Unlock()
	for range 100 {
		r := h.holds(admin.RolloutOrder{Pool: "app"})
		r.drains(a.addr)
		back := make(chan error, 1)
		go func() {
			_, err := h.TakeBack(within(t), "app", a.addr, true)
			back <- err
		}()
		r.hangUp()
		<-r.ended
		if err := <-back; err != nil {
			t.Fatal(err)
		}
		if got := h.health(a.addr).State; got != admin.Ready {
			t.Fatalf("it is %s", got)
		}
	}
}

// TestRolloutRefuses holds what a rollout may not do.
func TestRolloutRefuses(t *testing.T) {
	a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
	h := start(t, pools(a.addr, b.addr)+rare)
	try := func(o admin.RolloutOrder) error {
		return h.holdRollout(context.Background(), o, func(admin.Rollout) { t.Error("it began") })
	}
	if err := try(admin.RolloutOrder{Pool: "ap"}); !errors.Is(err, admin.ErrUnknown) {
		t.Errorf("%v", err)
	}
	r := h.holds(admin.RolloutOrder{Pool: "app", Who: "ann"})
	if err := try(admin.RolloutOrder{Pool: "app"}); !errors.Is(err, admin.ErrRolloutRuns) || !strings.Contains(err.Error(), "by ann, since ") {
		t.Errorf("%v", err)
	}
	r.drains(a.addr)
	if _, err := r.rolloutDrain(within(t), r.id, b.addr); !errors.Is(err, admin.ErrLastReady) {
		t.Errorf("the last one: %v", err)
	}
	if got := h.health(b.addr).State; got != admin.Ready {
		t.Errorf("the last one is %s", got)
	}
	if _, err := r.rolloutDrain(within(t), r.id, "c"); !errors.Is(err, admin.ErrUnknown) {
		t.Errorf("%v", err)
	}
	if _, err := r.rolloutDrain(within(t), "x", a.addr); !errors.Is(err, admin.ErrRolloutOver) {
		t.Errorf("%v", err)
	}
	r.hangUp()
	<-r.ended
	h.stop()
	if err := try(admin.RolloutOrder{Pool: "app"}); !errors.Is(err, admin.ErrNotNow) {
		t.Errorf("after the stop: %v", err)
	}
}

// TestRolloutTakesOutWhatIsDown: the only backend of a pool may be restarted when it serves nobody.
func TestRolloutTakesOutWhatIsDown(t *testing.T) {
	a := newInstance(t, "a", nil)
	h := start(t, pools(a.addr)+"health = { interval = \"20ms\", changing = \"10ms\" }\n")
	a.die()
	h.awaitState(a.addr, admin.Down)
	r := h.holds(admin.RolloutOrder{Pool: "app"})
	r.drains(a.addr)
}

// TestRolloutGoesOn holds that a rollout survives reloads, and that another lb can be told where one was.
func TestRolloutGoesOn(t *testing.T) {
	a, b, c := newInstance(t, "a", nil), newInstance(t, "b", nil), newInstance(t, "c", nil)
	h := start(t, pools(a.addr, b.addr, c.addr)+rare)
	r := h.holds(admin.RolloutOrder{Pool: "app", Out: map[string]string{a.addr: admin.OutRestarting, b.addr: admin.OutBad, "gone": admin.OutDraining}})
	r.is(map[string]string{a.addr: admin.OutRestarting, b.addr: admin.OutBad})
	h.reloadTo(pools(a.addr, b.addr, c.addr) + rare + "retries = 1\n")
	r.is(map[string]string{a.addr: admin.OutRestarting, b.addr: admin.OutBad})
	if c, err := r.rolloutCheck(within(t), r.id, a.addr, ""); err != nil || !c.Passed {
		t.Errorf("%+v %v", c, err)
	}
	// It leaves the pool while it is waited for.
	done := make(chan error, 1)
	b.die()
	r.rolloutReady(context.Background(), r.id, a.addr)
	r.drains(b.addr)
	go func() {
		_, err := r.rolloutCheck(within(t), r.id, b.addr, "")
		done <- err
	}()
	h.reloadTo(pools(a.addr, c.addr) + rare)
	if err := <-done; !errors.Is(err, admin.ErrNotOut) && !errors.Is(err, admin.ErrUnknown) {
		t.Errorf("%v", err)
	}
	if _, err := r.rolloutDrain(within(t), r.id, b.addr); !errors.Is(err, admin.ErrUnknown) {
		t.Errorf("%v", err)
	}
	r.drains(a.addr)
	h.end() // lb stops: what is out stays so
	if err := <-r.ended; err != nil {
		t.Errorf("%v", err)
	}
	if got := h.health(a.addr).State; got != admin.Draining {
		t.Errorf("it is %s", got)
	}
}

// TestRolloutBadIsHandedOver holds that an upgrade keeps what a rollout said of a backend: it stays out, the status says
// why, and the next rollout may begin with it.
func TestRolloutBadIsHandedOver(t *testing.T) {
	a, b, c := newInstance(t, "a", nil), newInstance(t, "b", nil), newInstance(t, "c", nil)
	text := pools(a.addr, b.addr, c.addr) + rare
	old := start(t, text)
	r := old.holds(admin.RolloutOrder{Pool: "app"})
	r.drains(a.addr)
	if err := r.rolloutBad(context.Background(), r.id, a.addr, "its command failed"); err != nil {
		t.Fatal(err)
	}
	r.hangUp()
	<-r.ended
	if _, err := old.Drain(within(t), "app", b.addr); err != nil {
		t.Fatal(err)
	}
	told, err := json.Marshal(old.stateNow())
	if err != nil {
		t.Fatal(err)
	}
	var st state
	if err := json.Unmarshal(told, &st); err != nil {
		t.Fatal(err)
	}
	h := start(t, text)
	h.adopt(&st)
	if st := h.health(a.addr); st.State != admin.Draining || st.Why != "left out by a rollout: its command failed" {
		t.Errorf("%+v", st)
	}
	next := h.holds(admin.RolloutOrder{Pool: "app"})
	next.is(map[string]string{a.addr: admin.OutBad, b.addr: admin.OutOther})
	next.drains(a.addr)
	next.is(map[string]string{a.addr: admin.OutDraining, b.addr: admin.OutOther})
}

// TestRolloutCounts holds the proof against what was sent.
func TestRolloutCounts(t *testing.T) {
	gate := make(chan struct{})
	answer := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/fails":
			w.WriteHeader(500)
		case "/unready":
			w.WriteHeader(503)
		case "/cut":
			w.Header().Set("Content-Length", "10")
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			<-gate
			panic(http.ErrAbortHandler)
		}
	}
	a, b := newInstance(t, "a", answer), newInstance(t, "b", answer)
	h := start(t, pools(a.addr, b.addr)+rare+"ejection.faults = \"off\"\n")
	h.get("/") // before, so it does not count
	r := h.holds(admin.RolloutOrder{Pool: "app"})
	for _, path := range []string{"/", "/", "/fails", "/unready"} {
		h.get(path)
	}
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		if res, err := http.Get(h.url + "/cut"); err == nil {
			close(gate)
			res.Body.Read(make([]byte, 10))
			res.Body.Close()
		}
	}()
	<-cut
	var v admin.RolloutView
	waitFor(t, "all to be counted", func() bool {
		v, _ = r.viewRollout(r.id)
		return v.Totals.Lost() > 0
	})
	if got := v.Totals; got.Requests != 5 || got.Errors != 2 || !maps.Equal(got.Failed, map[string]uint64{"backend_cut": 1}) {
		t.Errorf("%+v", got)
	}
	var errs uint64
	for _, x := range v.Backends {
		errs += x.Errors
	}
	if errs != 3 { // 500, 503, and the answer that broke off
		t.Errorf("%d errors: %+v", errs, v.Backends)
	}
	a.die()
	b.die()
	h.awaitState(a.addr, admin.Ready) // nobody has noticed
	h.reloadTo(pools(a.addr, b.addr) + rare + "hold = \"off\"\nejection.faults = \"off\"\n")
	h.get("/")
	if v, _ = r.viewRollout(r.id); v.Totals.Requests != 6 || v.Totals.Lost() != 2 {
		t.Errorf("%+v", v.Totals)
	}
}

func TestProcessAt(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux says who listens")
	}
	dir := t.TempDir()
	for _, c := range []struct{ network, address string }{
		{"tcp4", "127.0.0.1:0"}, {"tcp4", "0.0.0.0:0"}, {"tcp", ":0"}, {"tcp6", "[::1]:0"}, {"unix", filepath.Join(dir, "s")},
	} {
		ln, err := net.Listen(c.network, c.address)
		if err != nil {
			if c.network == "tcp6" {
				t.Logf("no IPv6 here: %v", err)
				continue
			}
			t.Fatal(err)
		}
		at := "unix:" + c.address
		if tcp, ok := ln.Addr().(*net.TCPAddr); ok {
			at = fmt.Sprintf("127.0.0.1:%d", tcp.Port)
			if c.network == "tcp6" {
				at = fmt.Sprintf("[::1]:%d", tcp.Port)
			}
		}
		addr, err := upstream.ParseAddr(at)
		if err != nil {
			t.Fatal(err)
		}
		before := processAt(addr)
		if len(before.sockets) != 1 {
			t.Errorf("%v: %+v", c, before)
		}
		if c.network != "unix" {
			byName, _ := upstream.ParseAddr(fmt.Sprintf("localhost:%d", addr.AddrPort.Port()))
			if got := processAt(byName); got.String() != before.String() {
				t.Errorf("%v: as localhost %+v, want %+v", c, got, before)
			}
		}
		if again := parseProcess(before.String()); !slices.Equal(again.sockets, before.sockets) || !slices.Equal(again.holders, before.holders) {
			t.Errorf("%q: %+v, was %+v", before, again, before)
		}
		if !before.stillAt(addr) {
			t.Errorf("%v: it is still there", c)
		}
		taken := ln.Addr().String()
		ln.Close()
		os.Remove(taken)
		if before.stillAt(addr) || len(processAt(addr).sockets) != 0 {
			t.Errorf("%v: it has gone", c)
		}
		if ln, err = net.Listen(c.network, taken); err != nil {
			t.Fatal(err)
		}
		if before.stillAt(addr) || len(processAt(addr).sockets) != 1 {
			t.Errorf("%v: it is another one", c)
		}
		ln.Close()
	}
	remote, _ := upstream.ParseAddr("192.0.2.1:80")
	if got := processAt(remote); got.String() != "" || got.stillAt(remote) || parseProcess("").stillAt(remote) {
		t.Errorf("of another machine: %+v", got)
	}
	// Where the socket stays the same, it is the processes that tell; this one is left out of them.
	for _, c := range []struct {
		before, now []string
		still       bool
	}{{nil, nil, true}, {[]string{"1@5"}, nil, true}} {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr, _ := upstream.ParseAddr(ln.Addr().String())
		p := process{listeners(addr), c.before}
		if p.stillAt(addr) != c.still {
			t.Errorf("%+v", c)
		}
		ln.Close()
	}
}

// TestRolloutCountsTheParked: a long poll is a request that a restart would cut.
func TestRolloutCountsTheParked(t *testing.T) {
	addr, err := upstream.ParseAddr("127.0.0.1:3000")
	if err != nil {
		t.Fatal(err)
	}
	p := upstream.NewPool("app", 1, []upstream.Spec{{Name: "a", Addr: addr, Weight: 1}}, nil, upstreamtest.BuildInOrder)
	var sel upstream.Selection
	lease := func(now int64) upstream.Lease {
		t.Helper()
		sel.Reset(now, 0)
		l, err := p.Acquire(&sel)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	poll, later, work := lease(0), lease(1), lease(2)
	later.Done(upstream.Outcome{Now: 3, Status: 200, Latency: 1})
	if !poll.Park(2 * upstream.ParkAfter) {
		t.Fatal("it is not parked")
	}
	if x := rolloutBackend(p.Snapshot().All[0]); x.Inflight != 2 || x.Tunnels != 0 {
		t.Errorf("%d requests, %d tunnels", x.Inflight, x.Tunnels)
	}
	poll.Done(upstream.Outcome{Now: 4, Status: 200})
	work.Done(upstream.Outcome{Now: 4, Status: 200})
}
