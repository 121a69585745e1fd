package server

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lb/admin"
	"lb/upstream"
)

// systemd is what a service manager hears.
type systemd struct {
	t    *testing.T
	mu   sync.Mutex
	all  []string // guarded by mu; messages
	conn *net.UnixConn
}

// listenNotify makes a socket as systemd does and puts it into the environment.
func listenNotify(t *testing.T, watchdog time.Duration) *systemd {
	dir, err := os.MkdirTemp("", "lb") // not t.TempDir: the name of a socket has about 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	m := &systemd{t: t}
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 8192)
		for {
			n, err := m.conn.Read(b)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.all = append(m.all, string(b[:n]))
			m.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		m.conn.Close()
		<-ended
	})
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("WATCHDOG_USEC", "")
	if watchdog > 0 {
		t.Setenv("WATCHDOG_USEC", strconv.FormatInt(watchdog.Microseconds(), 10))
	}
	return m
}

func (m *systemd) heard() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.all)
}

// await waits for a message that has all the parts, and returns it.
func (m *systemd) await(parts ...string) (found string) {
	m.t.Helper()
	waitFor(m.t, fmt.Sprintf("message with %q", parts), func() bool {
		for _, msg := range m.heard() {
			if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(msg, p) }) {
				found = msg
				return true
			}
		}
		return false
	})
	return found
}

func (m *systemd) count(msg string) (n int) {
	for _, h := range m.heard() {
		if h == msg {
			n++
		}
	}
	return n
}

func TestNotify(t *testing.T) {
	m := listenNotify(t, 0)
	block, begun := make(chan struct{}), make(chan struct{})
	work := func(http.ResponseWriter, *http.Request) {
		close(begun)
		<-block
	}
	slow := handler(t, work)
	h := start(t, "[pool.app]\nbackends = [\""+slow+"\"]\n")
	if first := m.heard(); len(first) > 0 && !strings.HasPrefix(first[0], "READY=1\n") {
		t.Errorf("before it is ready, lb says %q", first[0])
	}
	m.await("READY=1\n", "STATUS=app: 1 of 1 backends ready")

	var before, after unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
	h.reloadTo(pools(slow, handler(t, work)))
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)
	msg := m.await("RELOADING=1\n")
	_, text, _ := strings.Cut(msg, "MONOTONIC_USEC=")
	if n, err := strconv.ParseInt(text, 10, 64); err != nil || n < before.Nano()/1000 || n > after.Nano()/1000 {
		t.Errorf("%q: not a time between %d and %d: %v", msg, before.Nano()/1000, after.Nano()/1000, err)
	}
	m.await("READY=1\n", " of 2 backends ready")
	m.await("STATUS=app: 2 of 2 backends ready") // once the new one has been checked
	// A refused one ends, too: systemd waits for READY=1.
	h.rewrite("nonsense")
	if err := h.Reload(t.Context()); err == nil {
		t.Error("nonsense was loaded")
	}
	waitFor(t, "the end of the second reload", func() bool {
		reloads, ready := 0, 0
		for _, msg := range m.heard() {
			if strings.HasPrefix(msg, "RELOADING=1\n") {
				reloads++
			}
			if strings.HasPrefix(msg, "READY=1\n") {
				ready++
			}
		}
		return reloads == 2 && ready == 3
	})

	// An upgrade that comes to nothing is not shown for ever after.
	if v := h.Upgrade(t.Context(), admin.UpgradeOrder{Binary: "/nonexistent"}); v.Upgraded {
		t.Errorf("%+v", v)
	}
	waitFor(t, "the status after an upgrade that failed", func() bool {
		all := m.heard()
		i := slices.Index(all, "STATUS=upgrading: starting /nonexistent")
		return i >= 0 && slices.ContainsFunc(all[i:], func(msg string) bool { return strings.Contains(msg, "STATUS=app: 2 of 2 backends ready") })
	})

	client := make(chan struct{})
	go func() {
		defer close(client)
		if res, err := h.client.Get(h.url); err == nil {
			res.Body.Close()
		}
	}()
	<-begun
	h.end()
	// The grace is 30 s; cutting and flushing come on top.
	m.await("STOPPING=1\n", "STATUS=stopping: 1 requests and 0 tunnels", "EXTEND_TIMEOUT_USEC=38000000")
	if n := m.count("WATCHDOG=1"); n > 0 {
		t.Errorf("%d times WATCHDOG=1, which nobody asked for", n)
	}
	close(block)
	if err := h.stop(); err != nil {
		t.Error(err)
	}
	<-client
}

func TestWatchdog(t *testing.T) {
	m := listenNotify(t, 200*time.Millisecond)
	h := start(t, pools(app(t, "a")))
	waitFor(t, "the watchdog fed", func() bool { return m.count("WATCHDOG=1") > 2 })

	// One stuck loop is enough: what it has accepted is served by nobody.
	stuck, free := make(chan struct{}), make(chan struct{})
	h.group.Loop(h.group.Len() - 1).Post(func() {
		close(stuck)
		<-free
	})
	<-stuck
	waitFor(t, "a complaint", func() bool { return strings.Contains(h.events.String(), "event loops do not answer") })
	n := m.count("WATCHDOG=1")
	// The status goes on to be told: the rest of the process is well, and that must not count.
	for _, p := range *h.pools.Load() {
		p.SetWanted(p.Snapshot().All[0], upstream.Draining)
	}
	m.await("STATUS=app: 0 of 1 backends ready")
	if now := m.count("WATCHDOG=1"); now != n {
		t.Errorf("WATCHDOG=1 was sent %d times while a loop was stuck", now-n)
	}
	if msg := "loops=[" + strconv.Itoa(h.group.Len()-1) + "]"; !strings.Contains(h.events.String(), msg) {
		t.Errorf("the events do not say %s", msg)
	}
	close(free)
	waitFor(t, "the watchdog fed again", func() bool { return m.count("WATCHDOG=1") > n+1 })
	if !strings.Contains(h.events.String(), "answer again") {
		t.Error("the events do not say that all is well again")
	}
}

func TestSummary(t *testing.T) {
	one := app(t, "a")
	var text strings.Builder
	for i := range 8 {
		fmt.Fprintf(&text, "[pool.p%d]\nbackends = [\"%s\"]\n[route.r%d]\npath = \"/%d\"\npool = \"p%d\"\n", i, one, i, i, i)
	}
	h := start(t, text.String())
	if got, want := h.summary(), "8 pools, 8 of 8 backends ready"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for _, p := range (*h.pools.Load())[1:] {
		p.SetWanted(p.Snapshot().All[0], upstream.Draining)
	}
	if got, want := h.summary(), "8 pools, 1 of 8 backends ready; p1 0 of 1; p2 0 of 1; p3 0 of 1; p4 0 of 1; p5 0 of 1; and 2 more pools"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// environment is a process's.
type environment map[string]string

func (e environment) get(key string) string { return e[key] }

func TestNoSupervisor(t *testing.T) {
	log := new(lines)
	events := slog.New(slog.NewTextHandler(log, nil))
	if v := newSupervisor(environment{"WATCHDOG_USEC": "1000000"}.get, events); v != nil {
		t.Errorf("without a socket: %+v", v)
	}
	var nobody *supervisor
	nobody.tell("READY=1")

	for text, want := range map[string]time.Duration{"": 0, "3000000": 3 * time.Second, "0": 0, "-5": 0, "soon": 0} {
		v := newSupervisor(environment{"NOTIFY_SOCKET": "@nowhere", "WATCHDOG_USEC": text}.get, events)
		if v.watch != want {
			t.Errorf("WATCHDOG_USEC=%s is %v, want %v", text, v.watch, want)
		}
	}
	if v := newSupervisor(environment{"NOTIFY_SOCKET": "@nowhere", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}.get, events); v.watch != 0 {
		t.Error("the watchdog of another process was taken on")
	}

	// Nobody at the other end: that is said once, and hinders nothing.
	v := newSupervisor(environment{"NOTIFY_SOCKET": filepath.Join(t.TempDir(), "nobody")}.get, events)
	v.tell("READY=1")
	v.tell("STATUS=x")
	if n := strings.Count(log.String(), "cannot be told"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
}
