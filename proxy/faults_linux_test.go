package proxy

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lb/upstream"
	"lb/upstream/upstreamtest"
)

// blackHole is an address that answers no attempt to connect: its queue is full.
func blackHole(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port)
	upstreamtest.Fill(t, addr)
	return addr
}

// An app that is at ::1 alone, and busy, is not one that does not listen, though 127.0.0.1 refuses.
func TestLocalhostBusy(t *testing.T) {
	addr := upstreamtest.Clog(t, upstreamtest.IPv6Only(t))
	_, port, _ := net.SplitHostPort(addr)
	l := newLab(t, []string{"localhost:" + port}, func(p *plan) { p.pool.ConnectTimeout = 50 * time.Millisecond })
	p := l.client()
	p.send(get("/"))
	head, body := p.answer()
	own(t, head, body, 504, false)
	l.answered(ConnectTimeout, 1)
	if n := l.faults(0, upstream.FaultRefused); n != 0 {
		t.Errorf("%d connections refused", n)
	}
}

// Row 2.
func TestBlackHole(t *testing.T) {
	hole := blackHole(t)
	fast := func(p *plan) { p.pool.ConnectTimeout = 50 * time.Millisecond }
	t.Run("another one answers", func(t *testing.T) {
		o := newOrigin(t, echo)
		l := newLab(t, []string{hole, o.addr}, fast)
		for range 2 {
			p := l.client()
			p.send(request("POST", "/", "body"))
			if got := p.status(200); got != "POST / body" {
				t.Fatalf("%q", got)
			}
		}
		if n := l.faults(0, upstream.FaultConnect); n == 0 {
			t.Error("no fault counted")
		}
	})
	t.Run("alone", func(t *testing.T) {
		l := newLab(t, []string{hole}, fast)
		p := l.client()
		p.send(get("/"))
		head, body := p.answer()
		own(t, head, body, 504, false)
		l.answered(ConnectTimeout, 1)
	})
	for _, end := range []func(*peer){(*peer).close, (*peer).reset} {
		t.Run("client goes meanwhile", func(t *testing.T) {
			l := newLab(t, []string{hole}, func(p *plan) { p.pool.ConnectTimeout = time.Hour })
			p := l.client()
			p.send(get("/"))
			eventually(t, "lb connects", func() bool { return l.pool.Snapshot().All[0].Inflight() == 1 })
			end(p)
			l.answered(ClientGone, 1)
			eventually(t, "nothing in flight", func() bool { return l.pool.Snapshot().All[0].Inflight() == 0 })
			if n := l.faults(0, upstream.FaultConnect); n != 0 {
				t.Error("the backend is blamed")
			}
		})
	}
	t.Run("a shutdown ends it", func(t *testing.T) {
		l := newLab(t, []string{hole}, func(p *plan) { p.pool.ConnectTimeout = time.Hour })
		p := l.client()
		p.send(get("/"))
		eventually(t, "lb connects", func() bool { return l.pool.Snapshot().All[0].Inflight() == 1 })
		l.close(10 * time.Millisecond)
		p.status(503)
	})
}

// Row 31: out of descriptors. The clients that are there live, new ones are accepted once there is room, and the
// backend is not to blame.
func TestOutOfDescriptors(t *testing.T) {
	o := newOrigin(t, echo)
	l := newLab(t, []string{o.addr, o.addr})
	p := l.client()
	p.send(get("/1", "Connection: keep-alive"))
	p.status(200)
	l.idle(1)
	// No connection is kept, so that each request needs one.
	set := *upstream.DefaultSettings()
	set.Reuse = false
	l.pool.Update(specs(t, []string{o.addr + ""}), &set, nil)
	l.proxy.Forget(l.pool.Snapshot().All)
	l.idle(0)

	restore := limitDescriptors(t, 0)
	p.send(get("/2"))
	head, body := p.answer()
	restore()
	own(t, head, body, 503, false)
	for _, f := range []upstream.Fault{upstream.FaultConnect, upstream.FaultReset, upstream.FaultTimeout} {
		if n := l.faults(0, f); n != 0 {
			t.Errorf("%d faults of kind %s", n, f)
		}
	}
	p.send(get("/3"))
	if got := p.status(200); got != "GET /3 " {
		t.Fatalf("%q", got)
	}

	// What closes at last of the requests before may be enough to accept with: then it is tried again.
	for try := 0; l.ln.Stats().Paused == 0; try++ {
		if try == 10 {
			t.Fatal("accepting did not pause")
		}
		restore = limitDescriptors(t, 1)
		q := l.client() // takes the last one; there is none to accept it with
		q.send(get("/4", "Connection: keep-alive"))
		eventually(t, "accepting pauses or goes on", func() bool { n := l.ln.Stats(); return n.Paused > 0 || n.Open == 2 })
		restore()
		head, body = q.answer()
		if strings.HasPrefix(head, "HTTP/1.1 503 ") { // accepted, and nothing left to connect with
			own(t, head, body, 503, false)
			q.send(get("/4"))
			head, body = q.answer()
		}
		if !strings.HasPrefix(head, "HTTP/1.1 200 ") || body != "GET /4 " {
			t.Fatalf("%q %q", head, body)
		}
		q.conn.Close()
		eventually(t, "the client is gone", func() bool { return l.ln.Stats().Open == 1 })
	}
}

// limitDescriptors leaves n descriptors to the process until restore is called.
func limitDescriptors(t *testing.T, n int) (restore func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	var fill []*os.File
	var lim unix.Rlimit
	// The limit is on the number of a descriptor: fill the gaps below.
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	fill = append(fill, f)
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	highest := 0
	for _, e := range entries {
		var fd int
		fmt.Sscan(e.Name(), &fd)
		highest = max(highest, fd)
	}
	lim.Cur, lim.Max = uint64(highest+1), was.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		fill = append(fill, f)
	}
	for range n {
		fill[len(fill)-1].Close()
		fill = fill[:len(fill)-1]
	}
	done := false
	restore = func() {
		if done {
			return
		}
		done = true
		unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
		for _, f := range fill {
			f.Close()
		}
	}
	t.Cleanup(restore)
	return restore
}
