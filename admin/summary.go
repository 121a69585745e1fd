package admin

import (
	"fmt"
	"strings"
)

const (
	// From this on a backend counts as slow in words. Below it is within what is measured of backends that are alike.
	slowInWords = 1.3
	// A share of failures below this is not worth a word.
	failsInWords = .01
)

// summary says what a backend does in words: what it has, whether that is all it may have, and how it does. State says
// whether it gets anything at all. Requests wait for the first place anywhere, so all that are full show the same number.
func summary(b *Backend, full bool, waiting int64) string {
	var s []string
	add := func(format string, args ...any) { s = append(s, fmt.Sprintf(format, args...)) }
	active := b.Inflight - b.Parked
	switch {
	case active == 0 && b.State == Ready:
		add("idle")
	case active == 0:
	case b.Limit > 0 && b.State == Ready:
		add("%d of %d in work", active, max(b.Limit, active))
	default:
		add("%d in work", active)
	}
	if full && b.State == Ready && waiting > 0 {
		add("%d waiting in lb", waiting)
	}
	if b.Parked > 0 {
		add("%d parked", b.Parked)
	}
	switch {
	case b.Tunnels == 1:
		add("1 tunnel")
	case b.Tunnels > 1:
		add("%d tunnels", b.Tunnels)
	}
	if b.Slow >= slowInWords {
		add("takes %.1f times as long as the mean", b.Slow)
	}
	if b.Excess >= failsInWords {
		add("fails %.0f %% more than the mean", 100*b.Excess)
	}
	return strings.Join(s, ", ")
}

// poolSummary says how much is in work and whether more waits.
func poolSummary(p *Pool, inWork int64) string {
	s := "idle"
	if inWork > 0 {
		s = fmt.Sprintf("%d in work", inWork)
	}
	if w := p.Queue.Waiting; w > 0 {
		s += fmt.Sprintf(", %d waiting in lb", w)
	}
	if p.FailOpen {
		s += ", nobody is well: requests go to whoever is not known to be dead"
	}
	return s
}
