package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lb/upstream"
	"lb/upstream/upstreamtest"
)

func addr(t testing.TB, s string) upstream.Addr {
	t.Helper()
	a, err := upstream.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// closedPort is an address at which nobody listens.
func closedPort(t testing.TB) upstream.Addr { return addr(t, upstreamtest.Refusing(t)) }

func ask(t testing.TB, c Check, a upstream.Addr) error {
	c = c.complete()
	return c.probe().run(t.Context(), a, 5*time.Second)
}

func TestTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := ask(t, Check{Kind: TCP}, addr(t, ln.Addr().String())); err != nil {
		t.Error(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("the probe sent %d bytes, then %v", n, err)
	}
	closed := closedPort(t)
	if err := ask(t, Check{Kind: TCP}, closed); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
	port := uint16(ln.Addr().(*net.TCPAddr).Port)
	if err := ask(t, Check{Kind: TCP, Port: port}, closed); err != nil {
		t.Errorf("port of its own: %v", err)
	}
	path := filepath.Join(t.TempDir(), "sock")
	if err := ask(t, Check{Kind: TCP}, addr(t, "unix:"+path)); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	un, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer un.Close()
	if err := ask(t, Check{Kind: TCP}, addr(t, "unix:"+path)); err != nil {
		t.Error(err)
	}
}

func TestHTTP(t *testing.T) {
	var got *http.Request
	answer := func(w http.ResponseWriter, r *http.Request) {
		got = r
		switch r.URL.Path {
		case "/ok":
			io.WriteString(w, `{"status":"ready"}`)
		case "/moved":
			http.Redirect(w, r, "/500", http.StatusFound)
		case "/500":
			w.WriteHeader(500)
		case "/204":
			w.WriteHeader(204)
		case "/drain":
			w.Header().Set("X-LB-Drain", "1")
			w.WriteHeader(503)
		case "/nodrain":
			w.Header().Set("X-LB-Drain", "0")
			w.WriteHeader(503)
		case "/long":
			io.WriteString(w, strings.Repeat("x", 1<<20)+"ready")
		default:
			http.NotFound(w, r)
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(answer))
	defer srv.Close()
	a := addr(t, strings.TrimPrefix(srv.URL, "http://"))
	for _, c := range []struct {
		check Check
		want  string
	}{
		{Check{Path: "/ok"}, ""},
		{Check{}, "status 404"},
		{Check{Path: "/moved"}, ""}, // not followed
		{Check{Path: "/500"}, "status 500"},
		{Check{Path: "/500", Status: []Range{{200, 299}, {500, 500}}}, ""},
		{Check{Path: "/204", Status: []Range{{200, 200}}}, "status 204"},
		{Check{Path: "/ok", Body: `"ready"`}, ""},
		{Check{Path: "/ok", Body: "starting"}, `body of 18 bytes without "starting"`},
		{Check{Path: "/long", Body: "ready"}, `body of 65536 bytes without "ready"`},
		{Check{Path: "/drain"}, ErrDrain.Error()},
		{Check{Path: "/nodrain"}, "status 503"},
		{Check{Path: "/ok", Method: "HEAD"}, ""},
	} {
		c.check.Kind = HTTP
		err := ask(t, c.check, a)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != c.want {
			t.Errorf("%+v: %q, want %q", c.check, text, c.want)
		}
	}
	c := Check{Kind: HTTP, Path: "/ok?deep=1", Method: "OPTIONS", Host: "app.example", Header: http.Header{"x-key": {"s3cret"}}}
	if err := ask(t, c, a); err != nil {
		t.Fatal(err)
	}
	if got.Host != "app.example" || got.Method != "OPTIONS" || got.URL.RawQuery != "deep=1" || got.Header.Get("X-Key") != "s3cret" ||
		got.Header.Get("User-Agent") != "lb-health" || !got.Close {
		t.Errorf("asked %s %s, Host %s, %v, close %v", got.Method, got.URL, got.Host, got.Header, got.Close)
	}

	path := filepath.Join(t.TempDir(), "sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	un := &http.Server{Handler: http.HandlerFunc(answer)}
	go un.Serve(ln)
	defer un.Close()
	if err := ask(t, Check{Kind: HTTP, Path: "/ok"}, addr(t, "unix:"+path)); err != nil || got.Host != "localhost" {
		t.Errorf("unix socket: %v, Host %s", err, got.Host)
	}
	if err := ask(t, Check{Kind: HTTP}, closedPort(t)); !errors.Is(err, syscall.ECONNREFUSED) || err.Error() != "connection refused" {
		t.Error(err)
	}
}

// TestZone: a link-local address has a zone, which is no part of a Host header.
func TestZone(t *testing.T) {
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6: ", err)
	}
	host := make(chan string, 1)
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { host <- r.Host })}
	go srv.Serve(ln)
	defer srv.Close()
	ap := ln.Addr().(*net.TCPAddr).AddrPort()
	a := upstream.Addr{AddrPort: netip.AddrPortFrom(ap.Addr().WithZone("1"), ap.Port())}
	if err := ask(t, Check{Kind: HTTP, Path: "/"}, a); err != nil {
		t.Fatal(err)
	}
	if got := <-host; got != ap.String() {
		t.Errorf("asked as %q, want %q", got, ap)
	}
}

// TestLocalhost: an app that listens at "localhost" may be at ::1 alone.
func TestLocalhost(t *testing.T) {
	ln := upstreamtest.IPv6Only(t)
	host := make(chan string, 1)
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { host <- r.Host })}
	go srv.Serve(ln)
	defer srv.Close()
	port := uint16(ln.Addr().(*net.TCPAddr).Port)
	at := fmt.Sprintf("localhost:%d", port)
	if err := ask(t, Check{Kind: HTTP}, addr(t, at)); err != nil {
		t.Fatal(err)
	}
	if got := <-host; got != at {
		t.Errorf("asked as %q, want %q", got, at)
	}
	if err := ask(t, Check{Kind: TCP, Port: port}, addr(t, "localhost:1")); err != nil {
		t.Errorf("port of its own: %v", err)
	}
	srv.Close()
	if err := ask(t, Check{Kind: TCP}, addr(t, at)); !errors.Is(err, syscall.ECONNREFUSED) || err.Error() != "connection refused" {
		t.Error(err)
	}
	if err := ask(t, Check{Kind: TCP}, upstream.Addr{AddrPort: addr(t, at).AddrPort}); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("127.0.0.1 by its number: %v", err)
	}
}

// TestProbeTimeout: what accepts and stays silent costs the timeout and no more.
func TestProbeTimeout(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := Check{Kind: HTTP}.complete()
	var conn net.Conn
	for limit := 20 * time.Millisecond; conn == nil; limit *= 2 { // on a busy machine it may be over before lb has connected
		if err := c.probe().run(t.Context(), addr(t, ln.Addr().String()), limit); !errors.Is(err, ErrTimeout) {
			t.Fatal(err)
		}
		ln.(*net.TCPListener).SetDeadline(time.Now().Add(limit))
		conn, _ = ln.Accept()
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.probe().run(ctx, addr(t, ln.Addr().String()), time.Hour); err == nil {
		t.Error("no error of a probe that was called off")
	}
	io.Copy(io.Discard, conn) // ends: the probe has closed its side
}

func TestMalformed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "SSH-2.0-OpenSSH\r\n")
			conn.Close()
		}
	}()
	if err := ask(t, Check{Kind: HTTP}, addr(t, ln.Addr().String())); err == nil || strings.Contains(err.Error(), "http://") {
		t.Error(err)
	}
}

// TestRealBackends goes through a process that ends and begins again, with real sockets and the real clock.
func TestRealBackends(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().String()
	events := make(chan Event, 100)
	p := upstream.NewPool("app", 1, []upstream.Spec{{Name: "a", Addr: addr(t, at), Weight: 1}}, nil,
		func(r []*upstream.Backend) upstream.Strategy { return want(r) })
	c := DefaultCheck()
	c.Interval, c.Changing, c.Down = 20*ms, 10*ms, 20*ms
	m := New(p, c, Passive{}, Options{OnEvent: func(e Event) { events <- e }})
	defer m.Close()
	next := func(what What) {
		t.Helper()
		if e := <-events; e.What != what || e.Backend != "a" {
			t.Fatalf("%v %s (%s), want %v", e.What, e.Backend, e.Why, what)
		}
	}
	next(WentUp)
	ln.Close()
	next(WentDown)

	s := new(upstream.Selection)
	s.Reset(1, 0)
	woken := make(chan struct{})
	w := &upstream.Waiter{Wake: func() { close(woken) }}
	if _, err := p.Acquire(s); !errors.Is(err, upstream.ErrNoBackend) || !p.Wait(w, s) {
		t.Fatal(err)
	}
	ln, err = net.Listen("tcp", at)
	if err != nil {
		t.Skip(err) // somebody else took the port
	}
	defer ln.Close()
	<-woken
	next(WentUp)
	l, err := p.Acquire(s)
	if err != nil {
		t.Fatal(err)
	}
	l.Done(upstream.Outcome{})
}
