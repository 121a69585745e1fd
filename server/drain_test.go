package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lb/admin"
)

// kept is a pool whose connections to backends stay open, so that only lb closes them.
const kept = rare + "idle_timeout = \"1h\"\n"

// within is a context that ends when something that should come at once does not.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestDrain takes one of two instances out under load, as a deploy does: its connections end without its doing, so that
// an old Node's server.close() returns, and no request fails.
func TestDrain(t *testing.T) {
	a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
	h := start(t, pools(a.addr, b.addr)+kept)
	l := h.load(8)
	for range 3 {
		waitFor(t, "connections to both", func() bool { return a.open.Load() > 0 && b.open.Load() > 0 })
		d, err := h.Drain(within(t), "app", b.addr)
		if err != nil || !d.Empty || d.Requests+d.Tunnels != 0 || d.Others != 1 || d.Backend != b.addr {
			t.Fatalf("%v %+v", err, d)
		}
		waitFor(t, "the connections to end", func() bool { return b.open.Load() == 0 })
		if got := h.health(b.addr).State; got != admin.Draining {
			t.Errorf("state %s", got)
		}
		before, n := l.answered(), b.asked.Load()
		b.die() // as it may now
		waitFor(t, "traffic to the other", func() bool { return l.answered() > before+100 })
		if got := b.asked.Load(); got != n {
			t.Errorf("%d requests after the drain", got-n)
		}
		b.begin()
		if _, err := h.TakeBack(within(t), "app", b.addr, false); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "traffic to who is taken back", func() bool { return b.asked.Load() > n+10 })
	}
	l.end(t)
}

// TestDrainWaits drains an instance that is at work.
func TestDrainWaits(t *testing.T) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	a := newInstance(t, "a", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			entered <- struct{}{}
			<-release
		}
		fmt.Fprint(w, "a")
	})
	h := start(t, pools(a.addr)+kept)
	got := make(chan string, 1)
	go func() {
		res, err := h.client.Get(h.url + "/slow")
		if err != nil {
			got <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		got <- string(b)
	}()
	<-entered
	short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if d, err := h.Drain(short, "app", a.addr); err != nil || d.Empty || d.Requests != 1 || d.Others != 0 {
		t.Errorf("%v %+v", err, d)
	}
	done := make(chan admin.Drained, 1)
	go func() {
		d, _ := h.Drain(within(t), "app", a.addr)
		done <- d
	}()
	close(release)
	if d := <-done; !d.Empty {
		t.Errorf("%+v", d)
	}
	if body := <-got; body != "a" {
		t.Errorf("the request that was waited for got %q", body)
	}
	waitFor(t, "its connection to end", func() bool { return a.open.Load() == 0 })
}

func TestDrainIsTakenBack(t *testing.T) {
	h, got := stuck(t, "")
	name := h.Status().Pools[0].Backends[0].Name
	done := make(chan error, 1)
	go func() {
		_, err := h.Drain(within(t), "app", name)
		done <- err
	}()
	h.awaitState(name, admin.Draining)
	if _, err := h.TakeBack(within(t), "app", name, false); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, admin.ErrTakenBack) {
		t.Errorf("Drain: %v", err)
	}
	if got := h.health(name).State; got != admin.Ready {
		t.Errorf("state %s", got)
	}
	h.Cut()
	h.stop()
	<-got
}

// TestDrainOfBoth has a person drain a backend that asked for it before: that it no longer asks does not take it back.
func TestDrainOfBoth(t *testing.T) {
	var leaves atomic.Bool
	a, b := newInstance(t, "a", nil), newInstance(t, "b", func(w http.ResponseWriter, r *http.Request) {
		if leaves.Load() && r.URL.Path == "/health" {
			w.Header().Set("X-LB-Drain", "1")
			w.WriteHeader(503)
		}
	})
	h := start(t, pools(a.addr, b.addr)+`slow_start = "off"
[pool.app.health]
path = "/health"
interval = "10ms"
changing = "10ms"
down = "10ms"
`)
	h.awaitState(b.addr, admin.Ready)
	leaves.Store(true)
	h.awaitState(b.addr, admin.Draining)
	if d, err := h.Drain(within(t), "app", b.addr); err != nil || !d.Empty {
		t.Fatal(d, err)
	}
	leaves.Store(false)
	waitFor(t, "checks that pass", func() bool { c := h.health(b.addr).Check; return c.Said == "" && c.Streak > 5 })
	if got := h.health(b.addr).State; got != admin.Draining {
		t.Errorf("state %s", got)
	}
	if _, err := h.TakeBack(within(t), "app", b.addr, false); err != nil {
		t.Fatal(err)
	}
	h.awaitState(b.addr, admin.Ready)
}

// TestDrainByPort holds that a port is enough where it is that of one backend, and never goes before a name.
func TestDrainByPort(t *testing.T) {
	h := start(t, `[pool.app]
backends = [{address = "127.0.0.1:3001"}, {address = "[::1]:3002", name = "two"}, {address = "127.0.0.1:3002", name = "3001"},
  {address = "127.0.0.1:3004"}, {address = "unix:/nowhere:3005"}]
[pool.app.health]
interval = "1h"
`)
	for backend, want := range map[string]string{"3004": "127.0.0.1:3004", "3001": "3001", "[::1]:3002": "two"} {
		if d, err := h.Drain(within(t), "app", backend); err != nil || d.Backend != want {
			t.Errorf("%s: %+v %v, want %s", backend, d, err, want)
		}
	}
	for backend, want := range map[string]string{
		"3002":  `backend "3002" of pool "app" is not known: port 3002 is that of two, 3001`,
		"3005":  `backend "3005" of pool "app" is not known`,
		"69540": `backend "69540" of pool "app" is not known`, // 3004, and 65536 more
	} {
		if _, err := h.Drain(within(t), "app", backend); !errors.Is(err, admin.ErrUnknown) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", backend, err, want)
		}
	}
}

func TestDrainOfNobody(t *testing.T) {
	h := start(t, pools(app(t, "a")))
	for want, c := range map[string][2]string{
		`pool "ap" is not known, did you mean "app"?`:        {"ap", "a"},
		`backend "a" of pool "app" is not known; there is 1`: {"app", "a"},
	} {
		_, err := h.Drain(t.Context(), c[0], c[1])
		if !errors.Is(err, admin.ErrUnknown) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if _, back := h.TakeBack(t.Context(), c[0], c[1], false); back == nil || back.Error() != err.Error() {
			t.Errorf("%v, want %v", back, err)
		}
	}
	var names []string
	for i := range 10 {
		names = append(names, fmt.Sprint(i))
	}
	if got := some(names); strings.Contains(got, "more") {
		t.Error(got)
	}
	if got := some(append(names, "10")); !strings.HasSuffix(got, "8 and 2 more") {
		t.Error(got)
	}
}

// tunnel opens a WebSocket through lb, as far as the answer to its handshake.
func (h *house) tunnel() (net.Conn, *bufio.Reader) {
	h.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 {
		h.t.Fatalf("%v %v", err, res)
	}
	return c, r
}

// sockets is an instance that takes WebSockets and says nothing.
func sockets(t *testing.T, name string) *instance {
	return newInstance(t, name, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ws" {
			fmt.Fprint(w, name)
			return
		}
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		io.Copy(io.Discard, rw)
	})
}

// serviceRestart is the close frame that tells a client to connect again.
var serviceRestart = []byte{0x88, 2, 1012 >> 8, 1012 & 0xff}

func TestTunnelsAreTold(t *testing.T) {
	a := sockets(t, "a")
	h := start(t, pools(a.addr)+kept)
	for _, how := range []struct {
		name string
		do   func()
	}{
		{"drain", func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // so that they are told soon
			defer cancel()
			if _, err := h.Drain(ctx, "app", a.addr); err != nil {
				t.Error(err)
			}
			if _, err := h.TakeBack(within(t), "app", a.addr, false); err != nil {
				t.Error(err)
			}
		}},
		{"reload", func() { h.reloadTo(pools(app(t, "other")) + kept) }},
	} {
		_, r := h.tunnel()
		done := make(chan struct{})
		go func() { defer close(done); how.do() }()
		b, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(b, serviceRestart) {
			t.Errorf("%s: %v %x", how.name, err, b)
		}
		<-done
		waitFor(t, "it to be taken back", func() bool { return h.Status().Pools[0].Backends[0].State == admin.Ready })
	}
}

// TestAppAsksToBeDrained has an app say by its check that it goes: its WebSockets are told.
func TestAppAsksToBeDrained(t *testing.T) {
	a := sockets(t, "a")
	plain := a.handler
	goes := make(chan struct{})
	a.handler = func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-goes:
			if r.URL.Path == "/health" {
				w.Header().Set("X-LB-Drain", "1")
				w.WriteHeader(503)
				return
			}
		default:
		}
		plain(w, r)
	}
	h := start(t, pools(a.addr)+"idle_timeout = \"1h\"\nhealth = { path = \"/health\", interval = \"10ms\" }\n")
	h.get("/")
	_, r := h.tunnel()
	close(goes)
	b, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(b, serviceRestart) {
		t.Errorf("%v %x", err, b)
	}
	if got := h.health(a.addr); got.State != admin.Draining {
		t.Errorf("%+v", got)
	}
}

// TestReadyWaitsForACheck restarts an instance that needs a while: it gets nothing before its check passes, although it
// was well when it was drained, and TakeBack says when that is.
func TestReadyWaitsForACheck(t *testing.T) {
	var starting, unwell atomic.Bool
	a := newInstance(t, "a", nil)
	b := newInstance(t, "b", func(w http.ResponseWriter, r *http.Request) {
		if starting.Load() || unwell.Load() && r.URL.Path == "/health" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	h := start(t, pools(a.addr, b.addr)+strings.Replace(kept, "health = { ", "health = { path = \"/health\", ", 1))
	l := h.load(4)
	waitFor(t, "traffic to both", func() bool { return a.asked.Load() > 20 && b.asked.Load() > 20 })
	if _, err := h.Drain(within(t), "app", b.addr); err != nil {
		t.Fatal(err)
	}
	starting.Store(true)
	n, before := b.asked.Load(), l.answered()
	past, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := h.TakeBack(past, "app", b.addr, false)
	if err != nil || r.Ready || r.State != admin.Unchecked && r.State != admin.Down {
		t.Errorf("%v %+v", err, r)
	}
	h.awaitState(b.addr, admin.Down)
	waitFor(t, "traffic to the other", func() bool { return l.answered() > before+100 })
	if r, _ := h.TakeBack(past, "app", b.addr, false); r.Ready || !strings.Contains(r.Why, "503") {
		t.Errorf("%+v", r)
	}
	if got := b.asked.Load(); got != n {
		t.Errorf("%d requests while it starts", got-n)
	}
	starting.Store(false)
	if r, err := h.TakeBack(within(t), "app", b.addr, false); err != nil || !r.Ready || r.State != admin.Ready {
		t.Errorf("%v %+v", err, r)
	}
	waitFor(t, "traffic to who is taken back", func() bool { return b.asked.Load() > n+10 })

	// With "now" nobody looks, and what is known stays.
	if _, err := h.Drain(within(t), "app", b.addr); err != nil {
		t.Fatal(err)
	}
	unwell.Store(true)
	if r, err := h.TakeBack(past, "app", b.addr, true); err != nil || !r.Ready {
		t.Errorf("%v %+v", err, r)
	}
	unwell.Store(false)
	l.end(t)
}

// TestControlIsPrivate holds that orders are taken on the socket and nowhere else.
func TestControlIsPrivate(t *testing.T) {
	a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
	path := filepath.Join(t.TempDir(), "lb.sock")
	h := startWith(t, pools(a.addr, b.addr)+kept, strings.Replace(everywhere, "[admin]\n", fmt.Sprintf("[admin]\nsocket = %q\n", path), 1))
	socket := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", path)
	}}}
	post := func(c *http.Client, url, body string) (int, []byte) {
		t.Helper()
		res, err := c.Post(url, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return res.StatusCode, text
	}
	order := fmt.Sprintf(`{"pool": "app", "backend": %q}`, a.addr)
	for _, what := range []string{"/drain", "/ready"} {
		if code, _ := post(h.client, "http://"+h.AdminAddrs()[0].String()+what, order); code != 404 {
			t.Errorf("%s by TCP: %d", what, code)
		}
	}
	if got := h.health(a.addr).State; got != admin.Ready {
		t.Errorf("state %s", got)
	}
	code, body := post(socket, "http://lb/drain", order)
	var d admin.Drained
	if err := json.Unmarshal(body, &d); err != nil || code != 200 || !d.Empty || d.Others != 1 {
		t.Errorf("%d %s", code, body)
	}
	if got := h.health(a.addr).State; got != admin.Draining {
		t.Errorf("state %s", got)
	}
	order = strings.Replace(order, "}", `, "wait": "20s"}`, 1)
	if code, body := post(socket, "http://lb/ready", order); code != 200 || !strings.Contains(string(body), `"ready": true`) {
		t.Errorf("%d %s", code, body)
	}
	if got := h.health(a.addr).State; got != admin.Ready {
		t.Errorf("state %s", got)
	}
	if runtime.GOOS == "linux" {
		me := fmt.Sprintf("uid %d", os.Getuid())
		for _, e := range h.checks.events.list() {
			if (e.Event == "draining" || e.Event == "taken back") && !strings.HasPrefix(e.By, me) {
				t.Errorf("%s by %q, want %s", e.Event, e.By, me)
			}
		}
		if log := h.events.String(); !strings.Contains(log, `msg="backend draining" pool=app backend=`+a.addr+` by="`+me) {
			t.Errorf("the log does not say who:\n%s", log)
		}
	}
	if code, body := post(socket, "http://lb/drain", `{"pool": "app", "backend": "x"}`); code != 404 || !strings.Contains(string(body), "not known") {
		t.Errorf("%d %s", code, body)
	}
}
