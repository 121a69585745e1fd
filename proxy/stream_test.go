package proxy

import (
	"fmt"
	"testing"
)

// load is what the lab's backend i has: requests at work, and parked ones.
func (l *lab) load(i int) string {
	n := l.pool.Snapshot().All[i].Load()
	return fmt.Sprintf("%d active, %d parked", n.Active(), n.Parked())
}

// TestStreamByRequest: who asks for a stream of events and nothing else is parked at once, before the backend has said anything.
func TestStreamByRequest(t *testing.T) {
	for _, c := range []struct{ accept, want string }{
		{"Accept: text/event-stream\r\n", "0 active, 1 parked"},
		{"accept:  Text/Event-Stream \r\n", "0 active, 1 parked"},
		{"Accept: application/json, text/event-stream\r\n", "1 active, 0 parked"},
		{"Accept: text/event-stream-not\r\n", "1 active, 0 parked"},
		{"X-Accept: text/event-stream\r\n", "1 active, 0 parked"},
		{"Accept: */*\r\nAccept: text/event-stream\r\n", "1 active, 0 parked"},
		{"", "1 active, 0 parked"},
	} {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr})
		p := l.client()
		p.send("GET /events HTTP/1.1\r\nHost: x\r\n" + c.accept + "\r\n")
		b := o.accept()
		b.head()
		if got := l.load(0); got != c.want {
			t.Errorf("%q: %s, want %s", c.accept, got, c.want)
		}
		b.send(ok("1"))
		p.status(200)
		l.idle(1)
		if got := l.load(0); got != "0 active, 0 parked" {
			t.Errorf("%q: %s in the end", c.accept, got)
		}
	}
}

// TestStreamByAnswer: an answer that is a stream of events is parked, whatever was asked for.
func TestStreamByAnswer(t *testing.T) {
	for _, c := range []struct{ head, want string }{
		{"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n", "0 active, 1 parked"},
		{"Content-Type: text/event-stream; charset=utf-8\r\n", "0 active, 1 parked"},
		{"Content-Type: Text/Event-Stream\r\n", "0 active, 1 parked"},
		{"Content-Type: text/event-stream\r\nContent-Length: 100\r\n", "1 active, 0 parked"},
		{"Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n", "1 active, 0 parked"},
		{"Transfer-Encoding: chunked\r\n", "1 active, 0 parked"},
	} {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr})
		p := l.client()
		p.send("POST /chat HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		b := o.accept()
		b.head()
		b.send("HTTP/1.1 200 OK\r\n" + c.head + "\r\n")
		p.head() // it was parked, or not, before the client got it
		if got := l.load(0); got != c.want {
			t.Errorf("%q: %s, want %s", c.head, got, c.want)
		}
		p.conn.Close()
		b.closed()
	}
}

// TestStreamsSpread: streams go where the fewest are, whatever other requests do meanwhile.
func TestStreamsSpread(t *testing.T) {
	for _, s := range []string{"least_conn", "ewma", "adaptive", "p2c"} {
		t.Run(s, func(t *testing.T) {
			a, b := newOrigin(t, nil), newOrigin(t, nil)
			l := newLab(t, []string{a.addr, b.addr}, func(p *plan) { p.strategy = s })
			for i := range 6 {
				p := l.client()
				p.send("GET /events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
				eventually(t, "the stream has begun", func() bool {
					n := l.pool.Snapshot().All
					return n[0].Load().Parked()+n[1].Load().Parked() == int64(i+1)
				})
			}
			if x, y := l.load(0), l.load(1); x != "0 active, 3 parked" || y != x {
				t.Errorf("one has %s, the other %s", x, y)
			}
		})
	}
}
