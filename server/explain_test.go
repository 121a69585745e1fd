package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"lb/admin"
)

// idleScore is ewma's of a backend that has nothing to do.
var idleScore = regexp.MustCompile(`^(not measured yet|[\d.]+ m?s) x \(0\+1\)$`)

// TestExplain asks why, while requests come: what is told is what happened, for the request that it happened to.
func TestExplain(t *testing.T) {
	a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
	h := start(t, pools(a.addr, b.addr, "127.0.0.1:1")+rare)
	h.awaitState("127.0.0.1:1", admin.Down)
	past, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Drain(past, "app", b.addr); err != nil {
		t.Fatal(err)
	}
	l := h.load(2)
	enough := errors.New("enough")
	var got []admin.Decision
	err := h.Explain(within(t), "app", 0, func(d admin.Decision) error {
		if got = append(got, d); len(got) == 5 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	l.end(t)
	for _, d := range got {
		if d.Chosen != a.addr || d.Why != "the only one that is ready" || d.Pool != "app" || d.Strategy != "adaptive" || d.Attempt != 1 ||
			!strings.HasPrefix(d.Request, "GET 127.0.0.1:") || !strings.HasSuffix(d.Request, "/") {
			t.Errorf("%+v", d)
		}
		if d.Ended == nil || d.Ended.Status != 200 || d.Ended.Took <= 0 || d.Ended.Fault != "" {
			t.Errorf("ended: %+v", d.Ended)
		}
		for i, want := range []string{"", "draining", "down"} {
			if d.Candidates[i].Out != want {
				t.Errorf("%+v, want %q", d.Candidates[i], want)
			}
		}
	}
	waitFor(t, "nothing is in work", func() bool { return h.backend("app", a.addr).Inflight() == 0 })
	view, err := h.View("")
	if err != nil || len(view) != 1 || view[0].Attempt != 0 || view[0].Chosen != "" || !idleScore.MatchString(view[0].Candidates[0].Score) {
		t.Errorf("%v %+v", err, view)
	}
	if _, err := h.View("ap"); !errors.Is(err, admin.ErrUnknown) {
		t.Error(err)
	}
	if err := h.Explain(t.Context(), "ap", 0, nil); !errors.Is(err, admin.ErrUnknown) {
		t.Error(err)
	}
}

// TestExplainOutcome has an attempt fail and be made good, and asks about one that takes its time.
func TestExplainOutcome(t *testing.T) {
	broken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer broken.Close()
	go func() {
		for {
			c, err := broken.Accept()
			if err != nil {
				return
			}
			go func() {
				c.Read(make([]byte, 1)) // a check says nothing, and ends
				c.Close()
			}()
		}
	}()
	release := make(chan struct{})
	well := handler(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
		}
	})
	h := start(t, strings.Replace(pools(broken.Addr().String(), well), "[pool.app]\n", "[pool.app]\nretry_budget = 100\n", 1)+rare)
	decisions := make(chan admin.Decision, 100)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go h.Explain(ctx, "app", 0, func(d admin.Decision) error { decisions <- d; return nil })
	next := func() admin.Decision {
		t.Helper()
		select {
		case d := <-decisions:
			return d
		case <-within(t).Done():
			t.Fatal("no decision")
			return admin.Decision{}
		}
	}
	retried := false
	for end := time.Now().Add(20 * time.Second); !retried && time.Now().Before(end); {
		h.get("/") // until somebody is told, and the broken one comes first
		for len(decisions) > 0 && !retried {
			d := next()
			switch {
			case d.Chosen == well && (d.Ended == nil || d.Ended.Status != 200 || d.Ended.Fault != ""):
				t.Fatalf("well: %+v", d.Ended)
			case d.Chosen != well:
				if d.Ended == nil || d.Ended.Status != 0 || d.Ended.Fault != "reset" {
					t.Fatalf("broken: %+v", d.Ended)
				}
				if d = next(); d.Attempt != 2 || d.Chosen != well || d.Ended == nil || d.Ended.Status != 200 {
					t.Fatalf("again: %+v %+v", d, d.Ended)
				}
				retried = true
			}
		}
	}
	if !retried {
		t.Error("nothing was tried again")
	}
	slow := make(chan struct{})
	go func() { defer close(slow); h.get("/slow") }()
	for d := next(); ; d = next() {
		if strings.HasSuffix(d.Request, "/slow") && d.Chosen == well {
			if d.Ended != nil {
				t.Errorf("it has not ended: %+v", d.Ended)
			}
			break
		}
	}
	close(release)
	<-slow
}
