package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// write sends bytes as they are. It may be called on any goroutine.
func (c *conn) write(t testing.TB, s string) {
	t.Helper()
	if err := c.dial(); err != nil {
		t.Error(err)
		return
	}
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c.Conn, s); err != nil {
		t.Error(err)
	}
}

// interim reads a response of status 1xx, head alone.
func interim(t testing.TB, r *bufio.Reader) (status string, header http.Header) {
	t.Helper()
	status, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	header = http.Header{}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		k, v, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			return strings.TrimSpace(status), header
		}
		header.Add(k, v)
	}
}

// lb and Node's own HTTP server agree on where messages end and what is in them. All of it goes over one connection
// where it can, so that a byte too many or too few upsets what follows.
func TestNodeEdges(t *testing.T) {
	node := startApp(t, "edges.mjs", "a")
	l := startLB(t, setup{backends: []*app{node}})
	c := &conn{addr: l.addr}
	defer c.close()
	requests, refused := 0, 0
	// is does a request and holds what comes to a status and a body.
	is := func(t *testing.T, method, path string, status int, body string, header ...string) answer {
		t.Helper()
		requests++
		a := c.do(method, path, "", header...)
		if a.err != nil || a.status != status || a.body != body {
			t.Errorf("%s %s: %s, want %d %q", method, path, a.String(), status, body)
		}
		return a
	}
	kept := func(t *testing.T, want int) {
		t.Helper()
		if c.dials != want {
			t.Errorf("the client needed %d connections, want %d", c.dials, want)
		}
	}

	t.Run("no body", func(t *testing.T) {
		for range 2 {
			if a := is(t, "HEAD", "/length", 200, ""); a.header.Get("Content-Length") != "12" {
				t.Errorf("HEAD got %v", a.header)
			}
			is(t, "GET", "/length", 200, "twelve bytes")
			is(t, "HEAD", "/chunked", 200, "")
			if a := is(t, "GET", "/no-content", 204, ""); a.header.Get("X-Kept") != "yes" || a.header.Get("Content-Length") != "" || a.header.Get("Transfer-Encoding") != "" {
				t.Errorf("204 got %v", a.header)
			}
			is(t, "GET", "/not-modified", 200, "version one")
			if a := is(t, "GET", "/not-modified", 304, "", `If-None-Match: "v1"`); a.header.Get("ETag") != `"v1"` {
				t.Errorf("304 got %v", a.header)
			}
			is(t, "HEAD", "/nowhere", 404, "")
			is(t, "OPTIONS", "/nowhere", 404, "nothing here")
		}
		kept(t, 1)
	})
	t.Run("framing", func(t *testing.T) {
		is(t, "GET", "/chunked", 200, "one, two, three")
		is(t, "GET", "/until-close", 200, "until the end")
		a := is(t, "GET", "/trailers", 200, "body, then trailers")
		if got := a.trailer.Get("X-Sum"); got != "of-the-body" {
			t.Errorf("trailers: %v", a.trailer)
		}
		a = is(t, "GET", "/cookies", 200, "")
		if got := fmt.Sprint(a.header["Set-Cookie"]); got != "[a=1; Path=/ b=2; HttpOnly]" {
			t.Errorf("Set-Cookie: %s", got)
		}
		if got := a.header.Get("X-Latin"); got != "caf\xe9" {
			t.Errorf("a byte that is not ASCII came as %q", got)
		}
		kept(t, 1)
	})
	t.Run("pipelining", func(t *testing.T) {
		var b strings.Builder
		for range 20 {
			b.WriteString("GET /length HTTP/1.1\r\nHost: e2e.test\r\n\r\nHEAD /length HTTP/1.1\r\nHost: e2e.test\r\n\r\n" +
				"POST /echo HTTP/1.1\r\nHost: e2e.test\r\nContent-Length: 5\r\n\r\nhello")
		}
		c.write(t, b.String())
		for i := range 20 {
			requests += 3
			if a := c.receive("GET"); !a.ok() || a.body != "twelve bytes" {
				t.Fatalf("GET %d: %s", i, a.String())
			}
			if a := c.receive("HEAD"); !a.ok() || a.header.Get("Content-Length") != "12" {
				t.Fatalf("HEAD %d: %s", i, a.String())
			}
			if a := c.receive("POST"); !a.ok() || !strings.Contains(a.body, `"body":"hello"`) {
				t.Fatalf("POST %d: %s", i, a.String())
			}
		}
		kept(t, 1)
	})
	t.Run("chunked upload with trailers", func(t *testing.T) {
		requests++
		c.write(t, "POST /echo HTTP/1.1\r\nHost: e2e.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check\r\n\r\n")
		for _, piece := range []string{"5\r\nhello\r", "\n", "1", "0;ext=1\r\n0123456789abcdef\r\n", "0\r\nX-Check: yes\r\n", "\r\n"} {
			c.write(t, piece)
		}
		a := c.receive("POST")
		var got struct {
			Body     string
			Trailers map[string]string
		}
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || got.Body != "hello0123456789abcdef" || got.Trailers["x-check"] != "yes" {
			t.Errorf("got %s", a.String())
		}
		kept(t, 1)
	})
	t.Run("100-continue", func(t *testing.T) {
		for range 2 {
			requests++
			c.write(t, "POST /echo HTTP/1.1\r\nHost: e2e.test\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
			if status, _ := interim(t, c.r); status != "HTTP/1.1 100 Continue" {
				t.Fatalf("got %s", status)
			}
			c.write(t, "continued")
			if a := c.receive("POST"); !a.ok() || !strings.Contains(a.body, `"body":"continued"`) {
				t.Errorf("got %s", a.String())
			}
		}
		kept(t, 1)
		requests++
		c.write(t, "POST /echo HTTP/1.1\r\nHost: e2e.test\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\nX-Refuse: 1\r\n\r\n")
		if a := c.receive("POST"); a.status != 417 || a.body != "not that" {
			t.Errorf("refused: got %s", a.String())
		}
		c.close() // the body that was never sent leaves the connection in doubt
		is(t, "GET", "/length", 200, "twelve bytes")
	})
	t.Run("early hints", func(t *testing.T) {
		requests++
		c.write(t, "GET /early-hints HTTP/1.1\r\nHost: e2e.test\r\n\r\n")
		status, header := interim(t, c.r)
		if status != "HTTP/1.1 103 Early Hints" || !strings.Contains(strings.Join(header["Link"], ", "), "</style.css>") {
			t.Fatalf("got %s %v", status, header)
		}
		if status, _ := interim(t, c.r); status != "HTTP/1.1 102 Processing" {
			t.Fatalf("got %s", status)
		}
		if a := c.receive("GET"); !a.ok() || a.body != "the page" {
			t.Errorf("got %s", a.String())
		}
	})
	t.Run("early answer", func(t *testing.T) {
		requests++
		up := &conn{addr: l.addr}
		defer up.close()
		up.write(t, "POST /early-answer HTTP/1.1\r\nHost: e2e.test\r\nContent-Length: 100000000\r\n\r\n")
		stop := make(chan struct{})
		go func() { // until the answer is there
			for b := make([]byte, 64<<10); ; {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := up.Conn.Write(b); err != nil {
					return
				}
			}
		}()
		conn := up.Conn
		resp, err := http.ReadResponse(up.r, nil)
		close(stop)
		if err != nil {
			t.Fatalf("the answer came too late: %v", err)
		}
		b, err := io.ReadAll(resp.Body)
		if resp.StatusCode != 413 || string(b) != "too large for me" {
			t.Errorf("got %d %s %v", resp.StatusCode, b, err)
		}
		conn.Close()
	})
	t.Run("HTTP/1.0", func(t *testing.T) {
		for path, want := range map[string]string{"/length": "twelve bytes", "/chunked": "one, two, three", "/until-close": "until the end"} {
			requests++
			old := &conn{addr: l.addr}
			defer old.close()
			old.write(t, "GET "+path+" HTTP/1.0\r\nHost: e2e.test\r\n\r\n")
			b, err := io.ReadAll(old.r) // to the end of the connection, which 1.0 has after each answer
			head, body, _ := strings.Cut(string(b), "\r\n\r\n")
			if err != nil || body != want || strings.Contains(strings.ToLower(head), "transfer-encoding") {
				t.Errorf("%s: got %q, %v", path, b, err)
			}
		}
		requests += 2
		old := &conn{addr: l.addr}
		defer old.close()
		for range 2 {
			old.write(t, "GET /length HTTP/1.0\r\nHost: e2e.test\r\nConnection: keep-alive\r\n\r\n")
			if a := old.receive("GET"); !a.ok() || a.body != "twelve bytes" {
				t.Errorf("kept: got %s", a.String())
			}
		}
		if old.dials != 1 {
			t.Error("a connection of HTTP/1.0 that asked to be kept was closed")
		}
	})
	t.Run("app ends without an answer", func(t *testing.T) {
		for _, method := range []string{"GET", "POST"} {
			refused++
			is(t, method, "/die", 502, "502 Bad Gateway\n")
		}
		is(t, "GET", "/length", 200, "twelve bytes")
	})
	// What lb refuses, Node never sees: not even as an error.
	before := l.settled().sum("lb_backend_picks_total")
	t.Run("refused", func(t *testing.T) {
		for what, raw := range map[string]string{
			"two lengths":         "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
			"length and chunks":   "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"chunks in HTTP/1.0":  "POST /echo HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"space before colon":  "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
			"folding":             "GET / HTTP/1.1\r\nHost: h\r\nX: 1\r\n 2\r\n\r\n",
			"bare LF":             "GET / HTTP/1.1\nHost: h\n\n",
			"bare CR":             "GET / HTTP/1.1\r\nHost: h\r\nX: 1\r2\r\n\r\n",
			"no host":             "GET / HTTP/1.1\r\n\r\n",
			"two hosts":           "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
			"bad first chunk":     "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
			"NUL in a value":      "GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n",
			"a space in the path": "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
		} {
			refused++
			bad := &conn{addr: l.addr}
			bad.write(t, raw)
			a := bad.receive("GET")
			if a.status != 400 {
				t.Errorf("%s: %s", what, a.String())
			}
			if bad.Conn != nil {
				t.Errorf("%s: the connection was kept", what)
			}
			bad.close()
		}
		if got := l.settled().sum("lb_backend_picks_total"); got != before {
			t.Errorf("%v of the requests came to the app", got-before)
		}
		// Further on in a body, the app has had the head; it must not take what came for the whole.
		refused++
		bad := &conn{addr: l.addr}
		defer bad.close()
		bad.write(t, "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		l.reaches(1, "lb_backend_inflight_requests")
		bad.write(t, "5\nhello\r\n0\r\n\r\n")
		if a := bad.receive("POST"); a.status != 400 {
			t.Errorf("bad chunk in the middle: %s", a.String())
		}
	})
	for _, line := range node.stdout() {
		switch line {
		case "clientError ECONNRESET", "clientError HPE_INVALID_EOF_STATE": // uploads that broke off
		default:
			if strings.HasPrefix(line, "clientError") {
				t.Errorf("Node could not read what lb sent: %s", line)
			}
		}
	}
	c.close()
	m := l.settled()
	if got := m.sum("lb_listener_failed_requests_total"); got != float64(refused) {
		t.Errorf("lb counts %v failed requests, want %d", got, refused)
	}
	l.stop(0)
	if log := readLog(t, l.logPath); len(log) != requests+refused-2 { // the two of /die are in both
		t.Errorf("the log has %d lines, want %d", len(log), requests+refused-2)
	}
}

// POSTs that come just as Node closes idle connections are answered: lb stays clear of the keep-alive timeout that Node
// announces, since a POST that was sent into a closing connection cannot be sent again.
func TestKeepAliveTimeout(t *testing.T) {
	const clients = 16
	for _, c := range []struct {
		name string
		ms   int           // announced in whole seconds
		edge time.Duration // 0: when Node closes
	}{
		{"as Node closes", 1, 0},
		{"as lb closes", 2000, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			node := startApp(t, "edges.mjs", "a", fmt.Sprintf("KEEP_ALIVE_MS=%d", c.ms))
			edge := c.edge
			if edge == 0 {
				edge = closesAfter(t, node)
			}
			l := startLB(t, setup{backends: []*app{node}})
			all := make([]*conn, clients)
			for i := range all {
				all[i] = &conn{addr: l.addr}
				defer all[i].close()
			}
			// Waves of POSTs that are all in flight at once, so that each needs a connection of its own, and the
			// connections are then idle until the next wave: from before the timeout to after it.
			waves := 0
			for gap := edge - 9*time.Millisecond; gap <= edge+3*time.Millisecond; gap += 2 * time.Millisecond {
				var wave sync.WaitGroup
				for _, c := range all {
					wave.Go(func() {
						if a := c.do("POST", "/together", "posted", fmt.Sprint("X-Count: ", clients)); !a.ok() {
							t.Errorf("POST in wave %d around %v: %s", waves, edge, a.String())
							node.order("release") // the others wait in vain
						}
					})
				}
				wave.Wait()
				waves++
				<-time.After(gap) // what is tested
			}
			m := l.settled()
			if got := m.sum("lb_backend_faults_total"); got != 0 {
				t.Errorf("lb counts %v faults", got)
			}
			t.Logf("%d POSTs, %v on a connection that had served before", clients*waves, m.sum("lb_backend_connections_reused_total"))
			l.stop(0)
		})
	}
}

// closesAfter measures for how long a Node server keeps an idle connection: versions differ in what they add to what
// they announce.
func closesAfter(t *testing.T, node *app) time.Duration {
	t.Helper()
	c := &conn{addr: node.addr()}
	defer c.close()
	if a := c.do("GET", "/length", ""); !a.ok() {
		t.Fatal(a.String())
	}
	begin := time.Now()
	if _, err := c.r.ReadByte(); err != io.EOF {
		t.Fatalf("an idle connection ended with %v", err)
	}
	return time.Since(begin)
}
