package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb/upstream"
	"lb/upstream/upstreamtest"
)

func newPool(names ...string) *upstream.Pool {
	var specs []upstream.Spec
	for i, n := range names {
		specs = append(specs, upstream.Spec{Name: n, Addr: upstream.Addr{AddrPort: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(3000+i))}, Weight: 1})
	}
	return upstream.NewPool("app", 2, specs, nil, upstreamtest.BuildInOrder)
}

func TestPoolStatus(t *testing.T) {
	p := newPool("a", "b")
	var sel upstream.Selection
	lease := func(now int64, loop int) upstream.Lease {
		sel.Reset(now, loop)
		l, err := p.Acquire(&sel)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := lease(1, 0)
	l.Done(upstream.Outcome{Now: 1 + int64(10*time.Millisecond), Latency: 1, Status: 200})
	l = lease(2, 1)
	l.Done(upstream.Outcome{Now: 2 + int64(10*time.Millisecond), Status: 502, Fault: upstream.FaultReset})
	l = lease(3, 1)
	tunnel := lease(4, 0)
	tunnel.Tunnel()

	got := PoolStatus(p, "first")
	a := got.Backends[0]
	if a.P50 < 9 || a.P50 > 12 || a.P99 < 9 || a.P99 > 12 {
		t.Errorf("p50 %v ms, p99 %v ms of two requests of 10 ms", a.P50, a.P99)
	}
	got.Backends[0].P50, got.Backends[0].P99 = 0, 0
	for i := range got.Backends {
		if d := time.Since(got.Backends[i].Since); d < 0 || d > time.Minute {
			t.Errorf("ready since %v", got.Backends[i].Since)
		}
		got.Backends[i].Since = time.Time{}
	}
	want := Pool{Name: "app", Strategy: "first", Requests: 4, Summary: "1 in work", Backends: []Backend{
		{Name: "a", Address: "127.0.0.1:3000", State: Ready, Summary: "1 in work, 1 tunnel", Weight: 1, Inflight: 1, Tunnels: 1, Requests: 2, Failures: 1, Errors: 1},
		{Name: "b", Address: "127.0.0.1:3001", State: Ready, Summary: "idle", Weight: 1},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	l.Done(upstream.Outcome{Now: 5})
	tunnel.Done(upstream.Outcome{Now: 5})
}

func TestStates(t *testing.T) {
	for want, change := range map[State]func(p *upstream.Pool, b *upstream.Backend){
		Ready:    func(*upstream.Pool, *upstream.Backend) {},
		Draining: func(p *upstream.Pool, b *upstream.Backend) { p.SetWanted(b, upstream.Draining) },
		Down:     func(p *upstream.Pool, b *upstream.Backend) { p.SetProbed(b, upstream.Down) },
		Ejected:  func(p *upstream.Pool, b *upstream.Backend) { p.SetEjected(b, time.Now().Add(time.Hour)) },
		Resting: func(p *upstream.Pool, b *upstream.Backend) {
			specs := []upstream.Spec{{Name: "a", Addr: b.Addr}, {Name: "b", Addr: p.Snapshot().All[1].Addr, Weight: 1}}
			p.Update(specs, nil, nil)
		},
		Unchecked: func(p *upstream.Pool, _ *upstream.Backend) { p.SetProbed(p.Snapshot().All[1], upstream.Up) },
	} {
		p := newPool("a", "b")
		change(p, p.Snapshot().All[0])
		if got := PoolStatus(p, "").Backends[0].State; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func handler(ready error) http.Handler {
	return Handler(Sources{
		Status: func() Status {
			return Status{Version: "v1", State: "running", Uptime: 61, Listeners: []Listener{}, Pools: []Pool{PoolStatus(newPool("a", "b"), "first")}}
		},
		Ready:   func() error { return ready },
		Events:  func() []Event { return []Event{{Pool: "app", Backend: "a", Event: "down", Why: "timed out"}} },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "metrics") }),
	})
}

func TestHandler(t *testing.T) {
	for _, c := range []struct {
		method, path string
		ready        error
		status       int
		body         string // begins with
	}{
		{"GET", "/", nil, 200, "lb v1, running for 1m1s, 2 of 2 backends ready\n"},
		{"GET", "/-/healthy", nil, 200, "healthy\n"},
		{"GET", "/-/healthy", errors.New("starting"), 200, "healthy\n"},
		{"GET", "/-/ready", nil, 200, "ready\n"},
		{"GET", "/-/ready", errors.New("stopping"), 503, "not ready: stopping\n"},
		{"HEAD", "/-/ready", nil, 200, ""},
		{"GET", "/metrics", nil, 200, "metrics"},
		{"GET", "/events", nil, 200, "[\n  {\n    \"time\": \"0001-01-01T00:00:00Z\",\n    \"pool\": \"app\",\n    \"backend\": \"a\",\n    \"event\": \"down\",\n    \"why\": \"timed out\"\n  }\n]\n"},
		{"POST", "/drain", nil, 404, ""}, // see Control
		{"POST", "/ready", nil, 404, ""},
		{"POST", "/-/ready", nil, 405, ""},
		{"DELETE", "/status", nil, 405, ""},
		{"GET", "/nothing", nil, 404, ""},
	} {
		w := httptest.NewRecorder()
		handler(c.ready).ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.status || !strings.HasPrefix(w.Body.String(), c.body) {
			t.Errorf("%s %s: %d %q", c.method, c.path, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	handler(nil).ServeHTTP(w, httptest.NewRequest("GET", "/status", nil))
	var st Status
	if err := json.Unmarshal(w.Body.Bytes(), &st); err != nil || st.Pools[0].Backends[1].Name != "b" {
		t.Errorf("%v %s", err, w.Body)
	}
}

// TestSlowClients holds that the server has a limit for each way of being slow.
func TestSlowClients(t *testing.T) {
	s := NewServer(handler(nil), slog.New(slog.DiscardHandler))
	for name, d := range map[string]time.Duration{"head": s.ReadHeaderTimeout, "request": s.ReadTimeout, "answer": s.WriteTimeout, "idle": s.IdleTimeout} {
		if d <= 0 || d > 5*time.Minute {
			t.Errorf("%s: %v", name, d)
		}
	}
	// One of them for real.
	s.ReadHeaderTimeout, s.ReadTimeout = 20*time.Millisecond, 20*time.Millisecond
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(ln)
	defer s.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, "GET /status HT")
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("not closed by the server: %v", err)
	}
}

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lb.sock")
	ask := func() string {
		c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", path)
		}}}
		res, err := c.Get("http://lb/-/healthy")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return string(b)
	}
	// What a process that was killed leaves behind.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()

	ln, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(handler(nil), slog.New(slog.DiscardHandler))
	go s.Serve(ln)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if ln.Addr().String() != path {
		t.Errorf("address %s", ln.Addr())
	}
	if got := ask(); got != "healthy\n" {
		t.Errorf("%q", got)
	}
	if _, err := ListenUnix(path); err == nil || !strings.Contains(err.Error(), "somebody else serves it") {
		t.Errorf("a socket in use: %v", err)
	}
	s.Close()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenUnix(path); err == nil {
		t.Error("replaced a file")
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the file holds %q", b)
	}
}

func TestUnixSocketOfASuccessorStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lb.sock")
	old, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	next, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	old.Close()
	if c, err := net.Dial("unix", path); err != nil {
		t.Error("the old listener took the new one's path along")
	} else {
		c.Close()
	}
	next.Close()
}
