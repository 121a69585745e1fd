package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lb/affinity"
	"lb/loop"
	"lb/route"
	"lb/strategy"
	"lb/upstream"
	"lb/upstream/upstreamtest"
)

// patience is how long a test waits for something that should come at once.
const patience = 20 * time.Second

// steady is a limit on silence for tests of who stays below it: two pauses are longer than it, and after one of them there is
// time enough left on a busy machine. Such tests wait beside each other.
const (
	steady = 2 * time.Second
	pause  = steady * 5 / 8
)

// lab is a proxy with one pool and a listener on loopback. When the test is over it is stopped, and then every
// count must be back at nothing.
type lab struct {
	t      testing.TB
	group  *loop.Group
	proxy  *Proxy
	pool   *upstream.Pool
	sticky *affinity.Affinity
	ln     *Listener
	addr   string
}

// plan is what a lab is built from.
type plan struct {
	Settings
	pool     *upstream.Settings
	loops    int
	strategy string
	sticky   *affinity.Options // nil: none
	panicked func(v any, stack []byte)
	grace    time.Duration // of the shutdown in the end
	listen   func() (net.Listener, error)
	after    func() // once the proxy has stopped
}

type option func(*plan)

// single runs the proxy on one loop, where tests know which connection is used next.
func single(p *plan) { p.loops = 1 }

func trust(prefixes ...string) option {
	return func(p *plan) {
		for _, s := range prefixes {
			p.Trusted = append(p.Trusted, netip.MustParsePrefix(s))
		}
	}
}

func newLab(t testing.TB, backends []string, options ...option) *lab {
	t.Helper()
	p := plan{
		Settings: Defaults(),
		pool:     upstream.DefaultSettings(),
		loops:    2,
		strategy: "round_robin",
		panicked: func(v any, stack []byte) { t.Errorf("panic: %v\n%s", v, stack) },
		grace:    5 * time.Second,
		listen:   func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") },
	}
	p.pool.IdleTimeout = time.Minute // so that only tests about it meet it
	p.pool.HoldTimeout, p.pool.QueueTimeout = 0, 0
	p.pool.RetryShare = 1
	for _, o := range options {
		o(&p)
	}
	g, err := loop.New(p.loops, loop.Options{Panicked: p.panicked})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	build, err := strategy.New(p.strategy)
	if err != nil {
		t.Fatal(err)
	}
	pool := upstream.NewPool("app", g.Len(), specs(t, backends), p.pool, build)
	var sticky *affinity.Affinity
	if p.sticky != nil {
		if sticky, err = affinity.New(pool, g.Len(), loop.Clock(), *p.sticky, nil); err != nil {
			t.Fatal(err)
		}
	}
	if p.Table == nil {
		if p.Table, err = route.New([]route.Rule{{Name: "all", Pool: pool, Affinity: sticky}}); err != nil {
			t.Fatal(err)
		}
	}
	set := p.Settings
	l := &lab{t: t, group: g, proxy: New(g, &set), pool: pool, sticky: sticky}
	ln, err := p.listen()
	if err != nil {
		t.Fatal(err)
	}
	l.addr = ln.Addr().String()
	if l.ln, err = l.proxy.Listen("main", ln); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.close(p.grace)
		if p.after != nil {
			p.after()
		}
	})
	return l
}

func specs(t testing.TB, backends []string) (s []upstream.Spec) {
	t.Helper()
	for _, b := range backends {
		a, err := upstream.ParseAddr(b)
		if err != nil {
			t.Fatal(err)
		}
		s = append(s, upstream.Spec{Name: b, Addr: a, Weight: 1})
	}
	return s
}

// close stops the proxy and looks at what it still counts.
func (l *lab) close(grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	l.proxy.Shutdown(ctx)
	for _, b := range l.pool.Snapshot().All {
		if n := b.Inflight() + b.Tunnels(); n != 0 {
			l.t.Errorf("backend %s still counts %d", b.Name, n)
		}
		if open, idle := conns(b); open != 0 || idle != 0 {
			l.t.Errorf("backend %s still counts %d connections open, %d idle", b.Name, open, idle)
		}
	}
	if n := l.ln.Stats().Open; n != 0 {
		l.t.Errorf("the listener still counts %d open connections", n)
	}
}

// conns sums a backend's gauges of connections.
func conns(b *upstream.Backend) (open, idle int64) {
	for i := range b.Loops() {
		open += b.Stats(i).ConnsOpen.Load()
		idle += b.Stats(i).ConnsIdle.Load()
	}
	return open, idle
}

// sum adds up what the loops count of the lab's backend i.
func (l *lab) sum(i int, of func(*upstream.Stats) uint64) (n uint64) {
	b := l.pool.Snapshot().All[i]
	for j := range b.Loops() {
		n += of(b.Stats(j))
	}
	return n
}

// faults is how often attempts at the lab's backend i ended in a fault.
func (l *lab) faults(i int, f upstream.Fault) uint64 {
	return l.sum(i, func(s *upstream.Stats) uint64 { return s.Faults[f].Load() })
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// answered waits until lb counts n answers or cuts for the reason.
func (l *lab) answered(r Reason, n uint64) {
	l.t.Helper()
	eventually(l.t, fmt.Sprintf("%d times %s", n, r), func() bool { return l.ln.Stats().Answers[r] == n })
}

// idle waits until the lab's backends have n idle connections, and as many open.
func (l *lab) idle(n int64) {
	l.t.Helper()
	var open, idle int64
	defer func() {
		if l.t.Failed() {
			l.t.Logf("%d are open, %d idle", open, idle)
		}
	}()
	eventually(l.t, fmt.Sprintf("%d idle connections, none other", n), func() bool {
		open, idle = 0, 0
		for _, b := range l.pool.Snapshot().All {
			o, i := conns(b)
			open, idle = open+o, idle+i
		}
		return open == n && idle == n
	})
}

func (l *lab) dial() net.Conn {
	l.t.Helper()
	network := "tcp"
	if strings.HasPrefix(l.addr, "/") {
		network = "unix"
	}
	c, err := net.Dial(network, l.addr)
	if err != nil {
		l.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	l.t.Cleanup(func() { c.Close() })
	return c
}

// client connects to the lab.
func (l *lab) client() *peer { return newPeer(l.t, "client", l.dial(), l.t.Fatalf) }

// peer is one end of a connection, driven by a script. What does not come as expected ends the test.
type peer struct {
	t     testing.TB
	who   string
	conn  net.Conn
	br    *bufio.Reader
	fatal func(format string, args ...any)
}

func newPeer(t testing.TB, who string, c net.Conn, fatal func(string, ...any)) *peer {
	return &peer{t, who, c, bufio.NewReader(c), fatal}
}

// send writes at once.
func (p *peer) send(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.conn, s); err != nil {
		p.fatal("%s: send: %v", p.who, err)
	}
}

// trySend writes what the other side may no longer want.
func (p *peer) trySend(s string) error {
	_, err := io.WriteString(p.conn, s)
	return err
}

// head reads up to the end of a head.
func (p *peer) head() string {
	p.t.Helper()
	var b strings.Builder
	for {
		line, err := p.br.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			p.fatal("%s: %v after %q", p.who, err, b.String())
		}
		if line == "\r\n" {
			return b.String()
		}
	}
}

// take reads n bytes.
func (p *peer) take(n int) string {
	p.t.Helper()
	b := make([]byte, n)
	if k, err := io.ReadFull(p.br, b); err != nil {
		p.fatal("%s: %v after %q", p.who, err, cutShort(string(b[:k])))
	}
	return string(b)
}

// expect reads what must come next.
func (p *peer) expect(want string) {
	p.t.Helper()
	b := make([]byte, len(want))
	for i := range b {
		c, err := p.br.ReadByte()
		if err != nil || c != want[i] {
			p.fatal("%s: got %q then %q %v\nwant %q", p.who, cutShort(string(b[:i])), c, err, cutShort(want[max(0, i-100):]))
		}
		b[i] = c
	}
}

// chunked reads a chunked body and returns its data and what came behind the last chunk's line.
func (p *peer) chunked() (data, trailers string) {
	p.t.Helper()
	var b strings.Builder
	for {
		line, err := p.br.ReadString('\n')
		size, _, _ := strings.Cut(strings.TrimSuffix(line, "\r\n"), ";")
		n, perr := strconv.ParseInt(size, 16, 32)
		if err != nil || perr != nil {
			p.fatal("%s: chunk size %q: %v", p.who, line, err)
		}
		if n == 0 {
			break
		}
		b.WriteString(p.take(int(n)))
		p.expect("\r\n")
	}
	return b.String(), p.head()
}

// answer reads an answer to a request with a body, by its own framing, and returns its head and body.
func (p *peer) answer() (head, body string) {
	p.t.Helper()
	head = p.head()
	return head, p.body(head)
}

// body reads the body of an answer with that head.
func (p *peer) body(head string) (body string) {
	p.t.Helper()
	switch v := field(head, "Content-Length"); {
	case v != "":
		n, _ := strconv.Atoi(v)
		return p.take(n)
	case field(head, "Transfer-Encoding") == "chunked":
		body, _ = p.chunked()
		return body
	}
	return p.rest()
}

// status reads an answer and wants its status to be n.
func (p *peer) status(n int) (body string) {
	p.t.Helper()
	head, body := p.answer()
	if !strings.HasPrefix(head, "HTTP/1.1 "+strconv.Itoa(n)+" ") {
		p.fatal("%s: got %q, want status %d", p.who, head, n)
	}
	return body
}

// rest reads to the end of the stream, which must not be a reset.
func (p *peer) rest() string {
	p.t.Helper()
	b, err := io.ReadAll(p.br)
	if err != nil {
		p.fatal("%s: %v after %q", p.who, err, cutShort(string(b)))
	}
	return string(b)
}

// closed waits for the end of the connection, which may be a reset, and wants nothing before it.
func (p *peer) closed() {
	p.t.Helper()
	if b, err := io.ReadAll(p.br); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		p.fatal("%s: got %q, %v; want the end", p.who, cutShort(string(b)), err)
	}
}

// broken reads to the end and reports what came and whether that was a reset.
func (p *peer) broken() (got string, reset bool) {
	p.t.Helper()
	b, err := io.ReadAll(p.br)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.fatal("%s: got %q and no end", p.who, cutShort(string(b)))
	}
	return string(b), errors.Is(err, syscall.ECONNRESET)
}

// close closes the connection in order.
func (p *peer) close() { p.conn.Close() }

// finish closes the sending side.
func (p *peer) finish() { p.conn.(interface{ CloseWrite() error }).CloseWrite() }

// reset closes the connection with a reset.
func (p *peer) reset() {
	if c, ok := p.conn.(*net.TCPConn); ok {
		c.SetLinger(0)
	}
	p.conn.Close()
}

// peek waits until something can be read, and leaves it unread.
func (p *peer) peek() {
	raw, err := p.conn.(syscall.Conn).SyscallConn()
	if err == nil {
		err = raw.Read(func(fd uintptr) bool {
			_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
			return err != syscall.EAGAIN
		})
	}
	if err != nil {
		p.fatal("%s: peek: %v", p.who, err)
	}
}

func cutShort(s string) string {
	if len(s) > 400 {
		return fmt.Sprintf("%s... (%d bytes)", s[:400], len(s))
	}
	return s
}

// field is the value of a head's first field of that name, "" without one.
func field(head, name string) string {
	for line := range strings.SplitSeq(head, "\r\n") {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			return strings.Trim(v, " \t")
		}
	}
	return ""
}

// fields are the values of all of a head's fields of that name.
func fields(head, name string) (vs []string) {
	for line := range strings.SplitSeq(head, "\r\n") {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			vs = append(vs, strings.Trim(v, " \t"))
		}
	}
	return vs
}

// origin is a backend whose connections tests drive byte by byte: one after the other by accept, or each by the
// function that it was made with.
type origin struct {
	t     *testing.T
	ln    net.Listener
	addr  string
	conns chan *peer
	count atomic.Int64 // connections accepted
	mu    sync.Mutex
	open  map[net.Conn]bool // guarded by mu
	over  bool              // guarded by mu
	wg    sync.WaitGroup
}

func newOrigin(t *testing.T, serve func(*peer)) *origin {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOrigin(t, ln, ln.Addr().String(), serve)
}

func serveOrigin(t *testing.T, ln net.Listener, addr string, serve func(*peer)) *origin {
	o := &origin{t: t, ln: ln, addr: addr, conns: make(chan *peer, 1024), open: map[net.Conn]bool{}}
	o.wg.Add(1)
	go o.run(serve)
	t.Cleanup(o.close)
	return o
}

func (o *origin) run(serve func(*peer)) {
	defer o.wg.Done()
	for {
		c, err := o.ln.Accept()
		if errors.Is(err, syscall.EMFILE) { // it is of the process that a test leaves without descriptors
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			return
		}
		o.mu.Lock()
		if o.over {
			c.Close()
		}
		o.open[c] = true
		o.mu.Unlock()
		c.SetDeadline(time.Now().Add(patience))
		o.count.Add(1)
		if serve == nil {
			o.conns <- newPeer(o.t, "origin", c, o.t.Fatalf)
			continue
		}
		o.wg.Add(1)
		go func() {
			defer o.wg.Done()
			defer c.Close()
			serve(newPeer(o.t, "origin", c, o.fail))
		}()
	}
}

// patient makes an origin that does not mind when a request breaks off.
func patient(serve func(*peer)) func(*peer) {
	return func(p *peer) {
		p.fatal = func(string, ...any) { runtime.Goexit() }
		serve(p)
	}
}

// fail is Fatalf for the origin's own goroutines.
func (o *origin) fail(format string, args ...any) {
	o.mu.Lock()
	over := o.over
	o.mu.Unlock()
	if !over {
		o.t.Errorf(format, args...)
	}
	runtime.Goexit()
}

// close stops listening and closes all connections.
func (o *origin) close() {
	o.ln.Close()
	o.mu.Lock()
	o.over = true
	for c := range o.open {
		c.Close()
	}
	o.mu.Unlock()
	o.wg.Wait()
}

// accept is the next connection that lb makes.
func (o *origin) accept() *peer {
	o.t.Helper()
	select {
	case p := <-o.conns:
		return p
	case <-time.After(patience):
		o.t.Fatal("lb does not connect")
		return nil
	}
}

// only fails when lb has made more than n connections.
func (o *origin) only(n int64) {
	o.t.Helper()
	if got := o.count.Load(); got != n {
		o.t.Fatalf("lb made %d connections, want %d", got, n)
	}
}

// refusing is an address where nobody listens.
func refusing(t *testing.T) string { return upstreamtest.Refusing(t) }

// get is a request without a body.
func get(path string, fields ...string) string { return request("GET", path, "", fields...) }

// request is a request with its length, if it has a body, and further field lines.
func request(method, path, body string, fields ...string) string {
	s := method + " " + path + " HTTP/1.1\r\nHost: a.example\r\n"
	for _, f := range fields {
		s += f + "\r\n"
	}
	if body != "" {
		s += "Content-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	return s + "\r\n" + body
}

// ok is an answer with a body.
func ok(body string, fields ...string) string {
	s := "HTTP/1.1 200 OK\r\n"
	for _, f := range fields {
		s += f + "\r\n"
	}
	return s + "Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}
