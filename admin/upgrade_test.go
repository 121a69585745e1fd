package admin

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
)

// Whoever may use the socket may order an upgrade; only some may say to what. What makes no sense is refused before.
func TestUpgradeOrders(t *testing.T) {
	for _, c := range []struct {
		body   string
		owner  bool
		status int
		done   bool
	}{
		{"", false, 200, true},
		{`{"wait": "5s", "watch": "0s"}`, false, 200, true},
		{`{"wait": "1h"}`, false, 200, true},
		{`{"wait": "1h1s"}`, false, 400, false},
		{`{"watch": "-1s"}`, false, 400, false},
		{`{"wait": "soon"}`, false, 400, false},
		{`{"program": "/bin/sh"}`, true, 400, false},
		{`[]`, true, 400, false},
		{`{"binary": "/bin/sh"}`, false, 403, false},
		{`{"binary": "/bin/fails"}`, true, 409, true},
		{`{"binary": "/bin/lb"}`, true, 200, true},
	} {
		done := false
		h := Upgrade(func(_ context.Context, o UpgradeOrder) Upgraded {
			done = true
			return Upgraded{Upgraded: o.Binary != "/bin/fails"}
		}, func(context.Context) bool { return c.owner })
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/upgrade", strings.NewReader(c.body)))
		if w.Code != c.status || done != c.done {
			t.Errorf("%s: status %d, want %d; done: %t\n%s", c.body, w.Code, c.status, done, w.Body)
		}
	}
}
