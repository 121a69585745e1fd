package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"lb/admin"
)

// TestWaitsThroughUpgrade holds that who waits while lb is upgraded goes on with the new lb, for the rest of the wait, and
// that an lb which ends otherwise is not passed over in silence.
func TestWaitsThroughUpgrade(t *testing.T) {
	const overtaken, ended = "overtaken", "ended"
	for _, c := range []struct {
		args    string
		answers []any
		orders  string // that came
		code    int
		says    string // a part of it
	}{
		{"drain app a", []any{overtaken, admin.Drained{Pool: "app", Backend: "a", Empty: true, Others: 1}}, "/drain /drain", 0, "app a: drained after "},
		{"ready app a", []any{overtaken, overtaken, admin.Readied{Pool: "app", Backend: "a", Ready: true}}, "/ready /ready /ready", 0, "app a: in use after "},
		{"remove app a", []any{overtaken, admin.Drained{Pool: "app", Backend: "a", Empty: true, Others: 1}}, "/remove /remove", 0, "app a: removed, and empty after "},
		{"add app 3000", []any{admin.Readied{Pool: "app", Backend: "127.0.0.1:3000"}, overtaken, admin.Readied{Pool: "app", Backend: "127.0.0.1:3000", Ready: true}},
			"/add /ready /ready", 0, "app 127.0.0.1:3000: in use after "},
		{"drain app a", []any{ended}, "/drain", 1, " ended before it had answered"},
	} {
		t.Run(c.args, func(t *testing.T) {
			orders := make(chan string, len(c.answers)+1)
			left := time.Minute
			socket := serveSocket(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == "GET" {
					json.NewEncoder(w).Encode(admin.Status{})
					return
				}
				var o struct{ Wait string }
				if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
					t.Error(err)
				}
				if wait, err := time.ParseDuration(o.Wait); r.URL.Path != "/add" {
					if err != nil || wait >= left {
						t.Errorf("order %d: wait %q, and %v were left", len(orders), o.Wait, left)
					}
					left = wait
				}
				answer := c.answers[len(orders)]
				orders <- r.URL.Path
				switch answer {
				case overtaken:
					w.WriteHeader(http.StatusServiceUnavailable)
					answer = admin.Fault{Error: "another lb is in charge"}
				case ended:
					panic(http.ErrAbortHandler)
				}
				json.NewEncoder(w).Encode(answer)
			})
			run := start(t, append(strings.Fields(c.args), "--socket", socket, "--wait", "1m")...)
			code := run.wait()
			said := run.stdout.String() + run.stderr.String()
			var got string
			for len(orders) > 0 {
				got = strings.TrimSpace(got + " " + <-orders)
			}
			if code != c.code || got != c.orders || !strings.Contains(said, c.says) {
				t.Error(fmt.Sprintf("exit code %d after %s: ", code, got) + said)
			}
		})
	}
}
