package server

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func pools(backends ...string) string {
	return "[pool.app]\nbackends = [\"" + strings.Join(backends, `", "`) + "\"]\n"
}

func (h *house) reloadTo(text string) {
	h.t.Helper()
	h.rewrite(text + everywhere)
	if err := h.Reload(context.Background()); err != nil {
		h.t.Fatal(err)
	}
}

func TestReloadUnderLoad(t *testing.T) {
	a, b, c := app(t, "a"), app(t, "b"), app(t, "c")
	h := start(t, pools(a, b))
	l := h.load(8)
	waitFor(t, "traffic", func() bool { return l.answered() > 50 })
	for i := range 40 {
		before := l.answered()
		// Backends come and go, all at once too; the pool changes its name and its strategy.
		h.reloadTo([]string{
			pools(c),
			pools(a, b, c) + "strategy = \"ewma\"\nretries = 1\n",
			strings.Replace(pools(b), "pool.app", "pool.other", 1),
			pools(a, b),
		}[i%4])
		waitFor(t, "traffic", func() bool { return l.answered() > before+20 })
	}
	l.end(t)
	if got := h.Status().Pools; len(got) != 1 || got[0].Name != "app" || len(got[0].Backends) != 2 {
		t.Errorf("status: %+v", got)
	}
	waitFor(t, "those that left to be forgotten", func() bool {
		h.leaving.mu.Lock()
		defer h.leaving.mu.Unlock()
		return len(h.leaving.all) == 0
	})
}

func TestReloadKeepsCounts(t *testing.T) {
	a, b := app(t, "a"), app(t, "b")
	h := start(t, pools(a))
	h.get("/")
	waitFor(t, "the count", func() bool { return h.Status().Pools[0].Backends[0].Requests == 1 }) // after the client has its answer
	h.reloadTo(pools(b, a) + "response_timeout = \"7s\"\n")
	st := h.Status().Pools[0].Backends
	if len(st) != 2 || st[1].Name != a || st[1].Requests != 1 {
		t.Errorf("%+v", st)
	}
	if got := h.pool("app").Snapshot().Settings.ResponseTimeout.Seconds(); got != 7 {
		t.Errorf("response_timeout is %v s", got)
	}
}

func TestReloadClosesIdleConnections(t *testing.T) {
	// An app that stops waits for its connections, as Node's server.close does: lb must not hold on to them.
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})}
	ln, err := plainListen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(ln)
	defer srv.Close()
	h := start(t, pools(ln.Addr().String())+"idle_timeout = \"1h\"\n")
	h.get("/")
	old := h.pool("app").Snapshot().All[0]
	open := func() (n int64) {
		for i := range old.Loops() {
			n += old.Stats(i).ConnsOpen.Load()
		}
		return n
	}
	waitFor(t, "a kept connection", func() bool { return open() == 1 })
	h.reloadTo(pools(app(t, "other")))
	waitFor(t, "the connection to be closed", func() bool { return open() == 0 })
}

func TestReloadRefused(t *testing.T) {
	a := app(t, "a")
	taken, err := plainListen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	h := start(t, pools(a))
	before, at := h.Config(), h.places.Load()
	faulty := strings.Replace(everywhere, "[listen.web]", "[listen.more]\naddress = \""+taken.Addr().String()+"\"\n[listen.fine]\naddress = \"127.0.0.1:0\"\n[listen.web]", 1)
	for name, c := range map[string]struct{ text, want string }{
		"fault":   {pools(a) + "strateggy = 1\n" + everywhere, `did you mean "strategy"?`},
		"host":    {pools("nosuch.invalid:80") + everywhere, `host "nosuch.invalid"`},
		"taken":   {pools(a) + faulty, `listen.more.address: "` + taken.Addr().String() + `" is taken`},
		"all":     {pools(a) + faulty + "[access_log]\npath = \"/nosuch/dir/log\"\n", "access_log.path: access log: open /nosuch/dir/log"},
		"overlap": {pools(a) + listens("more", "0.0.0.0:"+portOf(h.Addrs()[0].String())) + everywhere, "where listener web of this lb is"},
		"socket":  {pools(a) + everywhere + "socket = \"/nosuch/dir/lb.sock\"\n", "admin.socket: cannot listen"},
	} {
		h.rewrite(c.text)
		err := h.Reload(context.Background())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if h.Config() != before || h.places.Load() != at {
			t.Errorf("%s: something was changed", name)
		}
	}
	if _, who := h.get("/"); who != "a" {
		t.Errorf("got %q", who)
	}
	if n := strings.Count(h.events.String(), "not reloaded, all goes on as before"); n != 6 {
		t.Errorf("%d events", n)
	}
	_, body := h.admin("/metrics")
	for _, want := range []string{`lb_config_reloads_total{result="failure"} 6`, `lb_config_reloads_total{result="success"} 0`, "lb_config_last_reload_successful 0"} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics have no %s", want)
		}
	}
	if err := h.stop(); err != nil {
		t.Error(err)
	}
	if err := h.Reload(context.Background()); err == nil || err.Error() != "not while lb is stopping" {
		t.Errorf("after the stop: %v", err)
	}
}

func TestReopenLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	h := start(t, pools(app(t, "a"))+fmt.Sprintf("[access_log]\npath = %q\n", path))
	h.get("/before")
	waitFor(t, "the line", func() bool { return h.Server.access.Lines() == 1 }) // what waits goes to the new file
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := h.ReopenLog(); err != nil {
		t.Fatal(err)
	}
	h.get("/after")
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{path + ".1": "/before", path: "/after"} {
		b, err := os.ReadFile(file)
		if err != nil || strings.Count(string(b), "\n") != 1 || !strings.Contains(string(b), want) {
			t.Errorf("%s: %v %q", file, err, b)
		}
	}
}
