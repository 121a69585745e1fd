package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// head begins a whole file.
const head = `
[listen.web]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[access_log]
path = "%LOG%"
`

// Hosts and paths lead to pools; clients with the same cookie come to the same instance; nobody's path is lb's own 404.
func TestRoutes(t *testing.T) {
	web := startApps(t, 2, "express.mjs")
	chat := startApps(t, 3, "express.mjs")
	api := startApp(t, "express.mjs", "api")
	l := startLB(t, setup{raw: head + fmt.Sprintf(`
[pool.web]
backends = [
  { address = %q, name = "a", weight = 3 },
  { address = %q, name = "b" },
]
strategy = "round_robin"
[pool.chat]
backends = [ %q, %q, %q ]
strategy = "hash"
hash = "cookie:session"
[pool.api]
backends = [ %s ]
[route.web]
host = "shop.example"
pool = "web"
[route.chat]
host = "shop.example"
path = "/work/chat"
pool = "chat"
[route.api]
host = "*.api.example"
pool = "api"
`, web[0].addr(), web[1].addr(), chat[0].addr(), chat[1].addr(), chat[2].addr(), api.port)})
	c := &conn{addr: l.addr}
	defer c.close()
	ask := func(host, path string, header ...string) answer {
		t.Helper()
		c.write(t, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, host, strings.Join(append(header, ""), "\r\n")))
		a := c.receive("GET")
		if a.err != nil {
			t.Fatalf("%s%s: %v", host, path, a.err)
		}
		return a
	}
	count := map[string]int{}
	for i := range 400 {
		host := []string{"shop.example", "SHOP.example:8080"}[i%2]
		a := ask(host, fmt.Sprintf("/work/%d", i))
		count[a.instance]++
	}
	if count["a"] != 300 || count["b"] != 100 {
		t.Errorf("weights 3 and 1 gave %v", count)
	}
	home, all := map[string]string{}, map[string]bool{}
	for round := range 3 {
		for i := range 60 {
			session := fmt.Sprint("s", i)
			a := ask("shop.example", "/work/chat", "Cookie: other=1; session="+session)
			if round > 0 && home[session] != a.instance {
				t.Errorf("%s came to %s, and then to %s", session, home[session], a.instance)
			}
			home[session], all[a.instance] = a.instance, true
		}
	}
	if len(all) != 3 {
		t.Errorf("sixty sessions came to %v", all)
	}
	for _, host := range []string{"v1.api.example", "deep.v2.API.example"} {
		if a := ask(host, "/work/1"); a.instance != "api" {
			t.Errorf("%s: %s from %s", host, a.String(), a.instance)
		}
	}
	for _, host := range []string{"api.example", "other.example", "127.0.0.1"} {
		if a := ask(host, "/work/1"); a.status != 404 || a.instance != "" {
			t.Errorf("%s: %s from %s", host, a.String(), a.instance)
		}
	}
	if a := ask("shop.example", "/work/chatter"); a.body != a.instance+" did chatter" || a.instance > "b" {
		t.Errorf("/work/chatter is not below /work/chat: %s from %s", a.String(), a.instance)
	}
	if c.dials != 1 {
		t.Errorf("the client needed %d connections", c.dials)
	}
	m := l.settled()
	for labels, want := range map[string]float64{"web": 401, "chat": 180, "api": 2} {
		if got := m.sum("lb_backend_requests_total", "pool="+labels); got != want {
			t.Errorf("pool %s: lb counts %v requests, want %v", labels, got, want)
		}
	}
	if got := m.sum("lb_listener_failed_requests_total", "reason=no_route"); got != 3 {
		t.Errorf("lb counts %v requests without a route, want 3", got)
	}
	l.stop(0)
	routes := map[string]int{}
	for _, r := range readLog(t, l.logPath) {
		routes[r.Route+r.Reason]++
	}
	if got := fmt.Sprint(routes); got != "map[api:2 chat:180 no_route:3 web:401]" {
		t.Errorf("the log has %s", got)
	}
}

// Backends are found at unix sockets, at IPv6 addresses and by name, also where "localhost" is only one of its two addresses, and
// listeners may be several.
func TestAddresses(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "app.sock")
	a := startApp(t, "express.mjs", "a", "SOCKET="+socket)
	b := startApp(t, "express.mjs", "b", "HOST=::1")
	c := startApp(t, "express.mjs", "c", "HOST=localhost")
	d := startApp(t, "express.mjs", "d", "HOST=::1")
	l := startLB(t, setup{raw: head + fmt.Sprintf(`
[pool.app]
backends = [ { address = "unix:%s", name = "a" }, { address = "[::1]:%s", name = "b" }, { address = "localhost:%s", name = "c" }, { address = "localhost:%s", name = "d" } ]
strategy = "round_robin"
[listen.six]
address = "[::1]:0"
`, a.port, b.port, c.port, d.port)})
	if a.port != socket {
		t.Fatalf("the app listens on %s", a.port)
	}
	var all []sample
	for i, addr := range []string{l.addr, l.event(`msg=listening listener=six address=(\S+)`)} {
		all = append(all, flood(addr, 4, 300, func(c *conn, n int) sample { return work(c, 1000*i+n) })...)
	}
	allOK(t, all)
	if got := shares(all); got["a"] != 150 || got["b"] != 150 || got["c"] != 150 || got["d"] != 150 {
		t.Errorf("shares: %v", got)
	}
	if got := l.metrics().sum("lb_listener_requests_total", "listener=six"); got != 300 {
		t.Errorf("the second listener counts %v requests", got)
	}
	agree(t, l, all)
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("the app's socket: %v", err)
	}
}

// Limits that the file sets are held to, and the app hears of none of it.
func TestLimits(t *testing.T) {
	apps := startApps(t, 1, "express.mjs")
	l := startLB(t, setup{backends: apps, server: "max_body = \"10KiB\"\nmax_header_bytes = \"4KiB\"\nmax_header_fields = 20"})
	c := &conn{addr: l.addr}
	defer c.close()
	many := make([]string, 30)
	for i := range many {
		many[i] = fmt.Sprintf("X-%d: 1", i)
	}
	chunks := func(n int) string {
		return "POST /sum HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("400\r\n"+strings.Repeat("x", 1024)+"\r\n", n)
	}
	for what, check := range map[string]struct {
		answer func() answer
		status int
	}{
		"body at the limit":   {func() answer { return c.do("POST", "/sum", strings.Repeat("x", 10<<10)) }, 200},
		"body above it":       {func() answer { return c.do("POST", "/sum", strings.Repeat("x", 10<<10+1)) }, 413},
		"chunks at the limit": {func() answer { c.close(); c.write(t, chunks(10)+"0\r\n\r\n"); return c.receive("POST") }, 200},
		"chunks above it":     {func() answer { c.close(); c.write(t, chunks(11)); return c.receive("POST") }, 413},
		"many fields":         {func() answer { return c.do("GET", "/work/1", "", many...) }, 431},
		"a large field":       {func() answer { return c.do("GET", "/work/1", "", "X: "+strings.Repeat("x", 5000)) }, 431},
		"a field that fits":   {func() answer { return c.do("GET", "/work/1", "", "X: "+strings.Repeat("x", 3500)) }, 200},
		"CONNECT":             {func() answer { return c.do("CONNECT", "example.com:443", "") }, 501},
	} {
		if a := check.answer(); a.err != nil || a.status != check.status {
			t.Errorf("%s: %s, want %d", what, a.String(), check.status)
		}
	}
	c.close()
	l.settled()
	l.stop(0)
}
