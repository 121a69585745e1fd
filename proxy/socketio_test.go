package proxy

import (
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lb/affinity"
	"lb/upstream"
)

// engine is a server of Engine.IO as far as a balancer can see it: it knows the sessions that it began, and no others.
type engine struct {
	*httptest.Server
	name string
	say  func(w http.ResponseWriter, r *http.Request, packet string)

	mu     sync.Mutex
	sids   map[string]bool // guarded by mu
	n      atomic.Int64
	coding atomic.Value // the last Accept-Encoding of a handshake
	posted atomic.Int64
}

var whole = func(w http.ResponseWriter, _ *http.Request, packet string) { io.WriteString(w, packet) }

func newEngine(t testing.TB, name string, say func(w http.ResponseWriter, r *http.Request, packet string)) *engine {
	e := &engine{name: name, sids: map[string]bool{}, say: say}
	e.Server = httptest.NewServer(e)
	t.Cleanup(func() {
		e.CloseClientConnections()
		e.Close()
	})
	return e
}

func (e *engine) addr() string { return e.Listener.Addr().String() }

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Instance", e.name)
	q := r.URL.Query()
	if q.Get("EIO") == "" {
		io.WriteString(w, e.name)
		return
	}
	sid := q.Get("sid")
	e.mu.Lock()
	known := e.sids[sid]
	if sid == "" {
		sid = fmt.Sprintf("%s-%d", e.name, e.n.Add(1))
		e.sids[sid] = true
		e.mu.Unlock()
		e.coding.Store(r.Header.Get("Accept-Encoding"))
		packet := `0{"sid":"` + sid + `","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}`
		if q.Get("EIO") == "3" {
			packet = fmt.Sprintf("%d:%s2:40", len(packet), packet)
		}
		e.say(w, r, packet)
		return
	}
	e.mu.Unlock()
	if !known {
		w.WriteHeader(400)
		w.(http.Flusher).Flush() // chunked, as Node's is
		io.WriteString(w, `{"code":1,"message":"Session ID unknown"}`)
		return
	}
	if r.Method == "POST" {
		b, _ := io.ReadAll(r.Body)
		e.posted.Add(int64(len(b)))
	}
	io.WriteString(w, "ok")
}

// TestSocketIOStays begins sessions with answers of all sorts, and then comes back on other connections.
func TestSocketIOStays(t *testing.T) {
	encoded := func(name string, make func(w io.Writer) io.WriteCloser) func(http.ResponseWriter, *http.Request, string) {
		return func(w http.ResponseWriter, _ *http.Request, packet string) {
			w.Header().Set("Content-Encoding", name)
			z := make(w)
			io.WriteString(z, packet)
			z.Close()
		}
	}
	for name, say := range map[string]func(http.ResponseWriter, *http.Request, string){
		"whole": whole,
		"byte by byte": func(w http.ResponseWriter, _ *http.Request, packet string) {
			for i := range packet {
				io.WriteString(w, packet[i:i+1])
				w.(http.Flusher).Flush()
			}
		},
		"gzip":    encoded("gzip", func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }),
		"deflate": encoded("deflate", func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }),
		"raw deflate": encoded("deflate", func(w io.Writer) io.WriteCloser {
			f, _ := flate.NewWriter(w, 5)
			return f
		}),
		"to the end of the connection": func(w http.ResponseWriter, _ *http.Request, packet string) {
			c, _, _ := w.(http.Hijacker).Hijack()
			io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Instance: \r\nConnection: close\r\n\r\n"+packet)
			c.Close()
		},
		"much more behind it": func(w http.ResponseWriter, _ *http.Request, packet string) {
			w.Header().Set("Content-Length", fmt.Sprint(len(packet)+1+200_000))
			io.WriteString(w, packet+"\x1e"+strings.Repeat("4", 200_000))
		},
		"JSONP": func(w http.ResponseWriter, _ *http.Request, packet string) {
			fmt.Fprintf(w, "/**/___eio[0](%q);", packet)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var backends []string
			var all []*engine
			for i := range 3 {
				e := newEngine(t, fmt.Sprint(i), say)
				backends = append(backends, e.addr())
				all = append(all, e)
			}
			l := newLab(t, backends, sticky(affinity.Options{SocketIO: true}))
			for i := range 12 {
				eio := fmt.Sprint("EIO=", 3+i%2)
				res := l.ask("GET", "/socket.io/?"+eio+"&transport=polling&t=x", "", "Accept-Encoding", "gzip, br")
				if res.StatusCode != 200 {
					t.Fatal(res.Status)
				}
				sid := newest(all)
				where, _, _ := strings.Cut(sid, "-")
				for range 3 {
					res := l.ask("GET", "/socket.io/?"+eio+"&transport=polling&sid="+sid, "")
					if got := res.Header.Get("X-Instance"); got != where || res.StatusCode != 200 {
						t.Fatalf("session %s went to %s: %s", sid, got, res.Status)
					}
				}
			}
			for _, e := range all {
				if got := e.coding.Load(); got != "identity" {
					t.Errorf("instance %s was asked for %v", e.name, got)
				}
			}
			st := sumStats(l.sticky)
			if hits := st.Visits[affinity.BySID][affinity.Hit].Load(); hits != 36 || st.Unread.Load() != 0 {
				t.Errorf("%d hits, %d answers not understood", hits, st.Unread.Load())
			}
		})
	}
}

// newest is the session that was begun last, of those that have not been returned yet.
func newest(all []*engine) (sid string) {
	for _, e := range all {
		e.mu.Lock()
		for s, fresh := range e.sids {
			if fresh && !strings.HasSuffix(s, "!") && !e.sids[s+"!"] {
				sid = s
				e.sids[s+"!"] = true
				e.mu.Unlock()
				return sid
			}
		}
		e.mu.Unlock()
	}
	return ""
}

// begin begins a session and returns its ID, and where it is.
func (l *lab) begin(all []*engine) (sid, where string) {
	l.t.Helper()
	if res := l.ask("GET", "/?EIO=4&transport=polling", ""); res.StatusCode != 200 {
		l.t.Fatal(res.Status)
	}
	sid = newest(all)
	where, _, _ = strings.Cut(sid, "-")
	return sid, where
}

func engines(t testing.TB, n int) (all []*engine, backends []string) {
	for i := range n {
		e := newEngine(t, fmt.Sprint(i), whole)
		all = append(all, e)
		backends = append(backends, e.addr())
	}
	return all, backends
}

// TestUnknownSessionIsFound asks an lb that has just been started for sessions that exist.
func TestUnknownSessionIsFound(t *testing.T) {
	all, backends := engines(t, 4)
	l := newLab(t, backends, sticky(affinity.Options{SocketIO: true}))
	for i, e := range all {
		sid := fmt.Sprint("old-", i)
		e.mu.Lock()
		e.sids[sid] = true
		e.mu.Unlock()
		res := l.ask("POST", "/?EIO=4&transport=polling&sid="+sid, strings.Repeat("4", 1000*i))
		if got := res.Header.Get("X-Instance"); got != e.name || res.StatusCode != 200 || e.posted.Load() != int64(1000*i) {
			t.Errorf("%s: %s from %q, posted %d", sid, res.Status, got, e.posted.Load())
		}
		before := l.tries()
		res = l.ask("GET", "/?EIO=4&transport=polling&sid="+sid, "")
		if got := res.Header.Get("X-Instance"); got != e.name || l.tries() != before+1 {
			t.Errorf("%s went to %q, in %d tries", sid, got, l.tries()-before)
		}
	}
	// Where nobody knows it, the application says so itself.
	res := l.ask("GET", "/?EIO=4&transport=polling&sid=nobodys", "")
	if res.StatusCode != 400 || text(res) != `{"code":1,"message":"Session ID unknown"}` {
		t.Errorf("%s %s", res.Status, text(res))
	}
	if n := l.ln.Stats().Answers[SessionUnknown]; n != 0 {
		t.Errorf("lb answered %d times itself", n)
	}
}

// A head that leaves no room in the buffer for the body to be looked at is passed on as it is.
func TestUnknownSessionBehindALargeHead(t *testing.T) {
	refusal := `{"code":1,"message":"Session ID unknown"}`
	for _, room := range []int{1, len(refusal) - 1, len(refusal), len(refusal) + 1} {
		head := "HTTP/1.1 400 Bad Request\r\nContent-Length: 41\r\nX: "
		head += strings.Repeat("x", bodyBuffer-room-len(head)-4) + "\r\n\r\n"
		serve := func(p *peer) {
			p.head()
			p.send(head + refusal[:1])
			p.send(refusal[1:])
			p.rest()
		}
		a, b := newOrigin(t, serve), newOrigin(t, serve)
		l := newLab(t, []string{a.addr, b.addr}, single, sticky(affinity.Options{SocketIO: true}))
		c := l.client()
		c.send(get("/?EIO=4&transport=polling&sid=nobodys"))
		if got := c.status(400); got != refusal {
			t.Errorf("%q", got)
		}
		tries := uint64(1)
		if room >= len(refusal) {
			tries = 2
		}
		if n := l.tries(); n != tries {
			t.Errorf("room for %d bytes: %d tries, want %d", room, n, tries)
		}
		c.close()
	}
}

// TestMadeUpSessions holds that clients with made-up sessions cannot have each request tried everywhere.
func TestMadeUpSessions(t *testing.T) {
	_, backends := engines(t, 4)
	l := newLab(t, backends, sticky(affinity.Options{SocketIO: true}), func(p *plan) { p.pool.RetryShare = .2 })
	const n = 300
	for i := range n {
		if res := l.ask("GET", fmt.Sprint("/?EIO=4&transport=polling&sid=made-up-", i), ""); res.StatusCode != 400 {
			t.Fatal(res.Status)
		}
	}
	if tries := l.tries(); tries < n+100 || tries > 2*n+100+4 {
		t.Errorf("%d tries for %d requests", tries, n)
	}
}

// TestDeadBackendsClientsMove kills a backend that has sessions: each next request is answered by another at once.
func TestDeadBackendsClientsMove(t *testing.T) {
	all, backends := engines(t, 2)
	keys, _ := affinity.NewKeys(strings.Repeat("k", 32))
	l := newLab(t, backends, sticky(affinity.Options{
		Kind: affinity.Cookie, Cookie: affinity.CookieOptions{Keys: keys, Name: "lb"}, SocketIO: true,
	}))
	res := l.ask("GET", "/", "")
	where := text(res)
	cookie, _, _ := strings.Cut(res.Header.Get("Set-Cookie"), ";")
	var sid string
	for at := ""; at != where; {
		sid, at = l.begin(all)
	}
	for _, e := range all {
		if e.name == where {
			e.CloseClientConnections()
			e.Close()
		}
	}
	dead := l.pool.Snapshot().All[where[0]-'0']
	eventually(t, "its connections are closed", func() bool { // a POST that goes over one just then is lost
		open, _ := conns(dead)
		return open == 0
	})
	// Nobody has ejected it yet.
	if res := l.ask("POST", "/", "x", "Cookie", cookie); res.StatusCode != 200 || text(res) == where {
		t.Errorf("%s from %s", res.Status, text(res))
	}
	if res := l.ask("POST", "/?EIO=4&transport=polling&sid="+sid, "4x"); res.StatusCode != 400 || !strings.Contains(text(res), "unknown") {
		t.Errorf("%s %s", res.Status, text(res))
	}
	l.pool.SetDead(dead, time.Now().Add(time.Hour))
	before := l.tries()
	res = l.ask("GET", "/", "", "Cookie", cookie)
	if res.StatusCode != 200 || text(res) == where || res.Header.Get("Set-Cookie") == "" || l.tries() != before+1 {
		t.Errorf("%s from %s in %d tries, cookie %q", res.Status, text(res), l.tries()-before, res.Header.Get("Set-Cookie"))
	}
}

// TestBoundIsNotLimited holds that a session's requests come through where its backend has as many requests as it may:
// one that waits for the other would wait for ever.
func TestBoundIsNotLimited(t *testing.T) {
	entered, release := make(chan bool, 1), make(chan bool)
	all, _ := engines(t, 1)
	slow := handler(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			entered <- true
			<-release
		}
		all[0].ServeHTTP(w, r)
	})
	l := newLab(t, []string{slow}, sticky(affinity.Options{SocketIO: true}))
	limited := l.pool.Snapshot().All[0].Spec
	limited.MaxInflight = 1
	l.pool.Update([]upstream.Spec{limited}, nil, nil)
	sid, _ := l.begin(all)
	done := make(chan string)
	go func() { done <- l.ask("GET", "/wait?EIO=4&transport=polling&sid="+sid, "").Status }()
	<-entered
	if res := l.ask("GET", "/", ""); res.StatusCode != 503 {
		t.Errorf("a newcomer got %s", res.Status)
	}
	if res := l.ask("POST", "/?EIO=4&transport=polling&sid="+sid, "4x"); res.StatusCode != 200 {
		t.Errorf("the session got %s", res.Status)
	}
	close(release)
	if s := <-done; s != "200 OK" {
		t.Error(s)
	}
}

// TestDrainingKeepsSessions drains a backend that has sessions.
func TestDrainingKeepsSessions(t *testing.T) {
	all, backends := engines(t, 2)
	l := newLab(t, backends, sticky(affinity.Options{SocketIO: true}), func(p *plan) { p.pool.DrainSessions = time.Hour })
	var sid string
	for at := ""; at != "1"; {
		sid, at = l.begin(all)
	}
	b := l.pool.Snapshot().All[1]
	l.pool.StartDraining(b)
	for range 5 {
		if _, at := l.begin(all); at != "0" {
			t.Error("it took a new session")
		}
		if got := text(l.ask("GET", "/", "")); got != "0" {
			t.Error("it took a request of nobody's")
		}
		if res := l.ask("POST", "/?EIO=4&transport=polling&sid="+sid, "4x"); res.StatusCode != 200 || res.Header.Get("X-Instance") != "1" {
			t.Errorf("its session got %s", res.Status)
		}
	}
	select {
	case <-b.Drained():
		t.Error("it is said to be empty")
	default:
	}
	l.pool.EndSessions(b)
	select {
	case <-b.Drained():
	case <-time.After(patience):
		t.Error("it does not get empty")
	}
	if res := l.ask("GET", "/?EIO=4&transport=polling&sid="+sid, ""); res.StatusCode != 400 || res.Header.Get("X-Instance") != "0" {
		t.Errorf("then it got %s from %s", res.Status, res.Header.Get("X-Instance"))
	}
}

// TestTunnelToLeavingBackend opens a WebSocket of a session whose backend drains: its client is told to connect again.
func TestTunnelToLeavingBackend(t *testing.T) {
	ws := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	o := newOrigin(t, func(p *peer) {
		if strings.Contains(p.head(), "sid=S") {
			p.send(ws)
			io.Copy(io.Discard, p.conn)
		} else {
			p.send(ok(`0{"sid":"S"}`))
		}
	})
	l := newLab(t, []string{o.addr}, sticky(affinity.Options{SocketIO: true}), func(p *plan) { p.pool.DrainSessions = time.Hour })
	if res := l.ask("GET", "/?EIO=4&transport=polling", ""); res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	l.pool.StartDraining(l.pool.Snapshot().All[0])
	c := l.client()
	c.send(get("/?EIO=4&transport=websocket&sid=S", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Fatal(head)
	}
	c.expect(string(restart))
	c.conn.Close()
}

// TestPostToDyingBackend holds that what a client sends in a session is sent to nobody twice, whatever becomes of its
// backend; the client is told, and decides.
func TestPostToDyingBackend(t *testing.T) {
	var got atomic.Int64
	dying := func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" {
			io.WriteString(w, `0{"sid":"S`+r.Host+`"}`)
			return
		}
		io.ReadAll(r.Body)
		got.Add(1)
		c, _, _ := w.(http.Hijacker).Hijack()
		c.Close()
	}
	l := newLab(t, []string{handler(t, dying), handler(t, dying)}, sticky(affinity.Options{SocketIO: true}))
	l.ask("GET", "/?EIO=4&transport=polling", "")
	res := l.ask("POST", "/?EIO=4&transport=polling&sid=S"+l.addr, "4hello")
	if res.StatusCode != 502 || got.Load() != 1 {
		t.Errorf("%s, after it was sent %d times", res.Status, got.Load())
	}
	l.answered(BackendClosed, 1)
}

// TestUnreadAnswersAreCounted: what is no beginning of a session is, however it ends.
func TestUnreadAnswersAreCounted(t *testing.T) {
	for name, say := range map[string]func(http.ResponseWriter, *http.Request, string){
		"empty":  func(w http.ResponseWriter, _ *http.Request, _ string) { w.Header().Set("Content-Length", "0") },
		"chunks": func(w http.ResponseWriter, _ *http.Request, _ string) { w.(http.Flusher).Flush() },
		"other":  func(w http.ResponseWriter, _ *http.Request, _ string) { io.WriteString(w, "hello") },
		"brotli": func(w http.ResponseWriter, _ *http.Request, packet string) {
			w.Header().Set("Content-Encoding", "br")
			io.WriteString(w, packet)
		},
		"closed": func(w http.ResponseWriter, _ *http.Request, packet string) {
			c, _, _ := w.(http.Hijacker).Hijack()
			io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"+packet[:10])
			c.Close()
		},
	} {
		l := newLab(t, []string{newEngine(t, "a", say).addr()}, sticky(affinity.Options{SocketIO: true}))
		if res := l.ask("GET", "/?EIO=4&transport=polling", ""); res.StatusCode != 200 {
			t.Errorf("%s: %s", name, res.Status)
		}
		if n := sumStats(l.sticky).Unread.Load(); n != 1 {
			t.Errorf("%s: %d", name, n)
		}
	}
}
