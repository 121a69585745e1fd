package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
)

// work asks an Express app for a path of its own.
func work(c *conn, n int) sample {
	path := fmt.Sprintf("/work/%d", n)
	return sample{path, c.do("GET", path, "")}
}

// agree holds the metrics and the access log of lb, which it stops, against what clients saw.
func agree(t *testing.T, l *lb, all []sample) {
	t.Helper()
	m := l.settled()
	if got := m.sum("lb_listener_requests_total"); got != float64(len(all)) {
		t.Errorf("lb_listener_requests_total is %v, clients made %d", got, len(all))
	}
	for name, n := range shares(all) {
		if got := m.sum("lb_backend_requests_total", "backend="+name); got != float64(n) {
			t.Errorf("backend %s: lb counts %v requests, clients %d", name, got, n)
		}
		if got := m.sum("lb_backend_picks_total", "backend="+name); got != float64(n) {
			t.Errorf("backend %s: lb counts %v picks, clients %d", name, got, n)
		}
	}
	if got := m.sum("lb_listener_failed_requests_total"); got != 0 {
		t.Errorf("lb_listener_failed_requests_total is %v", got)
	}
	body := 0
	for _, s := range all {
		body += len(s.body)
	}
	if got := m.sum("lb_listener_sent_bytes_total"); got != float64(body) {
		t.Errorf("lb_listener_sent_bytes_total is %v, clients got %d", got, body)
	}
	l.stop(0)
	holdsAgainst(t, readLog(t, l.logPath), all)
}

// Every strategy spreads requests of kept connections evenly over instances that are equally fast.
func TestExpressEven(t *testing.T) {
	apps := startApps(t, 4, "express.mjs")
	for _, c := range []struct {
		name, pool string
		rate       int     // requests a second, 0: as fast as they are answered
		most       float64 // of the largest share over the mean
	}{
		{"round_robin", `strategy = "round_robin"`, 0, 1.01},
		{"random", `strategy = "random"`, 0, 1.2}, // three standard deviations are 0.11
		// These go by who is busy, which on a machine that is busy itself is not everybody alike.
		{"least_conn", `strategy = "least_conn"`, 800, 1.5},
		{"p2c", `strategy = "p2c"`, 800, 1.5},
		// And by who was fast. Node is the faster the more it runs, which must not end with one that gets nearly all.
		{"ewma", `strategy = "ewma"`, 800, 2},
		{"adaptive, the default", ``, 800, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			const n = 2400
			l := startLB(t, setup{backends: apps, pool: c.pool})
			var all []sample
			if c.rate == 0 {
				all = flood(l.addr, 16, n, work)
			} else {
				traffic := startLoad(t, l.addr, 16, c.rate, nil)
				traffic.goesOn(t, n)
				all = traffic.end()
			}
			allOK(t, all)
			for _, s := range all {
				if want := s.instance + " did " + strings.TrimPrefix(s.path, "/work/"); s.body != want {
					t.Errorf("%s: got %q, want %q", s.path, s.body, want)
				}
			}
			if got := len(shares(all)); got != len(apps) {
				t.Errorf("%d instances were asked: %v", got, shares(all))
			}
			got := unevenness(shares(all), len(apps))
			if t.Logf("the largest share is %.3f of the mean", got); got > c.most {
				t.Errorf("want at most %v: %v", c.most, shares(all))
			}
			m := l.metrics()
			if got := m.sum("lb_listener_connections_accepted_total"); got != 16 {
				t.Errorf("lb accepted %v connections, clients made 16", got)
			}
			if opened := m.sum("lb_backend_connections_opened_total"); opened > 4*16 {
				t.Errorf("lb made %v connections to the apps for 16 clients: it does not reuse them", opened)
			}
			agree(t, l, all)
		})
	}
}

// What an Express app behind lb is told about its client.
func TestExpressSees(t *testing.T) {
	apps := startApps(t, 1, "express.mjs")
	type seen struct {
		Method, OriginalURL, IP, Protocol, Hostname, HTTPVersion string
		Secure                                                   bool
		IPs                                                      []string
		Headers                                                  map[string]string
	}
	ask := func(t *testing.T, l *lb, header http.Header) seen {
		t.Helper()
		// From an address of its own, to be told from that of lb.
		from := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}).DialContext}
		defer from.CloseIdleConnections()
		req, err := http.NewRequest("GET", l.url+"/seen?a=1&b=%20", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "shop.example:8443"
		req.Header = header
		resp, err := from.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var s seen
		if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	same := func(t *testing.T, what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s is %q, want %q", what, got, want)
		}
	}
	forged := http.Header{
		"X-Forwarded-For":   {"203.0.113.7"},
		"X-Forwarded-Proto": {"https"},
		"X-Forwarded-Host":  {"bank.example"},
		"X-Real-Ip":         {"203.0.113.7"},
		"Forwarded":         {"for=203.0.113.7"},
		"X-Request-Id":      {"mine"},
		"Connection":        {"X-Secret, keep-alive"},
		"X-Secret":          {"for the next hop only"},
		"Keep-Alive":        {"timeout=99"},
		"Te":                {"trailers"},
		"Proxy-Connection":  {"keep-alive"},
		"X-Custom":          {"kept"},
		"Cookie":            {"a=1; b=2"},
	}
	t.Run("of a stranger", func(t *testing.T) {
		l := startLB(t, setup{backends: apps})
		s := ask(t, l, forged)
		same(t, "req.method", s.Method, "GET")
		same(t, "req.originalUrl", s.OriginalURL, "/seen?a=1&b=%20")
		same(t, "req.ip", s.IP, "127.0.0.9")
		same(t, "req.ips", strings.Join(s.IPs, ","), "127.0.0.9")
		same(t, "req.protocol", s.Protocol, "http")
		same(t, "req.hostname", s.Hostname, "shop.example")
		same(t, "req.httpVersion", s.HTTPVersion, "1.1")
		same(t, "X-Forwarded-For", s.Headers["x-forwarded-for"], "127.0.0.9")
		same(t, "X-Forwarded-Proto", s.Headers["x-forwarded-proto"], "http")
		same(t, "X-Real-IP", s.Headers["x-real-ip"], "127.0.0.9")
		same(t, "Host", s.Headers["host"], "shop.example:8443")
		same(t, "X-Custom", s.Headers["x-custom"], "kept")
		same(t, "Cookie", s.Headers["cookie"], "a=1; b=2")
		if s.Headers["x-request-id"] == "" || s.Headers["x-request-id"] == "mine" {
			t.Errorf("X-Request-Id is %q", s.Headers["x-request-id"])
		}
		for _, name := range []string{"x-secret", "keep-alive", "proxy-connection"} {
			if v, ok := s.Headers[name]; ok {
				t.Errorf("the app got %s: %q, a matter between client and lb", name, v)
			}
		}
		if v := s.Headers["forwarded"]; strings.Contains(v, "203.0.113.7") {
			t.Errorf("the app got a stranger's Forwarded: %q", v)
		}
		l.stop(0)
		log := readLog(t, l.logPath)
		if len(log) != 1 {
			t.Fatalf("%d lines for one request", len(log))
		}
		r := log[0]
		same(t, "client of the log", r.Client, "127.0.0.9")
		same(t, "host of the log", r.Host, "shop.example:8443")
		same(t, "path of the log", r.Path, "/seen?a=1&b=%20")
		same(t, "request_id of the log", r.RequestID, s.Headers["x-request-id"])
	})
	t.Run("of a trusted proxy's client", func(t *testing.T) {
		l := startLB(t, setup{backends: apps, server: `trusted_proxies = ["127.0.0.0/8"]`})
		s := ask(t, l, forged)
		same(t, "req.protocol", s.Protocol, "https")
		same(t, "req.hostname", s.Hostname, "bank.example")
		same(t, "X-Forwarded-For", s.Headers["x-forwarded-for"], "203.0.113.7, 127.0.0.9")
		same(t, "X-Real-IP", s.Headers["x-real-ip"], "203.0.113.7")
		same(t, "X-Request-Id", s.Headers["x-request-id"], "mine")
		l.stop(0)
		same(t, "client of the log", readLog(t, l.logPath)[0].Client, "203.0.113.7")
	})
}

// Bodies both ways, and answers of the app that are no success.
func TestExpressBodies(t *testing.T) {
	apps := startApps(t, 4, "express.mjs")
	l := startLB(t, setup{backends: apps, pool: `strategy = "round_robin"`})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	do := func(method, path, contentType string, body io.Reader) (*http.Response, []byte) {
		t.Helper()
		req, err := http.NewRequest(method, l.url+path, body)
		if err != nil {
			t.Fatal(err)
		}
		if contentType != "" {
			req.Header.Set("Content-Type", contentType)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		return resp, b
	}
	requests := 0
	for i := range 40 {
		requests++
		resp, b := do("POST", "/json", "application/json", strings.NewReader(fmt.Sprintf(`{"n":%d,"text":"žluťoučký"}`, i)))
		if want := fmt.Sprintf(`{"got":{"n":%d,"text":"žluťoučký"},"by":%q}`, i, resp.Header.Get("X-Instance")); resp.StatusCode != 201 || string(b) != want {
			t.Fatalf("got %d %s, want %s", resp.StatusCode, b, want)
		}
	}
	random := rand.NewChaCha8([32]byte{1})
	for _, size := range []int{0, 1, 1000, 16 << 10, 64<<10 - 1, 64 << 10, 1 << 20, 5<<20 + 1} {
		data := make([]byte, size)
		random.Read(data)
		sum := sha256.Sum256(data)
		for _, chunked := range []bool{false, true} {
			body := io.Reader(bytes.NewReader(data))
			if chunked {
				body = struct{ io.Reader }{body} // whose length net/http cannot know
			}
			requests++
			resp, b := do("POST", "/sum", "application/octet-stream", body)
			if want := fmt.Sprintf(`{"length":%d,"sum":"%s"}`, size, hex.EncodeToString(sum[:])); resp.StatusCode != 200 || string(b) != want {
				t.Errorf("upload of %d bytes, chunked %t: got %d %s, want %s", size, chunked, resp.StatusCode, b, want)
			}
		}
		requests++
		resp, b := do("GET", fmt.Sprintf("/bytes/%d", size), "", nil)
		if want := bytes.Repeat([]byte(resp.Header.Get("X-Instance")), size); !bytes.Equal(b, want) || resp.ContentLength != int64(size) {
			t.Errorf("download of %d bytes: got %d, Content-Length %d", size, len(b), resp.ContentLength)
		}
	}
	for path, want := range map[string]struct {
		status int
		body   string
	}{"/nothing/here": {404, "Cannot GET /nothing/here"}, "/fails": {500, "as asked"}} {
		requests++
		resp, b := do("GET", path, "", nil)
		if resp.StatusCode != want.status || !strings.Contains(string(b), want.body) || resp.Header.Get("X-Instance") == "" {
			t.Errorf("%s: got %d %s", path, resp.StatusCode, b)
		}
	}
	requests++
	if resp, b := do("POST", "/json", "application/json", strings.NewReader(`{"n":`)); resp.StatusCode != 500 || len(b) == 0 {
		t.Errorf("bad JSON: got %d %s", resp.StatusCode, b)
	}
	client.CloseIdleConnections()

	m := l.settled()
	for name, want := range map[string]float64{"2xx": float64(requests - 3), "4xx": 1, "5xx": 2} {
		if got := m.sum("lb_backend_requests_total", "code="+name); got != want {
			t.Errorf("lb counts %v answers of %s, clients got %v", got, name, want)
		}
	}
	if got := m.sum("lb_listener_failed_requests_total"); got != 0 {
		t.Errorf("lb counts %v failures, but the answers were the app's own", got)
	}
	l.stop(0)
	var in int64
	for _, r := range readLog(t, l.logPath) {
		if r.Reason != "" || r.Tries != 1 {
			t.Errorf("%s %s: reason %q, %d tries", r.Method, r.Path, r.Reason, r.Tries)
		}
		in += r.BytesIn
		requests--
	}
	if requests != 0 {
		t.Errorf("%d lines are missing", requests)
	}
	if got := m.sum("lb_listener_received_bytes_total"); got != float64(in) {
		t.Errorf("the metrics count %v bytes from clients, the log %d", got, in)
	}
}
