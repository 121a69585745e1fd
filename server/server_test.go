package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lb/admin"
	"lb/config"
	"lb/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a Server that runs in a test.
type house struct {
	*Server
	t      *testing.T
	url    string // of the first listener
	client *http.Client
	events *lines
	access *lines
	end    context.CancelFunc
	ended  chan struct{}
	err    error // of Run, once it has ended

	mu   sync.Mutex
	text string // guarded by mu; what Reload reads
}

// everywhere is what each test's configuration ends with.
const everywhere = `
[listen.web]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
`

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse("config.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// start runs text with [listen] and [admin] on free ports.
func start(t *testing.T, text string) *house {
	t.Helper()
	return startWith(t, text, everywhere)
}

// startWith is start with another end of the text.
func startWith(t *testing.T, text, rest string) *house {
	t.Helper()
	h, err := newHouse(t, text+rest, Options{})
	if err != nil {
		t.Fatal(err)
	}
	h.run()
	waitFor(t, "ready", func() bool { return h.state.Load() == running })
	return h
}

// newHouse is a Server that is yet to run.
func newHouse(t *testing.T, text string, o Options) (h *house, err error) {
	h = &house{t: t, text: text, events: new(lines), access: new(lines), ended: make(chan struct{})}
	o.Version, o.Log, o.AccessLog = "test", slog.New(slog.NewTextHandler(h.events, nil)), h.access
	o.Load = func() (*config.Config, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		return config.Parse("config.toml", []byte(h.text))
	}
	cfg, err := o.Load()
	if err != nil {
		return nil, err
	}
	if h.Server, err = New(cfg, o); err != nil {
		return nil, err
	}
	h.checks.hurry = 100 * time.Millisecond
	h.url = "http://" + h.Addrs()[0].String()
	h.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}, Timeout: 20 * time.Second}
	return h, nil
}

// run runs it until the test has ended.
func (h *house) run() {
	ctx, end := context.WithCancel(context.Background())
	h.end = end
	go func() {
		h.err = h.Run(ctx)
		close(h.ended)
	}()
	h.t.Cleanup(func() {
		h.client.CloseIdleConnections()
		end()
		h.Cut()
		<-h.ended
	})
}

// rewrite changes the file that Reload reads.
func (h *house) rewrite(text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text = text
}

// stop tells the server to stop and returns what Run did.
func (h *house) stop() error {
	h.t.Helper()
	h.end()
	select {
	case <-h.ended:
	case <-time.After(20 * time.Second):
		h.t.Fatal("does not stop")
	}
	return h.err
}

func (h *house) get(path string) (int, string) {
	h.t.Helper()
	return h.fetch(h.url + path)
}

func (h *house) admin(path string) (int, string) {
	h.t.Helper()
	return h.fetch("http://" + h.AdminAddrs()[0].String() + path)
}

func (h *house) fetch(url string) (int, string) {
	h.t.Helper()
	res, err := h.client.Get(url)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// app is an instance that answers with its name.
func app(t *testing.T, name string) string {
	return handler(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name) })
}

func handler(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// lines is a writer whose text can be read meanwhile.
type lines struct {
	mu   sync.Mutex
	b    bytes.Buffer
	told func(string) // guarded by mu; called with each, if not nil
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.told != nil {
		l.told(string(p))
	}
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestServe(t *testing.T) {
	h := start(t, fmt.Sprintf(`
[pool.a]
backends = ["%s", "%s"]
[pool.b]
backends = ["%s"]
[route.a]
pool = "a"
[route.b]
path = "/b"
pool = "b"
`, app(t, "a1"), app(t, "a2"), app(t, "b1")))
	seen := map[string]int{}
	for range 20 {
		status, who := h.get("/")
		if status != 200 {
			t.Fatalf("status %d", status)
		}
		seen[who]++
	}
	if seen["a1"] == 0 || seen["a2"] == 0 || len(seen) != 2 {
		t.Errorf("not spread: %v", seen)
	}
	if _, who := h.get("/b/x"); who != "b1" {
		t.Errorf("/b/x went to %s", who)
	}

	if code, body := h.admin("/-/healthy"); code != 200 || body != "healthy\n" {
		t.Errorf("healthy: %d %q", code, body)
	}
	if code, body := h.admin("/-/ready"); code != 200 || body != "ready\n" {
		t.Errorf("ready: %d %q", code, body)
	}
	if code, body := h.admin("/"); code != 200 || !strings.Contains(body, "3 of 3 backends ready") {
		t.Errorf("index: %d %q", code, body)
	}
	waitFor(t, "the counts", func() bool { // which come after the client has its answer
		n := uint64(0)
		for _, p := range h.Status().Pools {
			for _, b := range p.Backends {
				n += b.Requests
			}
		}
		return n == 21
	})
	code, body := h.admin("/metrics")
	for _, want := range []string{`lb_backend_requests_total{backend="`, `lb_listener_requests_total{listener="web"} 21`, `version="test"`, "process_open_fds", "go_goroutines"} {
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("metrics: %d, has no %s", code, want)
		}
	}
	code, body = h.admin("/status")
	var st admin.Status
	if err := json.Unmarshal([]byte(body), &st); code != 200 || err != nil {
		t.Fatalf("status: %d %v %q", code, err, body)
	}
	if st.State != "running" || len(st.Pools) != 2 || st.Pools[0].Name != "a" || st.Pools[0].Strategy != "adaptive" ||
		st.Listeners[0].Requests != 21 || st.Pools[1].Backends[0].Requests != 1 || st.Pools[1].Backends[0].State != admin.Ready {
		t.Errorf("status: %s", body)
	}
	if err := h.stop(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(h.access.String(), "\n"); n != 21 {
		t.Errorf("%d lines in the access log:\n%s", n, h.access)
	}
}

// load sends requests from several clients, half of them on connections of their own, until told to stop. A connection
// that is refused is a request that lb did not take; anything else that is not the expected answer is a failure.
type load struct {
	stop     chan struct{}
	clients  sync.WaitGroup
	mu       sync.Mutex
	ok       int
	failures []string
}

func (h *house) load(n int) *load {
	l := &load{stop: make(chan struct{})}
	for i := range n {
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
		l.clients.Go(func() {
			defer c.CloseIdleConnections()
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				if !l.ask(c, h.url) {
					return
				}
			}
		})
	}
	return l
}

func (l *load) ask(c *http.Client, url string) bool {
	res, err := c.Get(url)
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return false
	}
	status := 0
	if err == nil {
		status = res.StatusCode
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || status != 200 {
		l.failures = append(l.failures, fmt.Sprint(status, " ", err))
		return true
	}
	l.ok++
	return true
}

func (l *load) answered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ok
}

// end stops the load and fails the test when a request failed.
func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.clients.Wait()
	if len(l.failures) > 0 {
		t.Errorf("%d requests failed, %d did not; the first: %s", len(l.failures), l.ok, l.failures[0])
	}
}

func TestStopUnderLoad(t *testing.T) {
	slow := handler(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(5 * time.Millisecond) // so that requests are under way when the stop comes
		fmt.Fprint(w, "ok")
	})
	h := start(t, `[pool.app]
backends = ["`+slow+`"]`)
	l := h.load(16)
	waitFor(t, "traffic", func() bool { return l.answered() > 200 })
	if err := h.stop(); err != nil {
		t.Error(err)
	}
	l.end(t)
	if !strings.Contains(h.events.String(), "msg=stopped") {
		t.Errorf("events:\n%s", h.events)
	}
}

// stuck is a server with one request that its instance does not answer before the end of the test.
func stuck(t *testing.T, config string) (*house, chan error) {
	t.Helper()
	release := make(chan struct{})
	entered := make(chan struct{}, 1)
	addr := handler(t, func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(release) })
	h := start(t, `[pool.app]
backends = ["`+addr+`"]
`+config)
	got := make(chan error, 1)
	go func() {
		res, err := h.client.Get(h.url)
		if err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			err = errors.New(res.Status)
		}
		got <- err
	}()
	<-entered
	return h, got
}

func TestReadyWhileStopping(t *testing.T) {
	h, got := stuck(t, "")
	h.end()
	var body string
	waitFor(t, "503", func() bool {
		var code int
		code, body = h.admin("/-/ready")
		return code == 503
	})
	if body != "not ready: stopping\n" {
		t.Errorf("%q", body)
	}
	if code, _ := h.admin("/-/healthy"); code != 200 {
		t.Errorf("healthy: %d", code)
	}
	h.Cut()
	<-h.ended
	if !errors.Is(h.err, ErrCut) {
		t.Errorf("Run returned %v", h.err)
	}
	if err := <-got; err == nil || err.Error() != "503 Service Unavailable" {
		t.Errorf("the client got %v", err)
	}
}

func TestGraceOver(t *testing.T) {
	h, got := stuck(t, "[server]\ngrace = \"50ms\"\n")
	if err := h.stop(); !errors.Is(err, ErrGraceOver) {
		t.Errorf("Run returned %v", err)
	}
	<-got
	if !strings.Contains(h.events.String(), "was cut\" requests=1 tunnels=0") {
		t.Errorf("events do not say what was cut:\n%s", h.events)
	}
}

func TestNotReadyWithoutBackends(t *testing.T) {
	h := start(t, `[pool.app]
backends = ["`+app(t, "x")+`"]`)
	p := h.pool("app")
	p.SetProbed(p.Snapshot().All[0], upstream.Down)
	if code, body := h.admin("/-/ready"); code != 503 || body != "not ready: no backend of any pool is ready\n" {
		t.Errorf("%d %q", code, body)
	}
	if st := h.Status().Pools[0].Backends[0].State; st != admin.Down {
		t.Errorf("state %s", st)
	}
}

func TestFaultsAtStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	const text = `[pool.app]
backends = ["127.0.0.1:1", "nosuch.invalid:80"]
[listen.web]
address = "%s"
[listen.other]
address = "127.0.0.1:0"
[admin]
address = "%[1]s"
[access_log]
path = "/nosuch/dir/access.log"
`
	// [admin] on the same port as [listen] is refused by config, so it gets its port afterwards.
	cfg := parse(t, fmt.Sprintf(strings.Replace(text, `"%[1]s"`, `"off"`, 1), taken.Addr()))
	cfg.Admin.Address = taken.Addr().String()
	var opened []string
	resolve := Options{Resolve: newResolver(nil).query, Listen: func(network, address string) (net.Listener, error) {
		ln, err := plainListen(network, address)
		if err == nil {
			opened = append(opened, ln.Addr().String())
		}
		return ln, err
	}}
	_, err = New(cfg, resolve)
	if err == nil || !strings.HasPrefix(err.Error(), "config.toml:2:28: pool.app.backends: host \"nosuch.invalid\" ") {
		t.Errorf("unknown host:\n%v", err)
	}
	cfg.Pools[0].Backends = cfg.Pools[0].Backends[:1]
	_, err = New(cfg, resolve)
	if err == nil {
		t.Fatal("no error")
	}
	at := taken.Addr().String()
	for _, want := range []string{
		`config.toml:3:1: listen.web.address: "` + at + `" is taken`,
		`config.toml:7:1: admin.address: "` + at + `" is taken`,
		`config.toml:9:1: access_log.path: access log: open /nosuch/dir/access.log: no such file`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	if len(opened) != 1 || !refuses(opened[0]) {
		t.Errorf("%q are left open", opened)
	}
}

func TestCloseWithoutRun(t *testing.T) {
	s, err := New(parse(t, "[pool.app]\nbackends = [\"127.0.0.1:1\"]\n"+everywhere), Options{AccessLog: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	addr := s.Addrs()[0].String()
	s.Close()
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("still listens")
	}
}
