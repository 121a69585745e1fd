package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// counter is a WebSocket that says numbers and holds the echo to them: each comes back once, and in order. It does not
// wait for one before it says the next.
type counter struct {
	c          *websocket.Conn
	instance   string
	said, back atomic.Int64
	size       int
	stopped    atomic.Bool
	err        error
	code       websocket.StatusCode
}

// text is what is said as number n.
func (c *counter) text(n int64) []byte {
	b := bytes.Repeat([]byte{byte(n)}, c.size)
	binary.BigEndian.PutUint64(b, uint64(n))
	return b
}

// read reads until the end.
func (c *counter) read(ctx context.Context) {
	for {
		_, b, err := c.c.Read(ctx)
		if err != nil {
			c.err, c.code = err, websocket.CloseStatus(err)
			return
		}
		if want := c.text(c.back.Load()); !bytes.Equal(b, want) {
			c.err = fmt.Errorf("number %d: %d bytes that begin with %x came back, want %d", c.back.Load(), len(b), b[:min(8, len(b))], len(want))
			return
		}
		c.back.Add(1)
	}
}

// A thousand WebSockets live through upgrade after upgrade: none is closed, and each message comes once and in order, large
// ones that are under way as the processes change among them. The process that is in charge counts them, and a drain
// reaches them.
func TestUpgradeKeepsWebSockets(t *testing.T) {
	const sockets = 1000
	upgrades := rounds(t, 3)
	apps := startApps(t, 2, "chaos.mjs")
	n := startLineage(t, setup{backends: apps, server: `grace = "30s"`})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	var all []*counter
	var made sync.WaitGroup
	var mu sync.Mutex
	for i := range 20 {
		made.Go(func() {
			for j := range sockets / 20 {
				c, _, err := websocket.Dial(ctx, n.url+fmt.Sprintf("/ws/%d-%d", i, j), nil)
				if err != nil {
					t.Error(err)
					return
				}
				c.SetReadLimit(1 << 20)
				_, hello, err := c.Read(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				k := &counter{c: c, instance: string(hello), size: 8 + (i*50+j)%300}
				if j == 0 {
					k.size = 100_000 // more than one read takes
				}
				mu.Lock()
				all = append(all, k)
				mu.Unlock()
			}
		})
	}
	made.Wait()
	if t.Failed() {
		return
	}
	var reading, saying sync.WaitGroup
	stop := make(chan struct{})
	for i, k := range all {
		reading.Go(func() { k.read(ctx) })
		saying.Go(func() {
			pause := time.Duration(500+i) * time.Millisecond
			if k.size >= 100_000 {
				pause = 20 * time.Millisecond
			}
			for {
				select {
				case <-stop:
					return
				case <-time.After(pause):
				}
				if k.c.Write(ctx, websocket.MessageBinary, k.text(k.said.Load())) != nil {
					return
				}
				k.said.Add(1)
			}
		})
	}
	sum := func() (said, back int64) {
		for _, k := range all {
			said += k.said.Load()
			back += k.back.Load()
		}
		return said, back
	}
	for i := range upgrades {
		if code, out, errs := n.upgrade("--watch", "100ms"); code != 0 {
			t.Fatalf("upgrade %d: %d %s%s", i, code, out, errs)
		}
		l := n.lb
		l.reaches(sockets, "lb_backend_tunnels")
		_, was := sum()
		eventually(t, "messages go on", func() bool { _, back := sum(); return back > was+sockets })
	}
	close(stop)
	saying.Wait()
	eventually(t, "everything that was said is back", func() bool { said, back := sum(); return said == back })
	said, _ := sum()
	closed := 0
	for _, k := range all {
		if k.err != nil {
			if closed++; closed <= 5 {
				t.Errorf("a WebSocket of %s ended: %v", k.instance, k.err)
			}
		}
	}
	t.Logf("%d upgrades, %d WebSockets, %d messages: %d closed", upgrades, len(all), said, closed)

	// Those that moved are as others to what comes after.
	mine := 0
	for _, k := range all {
		if k.instance == "a" {
			mine++
		}
	}
	code, out, errs := run(t, lbBinary, "drain", "app", "a", "--config", n.config, "--wait", "20s")
	if code != 0 {
		t.Errorf("drain: %d %s%s", code, out, errs)
	}
	n.lb.reaches(float64(sockets-mine), "lb_backend_tunnels")
	pids := n.pids()
	for _, pid := range pids[:len(pids)-1] {
		eventually(t, fmt.Sprint("process ", pid, " ends"), func() bool { return !kill0(pid) })
	}
	n.end()
	reading.Wait()
	told := 0
	for _, k := range all {
		if k.code == websocket.StatusServiceRestart {
			told++
		}
	}
	if told != len(all) {
		t.Errorf("%d of %d were told to connect again by the drain and the stop", told, len(all))
	}
	lines := 0
	for _, r := range readLog(t, n.logPath) {
		if r.Status == 101 {
			lines++
		}
	}
	if lines != len(all) {
		t.Errorf("the log has %d lines of WebSockets, want %d", lines, len(all))
	}
}
