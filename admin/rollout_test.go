package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestRollouts(t *testing.T) {
	var said string
	note := func(format string, args ...any) { said = fmt.Sprintf(format, args...) }
	wait := func(ctx context.Context) time.Duration {
		at, _ := ctx.Deadline()
		return time.Until(at).Round(time.Second)
	}
	of := func(id string) error {
		return map[string]error{"over": ErrRolloutOver, "gone": ErrUnknown, "last": ErrLastReady, "not": ErrNotOut, "back": ErrTakenBack, "broken": errors.New("broken")}[id]
	}
	h := Rollouts{
		Hold: func(_ context.Context, o RolloutOrder, begun func(Rollout)) error {
			switch o.Pool {
			case "app":
				note("hold %s %s %v", o.Pool, o.Who, o.Out)
				begun(Rollout{ID: "1", Pool: o.Pool})
				return nil
			case "taken":
				return ErrRolloutRuns
			case "now":
				return ErrNotNow
			}
			return ErrUnknown
		},
		List: func() []Rollout { return []Rollout{{ID: "1", Pool: "app"}} },
		View: func(id string) (RolloutView, error) { return RolloutView{Rise: 2}, of(id) },
		Drain: func(ctx context.Context, id, backend string) (RolloutDrained, error) {
			note("drain %s %s %v", id, backend, wait(ctx))
			return RolloutDrained{Moved: 3}, of(id)
		},
		Restart: func(_ context.Context, id, backend string) (string, error) {
			note("restart %s %s", id, backend)
			return "before", of(id)
		},
		Check: func(ctx context.Context, id, backend, before string) (RolloutChecked, error) {
			note("check %s %s %s %v", id, backend, before, wait(ctx))
			return RolloutChecked{Passed: true}, of(id)
		},
		Ready: func(_ context.Context, id, backend string) error { note("ready %s %s", id, backend); return of(id) },
		Bad: func(_ context.Context, id, backend, why string) error {
			note("bad %s %s %s", id, backend, why)
			return of(id)
		},
		End: func(_ context.Context, id string) error { note("end %s", id); return of(id) },
		Progress: func(_ context.Context, id string, p RolloutProgress) error {
			note("progress %s %d %v %s", id, p.Of, p.Done, p.Waits)
			return of(id)
		},
	}.Handler()
	for _, c := range []struct {
		method, path, body string
		status             int
		want, said         string
	}{
		{"GET", "/rollouts", "", 200, `"pool": "app"`, ""},
		{"POST", "/rollouts", `{"pool": "app", "who": "me", "out": {"a": "bad"}}`, 200, `"id":"1"`, "hold app me map[a:bad]"},
		{"POST", "/rollouts", `{"pool": "taken"}`, 423, "another rollout", ""},
		{"POST", "/rollouts", `{"pool": "now"}`, 503, "starts or stops", ""},
		{"POST", "/rollouts", `{"pool": "x"}`, 404, "not known", ""},
		{"POST", "/rollouts", `{"pol": "x"}`, 400, "unknown field", ""},
		{"POST", "/rollouts", `{"pool": "app"} {}`, 400, "more after", ""},
		{"GET", "/rollouts/1", "", 200, `"rise": 2`, ""},
		{"GET", "/rollouts/over", "", 410, "no such rollout", ""},
		{"POST", "/rollouts/1/drain", `{"backend": "a"}`, 200, `"moved": 3`, "drain 1 a 30s"},
		{"POST", "/rollouts/1/drain", `{"backend": "a", "wait": "5s"}`, 200, `"moved": 3`, "drain 1 a 5s"},
		{"POST", "/rollouts/1/drain", `{"backend": "a", "wait": "24h1s"}`, 400, "wait is a duration", ""},
		{"POST", "/rollouts/1/drain", `{"backend": "a", "wait": "-1s"}`, 400, "wait is a duration", ""},
		{"POST", "/rollouts/last/drain", `{"backend": "a"}`, 412, "no other backend", ""},
		{"POST", "/rollouts/back/drain", `{"backend": "a"}`, 409, "taken back", ""},
		{"POST", "/rollouts/gone/drain", `{"backend": "a"}`, 404, "not known", ""},
		{"POST", "/rollouts/broken/drain", `{"backend": "a"}`, 500, "broken", ""},
		{"POST", "/rollouts/1/restart", `{"backend": "a"}`, 200, `"before": "before"`, "restart 1 a"},
		{"POST", "/rollouts/1/check", `{"backend": "a", "before": "b", "wait": "1m"}`, 200, `"passed": true`, "check 1 a b 1m0s"},
		{"POST", "/rollouts/1/ready", `{"backend": "a"}`, 200, `"backend": "a"`, "ready 1 a"},
		{"POST", "/rollouts/not/ready", `{"backend": "a"}`, 409, "has not taken it out", ""},
		{"POST", "/rollouts/1/bad", `{"backend": "a", "why": "sick"}`, 200, `"backend": "a"`, "bad 1 a sick"},
		{"POST", "/rollouts/1/progress", `{"of": 4, "done": ["a"], "waits": "b is down"}`, 200, `"of": 4`, "progress 1 4 [a] b is down"},
		{"POST", "/rollouts/over/progress", `{}`, 410, "no such rollout", ""},
		{"POST", "/rollouts/1/progress", `{"off": 4}`, 400, "unknown field", ""},
		{"POST", "/rollouts/1/end", `{}`, 200, "", "end 1"},
		{"POST", "/rollouts/over/end", `{}`, 410, "no such rollout", ""},
		{"POST", "/rollouts/1/bad", `nonsense`, 400, "wants a JSON object", ""},
		{"POST", "/rollouts/1/other", `{}`, 404, "", ""},
	} {
		said = ""
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) || c.said != "" && said != c.said {
			t.Errorf("%s %s %s: %d %s; %s", c.method, c.path, c.body, w.Code, w.Body, said)
		}
		if c.status != 200 && c.want != "" && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s: no JSON: %s", c.path, w.Body)
		}
	}
}

// TestRolloutLastsAsItsConnection holds that a rollout outlasts what the server allows others, and ends when its client
// goes.
func TestRolloutLastsAsItsConnection(t *testing.T) {
	ended := make(chan error, 1)
	s := NewServer(Rollouts{Hold: func(ctx context.Context, o RolloutOrder, begun func(Rollout)) error {
		begun(Rollout{ID: "1", Pool: o.Pool})
		<-ctx.Done()
		ended <- ctx.Err()
		return nil
	}}.Handler(), slog.New(slog.DiscardHandler))
	s.ReadTimeout, s.WriteTimeout = 20*time.Millisecond, 20*time.Millisecond
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
	const body = `{"pool": "app"}`
	fmt.Fprintf(c, "POST /rollouts HTTP/1.1\r\nHost: lb\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	var begun Rollout
	line, err := bufio.NewReader(resp.Body).ReadBytes('\n')
	if err := errors.Join(err, json.Unmarshal(line, &begun)); err != nil || begun.ID != "1" {
		t.Fatalf("%s: %v", line, err)
	}
	select {
	case err := <-ended:
		t.Fatalf("ended by itself: %v", err)
	case <-time.After(10 * s.ReadTimeout): // long past the limits
	}
	c.Close()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("goes on without its client")
	}
}
