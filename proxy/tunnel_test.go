package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lb/upstream"
)

const (
	handshake = "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
	switched = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)

// tunnel makes one.
func (l *lab) tunnel(o *origin) (client, backend *peer) {
	l.t.Helper()
	c := l.client()
	c.send(handshake)
	b := o.accept()
	b.head()
	b.send(switched)
	c.expect(switched)
	return c, b
}

func (l *lab) tunnels(n int64) {
	l.t.Helper()
	eventually(l.t, fmt.Sprintf("%d tunnels", n), func() bool {
		b := l.pool.Snapshot().All[0]
		return b.Tunnels() == n && b.Inflight() == 0
	})
}

func TestTunnel(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr})
	c := l.client()
	c.send(handshake + "early from the client")
	b := o.accept()
	h := b.head()
	if fs := fields(h, "Connection"); len(fs) != 1 || fs[0] != "Upgrade" || field(h, "Upgrade") != "websocket" ||
		field(h, "Sec-WebSocket-Key") != "dGhlIHNhbXBsZSBub25jZQ==" {
		t.Fatalf("%q", h)
	}
	b.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: Websocket\r\nSec-WebSocket-Accept: x\r\nKeep-Alive: x\r\n\r\nearly from the backend")
	c.expect(switched + "early from the backend")
	b.expect("early from the client")
	l.tunnels(1)
	for i := range 100 {
		s := strings.Repeat(fmt.Sprint(i), 1+i*i)
		c.send(s)
		b.expect(s)
		b.send(s)
		c.expect(s)
	}
	c.close()
	b.closed()
	l.tunnels(1) // the backend may have more to say
	b.close()
	l.tunnels(0)
	l.idle(0)
	if st := l.ln.Stats(); st.BytesIn == 0 || st.BytesIn != st.BytesOut-1 {
		t.Errorf("%d bytes in, %d out", st.BytesIn, st.BytesOut)
	}
}

func TestTunnelFull(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr})
	c, b := l.tunnel(o)
	const size = 8 << 20
	for _, p := range []*peer{c, b} {
		go func() {
			for i := range size >> 10 {
				p.trySend(strings.Repeat(string(rune('a'+i%26)), 1<<10))
			}
		}()
	}
	done := make(chan string, 2)
	for _, p := range []*peer{c, b} {
		go func() {
			buf := make([]byte, 1<<10)
			for i := range size >> 10 {
				for n := 0; n < len(buf); {
					k, err := p.br.Read(buf[n:])
					if n += k; err != nil {
						done <- fmt.Sprintf("%s: %v", p.who, err)
						return
					}
				}
				if string(buf) != strings.Repeat(string(rune('a'+i%26)), 1<<10) {
					done <- p.who + ": not what was sent"
					return
				}
			}
			done <- ""
		}()
	}
	for range 2 {
		if s := <-done; s != "" {
			t.Error(s)
		}
	}
	c.close()
	b.close()
	l.tunnels(0)
}

func TestTunnelEnds(t *testing.T) {
	t.Run("client first", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr})
		c, b := l.tunnel(o)
		c.send("last words")
		c.finish()
		if got := b.rest(); got != "last words" {
			t.Fatalf("%q", got)
		}
		b.send("answer")
		c.expect("answer")
		b.send("more")
		b.close()
		if got := c.rest(); got != "more" {
			t.Fatalf("%q", got)
		}
		l.tunnels(0)
	})
	t.Run("backend first", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr})
		c, b := l.tunnel(o)
		b.send("last words")
		b.finish()
		if got := c.rest(); got != "last words" {
			t.Fatalf("%q", got)
		}
		l.tunnels(0)
		b.closed()
	})
	t.Run("client is reset", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr})
		c, b := l.tunnel(o)
		c.reset()
		b.closed()
		l.tunnels(0)
		l.answered(ClientGone, 1)
		if n := l.faults(0, upstream.FaultReset); n != 0 {
			t.Error("the backend was blamed")
		}
	})
	t.Run("backend is reset", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr})
		c, b := l.tunnel(o)
		b.reset()
		c.expect(string(restart))
		c.closed()
		l.tunnels(0)
		l.answered(BackendCut, 1)
		if n := l.faults(0, upstream.FaultReset); n != 1 {
			t.Errorf("%d faults", n)
		}
	})
	t.Run("client gone while it was being written to", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr})
		c, b := l.tunnel(o)
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			for b.trySend(strings.Repeat("x", 1<<16)) == nil {
			}
		}()
		c.take(1 << 20)
		c.reset()
		<-gone
		l.tunnels(0)
		l.answered(ClientGone, 1)
	})
	t.Run("backend gone while it was being written to", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr})
		c, b := l.tunnel(o)
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			for c.trySend(strings.Repeat("x", 1<<16)) == nil {
			}
		}()
		b.take(1 << 20)
		b.reset()
		c.expect(string(restart))
		<-gone
		l.tunnels(0)
		l.answered(BackendCut, 1)
	})
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, func(p *plan) { p.pool.TunnelIdle = steady })
		c, b := l.tunnel(o)
		for _, way := range [][2]*peer{{b, c}, {c, b}, {b, c}} { // each keeps the other open
			time.Sleep(pause)
			way[0].send("x")
			way[1].expect("x")
		}
		c.closed()
		b.closed()
		l.tunnels(0)
	})
	t.Run("idle, half closed", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, func(p *plan) { p.pool.TunnelIdle = 50 * time.Millisecond })
		c, b := l.tunnel(o)
		c.finish()
		b.closed()
		c.closed()
		l.tunnels(0)
	})
	t.Run("never, without a limit", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, func(p *plan) {
			p.pool.TunnelIdle = 0
			p.pool.ResponseTimeout = 20 * time.Millisecond
			p.HeaderTimeout, p.IdleTimeout = 20*time.Millisecond, 20*time.Millisecond
		})
		c, b := l.tunnel(o)
		time.Sleep(100 * time.Millisecond) // in which nothing is to happen
		c.send("x")
		b.expect("x")
		b.close()
	})
	t.Run("other deadlines do not count", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, func(p *plan) {
			p.pool.ResponseTimeout, p.pool.ReadTimeout = 20*time.Millisecond, 20*time.Millisecond
			p.HeaderTimeout, p.IdleTimeout, p.BodyTimeout = 20*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
		})
		c, b := l.tunnel(o)
		time.Sleep(100 * time.Millisecond) // in which nothing is to happen
		c.send("x")
		b.expect("x")
		b.close()
	})
	t.Run("one side does not read", func(t *testing.T) {
		o := newOrigin(t, nil)
		l := newLab(t, []string{o.addr}, func(p *plan) { p.WriteTimeout = 100 * time.Millisecond })
		c, b := l.tunnel(o)
		for b.trySend(strings.Repeat("x", 1<<16)) == nil {
		}
		l.tunnels(0)
		c.broken()
	})
}

// The end of a backend is that of its tunnels, also for a client that does not notice: one that can be told is told to connect
// again, and none is kept for long.
func TestTunnelsOfADeadBackend(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr})
	hello, bye := string(frame(5, false)), string([]byte{0x88, 2, 3, 232})
	type ended struct {
		name, more string
		client     *peer
	}
	var all []ended // at once, since each takes a while
	for _, test := range []struct{ name, says, more string }{
		{"silent", "", string(restart)},
		{"after a frame", hello + hello, string(restart)},
		{"in a head", hello + hello[:1], ""},
		{"in a payload", hello[:4], ""},
		{"after a close frame", hello + bye, ""},
		{"in a close frame", bye[:3], ""},
	} {
		for how, end := range map[string]func(*peer){"FIN": (*peer).finish, "RST": (*peer).reset} {
			c, b := l.tunnel(o)
			defer c.close()
			b.send(test.says)
			c.expect(test.says)
			end(b)
			all = append(all, ended{test.name + ", " + how, test.more, c})
		}
	}
	for _, e := range all {
		if got := e.client.rest(); got != e.more {
			t.Errorf("%s: the client got %q, want %q", e.name, got, e.more)
		}
	}
	l.tunnels(0)
	for _, e := range all {
		e.client.send("still here")
	}
	eventually(t, "the clients are gone", func() bool { return l.ln.Stats().Open == 0 })
}

// Likewise with a backend that does not notice that the client has ended.
func TestTunnelOfADeadClient(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}) // tunnels may be idle for an hour
	c, b := l.tunnel(o)
	c.send("last words")
	c.finish()
	if got := b.rest(); got != "last words" {
		t.Errorf("the backend got %q", got)
	}
	last := string(frame(5, false))
	b.send(last)
	if got := c.rest(); got != last {
		t.Errorf("the client got %q", got)
	}
	l.tunnels(0)
	l.answered(ClientGone, 0)
	l.answered(BackendCut, 0)
}

func TestUpgradeRefused(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single)
	c := l.client()
	c.send(handshake + get("/next"))
	b := o.accept()
	b.head()
	b.send("HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nno")
	c.expect("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno")
	if h := b.head(); !strings.HasPrefix(h, "GET /next ") {
		t.Fatalf("%q", h)
	}
	b.send(ok("next"))
	c.expect(ok("next"))
	o.only(1)
	l.tunnels(0)
}

// Only a WebSocket handshake is passed on as one.
func TestOtherUpgrades(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single)
	var b *peer
	for _, s := range []string{
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
		"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
		"Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
		"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
		"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
		"Upgrade: websocket\r\n",
		"Connection: Upgrade\r\n",
	} {
		c := l.client()
		c.send("GET / HTTP/1.1\r\nHost: x\r\n" + s + "\r\n")
		if b == nil {
			b = o.accept()
		}
		h := b.head()
		for _, f := range []string{"Connection", "Upgrade", "HTTP2-Settings"} {
			if v := field(h, f); v != "" {
				t.Errorf("%q: %s: %s", s, f, v)
			}
		}
		b.send(ok("x"))
		c.expect(ok("x"))
		l.idle(1)
	}
	// A POST with an upgrade is a POST.
	c := l.client()
	c.send("POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nhi")
	if h := b.head(); field(h, "Upgrade") != "" {
		t.Errorf("%q", h)
	}
	b.expect("hi")
	b.send(switched)
	c.status(502)
	b.closed()
}

// A tunnel that is idle holds neither a task nor a buffer, and many are few bytes each.
func TestIdleTunnelsAreSmall(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single, func(p *plan) { p.grace = time.Millisecond })
	const n = 200
	var last *peer
	for range n {
		last, _ = l.tunnel(o)
	}
	last.send("x")
	l.tunnels(n)
	eventually(t, "buffers and exchanges given back", func() bool {
		kept := make(chan int)
		w := l.proxy.workers[0]
		w.loop.Post(func() { kept <- w.buffers.Len() + w.exchanges.Len() })
		return <-kept <= 4
	})
}
