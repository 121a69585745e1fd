package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// shutdown begins one and returns where its end will be told.
func (l *lab) shutdown(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	go func() { done <- l.proxy.Shutdown(ctx) }()
	eventually(l.t, "lb stops accepting", func() bool {
		c, err := net.Dial("tcp", l.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	return done
}

func wait(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatal("Shutdown does not return")
		return nil
	}
}

func running(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("Shutdown returned %v too early", err)
	default:
	}
}

// Row 35: what is under way is finished, and clients are told to close.
func TestShutdown(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single)
	silent, kept, busy, upload, half := l.client(), l.client(), l.client(), l.client(), l.client()
	kept.send(get("/kept"))
	k := o.accept()
	k.head()
	k.send(ok(""))
	kept.status(200)
	l.idle(1)
	busy.send(get("/busy"))
	k.head()
	upload.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
	u := o.accept()
	u.head()
	u.expect("hello")
	half.send("GET /half HTTP/1.1\r\n")
	done := l.shutdown(context.Background())

	half.send("Host: x\r\n\r\n")
	h := o.accept()
	h.head()
	h.send(ok("half"))
	half.expect("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nhalf")
	half.rest()

	// Who was idle is told when it speaks, or closed when it does not.
	kept.send(get("/again") + get("/never"))
	h.head()
	h.send(ok("again"))
	kept.expect("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nagain")
	if rest := kept.rest(); rest != "" {
		t.Fatalf("then %q", rest)
	}
	kept.close()
	if rest := silent.rest(); rest != "" {
		t.Fatalf("then %q", rest)
	}
	running(t, done)

	upload.send("world")
	u.expect("world")
	u.send("HTTP/1.1 200 OK\r\n\r\nyes")
	u.close()
	upload.expect("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nyes\r\n0\r\n\r\n")
	upload.rest()
	running(t, done)

	k.send(ok("busy"))
	busy.expect("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy")
	busy.rest()
	if err := wait(t, done); err != nil {
		t.Fatal(err)
	}
	k.closed()
	h.closed()
	l.idle(0)
}

// Answers of lb's own, too, say that the connection ends.
func TestShutdownRefusals(t *testing.T) {
	l := newLab(t, []string{refusing(t)})
	p := l.client()
	p.send(get("/"))
	head, body := p.answer()
	own(t, head, body, 502, false)
	done := l.shutdown(context.Background())
	p.send(get("/"))
	head, body = p.answer()
	own(t, head, body, 502, true)
	p.rest()
	if err := wait(t, done); err != nil {
		t.Fatal(err)
	}
}

func TestShutdownTunnels(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr})
	c, b := l.tunnel(o)
	c2, b2 := l.tunnel(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := l.shutdown(ctx)
	c.send("x")
	b.expect("x")
	c.close()
	b.closed()
	b.close()
	l.tunnels(1)
	running(t, done)
	cancel()
	if err := wait(t, done); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if got, _ := c2.broken(); got != "" && got != string(restart) { // it may be cut before it is told
		t.Errorf("%q", got)
	}
	b2.closed()
	l.tunnels(0)
}

// Row 36: what is left after the grace is cut: a request that was not answered gets a 503, one in the middle of its
// answer is reset, and the backend sees that nobody waits any more.
func TestShutdownCuts(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single)
	waiting := l.client()
	waiting.send(get("/"))
	w := o.accept()
	w.head()
	answering := l.client()
	answering.send(get("/"))
	a := o.accept()
	a.head()
	a.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
	answering.head()
	answering.expect("hello")
	stream := l.client()
	stream.send(get("/"))
	s := o.accept()
	s.head()
	s.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
	stream.head()
	go func() {
		for s.trySend(strings.Repeat("x", 1<<16)) == nil {
		}
	}()
	upload := l.client()
	upload.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
	u := o.accept()
	u.head()
	u.expect("hello")
	half := l.client()
	half.send("GET / HTTP/1.1\r\n")

	ctx, cancel := context.WithCancel(context.Background())
	done := l.shutdown(ctx)
	running(t, done)
	cancel()
	head, body := waiting.answer()
	own(t, head, body, 503, true)
	waiting.close()
	head, body = upload.answer()
	own(t, head, body, 503, true)
	upload.close()
	if got, reset := answering.broken(); got != "" || !reset {
		t.Errorf("%q, reset %v", got, reset)
	}
	if _, reset := stream.broken(); !reset {
		t.Error("a clean end in mid-answer")
	}
	half.closed()
	if err := wait(t, done); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	w.closed()
	a.closed()
	u.closed()
	l.idle(0)
}

// Clients that go on sending to nobody hold up neither a shutdown nor its cut for long.
func TestShutdownDoesNotLinger(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr})
	chatter := func(p *peer) {
		for p.trySend("x") == nil {
			time.Sleep(20 * time.Millisecond)
		}
	}
	refused, upload := l.client(), l.client()
	refused.send("nonsense\r\n\r\n")
	refused.head()
	go chatter(refused)
	upload.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
	u := o.accept()
	u.head()
	go chatter(upload)
	ctx, cancel := context.WithCancel(context.Background())
	done := l.shutdown(ctx)
	eventually(t, "the refused client is gone", func() bool { return l.proxy.Listeners()[0].Stats().Open == 1 })
	running(t, done)
	cancel()
	begin := time.Now()
	wait(t, done)
	if took := time.Since(begin); took > lingerFor {
		t.Errorf("cutting took %v", took)
	}
	head, body := upload.answer()
	own(t, head, body, 503, true)
}

// A second one does not wait for what is already gone, and one of many at once comes to an end.
func TestShutdownTwice(t *testing.T) {
	o := newOrigin(t, echo)
	l := newLab(t, []string{o.addr})
	p := l.client()
	p.send(get("/"))
	p.status(200)
	for range 2 {
		if err := l.proxy.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	p.closed()
}

// Row 35 under load: no request fails that was sent on a connection lb had accepted.
func TestShutdownUnderLoad(t *testing.T) {
	o := newOrigin(t, echo)
	l := newLab(t, []string{o.addr})
	bad := make(chan string, 100)
	started := make(chan bool, 100)
	var stopping atomic.Bool
	const n = 10
	for i := range n {
		go func() {
			for j := 0; ; j++ {
				c, err := net.Dial("tcp", l.addr)
				if err != nil {
					bad <- ""
					return
				}
				c.SetDeadline(time.Now().Add(patience))
				p := newPeer(t, "client", c, t.Errorf)
				for k := 0; ; k++ {
					line, err := "", p.trySend(get("/x"))
					if err == nil {
						line, err = p.br.ReadString('\n')
					}
					if k == 0 && line == "" && errors.Is(err, syscall.ECONNRESET) && stopping.Load() {
						// The kernel accepted it between lb's last accept and the close: no call does both. Who writes after
						// the reset is told of it there, and would read a mere end.
						break
					}
					if err != nil || line != "HTTP/1.1 200 OK\r\n" {
						bad <- fmt.Sprintf("request %d of connection %d: %q %v", k, j, line, err)
						return
					}
					h := p.head()
					p.take(len("GET /x "))
					if j == 0 && k == 0 {
						started <- true
					}
					if strings.Contains(h, "Connection: close") {
						break
					}
					if i%2 == 0 {
						break
					}
				}
				c.Close()
			}
		}()
	}
	for range n {
		<-started
	}
	stopping.Store(true)
	done := l.shutdown(context.Background())
	if err := wait(t, done); err != nil {
		t.Fatal(err)
	}
	for range n {
		if s := <-bad; s != "" {
			t.Error(s)
		}
	}
}
