package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func backend(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func (l *lab) get(path string) (*http.Response, string) {
	l.t.Helper()
	l.t.Cleanup(http.DefaultClient.CloseIdleConnections)
	res, err := http.Get("http://" + l.addr + path)
	if err != nil {
		l.t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	res.Body.Close()
	return res, string(b)
}

func TestGet(t *testing.T) {
	l := newLab(t, []string{backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Forwarded-For") != "127.0.0.1" || r.Header.Get("X-Request-Id") == "" {
			t.Errorf("head: %v", r.Header)
		}
		fmt.Fprintf(w, "%s %s %s", r.Method, r.Host, r.URL)
	})})
	for range 10 {
		res, body := l.get("/a?b=c")
		if res.StatusCode != 200 || body != "GET "+l.addr+" /a?b=c" {
			t.Fatalf("%d %q", res.StatusCode, body)
		}
	}
}

func TestBodies(t *testing.T) {
	l := newLab(t, []string{backend(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	})})
	for _, size := range []int{0, 1, 1000, 16 << 10, 100_000, 5 << 20} {
		for _, chunked := range []bool{false, true} {
			want := strings.Repeat("x", size)
			var r io.Reader = strings.NewReader(want)
			if chunked {
				r = io.MultiReader(r)
			}
			res, err := http.Post("http://"+l.addr+"/", "text/plain", r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || string(got) != want {
				t.Fatalf("size %d chunked %v: %d bytes, %v", size, chunked, len(got), err)
			}
		}
	}
}

func TestUpgrade(t *testing.T) {
	l := newLab(t, []string{backend(t, func(w http.ResponseWriter, r *http.Request) {
		c, rw, _ := w.(http.Hijacker).Hijack()
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi")
		io.Copy(c, rw)
	})})
	c := l.dial()
	io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("%v %v", res, err)
	}
	b := make([]byte, 2)
	io.ReadFull(br, b)
	if string(b) != "hi" {
		t.Fatalf("%q", b)
	}
	for i := range 100 {
		s := fmt.Sprintf("message %d", i)
		io.WriteString(c, s)
		b := make([]byte, len(s))
		if _, err := io.ReadFull(br, b); err != nil || string(b) != s {
			t.Fatalf("%q %v", b, err)
		}
	}
	if n := l.pool.Snapshot().All[0].Tunnels(); n != 1 {
		t.Fatalf("%d tunnels", n)
	}
}
