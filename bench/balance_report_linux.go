package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

type balanceReport struct {
	machine []string
	tables  []*balanceTable
	notes   []string
}

// balanceTable is what came of a scene.
type balanceTable struct {
	*scene
	load     float64
	name     string
	capacity float64 // requests a second
	fleet    instances
	entries  []*entry
}

// unanswered stands for the response time of what got no answer, or a bad one: longer than any.
const unanswered = time.Hour

// took is the response times of a round, sorted.
func (r *round) took() []time.Duration {
	out := make([]time.Duration, len(r.replies)-r.first)
	for i, x := range r.replies[r.first:] {
		if out[i] = x.took; x.by == 0 {
			out[i] = unanswered
		}
	}
	slices.Sort(out)
	return out
}

// by is p of each round, in ns.
func (s *entry) by(q float64) (v []float64) {
	for i := range s.rounds {
		v = append(v, float64(quantile(s.rounds[i].took(), q)))
	}
	return v
}

// boundBy is the bound of each round, in ns.
func (s *entry) boundBy(q float64) (v []float64) {
	for i := range s.rounds {
		v = append(v, float64(s.rounds[i].bound.at(q)))
	}
	return v
}

func (s *entry) failed() (n int, first error) {
	for _, r := range s.rounds {
		for _, x := range r.replies {
			if x.by == 0 {
				n++
				if first == nil {
					first = x.err
				}
			}
		}
	}
	return n, first
}

// share is the part of the requests that the first instance, the slow one if there is one, answered.
func (s *entry) share() float64 {
	n, all := 0, 0
	for _, r := range s.rounds {
		for _, x := range r.replies[r.first:] {
			if x.by == 'a' {
				n++
			}
			all++
		}
	}
	return float64(n) / float64(all)
}

// over is p99 over the bound, round by round.
func (s *entry) over() []float64 { return ratios(s.by(.99), s.boundBy(.99)) }

func (t *balanceTable) entry(name string) *entry {
	for _, s := range t.entries {
		if s.name == name {
			return s
		}
	}
	return nil
}

// verdict is whether the subject's p99 is below that of every other.
func (t *balanceTable) verdict() string {
	own := t.entry(subject)
	if own == nil {
		return "not measured"
	}
	if n, err := own.failed(); n > 0 {
		return fmt.Sprintf("FAIL: %d requests of %s without an answer, %v", n, subject, err)
	}
	best, name := 0., ""
	for _, s := range t.entries {
		if s == own || s.aside {
			continue
		}
		if x := median(ratios(own.by(.99), s.by(.99))); x > best {
			best, name = x, s.name
		}
	}
	word := "pass"
	if best >= 1 {
		word = "FAIL"
	}
	return fmt.Sprintf("%s: p99 %.2f × the bound, %.2f × the best of the others (%s)", word, median(own.over()), best, name)
}

func (r *balanceReport) write(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Who answers soonest: lb's strategies beside nginx and HAProxy\n\n")
	for _, m := range r.machine {
		fmt.Fprintf(&b, "- %s\n", m)
	}
	b.WriteString(balanceIntro)
	b.WriteString("## Summary\n\np99 over the bound, for each row. 1.00 is perfect.\n\n")
	r.summary(&b)
	for _, t := range r.tables {
		fmt.Fprintf(&b, "\n## %s\n\n", t.title(t.load))
		t.write(&b)
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

func (r *balanceReport) save(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(r.write(f), f.Close())
}

const balanceIntro = `
` + "`make bench-balance`" + ` writes this file. Instances are Node.js processes with one thread each. Requests come at random times
(Poisson), each is sent when it is due, and its response time counts from then. Every balancer has instances of its own and
sees the same requests. p50 and p99 are medians over the rounds, in brackets the lowest and highest round; p99.9 is of all
rounds together. Counted is what comes after the first second of a round. Before the first round, lb's strategies that go by
what they have measured, adaptive and ewma, have had some thousand answers, which is what they need to learn.

- **waiting instances** block their event loop for the time of a request without using a processor: they are as busy as with
  work, one request at a time, and the machine is not. So four of them for each balancer fit on any machine, all balancers are
  loaded at once, and what is measured is who gets a request, not how the kernel shares its processors out.
- **computing instances** use processor time for it, by the process's own clock. There are as many as the machine has cores,
  at most four, each on a core of its own; proxies and clients are on the same cores and go first. Balancers are
  loaded in turn.
- **load** is of what the instances do together when they are always busy, measured before each row. The slow instance takes
  twice the time for everything.
- **the bound** is the p99 of oracles that serve the same requests at the same times, taking as long as the instances
  said they took: one queue for all of them (M/G/k, first come, first served), or, if that is better, one that knows how long each
  request takes. Nothing is charged for network and proxy.
- **haproxy, maxconn 1** is told by hand what adaptive finds out: that each instance does one request at a time. It is not
  compared with.
- **> 4 s** is a response time without end: the balancer sends an instance more than it can do.

`

// shown is a duration, with what is beyond patience as such.
func shown(ns float64) string {
	switch d := time.Duration(ns); {
	case d >= patience:
		return fmt.Sprintf("> %.0f s", patience.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	default:
		return fmt.Sprintf("%.1f ms", ns/1e6)
	}
}

func times(x float64) string {
	if x >= 20 {
		return "> 20"
	}
	return fmt.Sprintf("%.2f", x)
}

func (t *balanceTable) write(b *strings.Builder) {
	first := t.entries[0]
	fmt.Fprintf(b, "%s. They do %.0f requests/s together; asked for: %.0f. The bound: p50 %s, p99 %s.\n\n%s.\n\n", strings.ToUpper(t.kind.says[:1])+t.kind.says[1:],
		t.capacity, t.load*t.capacity, shown(median(first.boundBy(.5))), shown(median(first.boundBy(.99))), t.verdict())
	cells := [][]string{{"balancer", "p50", "p99", "rounds", "p99.9", "p99 × bound", "to the first", "errors"}}
	for _, s := range t.entries {
		p99 := s.by(.99)
		var all []time.Duration
		for i := range s.rounds {
			all = append(all, s.rounds[i].took()...)
		}
		slices.Sort(all)
		errs := "0"
		if n, err := s.failed(); n > 0 {
			errs = fmt.Sprintf("%d: %v", n, err)
		}
		cells = append(cells, []string{s.name, shown(median(s.by(.5))), shown(median(p99)),
			fmt.Sprintf("[%s - %s]", shown(slices.Min(p99)), shown(slices.Max(p99))),
			shown(float64(quantile(all, .999))), times(median(s.over())), fmt.Sprintf("%.0f %%", 100*s.share()), errs})
	}
	writeTable(b, cells)
}

func (r *balanceReport) summary(b *strings.Builder) {
	if len(r.tables) == 0 {
		return
	}
	head := []string{"row"}
	for _, s := range r.tables[0].entries {
		head = append(head, s.name)
	}
	cells := [][]string{append(head, "verdict")}
	for _, t := range r.tables {
		line := []string{t.title(t.load)}
		for _, s := range t.entries {
			line = append(line, times(median(s.over())))
		}
		word, _, _ := strings.Cut(t.verdict(), ":")
		cells = append(cells, append(line, word))
	}
	writeTable(b, cells)
}

// picture is the summary as a picture. What is told by hand is left out.
func (r *balanceReport) picture() []byte {
	c := &chart{}
	for _, t := range r.tables {
		c.rows = append(c.rows, t.title(t.load))
		var x []float64
		for _, e := range t.entries {
			if e.aside {
				continue
			}
			x = append(x, median(e.over()))
			if len(c.rows) == 1 {
				c.names = append(c.names, e.name)
			}
		}
		c.x = append(c.x, x)
	}
	return c.svg()
}
