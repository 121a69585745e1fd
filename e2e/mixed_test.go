package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// shot is one request of a mixed load, with what its client knows of it.
type shot struct {
	answer
	id         string
	kind       string
	begin, end time.Time
	wrote      int    // bytes of the body, framing included, that had been sent when the answer came
	wrong      string // what is wrong with an answer that came whole
}

func (s *shot) ok() bool { return s.err == nil && s.status == 200 && s.wrong == "" }

func (s *shot) String() string {
	text := fmt.Sprintf("%s %s, after %v: %s", s.kind, s.id, s.end.Sub(s.begin).Round(time.Millisecond), s.answer.String())
	if s.wrong != "" {
		text += ": " + s.wrong
	}
	return text
}

// repeatable reports whether lb may send the request twice: it is idempotent, or says so, and lb has all of its body.
// lb keeps 64 KiB of a body.
func (s *shot) repeatable() bool {
	switch s.kind {
	case "post", "post chunked":
		return false
	case "put large":
		return s.wrote < 60<<10
	}
	return true
}

// talk is one WebSocket of a mixed load.
type talk struct {
	id         string
	instance   string
	begin, end time.Time
	dialed     bool
	said       int
	code       websocket.StatusCode // of the close frame that ended it, -1 without one
	err        error
	ours       bool // the load was over
}

// mixed is a load of many kinds of requests, streams and WebSockets.
type mixed struct {
	door    *door
	stop    chan struct{}
	workers sync.WaitGroup
	ids     atomic.Int64
	keep    bool // all shots and talks; else those that failed

	sent, failed, talked, visited atomic.Int64

	mu     sync.Mutex
	shots  []shot  // guarded by mu
	talks  []talk  // guarded by mu
	visits []visit // guarded by mu; see startVisits
}

// door is where clients find lb. While it moves, both addresses are known, as by a reload the new one is served before the
// old one closes: who is refused at the one is not refused at the other.
type door struct {
	mu        sync.Mutex
	now, next string // guarded by mu
}

func (d *door) addresses() (now, next string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now, d.next
}

// moving says where lb will be next, moved that it is there.
func (d *door) moving(next string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next = next
}

func (d *door) moved() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now, d.next = d.next, ""
}

func (d *door) dial() (net.Conn, error) {
	first, _ := d.addresses()
	c, err := net.DialTimeout("tcp", first, patience)
	if errors.Is(err, syscall.ECONNREFUSED) {
		for _, other := range []func(now, next string) string{
			func(now, next string) string { return next }, func(now, next string) string { return now },
		} {
			if a := other(d.addresses()); a != first && a != "" {
				if c, err := net.DialTimeout("tcp", a, patience); err == nil {
					return c, nil
				}
			}
		}
	}
	return c, err
}

// startMixed sends about rate requests a second, besides some event streams and WebSockets that are always there.
func startMixed(t testing.TB, addr string, rate int, seed uint64, keep bool) *mixed {
	m := &mixed{door: &door{now: addr}, stop: make(chan struct{}), keep: keep}
	const clients = 32
	every := clients * time.Second / time.Duration(rate)
	for i := range clients {
		m.workers.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			c := &conn{to: m.door.dial}
			defer c.close()
			next := time.Now().Add(time.Duration(r.Float64() * float64(every)))
			for m.rest(time.Until(next)) {
				// What could not be sent in time is not made up for: the load stays bounded.
				if next = next.Add(every); next.Before(time.Now()) {
					next = time.Now()
				}
				m.book(m.shoot(c, r))
			}
		})
	}
	for i := range 6 {
		m.workers.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(100+i)))
			c := &conn{to: m.door.dial}
			defer c.close()
			for m.rest(time.Duration(r.IntN(200)) * time.Millisecond) {
				m.book(m.stream(c, r))
			}
		})
	}
	for i := range 8 {
		m.workers.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(200+i)))
			for m.rest(time.Duration(r.IntN(100)) * time.Millisecond) {
				k := m.talk(r)
				m.talked.Add(1)
				m.mu.Lock()
				if keep || k.err != nil && !k.ours {
					m.talks = append(m.talks, k)
				}
				m.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { m.over() })
	return m
}

// rest waits and reports whether the load goes on.
func (m *mixed) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-m.stop:
		return false
	case <-timer.C:
		return true
	}
}

// over ends the load when all that has begun is done.
func (m *mixed) over() {
	select {
	case <-m.stop:
	default:
		close(m.stop)
	}
	m.workers.Wait()
}

func (m *mixed) book(s shot) {
	m.sent.Add(1)
	if !s.ok() {
		m.failed.Add(1)
	}
	if m.keep || !s.ok() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.shots = append(m.shots, s)
	}
}

func (m *mixed) begin(kind string) shot {
	return shot{id: fmt.Sprint(m.ids.Add(1)), kind: kind, begin: time.Now()}
}

// shoot does one request of a kind by chance.
func (m *mixed) shoot(c *conn, r *rand.Rand) shot {
	switch n := r.IntN(100); {
	case n < 40:
		return m.get(c, r, "get")
	case n < 52:
		c.close() // and comes on a new connection
		return m.get(c, r, "get")
	case n < 60:
		return m.bytes(c, r)
	case n < 75:
		return m.post(c, r, "post")
	case n < 80:
		return m.post(c, r, "post keyed")
	case n < 87:
		return m.upload(c, r, "post chunked", 1+r.IntN(40<<10))
	case n < 96:
		return m.upload(c, r, "put small", 1+r.IntN(40<<10))
	}
	return m.upload(c, r, "put large", 100<<10+r.IntN(400<<10))
}

// pause is how long the app thinks, in milliseconds: mostly little.
func pause(r *rand.Rand) string {
	return fmt.Sprintf("X-Ms: %d", int(r.ExpFloat64()*30))
}

func (m *mixed) get(c *conn, r *rand.Rand, kind string) shot {
	s := m.begin(kind)
	s.answer = c.do("GET", "/work/"+s.id, "", pause(r))
	s.end = time.Now()
	if want := s.instance + " did " + s.id; s.answer.ok() && s.body != want {
		s.wrong = fmt.Sprintf("want %q", want)
	}
	return s
}

func (m *mixed) bytes(c *conn, r *rand.Rand) shot {
	s := m.begin("bytes")
	n := 1 + r.IntN(500<<10)
	s.answer = c.do("GET", "/bytes/"+s.id, "", fmt.Sprintf("X-Bytes: %d", n))
	s.end = time.Now()
	if s.answer.ok() && s.body != strings.Repeat(s.instance, n) {
		s.wrong = fmt.Sprintf("want %d bytes, all of them %s", n, s.instance)
	}
	if s.answer.ok() {
		s.body = ""
	}
	return s
}

func (m *mixed) post(c *conn, r *rand.Rand, kind string) shot {
	s := m.begin(kind)
	body := random(r, 1+r.IntN(20<<10))
	header := []string{pause(r)}
	if kind == "post keyed" {
		header = append(header, "Idempotency-Key: "+s.id)
	}
	s.answer = c.do("POST", "/sum/"+s.id, string(body), header...)
	s.end, s.wrote = time.Now(), len(body)
	s.holds(body)
	return s
}

// upload sends a chunked body in pieces, with pauses, and stops when the answer comes early.
func (m *mixed) upload(c *conn, r *rand.Rand, kind string, size int) shot {
	s := m.begin(kind)
	body := random(r, size)
	method, _, _ := strings.Cut(kind, " ")
	method = strings.ToUpper(method)
	head := fmt.Sprintf("%s /sum/%s HTTP/1.1\r\nHost: e2e.test\r\nTransfer-Encoding: chunked\r\n%s\r\n\r\n", method, s.id, pause(r))
	if s.err = c.dial(); s.err != nil {
		s.dialing, s.end = true, time.Now()
		return s
	}
	out := c.Conn
	out.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(out, head); err == nil {
		answers := make(chan answer, 1)
		go func() { answers <- c.receive(method) }()
		pieces := 1 + r.IntN(6)
		for rest := body; s.wrote >= 0; {
			select {
			case s.answer = <-answers:
				s.end = time.Now()
				if s.answer.ok() {
					s.wrong = "the answer came before the end of the request"
				}
				c.close()
				return s
			case <-time.After(time.Duration(r.IntN(20)) * time.Millisecond):
			}
			if len(rest) == 0 {
				io.WriteString(out, "0\r\n\r\n")
				break
			}
			n := min(len(rest), size/pieces+1)
			chunk := fmt.Appendf(nil, "%x\r\n%s\r\n", n, rest[:n])
			rest = rest[n:]
			s.wrote += len(chunk)
			if _, err := out.Write(chunk); err != nil {
				break
			}
		}
		s.answer = <-answers
	} else {
		s.answer = c.receive(method)
	}
	s.end = time.Now()
	s.holds(body)
	return s
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// holds holds the app's word about a body to it.
func (s *shot) holds(body []byte) {
	if !s.answer.ok() {
		return
	}
	var got struct {
		Length int
		Sum    string
	}
	err := json.Unmarshal([]byte(s.body), &got)
	if want := fmt.Sprintf("%x", sha256.Sum256(body)); err != nil || got.Length != len(body) || got.Sum != want {
		s.wrong = fmt.Sprintf("want %d bytes with the sum %s", len(body), want)
	}
}

// stream reads an event stream to its end, which the app may bring about early, with other words.
func (m *mixed) stream(c *conn, r *rand.Rand) shot {
	s := m.begin("stream")
	n := r.IntN(40)
	s.answer = c.do("GET", "/stream/"+s.id, "", fmt.Sprintf("X-Events: %d", n))
	s.end = time.Now()
	if !s.answer.ok() {
		return s
	}
	events := strings.Split(strings.TrimSuffix(s.body, "\n\n"), "\n\n")
	last := len(events) - 1
	for i, e := range events[:last] {
		if e != fmt.Sprint("data: ", i) {
			s.wrong = fmt.Sprintf("event %d is %q", i, e)
		}
	}
	if end := events[last]; end != "data: bye" && (end != "data: end" || last != n) {
		s.wrong = fmt.Sprintf("after %d events of %d it ends with %q", last, n, end)
	}
	return s
}

func (m *mixed) websocket(ctx context.Context, path string) (*websocket.Conn, error) {
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return m.door.dial() }}
	c, _, err := websocket.Dial(ctx, "http://e2e.test"+path, &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}})
	tr.CloseIdleConnections() // one that was refused
	return c, err
}

// talk is a WebSocket for as long as it lives, half a minute at most.
func (m *mixed) talk(r *rand.Rand) (k talk) {
	k = talk{id: fmt.Sprint(m.ids.Add(1)), begin: time.Now(), code: -1}
	defer func() { k.end = time.Now() }()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	dial, stop := context.WithTimeout(ctx, patience)
	defer stop()
	c, err := m.websocket(dial, "/ws/"+k.id)
	if err != nil {
		k.err = err
		return k
	}
	k.dialed = true
	defer c.CloseNow()
	fail := func(err error) talk {
		k.err, k.code = err, websocket.CloseStatus(err)
		return k
	}
	_, hello, err := c.Read(ctx)
	if err != nil {
		return fail(err)
	}
	k.instance = string(hello)
	until := k.begin.Add(time.Duration(float64(patience) * r.Float64()))
	for time.Now().Before(until) {
		if !m.rest(time.Duration(r.IntN(100)) * time.Millisecond) {
			break
		}
		text := random(r, r.IntN(2000))
		if err := c.Write(ctx, websocket.MessageBinary, text); err != nil {
			// The peer's close frame may be there to be read.
			if _, _, other := c.Read(ctx); other != nil && websocket.CloseStatus(other) != -1 {
				err = other
			}
			return fail(err)
		}
		_, back, err := c.Read(ctx)
		if err != nil {
			return fail(err)
		}
		if !bytes.Equal(text, back) {
			k.err = fmt.Errorf("%d bytes went out and %d others came back", len(text), len(back))
			return k
		}
		k.said++
	}
	k.ours = true
	c.Close(websocket.StatusNormalClosure, "")
	return k
}
