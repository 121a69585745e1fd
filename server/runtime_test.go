package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lb/admin"
	"lb/upstream"
)

// weights is the pool's backends as "name weight".
func (h *house) weights() string {
	var all []string
	for _, b := range h.Status().Pools[0].Backends {
		all = append(all, fmt.Sprintf("%s %v", b.Name, b.Weight))
	}
	return strings.Join(all, ", ")
}

// three is a pool of named backends that need not be there.
func three(entries ...string) string {
	return "[pool.app]\nbackends = [" + strings.Join(entries, ", ") + "]\nhealth.kind = \"off\"\n"
}

const (
	entryA = `{ address = "127.0.0.1:1", name = "a" }`
	entryB = `{ address = "127.0.0.1:2", name = "b", weight = 2 }`
	entryC = `{ address = "127.0.0.1:3", name = "c" }`
)

func TestSetWeight(t *testing.T) {
	h := start(t, three(entryA, entryB))
	for _, c := range []struct {
		backend, weight string
		want            string // "" and an error
		is, was         float64
		err             string
	}{
		{"a", "3", "a 3, b 2", 3, 1, ""},
		{"b", "50%", "a 3, b 1", 1, 2, ""},
		{"b", "25%", "a 3, b 0.5", .5, 1, ""},
		{"b", "1%", "a 3, b 0.02", .02, .5, ""},
		{"b", "reset", "a 3, b 2", 2, .02, ""},
		{"a", "0", "a 0, b 2", 0, 3, ""},
		{"127.0.0.1:1", "100%", "a 1, b 2", 1, 0, ""},
		{"a", "256", "a 256, b 2", 256, 1, ""},
		{"a", "25600%", "a 256, b 2", 256, 256, ""},
		{"b", "12800%", "a 256, b 256", 256, 2, ""},
		{"b", "0%", "a 256, b 0", 0, 256, ""},
		{"a", "257", "", 0, 0, "weight 257 is too much, the most is 256"},
		{"a", "25601%", "", 0, 0, "is too much"},
		{"b", "12801%", "", 0, 0, "12801 % of 2 is too much, the most is 256"},
		{"a", "-1", "", 0, 0, "write a number from 0 to 256"},
		{"a", "1.5", "", 0, 0, "write a number from 0 to 256"},
		{"a", "", "", 0, 0, "write a number from 0 to 256"},
		{"a", "+1", "", 0, 0, "write a number from 0 to 256"},
		{"aa", "1", "", 0, 0, `backend "aa" of pool "app" is not known, did you mean "a"?`},
	} {
		w, err := h.SetWeight(t.Context(), admin.Weighing{Pool: "app", Backend: c.backend, Weight: c.weight})
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || !errors.Is(err, admin.ErrWrong) && !errors.Is(err, admin.ErrUnknown) {
				t.Errorf("%s %s: %v, want %s", c.backend, c.weight, err, c.err)
			}
			continue
		}
		if err != nil || w.Weight != c.is || w.Was != c.was || h.weights() != c.want {
			t.Errorf("%s %s: %v %+v %s, want %s", c.backend, c.weight, err, w, h.weights(), c.want)
		}
	}
	if e := h.checks.events.last("app", "a", "weight changed"); e == nil || e.Why != "256, was 256; the file says 1" {
		t.Errorf("%+v", e)
	}
}

// TestWeightShares holds that a changed weight changes who gets what, fractions included, and nothing is lost meanwhile.
func TestWeightShares(t *testing.T) {
	a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
	h := start(t, pools(a.addr, b.addr)+"strategy = \"round_robin\"\n"+rare)
	l := h.load(2)
	for _, c := range []struct {
		weight string
		share  float64 // of b
	}{{"25%", .2}, {"3", .75}, {"reset", .5}} {
		if _, err := h.SetWeight(t.Context(), admin.Weighing{Pool: "app", Backend: b.addr, Weight: c.weight}); err != nil {
			t.Fatal(err)
		}
		n, m := a.asked.Load(), b.asked.Load()
		waitFor(t, "requests", func() bool { return a.asked.Load()+b.asked.Load() > n+m+400 })
		x, y := float64(a.asked.Load()-n), float64(b.asked.Load()-m)
		if got := y / (x + y); got < c.share-.03 || got > c.share+.03 {
			t.Errorf("weight %s: %.3f of the requests, want %.3f", c.weight, got, c.share)
		}
	}
	l.end(t)
}

// TestAddRemove has a pool grow and shrink under load.
func TestAddRemove(t *testing.T) {
	a, b := newInstance(t, "a", nil), newInstance(t, "b", nil)
	h := start(t, pools(a.addr)+rare)
	l := h.load(4)
	for range 3 {
		n := b.asked.Load()
		most := int64(7)
		r, err := h.Add(within(t), admin.Joining{Pool: "app", Address: b.addr, Name: "new", MaxInflight: &most})
		if err != nil || !r.Ready || r.Backend != "new" {
			t.Fatalf("%v %+v", err, r)
		}
		waitFor(t, "traffic to the new one", func() bool { return b.asked.Load() > n+20 })
		if all := h.pool("app").Snapshot().All; len(all) != 2 || all[0].MaxInflight != 0 || all[1].MaxInflight != most {
			t.Errorf("%+v", all)
		}
		if st := h.health("new"); st.Differs != "added while lb runs, the file does not have it" {
			t.Errorf("%+v", st)
		}
		d, err := h.Remove(within(t), admin.Leaving{Pool: "app", Backend: "new"})
		if err != nil || !d.Empty || d.Others != 1 {
			t.Fatalf("%v %+v", err, d)
		}
		n = b.asked.Load()
		waitFor(t, "its connections to end", func() bool { return b.open.Load() == 0 })
		before := l.answered()
		waitFor(t, "traffic to the other", func() bool { return l.answered() > before+50 })
		if b.asked.Load() != n {
			t.Errorf("%d requests to who was removed", b.asked.Load()-n)
		}
	}
	l.end(t)
	var seen []string
	for _, e := range h.checks.events.list() {
		if e.Backend == "new" && (e.Event == "added" || e.Event == "removed") {
			seen = append(seen, e.Event)
		}
	}
	if want := []string{"added", "removed", "added", "removed", "added", "removed"}; !slices.Equal(seen, want) {
		t.Errorf("events %q", seen)
	}
}

// TestAddIsChecked holds that who joins gets nothing before its check passes.
func TestAddIsChecked(t *testing.T) {
	a := newInstance(t, "a", nil)
	h := start(t, pools(a.addr)+rare)
	past, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := h.Add(past, admin.Joining{Pool: "app", Address: "1"})
	if err != nil || r.Ready || r.Backend != "127.0.0.1:1" {
		t.Errorf("%v %+v", err, r)
	}
	h.awaitState("127.0.0.1:1", admin.Down)
	if code, who := h.fetch(h.url); code != 200 || who != "a" {
		t.Errorf("%d %s", code, who)
	}
}

func TestAddRemoveRefused(t *testing.T) {
	h := start(t, three(entryA, entryB))
	past, cancel := context.WithCancel(t.Context())
	cancel()
	two, huge := 257, int64(1_000_001)
	for _, c := range []struct {
		o    admin.Joining
		kind error
		want string
	}{
		{admin.Joining{Pool: "ap", Address: "3"}, admin.ErrUnknown, `pool "ap" is not known, did you mean "app"?`},
		{admin.Joining{Pool: "app", Address: "1"}, admin.ErrRefused, "pool app has that backend already: a at 127.0.0.1:1"},
		{admin.Joining{Pool: "app", Address: "localhost:1"}, admin.ErrRefused, "pool app has that backend already: a at 127.0.0.1:1"},
		{admin.Joining{Pool: "app", Address: "3", Name: "b"}, admin.ErrRefused, "pool app has that backend already: b at 127.0.0.1:2"},
		{admin.Joining{Pool: "app", Address: "3-4"}, admin.ErrWrong, "add one at a time"},
		{admin.Joining{Pool: "app", Address: "http://a:3"}, admin.ErrWrong, `write "a:3"`},
		{admin.Joining{Pool: "app", Address: ""}, admin.ErrWrong, "is not an address"},
		{admin.Joining{Pool: "app", Address: "nosuch.invalid:3"}, admin.ErrWrong, `host "nosuch.invalid"`},
		{admin.Joining{Pool: "app", Address: "3", Name: "a b"}, admin.ErrWrong, "a name is made of"},
		{admin.Joining{Pool: "app", Address: "3", Weight: &two}, admin.ErrWrong, "weight 257: it is 0 to 256"},
		{admin.Joining{Pool: "app", Address: "3", MaxInflight: &huge}, admin.ErrWrong, "max_inflight 1000001"},
	} {
		if _, err := h.Add(past, c.o); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.o, err, c.want)
		}
	}
	remove := func(name string, force bool) error {
		_, err := h.Remove(past, admin.Leaving{Pool: "app", Backend: name, Force: force})
		return err
	}
	if err := remove("c", false); !errors.Is(err, admin.ErrUnknown) {
		t.Error(err)
	}
	if err := remove("a", false); err != nil {
		t.Error(err)
	}
	if err := remove("b", false); !errors.Is(err, admin.ErrRefused) || !strings.Contains(err.Error(), "the last one of pool app") {
		t.Error(err)
	}
	if err := remove("b", true); err != nil || h.weights() != "" {
		t.Errorf("%v, left: %s", err, h.weights())
	}
	if err := h.Ready(); err == nil {
		t.Error("lb is ready without a backend")
	}
	// And from nothing back.
	if _, err := h.Add(past, admin.Joining{Pool: "app", Address: "127.0.0.1:2"}); err != nil || h.weights() != "b 2" {
		t.Errorf("%v, there is %s", err, h.weights())
	}
}

// TestDeviationsOverReloads holds what docs/operations.md says: a change while lb runs lasts until the file says
// something new of the same backend, or a reload resets it.
func TestDeviationsOverReloads(t *testing.T) {
	past, cancel := context.WithCancel(t.Context())
	cancel()
	change := func(h *house) {
		t.Helper()
		_, e1 := h.SetWeight(past, admin.Weighing{Pool: "app", Backend: "a", Weight: "5"})
		_, e2 := h.Remove(past, admin.Leaving{Pool: "app", Backend: "b"})
		_, e3 := h.Add(past, admin.Joining{Pool: "app", Address: "9", Name: "new"})
		_, e4 := h.SetWeight(past, admin.Weighing{Pool: "app", Backend: "new", Weight: "200%"})
		if err := errors.Join(e1, e2, e3, e4); err != nil || h.weights() != "a 5, c 1, new 2" {
			t.Fatalf("%v, there is %s", err, h.weights())
		}
	}
	weightOf := func(entry string, n int) string {
		return strings.Replace(entry, " }", fmt.Sprintf(", weight = %d }", n), 1)
	}
	for _, c := range []struct {
		name, text string
		want       string
		notes      []string // parts of
	}{
		{"the same file", three(entryA, entryB, entryC), "a 5, c 1, new 2", []string{
			`a of pool app: weight 5 while lb runs, 1 in the file`, `b of pool app: removed while lb runs, the file has it`, `new of pool app: added`,
		}},
		{"another key", three(entryA, entryB, entryC) + "retries = 0\n", "a 5, c 1, new 2", []string{"a of pool", "b of pool", "new of pool"}},
		{"another backend", three(entryA, entryB, weightOf(entryC, 7)), "a 5, c 7, new 2", []string{"a of pool", "b of pool", "new of pool"}},
		{"its weight in the file", three(weightOf(entryA, 4), entryB, entryC), "a 4, c 1, new 2", []string{"a of pool app is as the file says again", "b of pool", "new of pool"}},
		{"the same weight in the file", three(weightOf(entryA, 5), entryB, entryC), "a 5, c 1, new 2", []string{"a of pool app is as the file says again", "b of pool", "new of pool"}},
		{"the removed one has another entry", three(entryA, strings.Replace(entryB, "2", "3", 1), strings.Replace(entryC, "3", "4", 1)), "a 5, b 2, c 1, new 2",
			[]string{"b of pool app is as the file says again", "a of pool", "new of pool"}},
		{"the file has the new one", three(entryA, entryB, entryC, `{ address = "127.0.0.1:9", name = "new", weight = 3 }`), "a 5, c 1, new 3",
			[]string{"new of pool app is as the file says again", "a of pool", "b of pool"}},
		{"the file has the new one's address", three(entryA, entryB, entryC, "9"), "a 5, c 1, 127.0.0.1:9 1",
			[]string{"new of pool app is as the file says again", "a of pool", "b of pool"}},
		{"the file has none of them", three(entryC), "c 1, new 2", []string{"a of pool app is as the file says", "b of pool app is as", "new of pool"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := start(t, three(entryA, entryB, entryC))
			change(h)
			for _, again := range []bool{false, true} {
				v := h.reloadWords(c.text + everywhere)
				if got := h.weights(); got != c.want {
					t.Errorf("there is %s, want %s", got, c.want)
				}
				if again {
					break
				}
				notes := strings.Join(v.Notes, "\n")
				for _, n := range c.notes {
					if !strings.Contains(notes, n) {
						t.Errorf("no %q in\n%s", n, notes)
					}
				}
				if len(v.Notes) != len(c.notes) {
					t.Errorf("notes:\n%s", notes)
				}
			}
		})
	}
	t.Run("reset", func(t *testing.T) {
		h := start(t, three(entryA, entryB, entryC))
		change(h)
		if st := h.Status().Pools[0]; len(st.Removed) != 1 || st.Removed[0].Name != "b" || st.Removed[0].Address != "127.0.0.1:2" {
			t.Errorf("%+v", st.Removed)
		}
		v, err := h.reloadOnce(t.Context(), true)
		want := []string{
			"backend a of pool app has weight 1, had 5", "1 backend joined pool app: b", "1 backend left pool app: new",
		}
		if d := cmp.Diff(want, v.Changes); err != nil || d != "" || len(v.Notes) != 0 {
			t.Errorf("%v %s notes %q", err, d, v.Notes)
		}
		if got := h.weights(); got != "a 1, b 2, c 1" {
			t.Errorf("there is %s", got)
		}
		if st := h.Status().Pools[0]; len(st.Removed) != 0 || st.Backends[0].Differs != "" {
			t.Errorf("%+v", st)
		}
	})
	t.Run("the pool is gone", func(t *testing.T) {
		h := start(t, three(entryA, entryB, entryC))
		change(h)
		h.reloadWords(strings.Replace(three(entryA), "app", "other", 1) + everywhere)
		h.reloadWords(three(entryA, entryB) + everywhere)
		if got := h.weights(); got != "a 1, b 2" {
			t.Errorf("there is %s", got)
		}
	})
	t.Run("a drain is not touched", func(t *testing.T) {
		h := start(t, three(entryA, entryB, entryC))
		if _, err := h.Drain(past, "app", "c"); err != nil {
			t.Fatal(err)
		}
		change(h)
		if got := h.health("c").State; got != admin.Draining {
			t.Errorf("state %s", got)
		}
	})
}

func TestDeviate(t *testing.T) {
	file := []upstream.Spec{{Name: "a", Weight: 1}, {Name: "b", Weight: 0}}
	for _, c := range []struct {
		all  map[string]*deviation
		want []upstream.Spec
	}{
		{nil, file},
		{map[string]*deviation{"a": {weight: -1, percent: 300}}, []upstream.Spec{{Name: "a", Weight: 3}, {Name: "b"}}},
		{map[string]*deviation{"a": {weight: -1, percent: 50}}, []upstream.Spec{{Name: "a", Weight: 50, Unit: 100}, {Name: "b", Unit: 100}}},
		{map[string]*deviation{"b": {weight: -1, percent: 50}}, []upstream.Spec{{Name: "a", Weight: 1}, {Name: "b"}}},
	} {
		if d := cmp.Diff(c.want, deviate(file, c.all), cmp.Comparer(func(a, b upstream.Addr) bool { return a == b })); d != "" {
			t.Error(d)
		}
	}
}
