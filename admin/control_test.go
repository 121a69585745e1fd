package admin

import (
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

func control(a Actions) http.Handler {
	return Control(Sources{
		Status: func() Status { return Status{} }, Ready: func() error { return nil }, Events: func() []Event { return nil },
		Metrics: http.NotFoundHandler(),
	}, a)
}

func TestControl(t *testing.T) {
	var wait time.Duration
	h := control(Actions{
		Drain: func(ctx context.Context, pool, backend string) (Drained, error) {
			at, _ := ctx.Deadline()
			wait = time.Until(at)
			switch backend {
			case "gone":
				return Drained{}, fmt.Errorf("backend %q is %w", backend, ErrUnknown)
			case "back":
				return Drained{}, ErrTakenBack
			}
			return Drained{Pool: pool, Backend: backend, Requests: 1, Others: 2}, nil
		},
		Ready: func(ctx context.Context, pool, backend string, now bool) (Readied, error) {
			at, _ := ctx.Deadline()
			wait = time.Until(at)
			if backend == "gone" {
				return Readied{}, ErrUnknown
			}
			if backend == "broken" {
				return Readied{}, errors.New("broken")
			}
			return Readied{Pool: pool, Backend: backend, Ready: now, State: Unchecked, Why: "asked"}, nil
		},
		Weight: func(_ context.Context, o Weighing) (Weighed, error) {
			if o.Weight == "" {
				return Weighed{}, Wrong(errors.New("no weight"))
			}
			return Weighed{Pool: o.Pool, Weight: .5}, nil
		},
		Add: func(ctx context.Context, o Joining) (Readied, error) {
			at, _ := ctx.Deadline()
			wait = time.Until(at)
			if o.Address == "there" {
				return Readied{}, Refused(errors.New("is there already"))
			}
			return Readied{Backend: o.Address, Ready: *o.Weight == 2}, nil
		},
		Remove: func(_ context.Context, o Leaving) (Drained, error) {
			return Drained{Backend: o.Backend, Empty: o.Force}, nil
		},
	})
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/drain", `{"pool": "app", "backend": "a"}`, 200, `"backend": "a"`},
		{"/drain", `{"pool": "app", "backend": "a", "wait": "0s"}`, 200, `"empty": false`},
		{"/drain", `{"pool": "app", "backend": "a", "wait": "24h"}`, 200, `"requests": 1`},
		{"/drain", `{"pool": "app", "backend": "a", "wait": "24h1ns"}`, 400, "wait is a duration"},
		{"/drain", `{"pool": "app", "backend": "a", "wait": "-1ns"}`, 400, "wait is a duration"},
		{"/drain", `{"pool": "app", "backend": "a", "wait": "soon"}`, 400, "wait is a duration"},
		{"/drain", `{"pool": "app", "backend": "gone"}`, 404, `backend \"gone\" is not known`},
		{"/drain", `{"pool": "app", "backend": "back"}`, 409, "taken back"},
		{"/drain", `{"pool": "app"}`, 400, "wants the names"},
		{"/drain", `{"backend": "a"}`, 400, "wants the names"},
		{"/drain", `{"pool": "app", "backend": "a", "weight": 1}`, 400, `unknown field`},
		{"/drain", `{"pool": "app", "backend": "a"} {}`, 400, "more after"},
		{"/drain", ``, 400, "wants a JSON object"},
		{"/drain", `{"pool": "` + strings.Repeat("a", 64<<10) + `"}`, 400, "too large"},
		{"/ready", `{"pool": "app", "backend": "a"}`, 200, `"ready": false`},
		{"/ready", `{"pool": "app", "backend": "a", "now": true, "wait": "0s"}`, 200, `"ready": true`},
		{"/ready", `{"pool": "app", "backend": "a", "wait": "25h"}`, 400, "wait is a duration"},
		{"/ready", `{"pool": "app", "backend": "gone"}`, 404, "not known"},
		{"/ready", `{"pool": "app", "backend": "broken"}`, 500, "broken"},
		{"/ready", `[]`, 400, "wants a JSON object"},
		{"/weight", `{"pool": "app", "backend": "a", "weight": "50%"}`, 200, `"weight": 0.5`},
		{"/weight", `{"pool": "app", "backend": "a"}`, 400, "no weight"},
		{"/weight", `{"pool": "app", "backend": "a", "weight": 3}`, 400, "wants a JSON object"},
		{"/add", `{"pool": "app", "address": "a", "weight": 2, "wait": "0s"}`, 200, `"ready": true`},
		{"/add", `{"pool": "app", "address": "there"}`, 409, "is there already"},
		{"/add", `{"pool": "app", "address": "a", "wait": "25h"}`, 400, "wait is a duration"},
		{"/add", `{"pool": "app", "addres": "a"}`, 400, "unknown field"},
		{"/remove", `{"pool": "app", "backend": "a", "force": true}`, 200, `"empty": true`},
		{"/remove", `{"pool": "app", "backend": "a", "wait": "x"}`, 400, "wait is a duration"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", c.path, strings.NewReader(c.body)))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %.80s: %d %s", c.path, c.body, w.Code, w.Body)
		}
		if strings.Contains(c.body, "0s") && wait > 0 {
			t.Errorf("waited for %v", wait)
		}
	}
	for _, path := range []string{"/drain", "/ready", "/weight", "/add", "/remove", "/-/healthy"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if want := map[bool]int{true: 200, false: 404}[path == "/-/healthy"]; w.Code != want {
			t.Errorf("GET %s: %d", path, w.Code)
		}
	}
}

// TestDrainOutlastsTheServersLimits waits longer than a slow client may take.
func TestDrainOutlastsTheServersLimits(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	s := NewServer(control(Actions{Drain: func(ctx context.Context, _, _ string) (Drained, error) {
		close(begun)
		select {
		case <-end:
			return Drained{Empty: true}, nil
		case <-ctx.Done():
			return Drained{}, ctx.Err()
		}
	}}), slog.New(slog.DiscardHandler))
	s.ReadTimeout, s.WriteTimeout = 20*time.Millisecond, 20*time.Millisecond
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(ln)
	defer s.Close()
	go func() {
		<-begun
		time.Sleep(5 * s.ReadTimeout) // so that the limits have passed
		close(end)
	}()
	res, err := http.Post("http://"+ln.Addr().String()+"/drain", "application/json", strings.NewReader(`{"pool": "app", "backend": "a"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var d Drained
	if err := json.NewDecoder(res.Body).Decode(&d); err != nil || !d.Empty || res.StatusCode != 200 {
		t.Errorf("%d %v %+v", res.StatusCode, err, d)
	}
}
