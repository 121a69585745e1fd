package e2e

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// within reports whether one of the deaths that match overlaps with the time from begin to end.
func within(all []span, begin, end time.Time, match func(span) bool) bool {
	return slices.ContainsFunc(all, func(d span) bool { return match(d) && !d.from.After(end) && !d.to.Before(begin) })
}

func killed(d span) bool    { return d.killed }
func gone(span) bool        { return true }
func undrained(d span) bool { return !d.drained }

// ended reports whether the instance ended, in whatever way, between begin and end.
func (s *story) ended(begin, end time.Time) bool {
	return slices.ContainsFunc(s.deaths, func(d span) bool {
		return !d.from.After(end) && (!d.to.Before(begin) || !d.ended.Before(begin))
	})
}

// under is how many times an instance went away from begin to end, but for those that lb had drained.
func under(stories map[string]*story, begin, end time.Time) (n int) {
	for _, st := range stories {
		for _, d := range st.deaths {
			if !d.drained && !d.from.After(end) && !d.to.Before(begin) {
				n++
			}
		}
	}
	return n
}

// excuse is why a failed request could not have been served, "" if it could.
func excuse(s *shot, sentTo string, stories map[string]*story) string {
	if s.err != nil && s.begun {
		if st := stories[s.instance]; st != nil && within(st.deaths, s.begin, s.end, killed) {
			return "cut in its answer, by its instance's death"
		}
		return ""
	}
	if s.repeatable() {
		if under(stories, s.begin, s.end) >= 3 {
			return "three instances went away under it"
		}
		return ""
	}
	st := stories[sentTo]
	switch {
	case st == nil:
	case within(st.deaths, s.begin, s.end, killed):
		return "not repeatable, its instance was killed"
	case st.seen[s.id] > 0:
	case within(st.deaths, s.begin, s.end, undrained):
		return "not repeatable, its instance went away without having seen it"
	case within(st.stalls, s.begin, s.end, gone):
		return "not repeatable, its instance stood still and had not seen it"
	}
	return ""
}

// judge holds all that clients saw to what instances and lb recorded.
func (c *chaos) judge(m metrics) {
	t, load := c.t, c.load
	stories := map[string]*story{}
	for _, n := range c.all {
		stories[n.name] = n.story()
	}
	lines := map[string]record{}
	for _, r := range readLog(t, c.l.logPath) {
		path, _, _ := strings.Cut(r.Path, "?")
		id := path[strings.LastIndexByte(path, '/')+1:]
		if _, ok := lines[id]; ok {
			t.Errorf("request %s is there twice in the access log", id)
		}
		lines[id] = r
	}
	kinds, excuses, reasons, bad := map[string]int{}, map[string]int{}, map[string]int{}, 0
	complain := func(format string, args ...any) {
		if bad++; bad <= 20 {
			t.Errorf(format, args...)
		}
	}
	for i := range load.shots {
		s := &load.shots[i]
		kinds[s.kind]++
		line, logged := lines[s.id]
		if !logged {
			complain("not in the access log: %s", s.String())
			continue
		}
		if line.Reason != "" {
			reasons[line.Reason]++
		}
		seen := 0
		for _, st := range stories {
			seen += st.seen[s.id]
		}
		if strings.HasPrefix(s.kind, "post") && s.kind != "post keyed" && seen > 1 {
			complain("seen by %d instances, though it may not be repeated: %s", seen, s.String())
		}
		if s.ok() {
			if line.Status != 200 || line.Backend != s.instance || line.Reason != "" || stories[s.instance].seen[s.id] == 0 {
				complain("%s from %s, but the log has %+v, and the instance saw it %d times", s.String(), s.instance, line, stories[s.instance].seen[s.id])
			}
			continue
		}
		if why := excuse(s, line.Backend, stories); why != "" {
			excuses[why]++
			if line.Reason == "" || s.err == nil && line.Status != s.status {
				complain("%s, but the log has %+v", s.String(), line)
			}
			continue
		}
		complain("could have been served: from %s to %s %s\nthe log has %+v\n%s", clock(s.begin), clock(s.end), s.String(), line, c.history(s.begin, s.end))
	}
	ends := map[string]int{}
	for i := range load.talks {
		k := &load.talks[i]
		kinds["websocket"]++
		if _, logged := lines[k.id]; !logged {
			complain("not in the access log: WebSocket %s: %+v", k.id, k)
		}
		name := k.instance
		if name == "" { // it ended before its first message
			name = lines[k.id].Backend
		}
		st := stories[name]
		how := ""
		switch {
		case k.ours:
			how = "by the client"
		case !k.dialed:
			if under(stories, k.begin, k.end) >= 3 {
				how = "before it began, by three instances that went away"
			}
		case st == nil:
		case k.code == 1012 && within(st.drains, k.begin, k.end, gone):
			how = "1012, its instance was drained"
		case k.code == 1001 && slices.ContainsFunc(st.deaths, func(d span) bool {
			return !d.killed && !d.from.After(k.end) && !d.ended.Before(k.begin)
		}):
			how = "1001, by its instance that was told to stop"
		case within(st.deaths, k.begin, k.end, killed):
			how = fmt.Sprintf("%d, its instance was killed", k.code)
		}
		if how == "" {
			complain("WebSocket %s of %s, from %s to %s, after %d messages: code %d, %v\nthe log has %+v\n%s", k.id, k.instance, clock(k.begin), clock(k.end), k.said, k.code, k.err, lines[k.id], c.history(k.begin, k.end))
		}
		ends[how]++
	}
	visits := c.judgeVisits(load, stories, lines, complain)
	if bad > 20 {
		t.Errorf("and %d more", bad-20)
	}
	t.Logf("requests: %v", kinds)
	t.Logf("could not have been served: %v", excuses)
	t.Logf("WebSockets ended: %v", ends)

	n := len(load.shots) + len(load.talks) + visits
	if len(lines) != n {
		t.Errorf("clients sent %d requests; lb logs %d", n, len(lines))
	}
	if c.done["upgrade"] > 0 { // each process counts for itself
		return
	}
	if got := m.sum("lb_listener_requests_total"); got != float64(n) {
		t.Errorf("clients sent %d requests; lb counts %v", n, got)
	}
	failed := 0
	for _, line := range lines {
		if line.Reason != "" {
			failed++
		}
	}
	if got := m.sum("lb_listener_failed_requests_total"); got != float64(failed) {
		t.Errorf("lb counts %v requests that failed, and logs %d", got, failed)
	}
	for reason, n := range reasons {
		if got := m.sum("lb_listener_failed_requests_total", "reason="+reason); got < float64(n) {
			t.Errorf("clients saw %d requests fail by %s, lb counts %v", n, reason, got)
		}
	}
}

// history is what befell the instances around a time.
func (c *chaos) history(begin, end time.Time) string {
	var b strings.Builder
	for _, n := range c.all {
		st := n.story()
		fmt.Fprintf(&b, "  %s:", n.name)
		for _, d := range st.deaths {
			if d.to.After(begin.Add(-3*time.Second)) && d.from.Before(end.Add(time.Second)) {
				fmt.Fprintf(&b, " gone %s to %s (killed: %t, drained: %t)", clock(d.from), clock(d.to), d.killed, d.drained)
			}
		}
		for _, d := range st.stalls {
			if d.to.After(begin.Add(-3*time.Second)) && d.from.Before(end.Add(time.Second)) {
				fmt.Fprintf(&b, " stood still %s to %s", clock(d.from), clock(d.to))
			}
		}
		for _, d := range st.drains {
			if d.to.After(begin.Add(-30*time.Second)) && d.from.Before(end) {
				fmt.Fprintf(&b, " drained %s to %s", clock(d.from), clock(d.to))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
