package proxy

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"lb/accesslog"
	"lb/affinity"
	"lb/upstream"
)

// exchanges are kinds of keep-alive traffic that cost no memory once lb is warm.
var exchanges = []struct {
	name, request, answer string // answer is both what the backend sends and, in length, what the client gets
	options               []option
}{
	{"GET", "GET / HTTP/1.1\r\nHost: a.example\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: 64\r\n\r\n" + strings.Repeat("x", 64), nil},
	{"POST", request("POST", "/", strings.Repeat("x", 1000)), ok(strings.Repeat("y", 1000)), nil},
	{"chunks", "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", nil},
	{"large", request("POST", "/", strings.Repeat("x", 100_000)), ok(strings.Repeat("y", 100_000)), nil},
	{"behind a trusted proxy", "GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 203.0.113.9, 10.1.2.3\r\nX-Forwarded-Proto: https\r\nX-Request-Id: abc\r\n\r\n",
		ok("x"), []option{trust("127.0.0.0/8", "10.0.0.0/8")}},
	{"logged", get("/", "User-Agent: x"), ok("x"), []option{withLog}},
	{"ewma", get("/"), ok("x"), []option{func(p *plan) { p.strategy = "ewma" }}},
	{"adaptive", get("/a/path/1234?b=c"), ok("x"), []option{hold(time.Minute, time.Minute), func(p *plan) { p.strategy = "adaptive" }}},
	{"not of Socket.IO", get("/?a=b&REIO=4"), ok("x"), []option{sticky(affinity.Options{SocketIO: true})}},
	{"of Socket.IO", get("/socket.io/?EIO=4&transport=polling&sid=lv_VI97HAXpY6yYWAAAC"), ok("x"), []option{sticky(affinity.Options{SocketIO: true})}},
	{"application cookie", get("/", "Cookie: a=b; sid=12345678901234567890"), ok("x"), []option{sticky(affinity.Options{Kind: affinity.AppCookie, AppCookie: "sid"})}},
	{"hashed", get("/", "Cookie: a=b; sid=12345678901234567890"), ok("x"),
		[]option{sticky(affinity.Options{Kind: affinity.Hash, Hash: affinity.HashKey{Source: affinity.FromCookie, Name: "sid"}}), func(p *plan) { p.strategy = "hash" }}},
	{"hop-by-hop", get("/", "Connection: keep-alive, X-Hop", "X-Hop: 1", "Keep-Alive: 3"), ok("x"), nil},
}

// withLog writes an access log to nowhere.
func withLog(p *plan) {
	log, err := accesslog.Open(accesslog.Options{Format: accesslog.JSON, Path: os.DevNull, Loops: p.loops})
	if err != nil {
		panic(err)
	}
	p.Log = log
	p.after = func() { log.Close(context.Background()) }
}

// drive sends n requests one after the other, without allocating.
func drive(conn net.Conn, request, buf []byte, size, n int) error {
	for range n {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		for have := 0; have < size; {
			k, err := conn.Read(buf)
			if err != nil {
				return err
			}
			have += k
		}
	}
	return nil
}

// replay answers whatever ends with the end of the request that the lab's clients send.
func replay(t testing.TB, request, answer string) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	_, body, _ := strings.Cut(request, "\r\n\r\n")
	end := []byte("\r\n\r\n")
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf, out := make([]byte, 256<<10), []byte(answer)
				have := 0
				for {
					k, err := c.Read(buf[have:])
					if err != nil {
						return
					}
					have += k
					if i := bytes.Index(buf[:have], end); i < 0 || have < i+len(end)+len(body) {
						continue
					}
					have = 0
					if _, err := c.Write(out); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

func TestNoAllocations(t *testing.T) {
	if raceEnabled || portable {
		t.Skip("the race detector allocates, and so do the portable loops")
	}
	for _, e := range exchanges {
		t.Run(e.name, func(t *testing.T) {
			l := newLab(t, []string{replay(t, e.request, e.answer), replay(t, e.request, e.answer)}, append(e.options, single)...)
			c := l.dial()
			buf, request := make([]byte, 256<<10), []byte(e.request)
			size := len(e.answer)
			n := 3000
			switch {
			case e.name == "GET":
				n = 10_000
			case len(e.answer) > 10_000:
				n = 1000
			}
			if err := drive(c, request, buf, size, n/10); err != nil {
				t.Fatal(err)
			}
			noAllocations(t, n, func() error { return drive(c, request, buf, size, n) })
		})
	}
}

// noAllocations runs n requests and fails if they cost memory.
func noAllocations(t *testing.T, n int, run func() error) {
	t.Helper()
	// Something else in the process may allocate now and then: the least of three counts.
	least := 1e9
	for try := 0; try < 3 && least >= 0.05; try++ {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := run(); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		least = min(least, float64(after.Mallocs-before.Mallocs)/float64(n))
	}
	if least >= 0.05 {
		t.Errorf("%.2f allocations per request", least)
	}
}

// TestNoAllocationsInQueue: nor do requests cost memory of which most wait for their turn.
func TestNoAllocationsInQueue(t *testing.T) {
	if raceEnabled || portable {
		t.Skip("the race detector allocates, and so do the portable loops")
	}
	const clients, each = 8, 500
	request, answer := get("/a/path/1234?b=c"), ok("x")
	for name, capped := range map[string]int64{"held by the strategy": 0, "adaptive, with max_inflight": 1} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, []string{replay(t, request, answer)}, hold(time.Minute, time.Minute), single, func(p *plan) { p.strategy = "adaptive" })
			if capped > 0 {
				ss := specs(t, []string{l.pool.Snapshot().All[0].Addr.String()})
				ss[0].MaxInflight = capped
				l.pool.Update(ss, nil, nil)
			} else {
				l.pool.Update(specs(t, []string{l.pool.Snapshot().All[0].Addr.String()}), nil,
					func(r []*upstream.Backend) upstream.Strategy { return oneEach{r} })
			}
			start, done := make([]chan int, clients), make(chan error, clients)
			for i := range start {
				c, buf, b := l.dial(), make([]byte, 4<<10), []byte(request)
				start[i] = make(chan int)
				defer close(start[i])
				go func() {
					for n := range start[i] {
						done <- drive(c, b, buf, len(answer), n)
					}
				}()
			}
			run := func() (err error) {
				for i := range start {
					start[i] <- each
				}
				for range start {
					if e := <-done; e != nil {
						err = e
					}
				}
				return err
			}
			if err := run(); err != nil {
				t.Fatal(err)
			}
			before := l.pool.Queue().Waits
			noAllocations(t, clients*each, run)
			if waits := l.pool.Queue().Waits - before; waits < clients*each/50 { // mostly it is nearly all
				t.Errorf("only %d requests had to wait", waits)
			}
		})
	}
}

func BenchmarkProxy(b *testing.B) {
	for _, e := range exchanges {
		b.Run(e.name, func(b *testing.B) {
			b.ReportAllocs()
			l := newLab(b, []string{replay(b, e.request, e.answer)}, append(e.options, single)...)
			buf, request := make([]byte, 256<<10), []byte(e.request)
			c := l.dial()
			if err := drive(c, request, buf, len(e.answer), 100); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			if err := drive(c, request, buf, len(e.answer), b.N); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkLoad has many connections busy at once, as the bench with real programs does: what a request costs then,
// both ends of this process included.
func BenchmarkLoad(b *testing.B) {
	for _, clients := range []int{8, 64} {
		e := &exchanges[0]
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			b.ReportAllocs()
			l := newLab(b, []string{replay(b, e.request, e.answer)}, single)
			done := make(chan error, clients)
			b.ResetTimer()
			for range clients {
				c := l.dial()
				go func() {
					done <- drive(c, []byte(e.request), make([]byte, 4<<10), len(e.answer), b.N/clients+1)
				}()
			}
			for range clients {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
