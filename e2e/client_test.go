package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// conn is one client connection, kept alive. Unlike net/http's client it never tries again, so that it sees whatever
// goes wrong.
type conn struct {
	net.Conn
	r     *bufio.Reader
	addr  string
	to    func() (net.Conn, error) // connects in place of addr, if it is there
	dials int
}

// answer is what came back for a request.
type answer struct {
	status   int
	header   http.Header
	trailer  http.Header
	body     string
	instance string
	err      error
	closes   bool // the answer says that it is the connection's last
	begun    bool // a byte of the answer came before err
	dialing  bool // err is of making the connection
}

func (a *answer) ok() bool { return a.err == nil && a.status == 200 }

func (a *answer) String() string {
	switch {
	case a.err != nil && a.begun:
		return fmt.Sprintf("%d, cut off: %v", a.status, a.err)
	case a.err != nil:
		return fmt.Sprintf("no answer: %v", a.err)
	}
	return fmt.Sprintf("%d %q", a.status, shorten(a.body))
}

func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

func (c *conn) close() {
	if c.Conn != nil {
		c.Conn.Close()
		c.Conn = nil
	}
}

// do sends a request, on the kept connection if there is one, and reads the answer.
func (c *conn) do(method, path, body string, header ...string) (a answer) {
	if a.err = c.send(method, path, body, header...); a.err != nil {
		a.dialing = c.Conn == nil
		c.close()
		return a
	}
	return c.receive(method)
}

// dial connects unless there is a connection.
func (c *conn) dial() error {
	if c.Conn != nil {
		return nil
	}
	to := c.to
	if to == nil {
		to = func() (net.Conn, error) { return net.DialTimeout("tcp", c.addr, patience) }
	}
	n, err := to()
	if err != nil {
		return err
	}
	c.Conn, c.r = n, bufio.NewReader(n)
	c.dials++
	return nil
}

func (c *conn) send(method, path, body string, header ...string) error {
	if err := c.dial(); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: e2e.test\r\n", method, path)
	for _, h := range header {
		b.WriteString(h + "\r\n")
	}
	if body != "" || method == "POST" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n" + body)
	c.SetDeadline(time.Now().Add(patience))
	_, err := io.WriteString(c.Conn, b.String())
	return err
}

// receive reads an answer, and closes the connection when it says so or is cut off.
func (c *conn) receive(method string) (a answer) {
	if c.Conn == nil {
		a.err = net.ErrClosed
		return a
	}
	a.begun = true
	if _, err := c.r.Peek(1); err != nil {
		a.err, a.begun = err, false
		c.close()
		return a
	}
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		a.err = err
		c.close()
		return a
	}
	a.status, a.header, a.closes, a.instance = resp.StatusCode, resp.Header, resp.Close, resp.Header.Get("X-Instance")
	b, err := io.ReadAll(resp.Body)
	a.body, a.err, a.trailer = string(b), err, resp.Trailer
	if err != nil || resp.Close {
		c.close()
	}
	return a
}

// sample is one request of a load and what came of it.
type sample struct {
	path string
	answer
}

// number is which request of its load it was, counted from 1: those above load.sent are sent later.
func (s *sample) number() (n int64) {
	fmt.Sscanf(path.Base(s.path), "%d", &n)
	return n
}

// load is traffic: some connections that each send a request whenever it is time to.
type load struct {
	stop    chan struct{}
	workers sync.WaitGroup
	sent    atomic.Int64

	mu      sync.Mutex
	samples []sample // guarded by mu
}

// startLoad sends rate requests a second over conns kept connections until it is stopped. request is called with the
// number of each request, counted from 1; without one, it is GET /work/N.
func startLoad(t testing.TB, addr string, conns, rate int, request func(c *conn, n int64) sample) *load {
	if request == nil {
		request = func(c *conn, n int64) sample {
			path := fmt.Sprintf("/work/%d", n)
			return sample{path, c.do("GET", path, "")}
		}
	}
	l := &load{stop: make(chan struct{})}
	every := time.Duration(conns) * time.Second / time.Duration(rate)
	for i := range conns {
		l.workers.Go(func() {
			c := &conn{addr: addr}
			defer c.close()
			next := time.Now().Add(every * time.Duration(i) / time.Duration(conns))
			for {
				select {
				case <-l.stop:
					return
				case <-time.After(time.Until(next)):
				}
				// What could not be sent in time is not made up for: the load stays bounded.
				next = next.Add(every)
				if now := time.Now(); next.Before(now) {
					next = now
				}
				s := request(c, l.sent.Add(1))
				l.mu.Lock()
				l.samples = append(l.samples, s)
				l.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { l.end() })
	return l
}

// count is how many requests have been answered, or failed.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.samples)
}

// goesOn waits until n more requests have been answered.
func (l *load) goesOn(t testing.TB, n int) {
	t.Helper()
	want := l.count() + n
	eventually(t, "the load goes on", func() bool { return l.count() >= want })
}

// since returns the samples from number n on.
func (l *load) since(n int) []sample {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]sample(nil), l.samples[n:]...)
}

// end stops the load and returns all its samples.
func (l *load) end() []sample {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.workers.Wait()
	return l.since(0)
}

// flood sends n requests over conns kept connections as fast as they are answered.
func flood(addr string, conns, n int, request func(c *conn, i int) sample) (all []sample) {
	var next atomic.Int64
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range conns {
		workers.Go(func() {
			c := &conn{addr: addr}
			defer c.close()
			var mine []sample
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				mine = append(mine, request(c, int(i)))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
		})
	}
	workers.Wait()
	return all
}

// shares counts who answered.
func shares(all []sample) map[string]int {
	m := map[string]int{}
	for _, s := range all {
		m[s.instance]++
	}
	return m
}

// unevenness is the largest share over the mean of n.
func unevenness(shares map[string]int, n int) float64 {
	sum, most := 0, 0
	for _, v := range shares {
		sum += v
		most = max(most, v)
	}
	return float64(most) * float64(n) / float64(sum)
}

// allOK fails the test for every kind of answer that is not 200.
func allOK(t testing.TB, all []sample) {
	t.Helper()
	bad := 0
	for _, s := range all {
		if !s.ok() {
			if bad++; bad <= 5 {
				t.Errorf("%s: %s", s.path, s.String())
			}
		}
	}
	if bad > 0 {
		t.Errorf("%d of %d requests failed", bad, len(all))
	}
}

// holdsAgainst compares the access log to what clients saw, one to one by path.
func holdsAgainst(t testing.TB, log []record, all []sample) {
	t.Helper()
	lines := byPath(t, log)
	if len(log) != len(all) {
		t.Errorf("%d lines for %d requests", len(log), len(all))
	}
	bad := 0
	for _, s := range all {
		r, ok := lines[s.path]
		if ok && r.Status == s.status && r.BytesOut == int64(len(s.body)) && r.Backend == s.instance {
			continue
		}
		if bad++; bad <= 5 {
			t.Errorf("%s: the client saw %d, %d bytes, from %s; the log has %+v", s.path, s.status, len(s.body), s.instance, r)
		}
	}
	if bad > 0 {
		t.Errorf("%d lines differ from what clients saw", bad)
	}
}
