package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"lb/admin"
)

// top is what lb top shows: the state of the program, apart from its terminal.
type top struct {
	view
	every  time.Duration
	st     *admin.Status
	events []admin.Event
	gone   string               // why lb cannot be asked; "": it can
	course map[string][]float64 // requests a second of each pool, the oldest first

	sort   string // name of a column; "": the order of the file
	upward bool
	scroll int
	held   bool
	most   int // that scroll may be
	page   int // lines of the last drawing that scroll
}

// take notes what lb said.
func (t *top) take(g glance) {
	if t.gone = ""; g.err != nil {
		t.gone = strings.TrimPrefix(g.err.Error(), "lb: ")
		return
	}
	t.st, t.events = g.st, g.events
	if t.course == nil {
		t.course = map[string][]float64{}
	}
	for _, p := range t.st.Pools {
		c := append(t.course[p.Name], p.Recent.Rate)
		t.course[p.Name] = c[max(0, len(c)-courseLength):]
	}
}

const courseLength = 60

// sorts are the columns that can be sorted by, their keys, and the order, the most interesting first.
var sorts = []struct {
	key, column string
	order       func(a, b *admin.Backend) int
}{
	{"f", "", nil},
	{"n", "BACKEND", func(a, b *admin.Backend) int { return strings.Compare(a.Name, b.Name) }},
	{"t", "STATE", func(a, b *admin.Backend) int { return cmp.Compare(badness(b), badness(a)) }},
	{"b", "BUSY", func(a, b *admin.Backend) int { return cmp.Compare(b.Inflight, a.Inflight) }},
	{"s", "REQ/S", func(a, b *admin.Backend) int { return cmp.Compare(b.Recent.Rate, a.Recent.Rate) }},
	{"5", "P50", func(a, b *admin.Backend) int { return cmp.Compare(b.Recent.P50, a.Recent.P50) }},
	{"9", "P99", func(a, b *admin.Backend) int { return cmp.Compare(b.Recent.P99, a.Recent.P99) }},
	{"e", "ERR", func(a, b *admin.Backend) int { return cmp.Compare(b.Recent.ErrorRate, a.Recent.ErrorRate) }},
	{"w", "WS", func(a, b *admin.Backend) int { return cmp.Compare(b.Tunnels, a.Tunnels) }},
}

func badness(b *admin.Backend) int {
	return slices.Index([]admin.State{admin.Ready, admin.Resting, admin.Draining, admin.Unchecked, admin.Ejected, admin.Down}, b.State)
}

// key does what a key says, and reports whether that is to end.
func (t *top) key(k string) (end bool) {
	for i, s := range sorts {
		switch {
		case k == s.key:
			t.sort = s.column
			return false
		case s.column == t.sort && (k == "\x1b[C" || k == "\x1bOC"):
			t.sort = sorts[(i+1)%len(sorts)].column
			return false
		case s.column == t.sort && (k == "\x1b[D" || k == "\x1bOD"):
			t.sort = sorts[(i+len(sorts)-1)%len(sorts)].column
			return false
		}
	}
	switch k {
	case "q", "Q", "\x03", "\x04":
		return true
	case "r":
		t.upward = !t.upward
	case " ":
		t.held = !t.held
	case "+":
		t.every = max(leastEvery, t.every/2)
	case "-":
		t.every = min(mostEvery, t.every*2)
	case "\x1b[A", "\x1bOA", "k":
		t.scroll--
	case "\x1b[B", "\x1bOB", "j":
		t.scroll++
	case "\x1b[5~":
		t.scroll -= t.page
	case "\x1b[6~":
		t.scroll += t.page
	}
	t.scroll = min(max(t.scroll, 0), t.most)
	return false
}

const shownEvents = 5

// lines is the screen: at most height lines.
func (t *top) lines(width, height int, now time.Time) []string {
	term := t.term
	head := strings.Split(headline(t.st, term, now), "\n")
	switch {
	case t.gone != "":
		head = append(head, term.paint(red, t.gone+"; what follows is of before"))
	case t.held:
		head = append(head, term.paint(yellow, "held: space goes on"))
	}
	var body []string
	for _, p := range t.st.Pools {
		p.Backends = t.sorted(p.Backends)
		text := strings.TrimSuffix(poolText(&p, term, now, width, t.sort), "\n")
		lines := strings.Split(text, "\n")
		if c := t.course[p.Name]; len(c) > 1 {
			lines = slices.Insert(lines, strings.Count(poolHead(&p, term), "\n")+1, term.paint(dim, "req/s ")+course(c, width-8))
		}
		body = append(append(body, ""), lines...)
	}
	foot := t.eventLines(now)
	if room := height - len(head) - 2; len(foot) > max(0, room/3) {
		foot = foot[len(foot)-max(0, room/3):] // a small window is for backends
	}
	if len(foot) > 0 {
		foot = append([]string{""}, foot...)
	}
	order := "the file"
	if t.sort != "" {
		order = t.sort
		if t.upward {
			order += " upward"
		}
	}
	help := fmt.Sprintf("by %s, every %v", order, t.every)
	for _, key := range []string{"q ends", "left/right sort", "r turns round", "space holds", "up/down scroll"} {
		if len(help)+3+len(key) <= width {
			help += "   " + key
		}
	}

	t.page = max(1, height-len(head)-len(foot)-1)
	t.most = max(0, len(body)-t.page)
	t.scroll = min(t.scroll, t.most)
	shown := body[t.scroll:min(len(body), t.scroll+t.page)]
	if more := len(body) - t.scroll - len(shown); more > 0 && len(shown) > 0 {
		shown = slices.Clone(shown)
		shown[len(shown)-1] = term.paint(dim, fmt.Sprintf("... %d more lines: down", more+1))
	}
	all := slices.Concat(head, shown, foot)
	all = append(all[:min(len(all), max(0, height-1))], term.paint(dim, help))
	return all
}

// sorted is backends in the order that was asked for; equal ones in that of the file.
func (t *top) sorted(all []admin.Backend) []admin.Backend {
	all = slices.Clone(all)
	for _, s := range sorts {
		if s.column == t.sort && s.order != nil {
			slices.SortStableFunc(all, func(a, b admin.Backend) int {
				if t.upward {
					return s.order(&b, &a)
				}
				return s.order(&a, &b)
			})
			return all
		}
	}
	if t.upward {
		slices.Reverse(all)
	}
	return all
}

// eventLines are the last events, the newest last.
func (t *top) eventLines(now time.Time) (lines []string) {
	for _, e := range t.events[max(0, len(t.events)-shownEvents):] {
		line := fmt.Sprintf("%4s ago  %s", ago(now.Sub(e.Time)), strings.TrimSpace(e.Pool+" "+e.Backend)+" "+e.Event)
		if e.Why != "" {
			line += ": " + printable(e.Why)
		}
		if e.By != "" {
			line += ", by " + e.By
		}
		lines = append(lines, line)
	}
	return lines
}

// course draws numbers as bars of eight heights, the newest on the right, and says what the highest stands for.
func course(c []float64, width int) string {
	c = c[max(0, len(c)-max(1, width)):]
	top := slices.Max(c)
	var b strings.Builder
	for _, x := range c {
		if top == 0 {
			b.WriteRune('▁')
			continue
		}
		b.WriteRune([]rune("▁▂▃▄▅▆▇█")[min(7, int(x/top*8))])
	}
	return b.String() + " " + rate(top)
}
