package main

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"lb/admin"
)

func newTop() *top {
	t := &top{every: time.Second}
	at := noon.Add(-3 * time.Second)
	t.take(glance{st: fleetStatus(), events: []admin.Event{{Time: at, Pool: "app", Backend: "127.0.0.1:3001", Event: "down", Why: "refused\x1b[2J"}, {Time: at, Event: "reloaded", By: "uid 0 (root)"}}})
	return t
}

// TestTopFits draws in windows of all sizes: never more lines than there are, and a usual one has what matters.
func TestTopFits(t *testing.T) {
	top := newTop()
	top.take(glance{st: fleetStatus(), events: top.events})
	for height := 1; height < 60; height++ {
		for _, width := range []int{1, 40, 80, 200} {
			lines := top.lines(width, height, noon)
			if len(lines) > height {
				t.Fatalf("%d lines in a window of %dx%d", len(lines), width, height)
			}
		}
	}
	lines := top.lines(80, 24, noon)
	text := strings.Join(lines, "\n")
	for _, want := range []string{"lb v1.2.3", "pool app: least_conn", "127.0.0.1:3000  ", "req/s █", "3s ago  app 127.0.0.1:3001 down: refused?[2J", "reloaded, by uid 0 (root)", "more lines: down", "by the file, every 1s   q ends   left/right sort   r turns round   space holds"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for i, l := range lines {
		if n := utf8.RuneCountInString(l); n > 80 {
			t.Errorf("line %d has %d", i, n)
		}
	}
}

func TestTopKeys(t *testing.T) {
	top := newTop()
	order := func() string {
		var s []string
		for _, b := range top.sorted(top.st.Pools[0].Backends) {
			s = append(s, b.Name[len(b.Name)-1:])
		}
		return strings.Join(s, "")
	}
	for _, c := range []struct{ keys, want string }{
		{"", "012345"}, {"t", "125340"}, {"r", "043521"}, {"rb", "031245"}, {"5", "201345"}, {"f", "012345"}, {"w", "012345"}, {"e", "201345"},
		{"f\x1b[C", "012354"}, {"f\x1b[D", "012345"},
	} {
		for keys := c.keys; keys != ""; {
			k := keys[:1]
			if k == "\x1b" {
				k = keys[:3]
			}
			if top.key(k) {
				t.Fatalf("%q ends it", k)
			}
			keys = keys[len(k):]
		}
		if got := order(); got != c.want {
			t.Errorf("after %q: %s, want %s", c.keys, got, c.want)
		}
	}
	for _, k := range []string{"q", "Q", "\x03", "\x04"} {
		if !top.key(k) {
			t.Errorf("%q does not end it", k)
		}
	}
	top.key("-")
	top.key("+")
	top.key("+")
	top.key("+")
	top.key("+")
	if top.every != leastEvery {
		t.Errorf("every %v", top.every)
	}
	// Scrolling stays within what there is.
	first := top.lines(80, 12, noon)
	top.key("\x1b[A")
	if got := top.lines(80, 12, noon); !slices.Equal(got, first) {
		t.Error("scrolled above the top")
	}
	for range 100 {
		top.key("\x1b[6~")
	}
	last := strings.Join(top.lines(80, 12, noon), "\n")
	if !strings.Contains(last, "unix:/run/api.sock") || strings.Contains(last, "more lines") {
		t.Errorf("the end:\n%s", last)
	}
}

func TestTopWithoutLB(t *testing.T) {
	top := newTop()
	top.take(glance{err: errors.New("lb: no lb is at /run/lb/x.sock")})
	if text := strings.Join(top.lines(80, 24, noon), "\n"); !strings.Contains(text, "no lb is at /run/lb/x.sock; what follows is of before") || !strings.Contains(text, "pool app") {
		t.Error(text)
	}
	top.take(glance{st: fleetStatus()})
	if text := strings.Join(top.lines(80, 24, noon), "\n"); strings.Contains(text, "of before") {
		t.Error(text)
	}
}

func TestReadKeys(t *testing.T) {
	r, w := io.Pipe()
	keys := make(chan string, 100)
	go readKeys(r, keys)
	w.Write([]byte("q\x1b[A\x1b[5~\x1bOB\x1bx"))
	w.Write([]byte("\x1b["))
	w.Close()
	var got []string
	for k := range keys {
		got = append(got, k)
	}
	if want := []string{"q", "\x1b[A", "\x1b[5~", "\x1bOB", "\x1b", "x", "\x1b["}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
