package e2e

import (
	"encoding/json"
	"fmt"
	"syscall"
	"testing"
)

// startClients runs Socket.IO clients in front of l and waits until all are welcomed. It returns how many each instance
// welcomed.
func startClients(t *testing.T, l *lb, n int) (*process, map[string]int) {
	t.Helper()
	clients := startProgram(t, "socketio-clients.mjs", "clients", "URL="+l.url, fmt.Sprintf("CLIENTS=%d", n))
	var per map[string]int
	if err := json.Unmarshal([]byte(clients.hears("welcomed")), &per); err != nil {
		t.Fatal(err)
	}
	return clients.process, per
}

// A hundred Socket.IO clients talk over WebSockets, and leave.
func TestSocketIO(t *testing.T) {
	apps := startApps(t, 4, "socketio.mjs")
	l := startLB(t, setup{backends: apps})
	clients, per := startClients(t, l, 100)
	want := 0
	for _, n := range per {
		if n != 25 {
			t.Errorf("100 tunnels on four instances: %v", per)
		}
		want += n * n * 10 // everybody hears everybody of the same instance, 10 times
	}
	l.reaches(100, "lb_backend_tunnels")
	l.reaches(100, "lb_listener_connections")
	l.reaches(0, "lb_backend_inflight_requests")

	clients.order("talk", "10")
	if got := clients.hears("talked"); got != fmt.Sprint(want) {
		t.Errorf("%s messages were heard, want %d", got, want)
	}
	if n, last := clients.said("error"); n > 0 {
		t.Errorf("%d errors, the last: %s", n, last)
	}

	clients.order("leave")
	clients.hears("disconnected")
	l.reaches(0, "lb_backend_tunnels")
	l.reaches(0, "lb_listener_connections")
	m := l.metrics()
	if got := m.sum("lb_backend_requests_total", "code=1xx"); got != 100 {
		t.Errorf("lb counts %v tunnels that ended, want 100", got)
	}
	if got := m.sum("lb_listener_failed_requests_total"); got != 0 {
		t.Errorf("lb counts %v failures", got)
	}
	l.stop(0)
	log := readLog(t, l.logPath)
	for _, r := range log {
		if r.Status != 101 || r.BytesIn == 0 || r.BytesOut == 0 || r.Reason != "" {
			t.Errorf("the log has %+v", r)
		}
	}
	if len(log) != 100 {
		t.Errorf("the log has %d lines, want 100", len(log))
	}
}

// WebSockets do not end by themselves: a stop closes them within its grace.
func TestSocketIOStop(t *testing.T) {
	apps := startApps(t, 2, "socketio.mjs")
	l := startLB(t, setup{backends: apps, server: `grace = "2s"`})
	clients, _ := startClients(t, l, 20)
	l.signal(syscall.SIGTERM)
	if code := l.wait(); code != 0 {
		t.Errorf("lb ended with %d", code)
	}
	l.sawEvent(`msg=stopping .*tunnels=20`)
	if got := clients.hears("disconnected"); got != `{"transport close":20}` {
		t.Errorf("clients were told %s", got)
	}
	log := readLog(t, l.logPath)
	for _, r := range log {
		if r.Status != 101 {
			t.Errorf("the log has %+v", r)
			break
		}
	}
	if len(log) != 20 {
		t.Errorf("the log has %d lines, want 20", len(log))
	}
}

// Clients of an instance that dies learn it at once, and are welcome on the others.
func TestSocketIOInstanceDies(t *testing.T) {
	apps := startApps(t, 2, "socketio.mjs")
	l := startLB(t, setup{backends: apps})
	clients, per := startClients(t, l, 20)
	if per["a"] != 10 {
		t.Errorf("20 tunnels on two instances: %v", per)
	}
	apps[0].kill()
	l.reaches(float64(per["b"]), "lb_backend_tunnels")
	l.reaches(float64(per["b"]), "lb_listener_connections")
	more, per2 := startClients(t, l, 10)
	if per2["b"] != 10 {
		t.Errorf("with one instance left, it welcomed %v", per2)
	}
	more.order("leave")
	more.hears("disconnected")
	clients.order("leave")
	clients.hears("disconnected")
	l.reaches(0, "lb_backend_tunnels")
	l.stop(0)
}
