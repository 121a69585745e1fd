package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"lb/rollout"
)

// rolloutPrinter shows how a rollout goes: a line for each thing that happens, and on a terminal one more, drawn over
// again and again, with what is waited for.
type rolloutPrinter struct {
	out    io.Writer
	json   bool
	pretty bool
	broken func() // nobody reads what is written
	over   chan struct{}

	mu     sync.Mutex
	plan   *rollout.Plan
	began  time.Time
	doing  string                    // guarded by mu: what is waited for
	since  time.Time                 // guarded by mu: for how long
	output map[string]*commandOutput // guarded by mu: by backend
	drawn  bool                      // guarded by mu: there is a line to be drawn over
}

// commandOutput is what a command said.
type commandOutput struct {
	shown int
	kept  []string // and not shown, for when it fails
	size  int      // bytes of kept
	lost  int      // lines that there was no room for
}

const (
	// showLines is how many lines of a command that does well are shown: pm2 says a table of all apps each time.
	showLines = 6
	// keepBytes is how much of what is not shown is kept.
	keepBytes = 1 << 20
)

func newRolloutPrinter(out io.Writer, asJSON bool, broken func()) *rolloutPrinter {
	p := &rolloutPrinter{out: out, json: asJSON, broken: broken, began: time.Now(), output: map[string]*commandOutput{}, over: make(chan struct{})}
	if f, ok := out.(*os.File); ok && !asJSON {
		info, err := f.Stat()
		p.pretty = err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	}
	if p.pretty {
		go p.redraw()
	}
	return p
}

func (p *rolloutPrinter) close() { close(p.over) }

// redraw keeps the time on the last line going.
func (p *rolloutPrinter) redraw() {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.over:
			return
		case <-tick.C:
			p.mu.Lock()
			p.draw()
			p.mu.Unlock()
		}
	}
}

// draw shows what is waited for. The caller holds mu.
func (p *rolloutPrinter) draw() {
	if !p.pretty || p.doing == "" {
		return
	}
	p.write(fmt.Sprintf("\r\x1b[?7l\x1b[K%7s  %s, %v\x1b[?7h", p.clock(), p.doing, time.Since(p.since).Round(time.Second)))
	p.drawn = true
}

func (p *rolloutPrinter) clock() string { return fmt.Sprintf("%.1fs", time.Since(p.began).Seconds()) }

// write says something. Whoever went away, such as an ssh connection, is taken for one who wants it to stop.
func (p *rolloutPrinter) write(text string) {
	if _, err := io.WriteString(p.out, text); err != nil && p.broken != nil {
		p.broken()
	}
}

// line is one line, in the place of what was drawn. The caller holds mu.
func (p *rolloutPrinter) line(format string, args ...any) {
	if p.drawn {
		p.write("\r\x1b[K")
		p.drawn = false
	}
	p.write(fmt.Sprintf(format, args...) + "\n")
}

// note is something beside the plan.
func (p *rolloutPrinter) note(text string) {
	p.event(rollout.Event{Time: time.Now(), Event: rollout.Note, Why: text})
}

// event shows what happened.
func (p *rolloutPrinter) event(e rollout.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.Plan != nil {
		p.plan = e.Plan
	}
	if p.json {
		if e.Event != rollout.Waiting {
			p.object(jsonOf(&e))
		}
		return
	}
	p.words(&e)
	p.draw()
}

func (p *rolloutPrinter) object(v any) {
	text, err := json.Marshal(v)
	if err != nil {
		text = fmt.Appendf(nil, `{"event":"note","why":%q}`, err.Error())
	}
	p.write(string(text) + "\n")
}

// wait says what is waited for from now on.
func (p *rolloutPrinter) wait(format string, args ...any) {
	p.doing, p.since = fmt.Sprintf(format, args...), time.Now()
}

func (p *rolloutPrinter) words(e *rollout.Event) {
	who := fmt.Sprintf("%d/%d %s", e.Step, e.Of, e.Name)
	say := func(format string, args ...any) {
		p.doing = ""
		p.line("%7s  %s: %s", p.clock(), who, fmt.Sprintf(format, args...))
	}
	switch e.Event {
	case rollout.Planned:
		p.showPlan(e.Plan)
	case rollout.Draining:
		p.wait("%s: taken out", who)
	case rollout.Waiting:
		p.doing = fmt.Sprintf("%s: taken out, %s and %s left", who, counted(e.Requests, "request"), counted(e.Tunnels, "WebSocket"))
	case rollout.Drained:
		say("%s", drainedWords(e))
	case rollout.PutBack:
		say("put back as it was")
	case rollout.Restarting:
		p.output[e.Name] = &commandOutput{}
		text, err := rollout.Expand(p.plan.Exec, e.Target)
		if err != nil {
			text = p.plan.Exec
		}
		say("$ %s", text)
		p.wait("%s: its command runs", who)
	case rollout.Output:
		p.said(e)
	case rollout.Restarted:
		if o := p.output[e.Name]; len(o.kept) > 0 {
			p.line("%9s| ... %s more", "", counted(int64(len(o.kept)+o.lost), "line"))
		}
		say("done in %s", seconds(e.Took))
		p.wait("%s: has to listen and pass its checks", who)
	case rollout.Passed:
		p.output[e.Name] = nil
		say("listens after %s, %s passed after %s: in use", seconds(e.Listen), counted(int64(e.Checks), "check"), seconds(e.Took))
	case rollout.Back:
		p.wait("%s: warms up", who)
	case rollout.Warm:
		if p.doing = ""; e.Took >= 100*time.Millisecond {
			say("warm after %s", seconds(e.Took))
		}
	case rollout.Paused:
		say("waits: %s", e.Why)
		p.wait("%s: waits", who)
	case rollout.Resumed:
		say("goes on after %s", seconds(e.Took))
	case rollout.Watching:
		p.line("%7s  canary: compared with the others for %v", p.clock(), e.Took)
		p.wait("canary: compared with the others")
	case rollout.Judged:
		p.doing = ""
		if e.Verdict.Worse == "" {
			p.line("%7s  canary: fine after %s: %s", p.clock(), seconds(e.Took), e.Verdict)
		} else {
			p.line("%7s  canary: worse after %s: %s", p.clock(), seconds(e.Took), e.Verdict)
		}
	case rollout.Bad:
		if o := p.output[e.Name]; o != nil {
			for _, line := range o.kept {
				p.line("%9s| %s", "", line)
			}
			if o.lost > 0 {
				p.line("%9s| ... %s more", "", counted(int64(o.lost), "line"))
			}
		}
		say("BAD, stays out of use: %s", e.Why)
	case rollout.Note:
		p.line("%7s  %s", p.clock(), e.Why)
	}
}

func (p *rolloutPrinter) said(e *rollout.Event) {
	o := p.output[e.Name]
	if o.shown < showLines {
		o.shown++
		p.line("%9s| %s", "", e.Line)
		return
	}
	if o.size += len(e.Line); o.size > keepBytes {
		o.lost++
		return
	}
	o.kept = append(o.kept, e.Line)
}

func drainedWords(e *rollout.Event) string {
	var b strings.Builder
	if e.Requests == 0 && e.Tunnels == 0 {
		fmt.Fprintf(&b, "empty after %s", seconds(e.Took))
	} else {
		fmt.Fprintf(&b, "%s and %s left after %s", counted(e.Requests, "request"), counted(e.Tunnels, "WebSocket"), seconds(e.Took))
	}
	if e.Moved > 0 {
		fmt.Fprintf(&b, ", %s moved", counted(e.Moved, "WebSocket"))
	}
	return b.String()
}

func (p *rolloutPrinter) showPlan(plan *rollout.Plan) {
	p.line("pool %s: %s, at most %d out at a time", plan.Pool, counted(int64(len(plan.Steps)), "backend"), plan.AtOnce)
	width := 0
	for _, t := range plan.Steps {
		width = max(width, len(t.Name))
	}
	for i, t := range plan.Steps {
		text, _ := rollout.Expand(plan.Exec, t)
		if i < plan.Canaries {
			text += "   (canary)"
		}
		p.line("  %d  %-*s  %s", t.Step, width, t.Name, text)
	}
	p.line("  each: up to %v until it is empty, %v for the command, %v until it is well, %v to warm up", plan.Wait, plan.Timeout, plan.StartTimeout, plan.Warmup)
	if plan.Canaries > 0 {
		p.line("  canary: watched for %v; more errors by %d points, or a p95 above by %d %%, stop the rollout", plan.Watch, plan.Rule.Errors, plan.Rule.Slower)
	}
	for _, n := range plan.Notes {
		p.line("  note: %s", n)
	}
}

// end says what came of it, and what to do next.
func (p *rolloutPrinter) end(res *rollout.Result, code int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doing = ""
	if p.json {
		p.object(jsonEnd(p.plan, res, code))
		return
	}
	pool, all := p.plan.Pool, len(p.plan.Steps)
	switch res.Ending {
	case rollout.Finished:
		p.line("done in %s: %d of %d restarted", seconds(res.Took), len(res.Done), all)
	case rollout.FoundBad:
		p.line("stopped after %s: %d of %d restarted, %s bad and out of use", seconds(res.Took), len(res.Done), all, are(res.Bad))
	case rollout.Interrupted:
		p.line("interrupted after %s: %d of %d restarted", seconds(res.Took), len(res.Done), all)
	case rollout.Aborted:
		p.line("aborted after %s: %d of %d restarted", seconds(res.Took), len(res.Done), all)
	default:
		p.line("stopped after %s: %d of %d restarted: %v", seconds(res.Took), len(res.Done), all, res.Err)
	}
	for _, name := range res.Left {
		p.line("  %s was being restarted: lb puts it back as soon as it passes its checks (lb status)", name)
	}
	if len(res.Rest) > 0 {
		p.line("  as before, and in use: %s", strings.Join(res.Rest, ", "))
	}
	for _, name := range res.Bad {
		p.line("  next: mend %s and run the rollout again, which begins with it; or put it back as it is: lb ready %s %s", name, pool, name)
	}
	p.line("%s", res.Proof.String())
}

func are(names []string) string {
	if len(names) == 1 {
		return names[0] + " is"
	}
	return strings.Join(names, ", ") + " are"
}

func counted(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return rollout.Thousands(uint64(max(0, n))) + " " + what + "s"
}

func seconds(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// rolloutJSON is an event as a line of JSON. Fields may be added, none changes its meaning.
type rolloutJSON struct {
	Time     time.Time        `json:"time"`
	Event    string           `json:"event"`
	Pool     string           `json:"pool,omitempty"`
	Backend  string           `json:"backend,omitempty"`
	Step     int              `json:"step,omitempty"`
	Of       int              `json:"of,omitempty"`
	Took     float64          `json:"took_seconds,omitempty"`
	Listen   float64          `json:"listen_seconds,omitempty"`
	Checks   int              `json:"checks,omitempty"`
	Requests int64            `json:"requests_left,omitempty"`
	Tunnels  int64            `json:"websockets_left,omitempty"`
	Moved    int64            `json:"websockets_moved,omitempty"`
	Line     string           `json:"line,omitempty"`
	Why      string           `json:"why,omitempty"`
	Verdict  *rollout.Verdict `json:"verdict,omitempty"`
	Backends []string         `json:"backends,omitempty"`
	Notes    []string         `json:"notes,omitempty"`
}

func jsonOf(e *rollout.Event) rolloutJSON {
	j := rolloutJSON{
		Time: e.Time.UTC(), Event: e.Event, Pool: e.Pool, Backend: e.Name, Step: e.Step, Of: e.Of, Took: e.Took.Seconds(), Listen: e.Listen.Seconds(),
		Checks: e.Checks, Requests: e.Requests, Tunnels: e.Tunnels, Moved: e.Moved, Line: e.Line, Why: e.Why, Verdict: e.Verdict,
	}
	if e.Plan != nil {
		j.Notes = e.Plan.Notes
		for _, t := range e.Plan.Steps {
			j.Backends = append(j.Backends, t.Name)
		}
	}
	return j
}

// jsonEnd is the last line.
func jsonEnd(plan *rollout.Plan, res *rollout.Result, code int) any {
	why := ""
	if res.Err != nil {
		why = res.Err.Error()
	}
	list := func(names []string) []string { return append([]string{}, slices.Clone(names)...) }
	return struct {
		Time     time.Time         `json:"time"`
		Event    string            `json:"event"`
		Pool     string            `json:"pool"`
		Ending   rollout.Ending    `json:"ending"`
		Exit     int               `json:"exit"`
		Why      string            `json:"why,omitempty"`
		Took     float64           `json:"took_seconds"`
		Done     []string          `json:"done"`
		Bad      []string          `json:"bad"`
		Left     []string          `json:"left"`
		Rest     []string          `json:"rest"`
		Requests uint64            `json:"requests"`
		Failed   uint64            `json:"failed"`
		Reasons  map[string]uint64 `json:"failed_by_reason,omitempty"`
		Errors   uint64            `json:"app_5xx"`
		Moved    int64             `json:"websockets_moved"`
		Cut      int64             `json:"websockets_cut"`
		Restarts int               `json:"lb_restarts"`
	}{
		time.Now().UTC(), rollout.Ended, plan.Pool, res.Ending, code, why, res.Took.Seconds(), list(res.Done), list(res.Bad), list(res.Left), list(res.Rest),
		res.Proof.Requests, res.Proof.Lost(), res.Proof.Failed, res.Proof.Errors, res.Proof.Moved, res.Proof.Cut, res.Proof.Restarts,
	}
}
