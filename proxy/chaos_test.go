package proxy

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lb/upstream"
)

// A fragment is a piece of a connection's life: writes stop and the connection ends after so many bytes.
type fragment struct {
	net.Conn
	left  int
	reset bool
}

var errRuined = fmt.Errorf("ended on purpose")

func (f *fragment) Write(b []byte) (int, error) {
	if f.left < 0 {
		return f.Conn.Write(b)
	}
	if len(b) < f.left {
		f.left -= len(b)
		return f.Conn.Write(b)
	}
	f.Conn.Write(b[:f.left])
	f.left = 0
	f.end()
	return 0, errRuined
}

func (f *fragment) end() {
	if f.reset {
		f.Conn.(*net.TCPConn).SetLinger(0)
	}
	f.Conn.Close()
}

// TestRandomFaults has clients and backends end their connections at any byte, in order or not, and backends send
// nonsense. What is promised then: a client never takes for an answer what is not its own, or is not all of it; and
// when all is over nothing is counted, open or held any more.
func TestRandomFaults(t *testing.T) {
	errs := make(chan string, 10)
	failf := func(format string, args ...any) {
		select {
		case errs <- fmt.Sprintf(format, args...):
		default:
		}
	}
	var seeds sync.Mutex
	source := rand.New(rand.NewPCG(rand.Uint64(), 2))
	random := func() *rand.Rand {
		seeds.Lock()
		defer seeds.Unlock()
		return rand.New(rand.NewPCG(source.Uint64(), 3))
	}
	// The answer to /N is made of N alone, so that whoever gets it knows what it must be.
	body := func(id int) string {
		n := 1 + id%7*id%900
		if id%20 == 0 { // some are so long that they are moved inside the kernel
			n *= 100
		}
		return strings.Repeat(fmt.Sprintf("<%d>", id), n)
	}
	serve := func(o *peer) {
		r := random()
		for {
			if _, err := o.br.Peek(1); err != nil {
				return
			}
			h := o.head()
			var method string
			var id int
			fmt.Sscanf(h, "%s /%d ", &method, &id)
			if r.IntN(15) == 0 {
				if r.IntN(2) == 0 {
					o.reset()
				}
				return
			}
			if field(h, "Transfer-Encoding") != "" {
				o.chunked()
			} else if n, _ := strconv.Atoi(field(h, "Content-Length")); n > 0 {
				if r.IntN(10) > 0 { // else it answers without having read it
					o.take(n)
				}
			}
			var w bytes.Buffer
			text := body(id)
			fmt.Fprintf(&w, "HTTP/1.1 200 OK\r\nX-Talk: %d\r\n", id)
			framing := r.IntN(5)
			switch framing {
			case 0:
				w.WriteString("Transfer-Encoding: chunked\r\n\r\n")
				w.Write(chunk(r, []byte(text)))
			default:
				fmt.Fprintf(&w, "Content-Length: %d\r\n\r\n%s", len(text), text)
			}
			f := &fragment{Conn: o.conn, left: -1, reset: r.IntN(2) == 0}
			switch r.IntN(12) {
			case 0:
				f.left = r.IntN(w.Len())
			case 1:
				// In one packet with the answer. What comes any later may find the connection in use for the next
				// request already: HTTP/1.1 has nothing to tell it from that one's answer.
				if w.Len() < 16<<10 {
					w.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
					if o.trySend(w.String()) != nil {
						return
					}
					continue
				}
			case 2:
				b := w.Bytes()
				b[r.IntN(len(b)-len(text))] = byte(r.Uint32()) // in the head or nearly
			case 3:
				if framing == 0 {
					b := w.Bytes()
					b[r.IntN(len(b))] ^= 1
				}
			}
			if dribble(r, f, w.Bytes()) != nil || r.IntN(8) == 0 {
				return
			}
		}
	}
	a, b := newOrigin(t, patient(serve)), newOrigin(t, patient(serve))
	dead := refusing(t)
	l := newLab(t, []string{a.addr, dead, b.addr}, func(p *plan) {
		p.pool.IdleTimeout = 20 * time.Millisecond
		p.pool.ResponseTimeout, p.pool.ReadTimeout = 300*time.Millisecond, 300*time.Millisecond
		p.BodyTimeout, p.HeaderTimeout = 300*time.Millisecond, 300*time.Millisecond
	})
	var whole, own, broken int
	var mu sync.Mutex
	count := func(n *int) {
		mu.Lock()
		*n++
		mu.Unlock()
	}
	next := 0
	number := func() int {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next
	}
	converse := func(r *rand.Rand) {
		c, err := net.Dial("tcp", l.addr)
		if err != nil {
			failf("dial: %v", err)
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		o := newPeer(t, "client", c, nil)
		type broke string
		o.fatal = func(format string, args ...any) { panic(broke(fmt.Sprintf(format, args...))) }
		defer func() {
			switch v := recover().(type) {
			case nil:
			case broke:
				if strings.Contains(string(v), "timeout") {
					failf("stuck: %s", v)
				}
				count(&broken)
			default:
				panic(v)
			}
		}()
		for range 5 {
			var ids []int
			var w bytes.Buffer
			for range 1 + r.IntN(4) {
				id := number()
				ids = append(ids, id)
				switch r.IntN(4) {
				case 0:
					fmt.Fprintf(&w, "POST /%d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%s", id, chunk(r, randomBody(r)))
				case 1:
					b := randomBody(r)
					fmt.Fprintf(&w, "PUT /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", id, len(b), b)
				default:
					w.WriteString(get(fmt.Sprintf("/%d", id)))
				}
			}
			f := &fragment{Conn: c, left: -1, reset: r.IntN(2) == 0}
			if r.IntN(10) == 0 {
				f.left = r.IntN(w.Len())
			}
			go dribble(random(), f, w.Bytes())
			for _, id := range ids {
				h := o.head()
				for strings.HasPrefix(h, "HTTP/1.1 100 ") {
					h = o.head()
				}
				got := o.body(h)
				if got == "evil" {
					failf("%d: got what was sent behind another answer", id)
				}
				if !strings.HasPrefix(h, "HTTP/1.1 200 OK\r\nX-Talk: ") {
					count(&own) // or a head that was spoiled
					if field(h, "Connection") == "close" {
						io.Copy(io.Discard, o.br)
						return
					}
					continue
				}
				// A bit of it may have been changed on the way to lb, but not its owner and not its length.
				if want := body(id); field(h, "X-Talk") == strconv.Itoa(id) && len(got) != len(want) &&
					field(h, "Content-Length") == strconv.Itoa(len(want)) {
					failf("%d: got %d bytes of %d", id, len(got), len(want))
				}
				if v := field(h, "X-Talk"); v != strconv.Itoa(id) && len(v) == len(strconv.Itoa(id)) && !oneOff(v, strconv.Itoa(id)) {
					failf("%d: got the answer to %s", id, v)
				}
				count(&whole)
				if field(h, "Connection") == "close" {
					io.Copy(io.Discard, o.br)
					return
				}
			}
		}
	}
	end := time.Now().Add(*soak)
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := random()
			for time.Now().Before(end) && len(errs) == 0 {
				converse(r)
			}
		}()
	}
	wg.Wait()
	for len(errs) > 0 {
		t.Error(<-errs)
	}
	eventually(t, "nothing in flight", func() bool {
		for _, b := range l.pool.Snapshot().All {
			if b.Inflight() != 0 {
				return false
			}
		}
		return true
	})
	l.idle(0)
	if n := l.ln.Stats().Answers[InternalError]; n != 0 {
		t.Errorf("%d panics", n)
	}
	t.Logf("%d answers, %d broken, %d own; faults %d %d", whole, broken, own, l.faults(0, upstream.FaultReset), l.faults(0, upstream.FaultMalformed))
}

// oneOff reports whether a and b, of one length, differ in no more than one byte.
func oneOff(a, b string) bool {
	n := 0
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n <= 1
}
