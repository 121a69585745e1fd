package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestPageOrders holds what has to be right for an order from the page, each thing by itself.
func TestPageOrders(t *testing.T) {
	on, name := true, "lb.example.com"
	done := 0
	var by string
	var log bytes.Buffer
	page := NewPage(func() (bool, string) { return on, name }, Actions{
		Drain: func(ctx context.Context, pool, backend string) (Drained, error) {
			done++
			by = By(ctx)
			return Drained{Pool: pool, Backend: backend, Empty: true}, nil
		},
		Ready: func(ctx context.Context, pool, backend string, now bool) (Readied, error) {
			done++
			if backend == "gone" {
				return Readied{}, ErrUnknown
			}
			return Readied{Ready: true}, nil
		},
	}, slog.New(slog.NewTextHandler(&log, nil)))
	l := (&stage{}).live()
	h := Handler(Sources{
		Status: l.src.Status, Ready: func() error { return nil }, Events: func() []Event { return nil }, Metrics: http.NotFoundHandler(), Live: l, Page: page,
	})
	ask := func(method, path, body string, change func(*http.Request)) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "http://127.0.0.1:9901"+path, strings.NewReader(body))
		r.Header.Set("Origin", "http://127.0.0.1:9901")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-LB-Token", page.token)
		if change != nil {
			change(r)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	const order = `{"pool": "app", "backend": "a"}`
	host := func(s string) func(*http.Request) {
		return func(r *http.Request) {
			r.Host = s
			r.Header.Set("Origin", "http://"+s)
		}
	}
	set := func(key, v string) func(*http.Request) {
		return func(r *http.Request) {
			if v == "" {
				r.Header.Del(key)
			} else {
				r.Header.Set(key, v)
			}
		}
	}
	other := NewPage(page.rules, page.actions, page.log)
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		status int
	}{
		{"all in order", nil, 200},
		{"a browser that does not know Sec-Fetch-Site", set("Sec-Fetch-Site", ""), 200},
		{"a browser that sends no Origin", set("Origin", ""), 200},
		{"neither", func(r *http.Request) { r.Header.Del("Origin"); r.Header.Del("Sec-Fetch-Site") }, 403},
		{"TLS before lb", set("Origin", "https://127.0.0.1:9901"), 200},
		{"another site", set("Sec-Fetch-Site", "cross-site"), 403},
		{"another port of the same host", set("Sec-Fetch-Site", "same-site"), 403},
		{"typed by hand", set("Sec-Fetch-Site", "none"), 403},
		{"another origin", set("Origin", "http://127.0.0.1:9902"), 403},
		{"an origin that nobody may know", set("Origin", "null"), 403},
		{"a form", set("Content-Type", "application/x-www-form-urlencoded"), 403},
		{"a form's other way", set("Content-Type", "text/plain"), 403},
		{"no type", set("Content-Type", ""), 403},
		{"a type with a charset", set("Content-Type", "application/json; charset=utf-8"), 200},
		{"no token", set("X-LB-Token", ""), 403},
		{"half a token", set("X-LB-Token", page.token[:32]), 403},
		{"the token of another process", set("X-LB-Token", other.token), 403},
		{"localhost", host("localhost:9901"), 200},
		{"localhost without port", host("localhost"), 200},
		{"IPv6", host("[::1]:9901"), 200},
		{"IPv6 without port", host("[::1]"), 200},
		{"its name", host("lb.example.com:9901"), 200},
		{"its name in capitals, with a dot", host("LB.example.COM."), 200},
		{"another name, which leads here", host("evil.example:9901"), 403},
		{"a name that ends in its name", host("evil-lb.example.com"), 403},
		{"a name that looks like an address", host("127.0.0.1.evil.example"), 403},
		{"a name that begins with localhost", host("localhost.evil.example"), 403},
		{"no name", host(""), 403},
	} {
		done = 0
		w := ask("POST", "/page/drain", order, c.change)
		if w.Code != c.status || (done == 1) != (c.status == 200) || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s: %d, done %d times: %s", c.name, w.Code, done, w.Body)
		}
	}
	if !strings.HasPrefix(by, "page at ") {
		t.Errorf("by %q", by)
	}
	if !strings.Contains(log.String(), "refused") {
		t.Errorf("nothing is said of what was refused: %s", log.String())
	}

	// The token is for who may use it.
	token := func(change func(*http.Request)) (int, string) {
		w := ask("GET", "/page/token", "", change)
		var v struct{ Token string }
		json.Unmarshal(w.Body.Bytes(), &v)
		return w.Code, v.Token
	}
	if code, v := token(nil); code != 200 || v != page.token || len(v) != 64 {
		t.Errorf("token: %d %q", code, v)
	}
	for _, change := range []func(*http.Request){host("evil.example"), set("Sec-Fetch-Site", "cross-site"), set("Sec-Fetch-Site", "none")} {
		if code, v := token(change); code != 403 || v != "" {
			t.Errorf("token for another site: %d %q", code, v)
		}
	}

	if w := ask("POST", "/page/ready", order, nil); w.Code != 200 || !strings.Contains(w.Body.String(), `"ready": true`) {
		t.Errorf("ready: %d %s", w.Code, w.Body)
	}
	if w := ask("POST", "/page/ready", `{"pool": "app", "backend": "gone"}`, nil); w.Code != 404 {
		t.Errorf("an unknown backend: %d %s", w.Code, w.Body)
	}
	if w := ask("POST", "/page/ready", `[]`, nil); w.Code != 400 {
		t.Errorf("nonsense: %d %s", w.Code, w.Body)
	}
	done = 0
	for _, method := range []string{"GET", "PUT", "DELETE", "OPTIONS"} {
		if w := ask(method, "/page/drain", order, nil); w.Code != 405 || w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	on = false
	for _, c := range []struct{ method, path string }{{"POST", "/page/drain"}, {"POST", "/page/ready"}, {"GET", "/page/token"}} {
		if w := ask(c.method, c.path, order, nil); w.Code != 403 || !strings.Contains(w.Body.String(), "page_actions") {
			t.Errorf("%s while it may only show: %d %s", c.path, w.Code, w.Body)
		}
	}
	if done != 0 {
		t.Errorf("done %d times", done)
	}
}
