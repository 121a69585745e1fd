package e2e

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// crowd runs n clients and waits for all.
func crowd(n int, client func(i int)) (wait func()) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { client(i) })
	}
	return all.Wait
}

// Clients that send their heads, or their bodies, slower than lb allows are told so and cut; others do not notice, and
// no instance keeps waiting. (Rows 24 and 25.)
func TestSlowClients(t *testing.T) {
	const n = 50
	apps := startApps(t, 2, "express.mjs")
	l := startLB(t, setup{backends: apps, server: "header_timeout = \"1s\"\nbody_timeout = \"1s\"\nidle_timeout = \"2s\""})
	bystanders := startLoad(t, l.addr, 4, 100, nil)

	// drip sends bytes until the connection ends, each well within the timeouts.
	drip := func(c *conn, first, drop string) (a answer) {
		if a.err = c.dial(); a.err != nil {
			return a
		}
		c.SetDeadline(time.Now().Add(patience))
		stop, done := make(chan struct{}), make(chan struct{})
		if _, a.err = io.WriteString(c.Conn, first); a.err != nil {
			return a
		}
		go func(w io.Writer) {
			defer close(done)
			for tick := time.NewTicker(100 * time.Millisecond); ; {
				select {
				case <-stop:
					tick.Stop()
					return
				case <-tick.C:
					io.WriteString(w, drop)
				}
			}
		}(c.Conn)
		a = c.receive("GET")
		close(stop)
		<-done
		c.close()
		return a
	}
	heads := crowd(n, func(int) {
		if a := drip(&conn{addr: l.addr}, "GET / HTTP/1.1\r\nHost: h\r\nX: ", "x"); a.err != nil || a.status != 408 {
			t.Errorf("a head without end: %s", a.String())
		}
	})
	bodies := crowd(n, func(int) {
		c := &conn{addr: l.addr}
		defer c.close()
		c.write(t, "POST /sum HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nthe first part")
		if a := c.receive("POST"); a.err != nil || a.status != 408 {
			t.Errorf("a body that stops: %s", a.String())
		}
	})
	silent := crowd(n, func(int) {
		c := &conn{addr: l.addr}
		defer c.close()
		if err := c.dial(); err != nil {
			t.Error(err)
			return
		}
		c.SetDeadline(time.Now().Add(patience))
		if b, err := io.ReadAll(c.Conn); len(b) > 0 || err != nil {
			t.Errorf("a client that says nothing got %q, %v", b, err)
		}
	})
	steady := crowd(4, func(int) { // slow, but never silent for a second: 2.5 s in all
		c := &conn{addr: l.addr}
		defer c.close()
		c.write(t, "POST /sum HTTP/1.1\r\nHost: h\r\nContent-Length: 25\r\n\r\n")
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for range 25 {
			<-tick.C
			c.write(t, "x")
		}
		if a := c.receive("POST"); !a.ok() || !strings.Contains(a.body, `"length":25`) {
			t.Errorf("a body that is slow but steady: %s", a.String())
		}
	})
	heads()
	bodies()
	silent()
	steady()
	all := bystanders.end()
	allOK(t, all)
	if len(all) < 100 {
		t.Errorf("bystanders got only %d answers", len(all))
	}
	m := l.settled()
	l.reaches(0, "lb_listener_connections")
	for _, reason := range []string{"header_timeout", "body_timeout"} {
		if got := m.sum("lb_listener_failed_requests_total", "reason="+reason); got != n {
			t.Errorf("lb counts %v of %s, want %d", got, reason, n)
		}
	}
	if got := m.sum("lb_backend_faults_total") - m.sum("lb_backend_faults_total", "fault=client"); got != 0 {
		t.Errorf("lb blames the apps %v times for slow clients", got)
	}
	l.stop(0)
}

// Ten scrapes a second under load disturb nobody, and the number of series follows from the configuration: not from
// hosts, paths, methods, agents or addresses of clients. (Row 50.)
func TestScrapes(t *testing.T) {
	apps := startApps(t, 4, "express.mjs")
	l := startLB(t, setup{backends: apps})
	series := func() []string {
		var names []string
		for name := range l.metrics() {
			if strings.HasPrefix(name, "lb_") {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	before := series()
	traffic := startLoad(t, l.addr, 8, 400, func(c *conn, n int64) sample {
		path := fmt.Sprintf("/seen?n=%d", n)
		method := []string{"GET", "POST", "DELETE", "PATCH"}[n%4]
		return sample{path, c.do(method, path, "", fmt.Sprintf("User-Agent: agent %d", n), fmt.Sprintf("X-Forwarded-For: 10.0.0.%d", n%256),
			fmt.Sprintf("X-Forwarded-Host: host%d.example", n), fmt.Sprintf("X-Request-Id: %d", n))}
	})
	scrapes := time.NewTicker(100 * time.Millisecond)
	defer scrapes.Stop()
	last := 0.0
	for range 30 {
		<-scrapes.C
		m := l.metrics()
		if got := m.sum("lb_listener_requests_total"); got < last {
			t.Errorf("a counter fell from %v to %v", last, got)
		} else {
			last = got
		}
	}
	all := traffic.end()
	allOK(t, all)
	if after := series(); !slices.Equal(before, after) {
		t.Errorf("there were %d series, and are %d", len(before), len(after))
	}
	// Both forms that Prometheus asks for.
	for _, accept := range []string{"text/plain", "application/openmetrics-text", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"} {
		req, err := http.NewRequest("GET", l.admin+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		kind, _, _ := strings.Cut(accept, ";")
		if err != nil || resp.StatusCode != 200 || len(b) < 5000 || !strings.HasPrefix(resp.Header.Get("Content-Type"), kind) {
			t.Errorf("%s: %d, %d bytes of %s, %v", accept, resp.StatusCode, len(b), resp.Header.Get("Content-Type"), err)
		}
	}
	agree(t, l, all)
}
