package proxy

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lb/accesslog"
	"lb/loop"
	"lb/upstream"
)

// frame is a WebSocket frame with a payload of n bytes.
func frame(n int, masked bool) []byte {
	b := []byte{0x82, 0}
	switch {
	case n < 126:
		b[1] = byte(n)
	case n < 1<<16:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if masked {
		b[1] |= 0x80
		b = append(b, 1, 2, 3, 4)
	}
	return append(b, make([]byte, n)...)
}

func TestFrames(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var stream []byte
		ends := map[int]bool{0: true}
		for range 1 + r.IntN(6) {
			n := []int{0, 1, 125, 126, 127, 65535, 65536, r.IntN(300)}[r.IntN(8)]
			stream = append(stream, frame(n, r.IntN(2) == 0)...)
			ends[len(stream)] = true
		}
		var f frames
		for at := 0; at < len(stream); {
			n := 1 + r.IntN(min(len(stream)-at, []int{1, 3, 20, 70000}[r.IntN(4)]))
			want := 0
			for i := at + 1; i <= at+n; i++ {
				if ends[i] {
					want = i - at
				}
			}
			if got := f.feed(stream[at : at+n]); got != want {
				t.Fatalf("%d bytes at %d: %d whole, want %d", n, at, got, want)
			}
			at += n
			if f.between() != ends[at] {
				t.Fatalf("at %d: between %v", at, f.between())
			}
		}
	}
}

// leaving reports whether all tunnels have been asked to leave.
func (l *lab) leaving() bool {
	all := true
	for _, w := range l.proxy.workers {
		done := make(chan bool)
		w.loop.Post(func() {
			for _, t := range w.tunnels(nil) {
				all = all && t.leaving
			}
			close(done)
		})
		<-done
	}
	return all
}

// A tunnel whose backend drains ends with a close frame that says why, and never in the middle of another frame.
func TestLeave(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr})
	hello := string(frame(5, false))
	for _, test := range []struct{ name, before, after, sees string }{
		{"silent", "", "", ""},
		{"between frames", hello, hello, ""},
		{"in a head", hello[:1], hello[1:] + hello[:3], hello[1:]},
		{"in a payload", hello[:4], hello[4:] + hello + hello[:1], hello[4:] + hello},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, b := l.tunnel(o)
			b.send(test.before)
			c.expect(test.before)
			l.proxy.Leave(l.pool.Snapshot().All[0], 0)
			eventually(t, "it is to leave", l.leaving)
			if test.sees == "" {
				c.expect(string(restart))
			}
			b.send(test.after)
			c.expect(test.sees)
			if test.sees != "" {
				c.expect(string(restart))
			}
			c.send("masked close")
			b.expect("masked close")
			c.close()
			b.close()
			l.tunnels(0)
		})
	}
}

// A shutdown tells the clients of tunnels to go, and does not wait for those that do not.
func TestShutdownLeaves(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr})
	c, _ := l.tunnel(o)
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		done <- l.proxy.Shutdown(ctx)
	}()
	c.expect(string(restart))
	if got := c.rest(); got != "" {
		t.Errorf("%q", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A tunnel that comes from another process and cannot go on is told so where a frame may begin, and not behind a close frame;
// and it is in the access log: when its pool is not there any more, nor its backend, and when that drains.
func TestRefusedMoves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log, err := accesslog.Open(accesslog.Options{Format: accesslog.JSON, Path: path, Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, func(p *plan) { p.Log = log })
	drains := l.pool.Snapshot().All[0]
	l.pool.SetWanted(drains, upstream.Draining)
	type whither struct {
		pool            *upstream.Pool
		backend, target string
	}
	to := []whither{{nil, "a", "/pool"}}
	if loop.Detaches {
		to = append(to, whither{l.pool, "nobody", "/backend"}, whither{l.pool, drains.Name, "/drains"})
	}
	tests := 0
	for _, test := range []struct {
		moved Moved
		told  string
	}{
		{Moved{}, string(restart)},
		{Moved{Head: []byte{0x82}}, ""},
		{Moved{Left: 1}, ""},
		{Moved{Closed: true}, ""},
	} {
		tests++
		for _, to := range to {
			us, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			other, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			m := test.moved
			m.Backend, m.Address, m.Out, m.Back = to.backend, o.addr, 7, 8
			m.Record = &accesslog.Record{Method: []byte("GET"), Target: []byte(to.target), Status: 101}
			l.ln.AdoptTunnel(to.pool, &m, us[0], other[0])
			var b [100]byte
			n, err := syscall.Read(us[1], b[:])
			if err != nil || string(b[:n]) != test.told {
				t.Errorf("%s, %+v: the client got %q, %v; want %q", to.target, test.moved, b[:n], err, test.told)
			}
			syscall.Close(us[1])
			syscall.Close(other[1])
		}
	}
	l.proxy.Shutdown(t.Context()) // all that was posted has been done
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range to {
		if n := strings.Count(string(text), to.target); n != tests {
			t.Errorf("%d lines of %s, want %d:\n%s", n, to.target, tests, text)
		}
	}
}
