package strategy

import (
	"fmt"
	"math"
	"strings"

	"lb/upstream"
)

// This file is the words in which strategies say why they chose: upstream.Explainer. Nothing here runs unless somebody
// asks, and all of it goes by what Pick saw.

// inFlight is how least_conn and p2c see a backend.
func inFlight(b *upstream.Backend, l upstream.Load) string {
	s := fmt.Sprintf("%d in flight of weight %s", l.Active(), weight(b))
	if n := l.Parked(); n > 0 {
		s += fmt.Sprintf(", %d parked do not count", n)
	}
	return s
}

func weight(b *upstream.Backend) string { return fmt.Sprintf("%.4g", b.Weighs()) }

// shared adds what slow start does to a score.
func shared(score string, b *upstream.Backend, v *upstream.View) string {
	if x := b.Share(v.Now); v.Ramping() && x < 1 {
		return score + fmt.Sprintf(", starts slowly with %.0f %% of its weight", 100*x)
	}
	return score
}

// eligible are the ready backends that the request has not tried, the chosen one included.
func eligible(ready []*upstream.Backend, v *upstream.View) (all []*upstream.Backend) {
	for _, b := range ready {
		if b == v.Chosen || !v.Has(b.Live) {
			all = append(all, b)
		}
	}
	return all
}

func idle(all []*upstream.Backend, v *upstream.View) bool {
	for _, b := range all {
		if v.Loads[b.Index()].Active() > 0 {
			return false
		}
	}
	return true
}

const (
	whyWarmUp = "it starts slowly, and idle as it is gets its share by chance"
	whyTurns  = "all are idle: by turns"
	whyOther  = "the only one that is left"
	whyFewest = "what lasts, or is new, goes where the least is that lasts"
)

// whyOf is why a strategy that goes by load chose, where that is not by its score.
func whyOf(ready []*upstream.Backend, v *upstream.View) string {
	all := eligible(ready, v)
	switch {
	case v.Chosen == nil:
		return ""
	case v.Said() == upstream.SaidWarmUp:
		return whyWarmUp
	case len(all) == 1:
		return whyOther
	case idle(all, v) && !v.Lasts():
		return whyTurns
	}
	return ""
}

// Explain implements upstream.Explainer.
func (l *leastConn) Explain(v *upstream.View) (why string, scores []string) {
	for i, b := range l.ready {
		score := inFlight(b, v.Loads[i])
		if v.Lasts() {
			score = lasts(b, v.Loads[i], v)
		}
		scores = append(scores, shared(score, b, v))
	}
	if v.Lasts() && v.Chosen != nil {
		return whyFewest, scores
	}
	if why = whyOf(l.ready, v); why == "" && v.Chosen != nil {
		why = "fewest in flight for its weight"
	}
	return why, scores
}

// lasts is how a backend is seen by a request that lasts, by the same figures as lasting.
func lasts(b *upstream.Backend, l upstream.Load, v *upstream.View) string {
	s := fmt.Sprintf("%d tunnels", l.Tunnels())
	if n := b.Sessions(); n > 0 {
		s += fmt.Sprintf(", %d sessions", n)
	}
	if v.Stream {
		s += fmt.Sprintf(", %d streams and long polls", l.Parked())
	}
	return s + fmt.Sprintf(" and %d in flight of weight %s", l.Active(), weight(b))
}

// Explain implements upstream.Explainer.
func (p *p2c) Explain(v *upstream.View) (why string, scores []string) {
	x, y := v.Drawn()
	for i, b := range p.ready {
		score := inFlight(b, v.Loads[i])
		if v.Lasts() {
			score = lasts(b, v.Loads[i], v)
		}
		if v.Chosen != nil && i != x && i != y {
			score = "not drawn: " + score
		}
		scores = append(scores, shared(score, b, v))
	}
	switch {
	case v.Chosen == nil:
	case x == y:
		why = "drawn twice"
	default:
		why = fmt.Sprintf("no more in flight for its weight than %s, the other one drawn", other(p.ready, v.Chosen, x, y))
	}
	return why, scores
}

func other(ready []*upstream.Backend, b *upstream.Backend, x, y int) string {
	if b.Index() == x {
		return ready[y].Name
	}
	return ready[x].Name
}

// Explain implements upstream.Explainer.
func (r *random) Explain(v *upstream.View) (why string, scores []string) {
	if scores = shares(r.ready, v); v.Chosen != nil {
		why = "drawn by weight"
	}
	return why, scores
}

// Explain implements upstream.Explainer.
func (r *roundRobin) Explain(v *upstream.View) (why string, scores []string) {
	if scores = shares(r.ready, v); v.Chosen != nil {
		why = "its turn"
	}
	return why, scores
}

// shares is how strategies see backends that look at nothing but weights.
func shares(ready []*upstream.Backend, v *upstream.View) (scores []string) {
	sum := 0.
	for _, b := range ready {
		sum += b.Weighs()
	}
	for _, b := range ready {
		scores = append(scores, shared(fmt.Sprintf("weight %s of %.4g", weight(b), sum), b, v))
	}
	return scores
}

// Explain implements upstream.Explainer.
func (h *hash) Explain(v *upstream.View) (why string, scores []string) {
	if !v.HasKey {
		why, scores = h.leastConn.Explain(v)
		if v.Chosen != nil {
			why = "the request has no key: " + why
		}
		return why, scores
	}
	best := math.Inf(-1)
	first := ""
	for i, b := range h.ready {
		// The largest of u^(1/weight) is where -ln(u)/weight is least.
		u := (float64(mix(v.Key^h.seeds[i])>>11) + .5) / (1 << 53)
		share := 1.
		if v.Ramping() {
			share = b.Share(v.Now)
		}
		x := math.Pow(u, h.inv[i]/share)
		if x > best {
			best, first = x, b.Name
		}
		scores = append(scores, shared(fmt.Sprintf("%.4f for this key, weight %s", x, weight(b)), b, v))
	}
	switch {
	case v.Chosen == nil:
	case v.Chosen.Name == first:
		why = fmt.Sprintf("highest for key %016x", v.Key)
	default:
		why = fmt.Sprintf("highest for key %016x of those that are left; %s comes first", v.Key, first)
	}
	return why, scores
}

// Explain implements upstream.Explainer.
func (e *ewma) Explain(v *upstream.View) (why string, scores []string) {
	for i, b := range e.ready {
		score := e.score(i, v)
		if v.Lasts() {
			score = lasts(b, v.Loads[i], v)
		} else if v.Loads[i].Active() > e.est[i].good.Load() {
			score += "; it has joined, and gets one more with each answer"
		}
		scores = append(scores, shared(score, b, v))
	}
	if v.Lasts() && v.Chosen != nil {
		return whyFewest, scores
	}
	if why = whyOf(e.ready, v); why == whyTurns {
		why = "all are idle: by turns where none is expected to be faster by a fifth" // see margin
	}
	if why == "" && v.Chosen != nil {
		why = "expected to answer soonest, or within a fifth of that"
	}
	return why, scores
}

// score is the cost of backend i as a sum of its parts.
func (e *ewma) score(i int, v *upstream.View) string {
	est, n := e.est[i], v.Loads[i].Active()
	slow := est.slow.get()
	var b strings.Builder
	if e.fleet.known.Load() {
		fmt.Fprintf(&b, "%s x (%d+1", duration(slow*math.Exp(e.fleet.mean.get())), n)
	} else {
		fmt.Fprintf(&b, "not measured yet x (%d+1", n)
	}
	if gap := e.fleet.gap.get(); n > 0 && gap > 0 {
		if age := est.age(v.Now, slow*gap); math.Abs(age) >= .05 {
			fmt.Fprintf(&b, "%+.1f for its silence", age)
		}
	}
	b.WriteString(")")
	if w := weight(e.ready[i]); w != "1" {
		b.WriteString(" / weight " + w)
	}
	if x := est.excess.get(); x > 0 {
		fmt.Fprintf(&b, ", fails %.1f %% more than the others", 100*x)
	}
	return b.String()
}

// duration is ns in two or three digits.
func duration(ns float64) string {
	switch {
	case ns < 1e6:
		return fmt.Sprintf("%.2f ms", ns/1e6)
	case ns < 1e9:
		return fmt.Sprintf("%.3g ms", ns/1e6)
	}
	return fmt.Sprintf("%.3g s", ns/1e9)
}

// Explain implements upstream.Explainer.
func (a *adaptive) Explain(v *upstream.View) (why string, scores []string) {
	why, scores = a.ewma.Explain(v)
	if v.Lasts() {
		return why, scores
	}
	lim := a.view(v.Now, v.Waiting())
	if lim.limit == 0 {
		return why, scores
	}
	for i := range a.ready {
		limit := max(0, a.room(i, v.Loads[i], &lim)+v.Loads[i].Active())
		scores[i] += fmt.Sprintf(", %d of %d in work", v.Loads[i].Active(), limit)
		if lim.dithers(i) {
			scores[i] += ", raised as an experiment"
		}
	}
	if v.Chosen != nil && v.Waiting() > 0 && why != whyWarmUp {
		why += ", below its limit"
	}
	return why, scores
}
