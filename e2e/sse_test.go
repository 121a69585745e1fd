package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// Server-sent events arrive one by one: the next is sent only after the last has been seen, so nothing on the way may
// hold one back for company.
func TestEvents(t *testing.T) {
	apps := startApps(t, 4, "express.mjs")
	l := startLB(t, setup{backends: apps})
	open := func(id string) (*http.Response, *bufio.Reader, *app) {
		t.Helper()
		req, err := http.NewRequest("GET", l.url+"/events/"+id, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/event-stream")
		req.Header.Set("Last-Event-ID", "41")
		req.Header.Set("Accept-Encoding", "identity")
		resp, err := http.DefaultTransport.RoundTrip(req) // returns with the head: no event has been sent yet
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
			t.Fatalf("got %d, %v", resp.StatusCode, resp.Header)
		}
		for _, a := range apps {
			if a.name == resp.Header.Get("X-Instance") {
				if last := a.hears("streaming " + id); last != "41" {
					t.Errorf("Last-Event-ID came as %s", last)
				}
				return resp, bufio.NewReader(resp.Body), a
			}
		}
		t.Fatal("no instance")
		return nil, nil, nil
	}
	expect := func(r *bufio.Reader, n int) {
		t.Helper()
		for _, want := range []string{fmt.Sprintf("id: %d\n", n), fmt.Sprintf("data: %d\n", n), "\n"} {
			if line, err := r.ReadString('\n'); line != want {
				t.Fatalf("got %q, %v, want %q", line, err, want)
			}
		}
	}
	// Several at once, so that the loops have more than one stream each.
	type stream struct {
		*http.Response
		r   *bufio.Reader
		app *app
		id  string
	}
	var all []stream
	for i := range 8 {
		id := fmt.Sprint(i)
		resp, r, a := open(id)
		all = append(all, stream{resp, r, a, id})
	}
	for n := range 50 {
		s := all[n%len(all)]
		s.app.order("event", s.id, fmt.Sprint(n))
		expect(s.r, n)
	}
	// The app ends one.
	all[0].app.order("done", "0")
	if _, err := all[0].r.ReadByte(); err == nil || err.Error() != "EOF" {
		t.Errorf("a stream that the app ended ends with %v", err)
	}
	// Clients leave the others: the app is told.
	for _, s := range all[1:] {
		s.Body.Close()
		s.app.hears("closed " + s.id)
	}
	m := l.settled()
	if got := m.sum("lb_listener_failed_requests_total", "reason=client_gone"); got != 7 {
		t.Errorf("lb counts %v clients that went away, want 7", got)
	}
	if got := m.sum("lb_backend_faults_total") - m.sum("lb_backend_faults_total", "fault=client"); got != 0 {
		t.Errorf("lb blames the apps %v times for clients that went away", got)
	}
	l.stop(0)
}
