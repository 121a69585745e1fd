package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// report turns tables into text: Markdown with aligned columns, which is also what the terminal gets.
type report struct {
	subject string   // whose goals are judged
	names   []string // of the contenders, as in the tables
	tables  []table
	machine []string // lines
	notes   []string
}

func (s sample) invalid() bool { return s.Errors > 0 || s.Requests == 0 }

// series is one figure of a contender, by round.
func series(samples []sample, f func(sample) float64) []float64 {
	v := make([]float64, len(samples))
	for i, s := range samples {
		v[i] = f(s)
	}
	return v
}

func cpuOf(s sample) float64   { return s.cpu }
func perConn(s sample) float64 { return s.perConn }

// of is the contender's samples in t; none when it did not take part or had errors.
func (r *report) of(t table, name string) []sample {
	i := slices.Index(r.names, name)
	if i < 0 || slices.ContainsFunc(t.samples[i], sample.invalid) {
		return nil
	}
	return t.samples[i]
}

// ratio of a contender's CPU per request to another's, by round; none when either is missing.
func (r *report) ratio(t table, name, base string) []float64 {
	return ratios(series(r.of(t, name), cpuOf), series(r.of(t, base), cpuOf))
}

// verdict says whether the subject reached the row's goal.
func (r *report) verdict(t table) string {
	own := r.of(t, r.subject)
	if len(own) == 0 {
		if slices.Contains(r.names, r.subject) {
			return "INVALID"
		}
		return "not measured"
	}
	if t.goal.kb > 0 {
		return word(median(series(own, perConn)) <= t.goal.kb)
	}
	met, missing := true, ""
	for _, bound := range []struct {
		base string
		ok   func(float64) bool
		set  bool
	}{
		{"haproxy", func(x float64) bool { return x <= t.goal.haproxy }, t.goal.haproxy > 0},
		{"nginx", func(x float64) bool { return x < 1 }, t.goal.nginx},
	} {
		if !bound.set {
			continue
		}
		x := r.ratio(t, r.subject, bound.base)
		if len(x) == 0 {
			missing += ", without " + bound.base
			continue
		}
		met = met && bound.ok(median(x))
	}
	return word(met) + missing
}

func word(met bool) string {
	if met {
		return "met"
	}
	return "MISSED"
}

func (r *report) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s beside nginx and HAProxy\n\n", r.subject)
	for _, m := range r.machine {
		fmt.Fprintf(&b, "- %s\n", m)
	}
	b.WriteString("\nMedians over the rounds; in brackets the lowest and highest round. README.md says how to read this.\n")
	b.WriteString("\n## Summary\n\n")
	r.summary(&b)
	for _, t := range r.tables {
		fmt.Fprintf(&b, "\n## %s\n\nGoal: %s. %s.\n\n", t.title, t.goal, r.verdict(t))
		if t.held {
			r.held(&b, t)
		} else {
			r.loaded(&b, t)
		}
	}
	if len(r.notes) > 0 {
		b.WriteString("\n## Notes\n\n")
		for _, n := range r.notes {
			fmt.Fprintf(&b, "- %s\n", n)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *report) summary(b *strings.Builder) {
	cells := [][]string{{"row", "goal", r.subject, "× haproxy", "× nginx", "verdict"}}
	for _, t := range r.tables {
		line := []string{t.name, t.goal.String(), "-", "-", "-", r.verdict(t)}
		if own := r.of(t, r.subject); len(own) > 0 {
			figure, unit := cpuOf, "µs"
			if t.held {
				figure, unit = perConn, "KB"
			}
			v := series(own, figure)
			line[2] = fmt.Sprintf("%.2f %s", median(v), unit)
			for i, base := range []string{"haproxy", "nginx"} {
				if x := ratios(v, series(r.of(t, base), figure)); len(x) > 0 {
					line[3+i] = fmt.Sprintf("%.2f", median(x))
				}
			}
		}
		cells = append(cells, line)
	}
	writeTable(b, cells)
}

func (r *report) loaded(b *strings.Builder, t table) {
	cells := [][]string{{"proxy", "CPU µs/request", "× haproxy", "× nginx", "requests/s", "p50", "p99", "core", "errors"}}
	for i, name := range r.names {
		s := t.samples[i]
		line := []string{name,
			fmt.Sprintf("%.2f", median(series(s, cpuOf))),
			spread(r.ratio(t, name, "haproxy")),
			spread(r.ratio(t, name, "nginx")),
			fmt.Sprintf("%.0f", median(series(s, func(s sample) float64 { return s.perSecond() }))),
			micros(series(s, func(s sample) float64 { return float64(s.P50) })),
			micros(series(s, func(s sample) float64 { return float64(s.P99) })),
			fmt.Sprintf("%.0f %%", 100*median(series(s, func(s sample) float64 { return s.busy }))),
			failures(s)}
		cells = append(cells, line)
	}
	writeTable(b, cells)
}

func (r *report) held(b *strings.Builder, t table) {
	cells := [][]string{{"proxy", "KB each", "rounds", "MB in all", "errors"}}
	for i, name := range r.names {
		s := t.samples[i]
		kb := series(s, perConn)
		cells = append(cells, []string{name,
			fmt.Sprintf("%.2f", median(kb)),
			fmt.Sprintf("[%.2f-%.2f]", slices.Min(kb), slices.Max(kb)),
			fmt.Sprintf("%.1f", median(series(s, func(s sample) float64 { return s.resident }))),
			failures(s)})
	}
	writeTable(b, cells)
}

// spread is the median with the lowest and highest.
func spread(v []float64) string {
	if len(v) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f [%.2f-%.2f]", median(v), slices.Min(v), slices.Max(v))
}

func micros(ns []float64) string {
	d := time.Duration(median(ns))
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.0f µs", float64(d)/1e3)
	}
	return fmt.Sprintf("%.1f ms", float64(d)/1e6)
}

// failures of all rounds. They make the line invalid: a proxy that refuses is not to look cheap.
func failures(samples []sample) string {
	n, first := 0, ""
	for _, s := range samples {
		n += s.Errors
		if first == "" {
			first = s.First
		}
		if s.Requests == 0 && s.Errors == 0 {
			n, first = n+1, "no answers"
		}
	}
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("INVALID: %d, %s", n, strings.ReplaceAll(first, "|", "/"))
}

// writeTable writes cells, the first line as head, with columns padded to one width.
func writeTable(b *strings.Builder, cells [][]string) {
	width := make([]int, len(cells[0]))
	for _, line := range cells {
		for i, c := range line {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for n, line := range cells {
		for i, c := range line {
			fmt.Fprintf(b, "| %s%s ", c, strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)))
		}
		b.WriteString("|\n")
		if n == 0 {
			for _, w := range width {
				fmt.Fprintf(b, "| %s ", strings.Repeat("-", w))
			}
			b.WriteString("|\n")
		}
	}
}

// noise tells of rows in which others used the proxies' core.
func (r *report) noise() {
	for _, t := range r.tables {
		var f []float64
		for _, s := range t.samples {
			f = append(f, series(s, func(s sample) float64 { return s.foreign })...)
		}
		if len(f) > 0 && slices.Max(f) > disturbed {
			r.notes = append(r.notes, fmt.Sprintf(
				"%s: others used the proxies' core too, %.0f %% of it in the median load and %.0f %% in the worst",
				t.name, 100*median(f), 100*slices.Max(f)))
		}
	}
}
