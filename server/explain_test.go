package server

import (
	"context"
	"errors"
	"strings"
	"testing"

	"lb/admin"
)

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
		if d.Chosen != a.addr || d.Why != "the only one that is ready" || d.Pool != "app" || d.Strategy != "least_conn" || d.Attempt != 1 ||
			!strings.HasPrefix(d.Request, "GET 127.0.0.1:") || !strings.HasSuffix(d.Request, "/") {
			t.Errorf("%+v", d)
		}
		for i, want := range []string{"", "draining", "down"} {
			if d.Candidates[i].Out != want {
				t.Errorf("%+v, want %q", d.Candidates[i], want)
			}
		}
	}
	view, err := h.View("")
	if err != nil || len(view) != 1 || view[0].Attempt != 0 || view[0].Chosen != "" || view[0].Candidates[0].Score != "0 in flight of weight 1" {
		t.Errorf("%v %+v", err, view)
	}
	if _, err := h.View("ap"); !errors.Is(err, admin.ErrUnknown) {
		t.Error(err)
	}
	if err := h.Explain(t.Context(), "ap", 0, nil); !errors.Is(err, admin.ErrUnknown) {
		t.Error(err)
	}
}
