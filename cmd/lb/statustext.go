package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"lb/admin"
)

const yellow = "\x1b[33m"

// statusText is a status for people.
func statusText(st *admin.Status, t terminal, now time.Time) string {
	var b strings.Builder
	b.WriteString(headline(st, t, now) + "\n")
	if len(st.Listeners) > 0 {
		var at []string
		for _, l := range st.Listeners {
			at = append(at, fmt.Sprintf("%s %s (%s)", l.Name, l.Address, plural(l.Connections, "connection")))
		}
		for _, line := range wrap("listening on "+strings.Join(at, ", "), 78) {
			b.WriteString(line + "\n")
		}
	}
	for i := range st.Pools {
		width, _ := t.size()
		b.WriteString("\n" + poolText(&st.Pools[i], t, now, width, ""))
	}
	return b.String()
}

// headline says which lb this is and how it is.
func headline(st *admin.Status, t terminal, now time.Time) string {
	up := ago(time.Duration(st.Uptime) * time.Second)
	parts := []string{"lb " + st.Version, "running for " + up}
	if st.State != "running" {
		parts = []string{"lb " + st.Version, st.State, "up for " + up}
	}
	if st.PID > 0 {
		parts = append(parts, fmt.Sprintf("pid %d", st.PID))
	}
	if st.File != "" {
		parts = append(parts, st.File)
	}
	if r := st.Reload; r != nil {
		since := ago(now.Sub(r.Time))
		if r.OK {
			parts = append(parts, "reloaded "+since+" ago")
		} else {
			parts = append(parts, "the reload "+since+" ago failed: see lb check")
		}
	}
	text := joined(parts, 79)
	if st.State != "running" {
		text = strings.Replace(text, st.State, t.paint(yellow, st.State), 1)
	}
	if r := st.Reload; r != nil && !r.OK {
		failed := fmt.Sprintf("the reload %s ago failed", ago(now.Sub(r.Time)))
		text = strings.Replace(text, failed, t.paint(red, failed), 1)
	}
	return text
}

// joined is parts with commas between them, in lines of at most width where that can be.
func joined(parts []string, width int) string {
	var b strings.Builder
	line := 0
	for i, p := range parts {
		switch {
		case i == 0:
		case line+2+utf8.RuneCountInString(p) > width:
			b.WriteString(",\n")
			line = 0
		default:
			b.WriteString(", ")
			line += 2
		}
		b.WriteString(p)
		line += utf8.RuneCountInString(p)
	}
	return b.String()
}

// poolText is a line on the pool and a table of its backends, sorted by the column of that name.
func poolText(p *admin.Pool, t terminal, now time.Time, width int, sorted string) string {
	var b strings.Builder
	b.WriteString(poolHead(p, t) + "\n")
	if p.FailOpen {
		b.WriteString(t.paint(red, "nobody is ready: requests go to all that are not known to be dead") + "\n")
	}
	if p.Rollout != nil {
		for _, line := range wrap(rolloutText(p, now), 79) {
			b.WriteString(t.paint(rolloutColor(p), line) + "\n")
		}
	}
	b.WriteString(backendTable(p, t, now, width, sorted))
	for _, r := range p.Removed {
		text := fmt.Sprintf("%s is in the file, and was removed %s ago", r.Name, ago(now.Sub(r.Time)))
		if r.By != "" {
			text += " by " + r.By
		}
		b.WriteString(t.paint(yellow, text) + "\n")
	}
	return b.String()
}

// leftOut reports whether what a rollout of p left out still is: somebody may have put it back.
func leftOut(p *admin.Pool, bad admin.RolloutReason) bool {
	return slices.ContainsFunc(p.Backends, func(b admin.Backend) bool { return b.Name == bad.Backend && b.State == admin.Draining })
}

// rolloutText is the rollout of p in a sentence.
func rolloutText(p *admin.Pool, now time.Time) string {
	r := p.Rollout
	text := "rollout"
	if r.Who != "" {
		text += " by " + printable(r.Who)
	}
	of := ""
	if r.Of > 0 {
		of = fmt.Sprintf(" of %d", r.Of)
	}
	text += fmt.Sprintf(": %d%s restarted", len(r.Done), of)
	for _, u := range r.Under {
		text += fmt.Sprintf(", %s %s for %s", u.Backend, u.Step, ago(now.Sub(u.Since)))
	}
	if r.Waits != "" {
		text += ", waits: " + printable(r.Waits)
	}
	if r.Ended != nil {
		text += fmt.Sprintf(", %s %s ago", rolloutEndings[r.Ending], ago(now.Sub(*r.Ended)))
	}
	for _, b := range r.Bad {
		is := "is bad"
		if !leftOut(p, b) {
			is = "was bad, and was put back"
		}
		text += fmt.Sprintf("; %s %s: %s", b.Backend, is, printable(b.Why))
	}
	if len(r.Bad) == 0 && r.Why != "" && r.Ending == "failed" {
		text += ": " + printable(r.Why)
	}
	return text + fmt.Sprintf("; %s, %d failed", plural(int64(r.Requests), "request"), r.Failed)
}

// rolloutEndings is what is said of an ending.
var rolloutEndings = map[string]string{"finished": "finished", "bad": "stopped", "interrupted": "interrupted", "aborted": "aborted", "failed": "stopped"}

func rolloutColor(p *admin.Pool) string {
	switch r := p.Rollout; {
	case slices.ContainsFunc(r.Bad, func(b admin.RolloutReason) bool { return leftOut(p, b) }), r.Ending == "failed":
		return red
	case r.Ended == nil:
		return yellow
	}
	return ""
}

func poolHead(p *admin.Pool, t terminal) string {
	name := "pool " + p.Name
	return strings.Replace(joined(append([]string{name + ": " + p.Strategy}, poolLine(p)...), 79), name, t.paint(bold, name), 1)
}

func poolLine(p *admin.Pool) []string {
	ready := 0
	busy := int64(0)
	for _, be := range p.Backends {
		busy += be.Inflight
		if be.State == admin.Ready {
			ready++
		}
	}
	parts := []string{fmt.Sprintf("%d of %d ready", ready, len(p.Backends)), rate(p.Recent.Rate) + " req/s"}
	if p.Recent.P50 > 0 {
		parts = append(parts, "p50 "+span(p.Recent.P50), "p99 "+span(p.Recent.P99))
	}
	if p.Recent.ErrorRate > 0 {
		parts = append(parts, percent(p.Recent.ErrorRate)+" errors")
	}
	parts = append(parts, fmt.Sprintf("%d in flight", busy))
	if p.Queue.Waiting > 0 {
		parts = append(parts, fmt.Sprintf("%d waiting", p.Queue.Waiting))
	}
	return parts
}

// column is one of a table of backends.
type column struct {
	name  string
	left  bool // aligned to the left
	cell  func(p *admin.Pool, b *admin.Backend, now time.Time) string
	color func(b *admin.Backend) string
	spare int // the higher, the sooner it is left out where the window is narrow; 0: never
	none  string
}

var backendColumns = []column{
	{name: "BACKEND", left: true, cell: func(_ *admin.Pool, b *admin.Backend, _ time.Time) string { return b.Name }},
	{name: "STATE", left: true, color: stateColor, cell: func(_ *admin.Pool, b *admin.Backend, _ time.Time) string { return string(b.State) }},
	{name: "SINCE", spare: 1, cell: func(_ *admin.Pool, b *admin.Backend, now time.Time) string { return ago(now.Sub(b.Since)) }},
	{name: "BUSY", cell: func(_ *admin.Pool, b *admin.Backend, _ time.Time) string { return fmt.Sprint(b.Inflight) }},
	{name: "REQ/S", cell: func(_ *admin.Pool, b *admin.Backend, _ time.Time) string { return rate(b.Recent.Rate) }},
	{name: "SHARE", spare: 5, cell: func(_ *admin.Pool, b *admin.Backend, _ time.Time) string { return percent(b.Share) }},
	{name: "P50", spare: 4, cell: func(_ *admin.Pool, b *admin.Backend, _ time.Time) string { return span(b.Recent.P50) }},
	{name: "P99", spare: 2, cell: func(_ *admin.Pool, b *admin.Backend, _ time.Time) string { return span(b.Recent.P99) }},
	{name: "ERR", color: errorColor, cell: func(_ *admin.Pool, b *admin.Backend, _ time.Time) string { return percent(b.Recent.ErrorRate) }},
	{name: "WS", none: "0", spare: 3, cell: func(_ *admin.Pool, b *admin.Backend, _ time.Time) string { return fmt.Sprint(b.Tunnels) }},
	{name: "WEIGHT", none: "1", spare: 6, cell: func(_ *admin.Pool, b *admin.Backend, _ time.Time) string { return weightText(b.Weight) }},
	{name: "CHECK", none: "-", spare: 7, cell: func(_ *admin.Pool, b *admin.Backend, _ time.Time) string { return checkText(b.Check) }},
}

func weightText(w float64) string { return fmt.Sprintf("%.4g", w) }

func checkText(c *admin.Check) string {
	if c == nil {
		return "-"
	}
	n := fmt.Sprint(c.Streak)
	if c.Streak > 999 {
		n = "999+"
	}
	if c.Passed {
		return n + " ok"
	}
	return n + " bad"
}

func stateColor(b *admin.Backend) string {
	switch b.State {
	case admin.Ready:
		return green
	case admin.Down, admin.Ejected:
		return red
	}
	return yellow
}

func errorColor(b *admin.Backend) string {
	if b.Recent.ErrorRate > 0 {
		return red
	}
	return ""
}

// backendTable has a line for each backend, and below it what there is to say of it.
func backendTable(p *admin.Pool, t terminal, now time.Time, width int, sorted string) string {
	cells := make([][]string, len(backendColumns))
	widths := make([]int, len(backendColumns))
	shown := make([]bool, len(backendColumns))
	for i, c := range backendColumns {
		widths[i] = len(c.name)
		shown[i] = c.none == ""
		for j := range p.Backends {
			text := c.cell(p, &p.Backends[j], now)
			cells[i] = append(cells[i], text)
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
			shown[i] = shown[i] || text != c.none
		}
	}
	fitColumns(shown, widths, width)

	var b strings.Builder
	line := func(cell func(i int) (text, color string)) {
		sep := ""
		for i, c := range backendColumns {
			if !shown[i] {
				continue
			}
			text, color := cell(i)
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
			if c.left {
				b.WriteString(sep + t.paint(color, text) + pad)
			} else {
				b.WriteString(sep + pad + t.paint(color, text))
			}
			sep = " "
		}
		b.WriteString("\n")
	}
	line(func(i int) (string, string) {
		if name := backendColumns[i].name; name == sorted {
			return name, bold
		}
		return backendColumns[i].name, dim
	})
	for j := range p.Backends {
		be := &p.Backends[j]
		line(func(i int) (string, string) {
			color := ""
			if f := backendColumns[i].color; f != nil {
				color = f(be)
			}
			return cells[i][j], color
		})
		for _, note := range notes(be, now) {
			for _, l := range wrap(note, 74) {
				b.WriteString(t.paint(dim, "    "+l) + "\n")
			}
		}
	}
	return b.String()
}

// fitColumns leaves out what can be spared until the rest fits into width.
func fitColumns(shown []bool, widths []int, width int) {
	for {
		sum, worst := -1, -1
		for i, c := range backendColumns {
			if !shown[i] {
				continue
			}
			sum += widths[i] + 1
			if c.spare > 0 && (worst < 0 || c.spare > backendColumns[worst].spare) {
				worst = i
			}
		}
		if sum <= width || worst < 0 {
			return
		}
		shown[worst] = false
	}
}

// notes is what has to be said of a backend that its line does not.
func notes(b *admin.Backend, now time.Time) (all []string) {
	if b.State != admin.Ready {
		why := b.Why
		if b.Until != nil && b.State == admin.Ejected {
			why += fmt.Sprintf("; for %s more at most", ago(b.Until.Sub(now)))
		}
		if c := b.Check; c != nil && !c.Passed {
			if why != "" && why != c.Said {
				why += "; its check says: " + c.Said
			}
			why += fmt.Sprintf(" (%s, the last %s ago)", plural(int64(c.Streak), "failed check"), ago(now.Sub(c.Time)))
		}
		if why != "" {
			all = append(all, why)
		}
	}
	if b.Differs != "" {
		all = append(all, b.Differs)
	}
	return all
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// ago is a duration to within its largest unit or two: 0s, 59s, 12m, 3h, 47d.
func ago(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// rate is requests a second in at most five characters.
func rate(r float64) string {
	switch {
	case r == 0:
		return "0"
	case r < 9.95:
		return fmt.Sprintf("%.1f", r)
	case r < 99999.5:
		return fmt.Sprintf("%.0f", r)
	}
	return fmt.Sprintf("%.0fk", r/1e3)
}

// span is milliseconds in at most five characters.
func span(ms float64) string {
	switch {
	case ms == 0:
		return "-"
	case ms < 9.95:
		return fmt.Sprintf("%.1fms", ms)
	case ms < 999.5:
		return fmt.Sprintf("%.0fms", ms)
	case ms < 99950:
		return fmt.Sprintf("%.1fs", ms/1e3)
	}
	return fmt.Sprintf("%.0fs", ms/1e3)
}

func percent(x float64) string {
	switch p := 100 * x; {
	case p == 0:
		return "0%"
	case p < .95:
		return fmt.Sprintf("%.1f%%", max(p, .1))
	default:
		return fmt.Sprintf("%.0f%%", p)
	}
}
