package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// reload changes lb's configuration to s and waits until lb says done, for the n-th time.
func (l *lb) reload(s setup, done string, n int) {
	l.t.Helper()
	s.write(l.t, l.config, l.logPath)
	l.signal(syscall.SIGHUP)
	eventually(l.t, done, func() bool {
		k := 0
		for _, line := range l.stderr() {
			if strings.Contains(line, done) {
				k++
			}
		}
		return k == n
	})
}

// Twenty reloads under load lose no request, refuse no connection, and keep the counters of who stays. (Row 37.)
func TestReloadUnderLoad(t *testing.T) {
	apps := startApps(t, 4, "express.mjs")
	l := startLB(t, setup{backends: apps})
	traffic := startLoad(t, l.addr, 16, 500, func(c *conn, n int64) sample {
		s := work(c, int(n))
		if n%5 == 0 {
			c.close() // and comes again on a new connection
		}
		return s
	})
	kept := startWaiters(t, l, apps, 8, "/gate/g") // on instances that leave, too
	last := 0.0
	for i := range 20 {
		s := setup{backends: apps[i%3:]}
		if i%2 == 1 {
			s.pool = `strategy = "round_robin"`
			s.server = `max_body = "1MB"`
		}
		l.reload(s, "msg=reloaded", i+1)
		at, sent := traffic.count(), traffic.sent.Load()
		traffic.goesOn(t, 60)
		for _, a := range traffic.since(at) {
			if a.number() > sent && a.instance != "" && a.instance[0] < byte('a'+i%3) {
				t.Errorf("%s was answered by %s, which had left", a.path, a.instance)
			}
		}
		if got := l.metrics().sum("lb_backend_requests_total", "backend=d"); got < last {
			t.Errorf("the count of one who stays fell from %v to %v", last, got)
		} else {
			last = got
		}
	}
	l.reload(setup{backends: apps}, "msg=reloaded", 21)
	for _, a := range apps {
		a.order("open", "g")
	}
	for _, a := range kept.end() {
		if !a.ok() {
			t.Errorf("a request under way across the reloads: %s", a.String())
		}
	}
	all := traffic.end()
	allOK(t, all)
	m := l.settled()
	if got := m.sum("lb_backend_faults_total"); got != 0 {
		t.Errorf("lb counts %v faults", got)
	}
	if got := m.sum("lb_listener_requests_total"); got != float64(len(all)+8) {
		t.Errorf("lb counts %v requests, clients %d", got, len(all)+8)
	}
	l.stop(0)
}

// A broken file changes nothing, and lb says what is wrong with it. (Row 38.)
func TestReloadBroken(t *testing.T) {
	apps := startApps(t, 2, "express.mjs")
	l := startLB(t, setup{backends: apps[:1]})
	traffic := startLoad(t, l.addr, 4, 100, nil)
	traffic.goesOn(t, 20)
	l.reload(setup{backends: apps[:1], pool: `strateggy = "x"`}, "not reloaded, all goes on as before", 1)
	l.event(`level=ERROR msg="not reloaded.*config.toml:\d+:1: pool.app.strateggy: unknown key`)
	if code, out, _ := run(t, lbBinary, "check", l.config); code != 1 || !strings.Contains(out, "strateggy") {
		t.Errorf("check ended with %d: %s", code, out)
	}
	l.reload(setup{backends: apps[:1], more: fmt.Sprintf("[listen.more]\naddress = %q", apps[1].addr())}, "not reloaded, all goes on as before", 2)
	l.event(`level=ERROR msg="not reloaded.*config.toml:\d+:1: listen.more.address: .* is taken`)
	m := l.metrics()
	if ok, failed := m["lb_config_last_reload_successful"], m.sum("lb_config_reloads_total", "result=failure"); ok != 0 || failed != 2 {
		t.Errorf("metrics: successful %v, %v failures", ok, failed)
	}
	if err := os.Remove(l.config); err != nil {
		t.Fatal(err)
	}
	l.signal(syscall.SIGHUP)
	l.event(`level=ERROR msg="not reloaded.*no such file`)
	l.reload(setup{backends: apps[1:]}, "msg=reloaded", 1) // and a good one works
	at := traffic.count()
	eventually(t, "the other instance answers", func() bool {
		now := traffic.since(at)
		return len(now) > 0 && now[len(now)-1].instance == "b"
	})
	all := traffic.end()
	allOK(t, all)
	l.stop(0)
}

// verdict is what lb answers to POST /reload.
type verdict struct {
	Reloaded bool     `json:"reloaded"`
	Changes  []string `json:"changes"`
	Kept     []string `json:"kept"`
	Faults   []string `json:"faults"`
}

// control is a client of lb's own socket.
func (l *lb) control() *http.Client {
	path := l.event(`msg=admin address=(/\S+)`)
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
}

func askReload(t testing.TB, c *http.Client) (v verdict) {
	t.Helper()
	resp, err := c.Post("http://lb/reload", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	if v.Reloaded != (resp.StatusCode == 200) {
		t.Errorf("status %d of %+v", resp.StatusCode, v)
	}
	return v
}

// socket is a WebSocket that says something all the time and holds its echo to it.
type socket struct {
	stop, done chan struct{}
	said       int
	err        error
}

func openSocket(t testing.TB, url string) *socket {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
	c, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Read(ctx); err != nil { // the app's hello
		t.Fatal(err)
	}
	s := &socket{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		defer cancel()
		defer c.CloseNow()
		for ; ; s.said++ {
			select {
			case <-s.stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			text := fmt.Sprint("message ", s.said)
			if s.err = c.Write(ctx, websocket.MessageText, []byte(text)); s.err != nil {
				return
			}
			_, b, err := c.Read(ctx)
			if err == nil && string(b) != text {
				err = fmt.Errorf("%q came back for %q", b, text)
			}
			if s.err = err; err != nil {
				return
			}
		}
	}()
	return s
}

// thousand is how many reloads there are, and early after how many lb is looked at first, when it has its size.
const thousand, early = 1000, 200

// A thousand reloads under load, between files that differ in backends, routes, limits and listeners, with equal and
// broken ones among them: no request fails, no WebSocket is closed, and lb does not grow. (Rows 37 and 38.)
func TestReloadThousandTimes(t *testing.T) {
	reloads := thousand
	if testing.Short() {
		reloads = 2 * early
	}
	apps := startApps(t, 4, "express.mjs")
	ws := startApp(t, "websocket.mjs", "w")
	more := func(weight int, rest string) string {
		return fmt.Sprintf("[pool.ws]\nbackends = [{ address = %q, name = \"w\", weight = %d }]\n[route.ws]\npool = \"ws\"\npath = \"/ws\"\n[route.app]\npool = \"app\"\n%s", ws.addr(), weight, rest)
	}
	one := setup{backends: apps[:3], more: more(1, "")}
	two := setup{
		backends: apps[1:], server: "max_body = \"1MB\"\nheader_timeout = \"9s\"", pool: "strategy = \"ewma\"\nretries = 1",
		more: more(2, "[route.work]\npool = \"app\"\npath = \"/work\"\n[listen.side]\naddress = \"127.0.0.1:0\"\n"),
	}
	broken := setup{backends: apps[:1], more: more(1, "[route.bad]\npool = \"nobody\"\n")}
	l := startLB(t, one)
	body := strings.Repeat("x", 3000)
	traffic := startLoad(t, l.addr, 16, 250, func(c *conn, n int64) sample {
		if n%7 == 0 {
			c.close() // and comes again on a new connection
		}
		if n%3 == 0 {
			return sample{"/sum", c.do("POST", "/sum", body)}
		}
		return work(c, int(n))
	})
	var sockets []*socket
	for range 8 {
		sockets = append(sockets, openSocket(t, l.url+"/ws"))
	}
	c := l.control()
	defer c.CloseIdleConnections()
	var before usage
	changed, equal, refused, served := 0, 0, 0, 0.0
	for i := range reloads {
		if i == early {
			before = l.usage()
		}
		switch i % 5 {
		case 0, 2:
			two.write(t, l.config, l.logPath)
		case 1:
			one.write(t, l.config, l.logPath)
		case 3:
			broken.write(t, l.config, l.logPath)
		case 4:
			one.write(t, l.config, l.logPath)
			if i%10 == 4 { // the one in force
				two.write(t, l.config, l.logPath)
			}
		}
		switch v := askReload(t, c); {
		case !v.Reloaded:
			refused++
		case len(v.Changes) == 0:
			equal++
		default:
			changed++
		}
		traffic.goesOn(t, 2)
		if i%50 == 0 {
			at := traffic.count()
			traffic.goesOn(t, 20)
			for _, s := range traffic.since(at) {
				if !s.ok() {
					t.Fatalf("reload %d: %s: %s", i, s.path, s.String())
				}
			}
			if now := l.metrics().sum("lb_backend_requests_total", "backend=b"); now < served {
				t.Errorf("the count of one who stays fell from %v to %v", served, now)
			} else {
				served = now
			}
		}
	}
	t.Logf("%d reloads changed something, %d nothing, %d were refused; %d requests", changed, equal, refused, traffic.count())
	holdsNoMore(t, before, 8, l.usage) // under the same load, since reload number early
	if refused != reloads/5 || equal != reloads/5 || changed != reloads-refused-equal {
		t.Error("not the verdicts there should be")
	}
	for i, s := range sockets {
		close(s.stop)
		<-s.done
		if s.err != nil || s.said == 0 {
			t.Errorf("WebSocket %d, after %d messages: %v", i, s.said, s.err)
		}
	}
	all := traffic.end()
	allOK(t, all)
	m := l.settled()
	if got := m.sum("lb_backend_faults_total"); got != 0 {
		t.Errorf("lb counts %v faults", got)
	}
	if got := m.sum("lb_config_reloads_total", "result=success"); got != float64(equal+changed) {
		t.Errorf("lb counts %v reloads, want %d", got, equal+changed)
	}
	if got := m.sum("lb_listener_requests_total", "listener=web"); got != float64(len(all)+8) {
		t.Errorf("lb counts %v requests, clients %d", got, len(all)+8)
	}
	l.stop(0)
}

// listenerAt is where a listener is by now.
func (l *lb) listenerAt(name string) string {
	l.t.Helper()
	all := l.status().Listeners
	for _, k := range all {
		if k.Name == name {
			return k.Address
		}
	}
	l.t.Fatalf("no listener %s in %v", name, all)
	return ""
}

// A listener moves under load. The one beside it notices nothing; the old address refuses new connections, and what
// is in flight or kept there goes on.
func TestReloadMovesListener(t *testing.T) {
	apps := startApps(t, 2, "express.mjs")
	at := []string{"127.0.0.1:0", "localhost:0"} // two addresses by name, so that each reload moves it
	conf := func(i int) setup {
		return setup{backends: apps, more: fmt.Sprintf("[listen.side]\naddress = %q\n", at[i%2])}
	}
	l := startLB(t, conf(0))
	c := l.control()
	defer c.CloseIdleConnections()
	traffic := startLoad(t, l.addr, 8, 200, nil)
	for i := 1; i <= 20; i++ {
		old := *l
		old.addr = l.listenerAt("side")
		// Clients of the old address: one with a kept connection, some in flight, and some that come all the time.
		kept := &conn{addr: old.addr}
		if a := work(kept, 1); !a.ok() {
			t.Fatalf("before: %s", a.String())
		}
		flight := startWaiters(t, &old, apps, 2, fmt.Sprintf("/gate/%d", i))
		comers := startLoad(t, old.addr, 4, 200, func(c *conn, n int64) sample {
			s := work(c, int(n))
			c.close()
			return s
		})
		comers.goesOn(t, 5)
		next := conf(i)
		next.write(t, l.config, l.logPath)
		v := askReload(t, c)
		if !v.Reloaded || len(v.Changes) != 1 || !strings.HasPrefix(v.Changes[0], "listener side moved from ") {
			t.Fatalf("%+v", v)
		}
		for _, s := range comers.end() {
			if !s.ok() && !s.dialing {
				t.Errorf("%s at the old address: %s", s.path, s.String())
			}
		}
		if n, err := net.Dial("tcp", old.addr); err == nil {
			n.Close()
			t.Error("the old address takes connections")
		}
		if a := work(kept, 2); !a.ok() || kept.dials != 1 {
			t.Errorf("on the kept connection: %s", a.String())
		}
		kept.close()
		for _, a := range apps {
			a.order("open", fmt.Sprint(i))
		}
		for _, a := range flight.end() {
			if !a.ok() {
				t.Errorf("in flight: %s", a.String())
			}
		}
		fresh := &conn{addr: l.listenerAt("side")}
		if a := work(fresh, 3); !a.ok() {
			t.Errorf("at the new address: %s", a.String())
		}
		fresh.close()
	}
	allOK(t, traffic.end())
	l.stop(0)
}

// lb reload prints what changed, or what is wrong as lb check does, and tells by its exit code.
func TestReloadCommand(t *testing.T) {
	apps := startApps(t, 2, "express.mjs")
	l := startLB(t, setup{backends: apps[:1]})
	if code, out, _ := run(t, lbBinary, "reload", l.config); code != 0 || out != l.config+": nothing to change" {
		t.Errorf("an equal file: %d %s", code, out)
	}
	s := setup{backends: apps, server: "workers = 61"}
	s.write(t, l.config, l.logPath)
	code, out, _ := run(t, lbBinary, "reload", l.config)
	for _, want := range []string{": reloaded\n", "  1 backend joined pool app: b\n", "  kept: listener web\n", "  note: server.workers: "} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("%d, no %q in\n%s", code, want, out)
		}
	}
	s = setup{backends: apps, pool: "strateggy = 1\nretries = -1"}
	s.write(t, l.config, l.logPath)
	_, want, _ := run(t, lbBinary, "check", l.config)
	if code, out, _ := run(t, lbBinary, "reload", l.config); code != 1 || out != want || strings.Count(out, "\n") != 1 {
		t.Errorf("a wrong file: %d\n%s\nbut check says\n%s", code, out, want)
	}
	waits := startWaiters(t, l, apps, 1, "/gate/g")
	l.signal(syscall.SIGTERM)
	l.event("msg=stopping")
	if code, out, _ := run(t, lbBinary, "reload", l.config); code != 1 || out != "not while lb is stopping" {
		t.Errorf("while it stops: %d %s", code, out)
	}
	for _, a := range apps {
		a.order("open", "g")
	}
	for _, a := range waits.end() {
		if !a.ok() {
			t.Error(a.String())
		}
	}
	if code := l.wait(); code != 0 {
		t.Errorf("lb ended with %d", code)
	}
	if code, _, err := run(t, lbBinary, "reload", l.config); code != 4 || !strings.HasPrefix(err, "lb: no lb runs with ") {
		t.Errorf("without lb: %d %s", code, err)
	}
}
