package proxy

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lb/accesslog"
)

// logged is what a test looks at of a line.
type logged struct {
	Method, Host, Target, Backend, Reason string
	Status, Tries                         int
	In, Out                               int64
}

// TestAccessLog looks at the line of each kind of end that a request can have.
func TestAccessLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log, err := accesslog.Open(accesslog.Options{Format: accesslog.JSON, Path: path, Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single, func(p *plan) {
		p.Log = log
		p.pool.ReadTimeout = 100 * time.Millisecond
		p.MaxBody = 1000
	})
	p := l.client()

	p.send(request("POST", "/fine?q", "body"))
	b := o.accept()
	b.head()
	b.take(4)
	b.send(ok("12345"))
	p.status(200)
	l.idle(1)

	p.send(get("/stale"))
	b.head()
	b.close()
	b = o.accept()
	b.head()
	b.send(ok("1"))
	p.status(200)

	p.send("POST /chunks HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
	b.head()
	b.chunked()
	b.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nabcd\r\n2\r\nef\r\n0\r\nA: b\r\n\r\n")
	p.status(200)

	p.send("HEAD /head HTTP/1.1\r\nHost: a.example\r\n\r\n")
	b.head()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
	p.head()

	p.send(get("/nonsense"))
	b.head()
	b.send("what?\r\n\r\n")
	p.status(502)

	p.send(request("POST", "/large", strings.Repeat("x", 1001)))
	p.status(413)
	p.rest()

	p = l.client()
	p.send("GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
	p.status(400)
	p.rest()

	p = l.client()
	p.send(get("/stalls"))
	b = o.accept()
	b.head()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
	p.head()
	p.expect("hello")
	p.closed()

	p = l.client()
	p.send(get("/gone"))
	b = o.accept()
	b.head()
	p.reset()
	b.closed()

	c, b := l.tunnel(o)
	c.send("12345678")
	b.expect("12345678")
	b.send("123")
	c.expect("123")
	c.close()
	b.close()
	l.tunnels(0)

	l.close(time.Second)
	if err := log.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const h = "a.example"
	want := []logged{
		{"POST", h, "/fine?q", o.addr, "", 200, 1, 4, 5},
		{"GET", h, "/stale", o.addr, "", 200, 2, 0, 1},
		{"POST", h, "/chunks", o.addr, "", 200, 1, 3, 6},
		{"HEAD", h, "/head", o.addr, "", 200, 1, 0, 0},
		{"GET", h, "/nonsense", o.addr, "bad_version", 502, 1, 0, 16},
		{"POST", h, "/large", "", "body_too_large", 413, 0, 0, 29},
		{"", "", "", "", "two_hosts", 400, 0, 0, 16},
		{"GET", h, "/stalls", o.addr, "backend_stalled", 200, 1, 0, 5},
		{"GET", h, "/gone", o.addr, "client_gone", 499, 1, 0, 0},
		{"GET", h, "/ws", o.addr, "", 101, 1, 8, 3},
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), data)
	}
	for i, line := range lines {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		text := func(k string) string { s, _ := m[k].(string); return s }
		number := func(k string) int64 { n, _ := m[k].(float64); return int64(n) }
		got := logged{text("method"), text("host"), text("path"), text("backend"), text("reason"), int(number("status")),
			int(number("tries")), number("bytes_in"), number("bytes_out")}
		if got != want[i] {
			t.Errorf("got  %+v\nwant %+v\n%s", got, want[i], line)
		}
	}
}
