package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// needs is the path of a program that a test cannot do without; it skips the test where there is none, unless
// LB_E2E_REQUIRE says that there has to be one.
func needs(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name) // not on everybody's PATH
	}
	switch {
	case err == nil:
	case strings.Contains(os.Getenv("LB_E2E_REQUIRE"), name):
		t.Fatalf("there is no %s, and LB_E2E_REQUIRE asks for it", name)
	default:
		t.Skipf("there is no %s", name)
	}
	return path
}

// startRedis runs a Redis and returns its unix socket, as a line of an environment.
func startRedis(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lb-redis-") // the test's own directory may have too long a path for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "redis.sock")
	start(t, "redis", exec.Command(needs(t, "redis-server"), "--port", "0", "--unixsocket", socket, "--save", "", "--dir", dir))
	eventually(t, "redis listens", func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return "REDIS=" + socket
}

// startNginx runs an nginx before apps as its manual says for WebSockets, without stickiness, and returns its address.
func startNginx(t testing.TB, apps []*app) string {
	t.Helper()
	var addrs []string
	for _, a := range apps {
		addrs = append(addrs, a.addr())
	}
	return startNginxBefore(t, addrs)
}

func startNginxBefore(t testing.TB, addrs []string) string {
	t.Helper()
	path := needs(t, "nginx")
	addr := "127.0.0.1:" + freePorts(t, 1)[0]
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	var servers strings.Builder
	for _, a := range addrs {
		fmt.Fprintf(&servers, "server %s; ", a)
	}
	conf := filepath.Join(dir, "nginx.conf")
	text := `daemon off; master_process off; pid ` + dir + `/pid; error_log stderr crit;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path ` + dir + `; proxy_temp_path ` + dir + `; fastcgi_temp_path ` + dir + `; uwsgi_temp_path ` + dir + `; scgi_temp_path ` + dir + `;
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  upstream app { ` + servers.String() + `}
  server {
    listen ` + addr + `;
    location / {
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
    }
  }
}
`
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "nginx", exec.Command(path, "-e", "stderr", "-p", dir, "-c", conf))
	eventually(t, "nginx listens", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return addr
}

// user is a browser with a login: its cookies, and nothing else that would tell it apart.
type user struct {
	name    string
	cookies map[string]string
	at      string // the instance that it logged in at
}

// ask sends a request on a connection of its own.
func (u *user) ask(addr, method, path string) answer {
	c := &conn{addr: addr}
	defer c.close()
	var all []string
	for k, v := range u.cookies {
		all = append(all, k+"="+v)
	}
	header := []string{}
	if len(all) > 0 {
		header = append(header, "Cookie: "+strings.Join(all, "; "))
	}
	a := c.do(method, path, "", header...)
	for _, set := range a.header.Values("Set-Cookie") {
		value, _, _ := strings.Cut(set, ";")
		k, v, _ := strings.Cut(value, "=")
		u.cookies[k] = v
	}
	return a
}

// login logs users in.
func login(t testing.TB, addr string, n int) (users []*user) {
	t.Helper()
	for i := range n {
		u := &user{name: fmt.Sprint("user-", i), cookies: map[string]string{}}
		a := u.ask(addr, "POST", "/login/"+u.name)
		if !a.ok() {
			t.Fatalf("%s: %s", u.name, a.String())
		}
		u.at = a.instance
		users = append(users, u)
	}
	return users
}

// whoami asks as every user in turn, n times in all over connections of their own, 8 at a time, and returns how often the
// app knew who it was, by the instance of the login. Users come one after the other, as their cookies may change.
func whoami(users []*user, addr string, n int) (known, asked map[string]int, failed int) {
	known, asked = map[string]int{}, map[string]int{}
	var mu sync.Mutex
	var workers sync.WaitGroup
	for w := range 8 {
		workers.Go(func() {
			for i := w; i < n; i += 8 {
				u := users[i%len(users)] // a multiple of 8: no two workers have the same
				a := u.ask(addr, "GET", "/whoami")
				mu.Lock()
				asked[u.at]++
				switch {
				case !a.ok():
					failed++
				case a.body == u.name:
					known[u.at]++
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return known, asked, failed
}

func total(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// Logins that an instance keeps in its memory last, over a thousand connections; when an instance dies its own are lost,
// and no others. With logins in Redis, none are.
func TestExpressSession(t *testing.T) {
	for _, c := range []struct{ name, affinity string }{
		{"memory, lb's cookie", `affinity = { kind = "cookie" }`},
		{"memory, the app's cookie", `affinity = { kind = "app_cookie", name = "connect.sid" }`},
		{"redis", `affinity = { kind = "cookie" }`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var env []string
			shared := c.name == "redis"
			if shared {
				env = append(env, startRedis(t))
			}
			apps := startApps(t, 4, "session.mjs", env...)
			l := startLB(t, setup{backends: apps, pool: c.affinity})
			users := login(t, l.addr, 40)
			per := map[string]int{}
			for _, u := range users {
				per[u.at]++
			}
			if len(per) != 4 {
				t.Errorf("logins are not spread: %v", per)
			}
			known, _, failed := whoami(users, l.addr, 1000)
			t.Logf("lb: %d of 1000 requests were logged in; logins %v", total(known), per)
			if total(known) != 1000 || failed > 0 {
				t.Errorf("%d of 1000 requests were logged in, %d failed", total(known), failed)
			}
			nginx := startNginx(t, apps)
			theirs, _, _ := whoami(login(t, nginx, 40), nginx, 1000)
			t.Logf("nginx without stickiness: %d of 1000", total(theirs))

			apps[0].kill()
			known, asked, failed := whoami(users, l.addr, 400)
			lost := total(asked) - total(known)
			t.Logf("lb, with instance a dead: %d of 400 requests were logged in, %d were of users of a", total(known), asked["a"])
			if failed > 0 {
				t.Errorf("%d requests failed", failed)
			}
			switch {
			case shared && lost > 0:
				t.Errorf("%d requests lost their login", lost)
			case !shared && (lost != asked["a"] || known["a"] > 0):
				t.Errorf("logged in were %v of %v", known, asked)
			}
			m := l.settled()
			if n := m.sum("lb_affinity_requests_total", "result=moved"); n == 0 {
				t.Error("lb counts nobody who moved")
			}
		})
	}
}

// chatReport is what chat-clients.mjs tells.
type chatReport struct {
	Connected  int            `json:"connected"`
	Instances  map[string]int `json:"instances"`
	Transports map[string]int `json:"transports"`
	Errors     map[string]int `json:"errors"`
	Breaks     int            `json:"breaks"`
}

type chatTally struct {
	Wanted, Heard, Lost, Twice int
	Steady, Moved              int
	Report                     chatReport
}

func heard[T any](t testing.TB, p *app, verb string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(p.hears(verb)), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// chat begins clients of a chat and waits until each has joined its room.
func chat(t testing.TB, url string, n int, env ...string) *app {
	t.Helper()
	return startProgram(t, "chat-clients.mjs", "clients", append(env, "URL="+url, fmt.Sprint("CLIENTS=", n))...)
}

// A chat with rooms over four instances, with default settings of everything: 200 clients behind one address, which keep no
// cookies, all connect, and every message reaches every member of its room, once.
func TestSocketIOChat(t *testing.T) {
	for _, c := range []struct {
		name, script string
		clients      int
		env          []string
	}{
		{"Socket.IO 4", "chat.mjs", 200, []string{"ROOMS=20"}},
		{"client of Socket.IO 2", "chat.mjs", 40, []string{"CLIENT=2"}},
		{"NestJS", "nest.mjs", 40, []string{"NEST=1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			apps := startApps(t, 4, c.script, startRedis(t))
			l := startLB(t, setup{backends: apps})
			clients := chat(t, l.url, c.clients, c.env...)
			r := heard[chatReport](t, clients, "joined")
			t.Logf("lb: %d of %d connect, %v, errors %v", r.Connected, c.clients, r.Instances, r.Errors)
			if len(r.Errors) > 0 || r.Breaks > 0 {
				t.Errorf("%v errors, %d times a connection broke", r.Errors, r.Breaks)
			}
			for name, n := range r.Instances {
				if n < c.clients/8 || n > c.clients/2 {
					t.Errorf("%d of %d are on instance %s", n, c.clients, name)
				}
			}
			// All become WebSockets, by an upgrade to the instance of their session.
			l.reaches(float64(c.clients), "lb_backend_tunnels")
			clients.order("talk", "5")
			got := heard[chatTally](t, clients, "talked")
			t.Logf("lb: %d of %d messages arrive, %d twice", got.Heard, got.Wanted, got.Twice)
			if got.Lost > 0 || got.Twice > 0 || got.Wanted == 0 {
				t.Errorf("%+v", got)
			}
			m := l.metrics()
			if n := m.sum("lb_affinity_requests_total", "by=sid", "result=new"); n != float64(c.clients) {
				t.Errorf("lb counts %v sessions", n)
			}
			if n := m.sum("lb_affinity_requests_total", "by=sid", "result=miss") + m.sum("lb_affinity_requests_total", "by=sid", "result=strayed") + m.sum("lb_affinity_unread_answers_total"); n != 0 {
				t.Errorf("lb counts %v requests that missed their session", n)
			}
			clients.order("leave")
			clients.hears("left")
			if c.script != "chat.mjs" || c.clients < 200 {
				return
			}

			// The same before nginx, for as long as it took here and more.
			theirs := chat(t, "http://"+startNginx(t, apps), c.clients, c.env...)
			time.Sleep(10 * time.Second) // a measurement, not a wait: they never all connect
			theirs.order("report")
			nr := heard[chatReport](t, theirs, "reported")
			t.Logf("nginx without stickiness, after 10 s: %d of %d are connected, errors %v", nr.Connected, c.clients, nr.Errors)
		})
	}
}

// Two lb take turns with every client, as behind a balancer without stickiness: each finds the sessions that the other has
// begun.
func TestSocketIOTwoBalancers(t *testing.T) {
	apps := startApps(t, 4, "chat.mjs", startRedis(t))
	a, b := startLB(t, setup{backends: apps}), startLB(t, setup{backends: apps})
	const n = 60
	clients := chat(t, "http://"+startNginxBefore(t, []string{a.addr, b.addr}), n)
	r := heard[chatReport](t, clients, "joined")
	if len(r.Errors) > 0 || r.Breaks > 0 {
		t.Errorf("%v errors, %d times a connection broke", r.Errors, r.Breaks)
	}
	clients.order("talk", "5")
	if got := heard[chatTally](t, clients, "talked"); got.Lost > 0 || got.Twice > 0 || got.Wanted == 0 {
		t.Errorf("%+v", got)
	}
	found := 0.0
	for _, l := range []*lb{a, b} {
		m := l.metrics()
		found += m.sum("lb_affinity_learned_sessions_total")
		t.Logf("%v sessions begun, %v learned, %v attempts more", m.sum("lb_affinity_requests_total", "result=new"), m.sum("lb_affinity_learned_sessions_total"), m.sum("lb_backend_retries_total"))
	}
	if found < 1.5*n {
		t.Errorf("%v sessions are known to both together: they do not take turns, and nothing is tested", found)
	}
}

// An instance is drained while everybody talks: its clients connect elsewhere, and between the others no message is lost.
func TestSocketIODrain(t *testing.T) {
	apps := startApps(t, 4, "chat.mjs", startRedis(t))
	l := startLB(t, setup{backends: apps})
	const n = 100
	clients := chat(t, l.url, n)
	before := heard[chatReport](t, clients, "joined")
	l.reaches(n, "lb_backend_tunnels")
	clients.order("chatter", "100")
	code, out, errs := run(t, lbBinary, "drain", "app", "b", "--config", l.config, "--wait", "20s")
	if code != 0 {
		t.Errorf("drain ended with %d: %s%s", code, out, errs)
	}
	t.Logf("%s", strings.TrimSpace(out))
	apps[1].kill()
	clients.order("quiet")
	got := heard[chatTally](t, clients, "quieted")
	t.Logf("%d clients stayed, %d moved; between those who stayed, %d of %d messages arrived, %d twice; now %v", got.Steady, got.Moved, got.Heard, got.Wanted, got.Twice, got.Report.Instances)
	if got.Moved != before.Instances["b"] || got.Report.Connected != n || got.Report.Instances["b"] != 0 {
		t.Errorf("%d moved, %d are connected, %v; before that, %v", got.Moved, got.Report.Connected, got.Report.Instances, before.Instances)
	}
	if got.Lost > 0 || got.Twice > 0 || got.Wanted == 0 {
		t.Errorf("%d messages were lost, %d came twice, of %d", got.Lost, got.Twice, got.Wanted)
	}
}
