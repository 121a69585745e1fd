package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lb/admin"
)

// reloadWords reloads and returns the verdict.
func (h *house) reloadWords(text string) admin.Verdict {
	h.t.Helper()
	h.rewrite(text)
	v, err := h.reloadOnce(context.Background(), false)
	if err != nil {
		h.t.Fatal(err)
	}
	return v
}

func (h *house) addr(name string) string {
	h.t.Helper()
	for _, a := range h.Addrs() {
		if a.Name == name {
			return a.String()
		}
	}
	h.t.Fatalf("no listener %s", name)
	return ""
}

func refuses(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err == nil {
		c.Close()
	}
	return err != nil
}

func listens(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "[listen.%s]\naddress = %q\n", pairs[i], pairs[i+1])
	}
	return b.String()
}

const adminOn = "[admin]\naddress = \"127.0.0.1:0\"\n"

// Listeners are opened, renamed, moved and closed under load; who stays loses nothing.
func TestReloadListeners(t *testing.T) {
	a := pools(app(t, "a"))
	h := start(t, a)
	l := h.load(4)
	waitFor(t, "traffic", func() bool { return l.answered() > 50 })
	stays := h.addr("web")
	was := h.AdminAddrs()[0].String()
	elsewhere := "[::1]:0"
	if ln, err := net.Listen("tcp", elsewhere); err == nil {
		ln.Close()
	} else { // this machine has no IPv6
		elsewhere = "127.0.0.2:0"
	}

	v := h.reloadWords(a + listens("web", "127.0.0.1:0", "more", "localhost:0") + adminOn)
	if d := cmp.Diff([]string{"listener more opened at localhost:0"}, v.Changes); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"listener web", "pool app"}, v.Kept); d != "" {
		t.Error(d)
	}
	more := h.addr("more")
	if code, who := h.fetch("http://" + more); code != 200 || who != "a" {
		t.Errorf("the new one: %d %s", code, who)
	}
	v = h.reloadWords(a + listens("other", "127.0.0.1:0", "more", "localhost:0") + adminOn)
	if d := cmp.Diff([]string{"listener web at 127.0.0.1:0 is named other now"}, v.Changes); d != "" {
		t.Error(d)
	}
	if h.addr("other") != stays || h.Status().Listeners[0].Name != "other" || h.Status().Listeners[0].Requests == 0 {
		t.Errorf("after a new name: %+v", h.Status().Listeners)
	}
	v = h.reloadWords(a + listens("other", "127.0.0.1:0", "more", elsewhere) + adminOn)
	if d := cmp.Diff([]string{"listener more moved from localhost:0 to " + elsewhere}, v.Changes); d != "" {
		t.Error(d)
	}
	if !refuses(more) {
		t.Error("its old address still takes connections")
	}
	v = h.reloadWords(a + listens("other", "127.0.0.1:0") + adminOn)
	if d := cmp.Diff([]string{"listener more at " + elsewhere + " closed"}, v.Changes); d != "" {
		t.Error(d)
	}
	v = h.reloadWords(a + listens("other", "127.0.0.1:0") + adminOn)
	if len(v.Changes) != 0 || !v.Reloaded {
		t.Errorf("an equal file: %+v", v)
	}
	if h.AdminAddrs()[0].String() != was {
		t.Error("the admin server moved")
	}
	l.end(t)
}

// A request in flight at a listener that goes is answered; an idle connection there goes on.
func TestReloadListenerInFlight(t *testing.T) {
	enter, release := make(chan struct{}, 1), make(chan struct{})
	text := pools(handler(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			enter <- struct{}{}
			<-release
		}
		fmt.Fprint(w, "done")
	}))
	h := start(t, text)
	old := h.addr("web")
	h.get("/") // on the connection that stays
	got := make(chan string, 1)
	go func() {
		_, body := h.get("/slow")
		got <- body
	}()
	<-enter
	h.reloadWords(text + listens("web", "localhost:0") + adminOn)
	if !refuses(old) {
		t.Error("the old address still takes connections")
	}
	close(release)
	if body := <-got; body != "done" {
		t.Errorf("in flight: %q", body)
	}
	if code, _ := h.get("/"); code != 200 { // still to the old address
		t.Errorf("kept: %d", code)
	}
	st := h.Status().Listeners
	if len(st) != 1 || st[0].Name != "web" || st[0].Requests < 2 || st[0].Address == old {
		t.Errorf("status: %+v", st)
	}
	h.client.CloseIdleConnections()
}

func TestReloadAdmin(t *testing.T) {
	dir := t.TempDir()
	a := pools(app(t, "a"))
	h := start(t, a)
	old := h.AdminAddrs()[0].String()
	first, second := filepath.Join(dir, "1.sock"), filepath.Join(dir, "2.sock")
	web := listens("web", "127.0.0.1:0")
	h.reloadWords(a + web + fmt.Sprintf("[admin]\naddress = \"localhost:0\"\nsocket = %q\n", first))
	if !refuses(old) {
		t.Error("the old address still takes connections")
	}
	if code, body := h.admin("/-/ready"); code != 200 {
		t.Errorf("%d %q", code, body)
	}
	over := func(path string) *http.Client {
		return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}}
	}
	// The reload is asked for at the socket that it closes.
	h.rewrite(a + web + fmt.Sprintf("[admin]\naddress = \"off\"\nsocket = %q\n", second))
	res, err := over(first).Post("http://lb/reload", "", nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v %v", res, err)
	}
	res.Body.Close()
	waitFor(t, "the old socket to be gone", func() bool { _, err := os.Stat(first); return os.IsNotExist(err) })
	if res, err = over(second).Get("http://lb/-/ready"); err != nil || res.StatusCode != 200 {
		t.Fatalf("%v %v", res, err)
	}
	res.Body.Close()
	if info, err := os.Stat(second); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v %v", info, err)
	}
	h.rewrite("nonsense")
	if res, err = over(second).Post("http://lb/reload", "", nil); err != nil || res.StatusCode != 422 {
		t.Fatalf("%v %v", res, err)
	}
	res.Body.Close()
	h.reloadWords(a + web + adminOn)
	if res, err := h.client.Post("http://"+h.AdminAddrs()[0].String()+"/reload", "", nil); err != nil || res.StatusCode/100 != 4 {
		t.Errorf("over TCP: %v %v", res, err) // anybody on the machine could, and every web page in a browser there
	} else {
		res.Body.Close()
	}
}

func TestReloadAccessLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	a := pools(app(t, "a"))
	h := start(t, a)
	h.get("/1")
	waitFor(t, "a line", func() bool { return strings.Contains(h.access.String(), "/1") })
	h.reloadWords(a + everywhere + fmt.Sprintf("[access_log]\nformat = \"combined\"\npath = %q\n", path))
	h.get("/2")
	waitFor(t, "a line", func() bool { return h.Server.access.Lines() == 2 })
	h.reloadWords(a + everywhere + "[access_log]\nformat = \"off\"\n")
	h.get("/3")
	h.get("/more") // on the same connection, so that the one before is through with the log
	h.reloadWords(a + everywhere)
	h.get("/4")
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || strings.Count(string(b), "\n") != 1 || !strings.Contains(string(b), `"GET /2 HTTP/1.1" 200`) {
		t.Errorf("%v %q", err, b)
	}
	if s := h.access.String(); strings.Contains(s, `"/2"`) || strings.Contains(s, `"/3"`) || !strings.Contains(s, `"/4"`) {
		t.Errorf("%q", s)
	}
}

func TestReloadWords(t *testing.T) {
	a, b, c := app(t, "a"), app(t, "b"), app(t, "c")
	h := start(t, pools(a, b))
	v := h.reloadWords(pools(b, c) + "retries = 1\n[pool.app.health]\nfall = 7\n[pool.new]\nbackends = [1]\n[route.app]\npool = \"app\"\n[route.new]\npool = \"new\"\npath = \"/new\"\n[server]\nworkers = 63\ngrace = \"1s\"\n" + everywhere)
	want := []string{
		"1 backend joined pool app: " + c,
		"1 backend left pool app: " + a,
		"pool new is new, with 1 backend",
		"route app leads to pool app",
		"route new leads to pool new",
		"route default is gone",
		"server.grace is 1s, was 30s",
		"pool.app.retries is 1, was 2",
		"pool.app.health.fall is 7, was 3",
	}
	if d := cmp.Diff(want, v.Changes); d != "" {
		t.Error(d)
	}
	if len(v.Notes) != 1 || !strings.Contains(v.Notes[0], "63 will from the next start on") {
		t.Errorf("%q", v.Notes)
	}
	if v = h.reloadWords(h.text); len(v.Changes) != 0 || len(v.Notes) != 1 {
		t.Errorf("once more: %+v", v)
	}
	v = h.reloadWords(strings.Replace(pools(), `""`, `{ address = "`+b+`", name = "x", weight = 3 }`, 1) + everywhere)
	v = h.reloadWords(strings.Replace(pools(), `""`, `{ address = "`+c+`", name = "x", weight = 2, max_inflight = 1 }`, 1) + everywhere)
	want = []string{
		"backend x of pool app moved from " + b + " to " + c,
		"backend x of pool app has weight 2, had 3",
		"backend x of pool app may have 1 request at once, was any number of requests",
	}
	if d := cmp.Diff(want, v.Changes); d != "" {
		t.Error(d)
	}
}
