package proxy

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var soak = flag.Duration("soak", 2*time.Second, "how long TestRandomTraffic goes on")

// A talk is one request, and the answer that the backend shall give, both chosen at random. It travels with the
// request: the backend finds it by the number in the path.
type talk struct {
	method  string
	minor   int
	close   bool
	chunked bool
	expect  bool
	body    []byte
	wire    []byte // the body as sent

	status    int
	framing   int // of the answer: by length, chunked, until close
	minorBack int
	closeBack bool
	answer    []byte
	early     bool // answers before it has read the body
	refuse100 bool // does not say 100 Continue
	hints     int
}

const (
	byLength = iota
	byChunks
	byClose
)

func randomTalk(r *rand.Rand) *talk {
	k := &talk{method: []string{"GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"}[r.IntN(10)], minor: 1}
	if r.IntN(10) == 0 {
		k.minor = 0
	}
	k.close = r.IntN(12) == 0
	if k.method[0] == 'P' || r.IntN(10) == 0 {
		k.body = randomBody(r)
		k.chunked = k.minor == 1 && r.IntN(2) == 0
		k.expect = k.minor == 1 && len(k.body) > 0 && r.IntN(5) == 0
	}
	k.wire = k.body
	if k.chunked {
		k.wire = chunk(r, k.body)
	}
	k.status = []int{200, 200, 200, 200, 404, 500, 204, 304, 201}[r.IntN(9)]
	k.framing = r.IntN(3)
	k.minorBack = 1
	if k.framing != byChunks && r.IntN(6) == 0 {
		k.minorBack = 0
	}
	k.closeBack = k.framing == byClose || r.IntN(10) == 0
	if k.hasBody() {
		k.answer = randomBody(r)
	}
	k.refuse100 = r.IntN(4) == 0
	if r.IntN(8) == 0 {
		k.hints = 1 + r.IntN(2)
	}
	k.early = r.IntN(15) == 0
	return k
}

func (k *talk) describe(id int) string {
	return fmt.Sprintf("%d: %s HTTP/1.%d, close %v, chunked %v, expect %v, body of %d bytes; answer %d, framing %d, HTTP/1.%d, close %v, %d bytes, early %v, refuse100 %v, hints %d",
		id, k.method, k.minor, k.close, k.chunked, k.expect, len(k.body), k.status, k.framing, k.minorBack, k.closeBack, len(k.answer), k.early, k.refuse100, k.hints)
}

// hasBody reports whether the answer may have one.
func (k *talk) hasBody() bool { return k.method != "HEAD" && k.status != 204 && k.status != 304 }

func randomBody(r *rand.Rand) []byte {
	n := 0
	switch r.IntN(10) {
	case 0:
	case 1, 2, 3:
		n = r.IntN(20)
	case 4, 5, 6:
		n = r.IntN(5000)
	case 7, 8:
		n = r.IntN(70_000)
	default:
		n = []int{16 << 10, bodyBuffer, bodyBuffer + 1, 300_000}[r.IntN(4)] - r.IntN(300)
	}
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}).Read(b)
	return b
}

// chunk is b as a chunked body, in pieces of any size, with extensions and trailers.
func chunk(r *rand.Rand, b []byte) []byte {
	var w bytes.Buffer
	most := 1 + len(b)/100 + r.IntN(len(b)+1)/(1+r.IntN(20))
	for len(b) > 0 {
		n := min(len(b), 1+r.IntN(most))
		if r.IntN(20) == 0 {
			fmt.Fprintf(&w, "%06X;a=b;c=\"d \\\" e\"\r\n", n)
		} else {
			fmt.Fprintf(&w, "%x\r\n", n)
		}
		w.Write(b[:n])
		w.WriteString("\r\n")
		b = b[n:]
	}
	w.WriteString("0\r\n")
	if r.IntN(4) == 0 {
		w.WriteString("Digest: x\r\nT: u\r\n")
	}
	w.WriteString("\r\n")
	return w.Bytes()
}

func (k *talk) head(id int, r *rand.Rand) []byte {
	var w bytes.Buffer
	fmt.Fprintf(&w, "%s /%d HTTP/1.%d\r\n", k.method, id, k.minor)
	lines := []string{"Host: a.example\r\n"}
	switch {
	case k.close && k.minor == 1:
		lines = append(lines, "Connection: close\r\n")
	case k.minor == 0 && !k.close:
		lines = append(lines, "Connection: keep-alive\r\n")
	}
	switch {
	case k.chunked:
		lines = append(lines, "Transfer-Encoding: chunked\r\n")
	case len(k.body) > 0 || k.method[0] == 'P':
		lines = append(lines, fmt.Sprintf("Content-Length: %d\r\n", len(k.body)))
	}
	if k.expect {
		lines = append(lines, "Expect: 100-continue\r\n")
	}
	for range r.IntN(4) {
		lines = append(lines, fmt.Sprintf("X-%d: %s\r\n", r.IntN(1000), strings.Repeat("v", r.IntN(60))))
	}
	r.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	for _, s := range lines {
		w.WriteString(s)
	}
	w.WriteString("\r\n")
	return w.Bytes()
}

// party is what all of a test's peers share: the talks under way.
type party struct {
	t     *testing.T
	mu    sync.Mutex
	talks map[int]*talk
	next  int
	errs  chan string
}

func (p *party) add(k *talk) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	p.talks[p.next] = k
	return p.next
}

func (p *party) get(id int) *talk {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.talks[id]
}

func (p *party) failf(format string, args ...any) {
	select {
	case p.errs <- fmt.Sprintf(format, args...):
	default:
	}
}

// dribble writes b in pieces of any size. Pauses are rare: it is the splits that matter.
func dribble(r *rand.Rand, w io.Writer, b []byte) error {
	if r.IntN(2) == 0 {
		_, err := w.Write(b)
		return err
	}
	most := 1 + len(b)/50 + r.IntN(len(b)+1)/(1+r.IntN(20))
	for len(b) > 0 {
		n := min(len(b), 1+r.IntN(most))
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		if r.IntN(20) == 0 {
			time.Sleep(time.Duration(r.IntN(200)) * time.Microsecond)
		}
	}
	return nil
}

// serve is the backend: it checks that it gets what was sent, and answers as the talk says.
func (p *party) serve(o *peer) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 0))
	o.fatal = func(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
	defer func() { // what breaks off is for the client to complain of
		recover()
	}()
	for {
		if _, err := o.br.Peek(1); err != nil {
			return
		}
		h := o.head()
		var method string
		var id int
		fmt.Sscanf(h, "%s /%d ", &method, &id)
		k := p.get(id)
		if k == nil || method != k.method {
			p.failf("the backend got %q", h)
			return
		}
		early := k.early && len(k.body) > 0
		if !early {
			if k.expect && !k.refuse100 {
				o.trySend("HTTP/1.1 100 Continue\r\n\r\n")
			}
			if k.chunked {
				if got := o.take(len(k.wire)); got != string(k.wire) {
					p.failf("%d: the chunks are not those that were sent", id)
				}
			} else if got := o.take(len(k.body)); got != string(k.body) {
				p.failf("%d: the body is not the one that was sent", id)
			}
		}
		for range k.hints {
			o.trySend("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
		}
		var w bytes.Buffer
		fmt.Fprintf(&w, "HTTP/1.%d %d Whatever\r\nX-Talk: %d\r\n", k.minorBack, k.status, id)
		close := k.closeBack || early
		if k.minorBack == 0 {
			close = true
		} else if close && k.framing != byClose {
			w.WriteString("Connection: close\r\n")
		}
		body := k.answer
		if k.hasBody() {
			switch k.framing {
			case byLength:
				fmt.Fprintf(&w, "Content-Length: %d\r\n", len(body))
			case byChunks:
				w.WriteString("Transfer-Encoding: chunked\r\n")
				body = chunk(r, body)
			}
		} else {
			close = early || close && k.framing != byClose
			if close && k.minorBack == 1 && !strings.Contains(w.String(), "Connection") {
				w.WriteString("Connection: close\r\n")
			}
		}
		w.WriteString("\r\n")
		w.Write(body)
		if dribble(r, o.conn, w.Bytes()) != nil {
			return
		}
		if close {
			o.finish()
			io.Copy(io.Discard, o.br)
			return
		}
	}
}

// converse sends talks on one connection, some of them before the answers to those before.
func (p *party) converse(r *rand.Rand, dial func() (net.Conn, error)) {
	c, err := dial()
	if err != nil {
		p.failf("dial: %v", err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	o := newPeer(p.t, "client", c, nil)
	last := ""
	o.fatal = func(format string, args ...any) { panic(last + ": " + fmt.Sprintf(format, args...)) }
	defer func() {
		if v := recover(); v != nil {
			p.failf("%v", v)
		}
	}()
	for round := 0; round < 5; round++ {
		var ids []int
		var stream []byte
		lone := false
		for range 1 + r.IntN(5) {
			k := randomTalk(r)
			id := p.add(k)
			ids = append(ids, id)
			stream = append(stream, k.head(id, r)...)
			lone = k.expect && !k.refuse100 && r.IntN(2) == 0 // waits for 100 Continue: nothing goes behind it
			if !lone {
				stream = append(stream, k.wire...)
			}
			if lone || k.close || k.early {
				break
			}
		}
		sent := make(chan error, 1)
		go func(r *rand.Rand) { sent <- dribble(r, c, stream) }(rand.New(rand.NewPCG(r.Uint64(), 0)))
		for i, id := range ids {
			k := p.get(id)
			last = k.describe(id)
			waits := lone && i == len(ids)-1
			h := ""
			for {
				h = o.head()
				if strings.HasPrefix(h, "HTTP/1.1 100 ") {
					if !k.expect {
						panic(last + ": 100 that nobody asked for")
					}
					if waits {
						waits = false
						<-sent
						go func(r *rand.Rand) { sent <- dribble(r, c, k.wire) }(rand.New(rand.NewPCG(r.Uint64(), 0)))
					}
				} else if !strings.HasPrefix(h, "HTTP/1.1 103 ") {
					break
				}
			}
			if v := field(h, "X-Talk"); v != strconv.Itoa(id) {
				panic(last + ": got " + h)
			}
			if !strings.HasPrefix(h, fmt.Sprintf("HTTP/1.1 %d ", k.status)) {
				panic(last + ": got " + h)
			}
			var body string
			ends := field(h, "Connection") == "close"
			switch {
			case !k.hasBody():
			case field(h, "Content-Length") != "":
				n, _ := strconv.Atoi(field(h, "Content-Length"))
				body = o.take(n)
			case field(h, "Transfer-Encoding") == "chunked":
				if k.minor == 0 {
					panic(last + ": chunks for HTTP/1.0")
				}
				body, _ = o.chunked()
			default:
				if !ends {
					panic(last + ": no end: " + h)
				}
				body = o.rest()
			}
			if body != string(k.answer) {
				panic(fmt.Sprintf("%s: answer of %d bytes, want %d", last, len(body), len(k.answer)))
			}
			if k.close && !ends || !k.close && ends && k.minor == 1 && !(k.early && len(k.body) > 0) {
				panic(fmt.Sprintf("%s: connection ends: %v: %q", last, ends, h))
			}
			p.mu.Lock()
			delete(p.talks, id)
			p.mu.Unlock()
			if ends {
				if rest := o.rest(); rest != "" {
					panic(last + ": after the end " + cutShort(rest))
				}
				if i < len(ids)-1 && k.minor == 1 && !k.early {
					panic(last + ": ended too early")
				}
				return
			}
		}
		if err := <-sent; err != nil {
			p.failf("send: %v", err)
			return
		}
	}
}

// Whatever valid requests clients send and however the backends frame their answers, both get what the other sent.
// go test -race -run Random ./proxy -soak 5m goes on for longer.
func TestRandomTraffic(t *testing.T) {
	p := &party{t: t, talks: map[int]*talk{}, errs: make(chan string, 10)}
	a, b := newOrigin(t, p.serve), newOrigin(t, p.serve)
	l := newLab(t, []string{a.addr, b.addr}, func(p *plan) { p.pool.IdleTimeout = 20 * time.Millisecond })
	end := time.Now().Add(*soak)
	var wg sync.WaitGroup
	for range 8 {
		seed := rand.Uint64()
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(seed, 1))
			for time.Now().Before(end) && len(p.errs) == 0 {
				p.converse(r, func() (net.Conn, error) { return net.Dial("tcp", l.addr) })
			}
		}()
	}
	wg.Wait()
	for len(p.errs) > 0 {
		t.Error(<-p.errs)
	}
	t.Logf("%d requests", p.next)
}
