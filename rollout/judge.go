package rollout

import (
	"context"
	"fmt"
	"slices"
	"time"

	"lb/admin"
)

// Rule is when a canary is worse than the others.
type Rule struct {
	Errors int // percentage points by which its share of errors may be above theirs
	Slower int // percent by which its p95 may be above theirs
}

const (
	// fewErrors is how many errors say nothing, whatever share of the requests they are.
	fewErrors = 2
	// enough is how many requests a p95 takes, on both sides: with fewer it is that of the five slowest.
	enough = 100
	// some is how many requests of the canary are enough when half of them are slower than the others' p95: were it
	// like the others, one in twenty would be, and four of eight once in 2,700 times. A canary that is slow gets few, since lb
	// sends requests where they are served soonest: one that took 150 ms among others of 2 ms got 12 of 1,180 under adaptive.
	some = 8
	// slowLeast is what a p95 has to be more, beside the percentage: what is fast anyway may differ by chance.
	slowLeast = 10 * time.Millisecond
	// longest is how many times as long as asked for the watch may take when there are too few requests.
	longest = 3
)

// Sample is what became of requests, of one side.
type Sample struct {
	Requests uint64        `json:"requests"`
	Errors   uint64        `json:"errors"`
	P50      time.Duration `json:"p50_ns"` // 0 without requests
	P95      time.Duration `json:"p95_ns"`
}

// Share is the share of errors in percent.
func (s *Sample) Share() float64 {
	if s.Requests == 0 {
		return 0
	}
	return 100 * float64(s.Errors) / float64(s.Requests)
}

// Verdict compares canaries with the others.
type Verdict struct {
	Canary Sample `json:"canary"`
	Others Sample `json:"others"`
	Worse  string `json:"worse,omitempty"` // by how much, and what the rule allows; "": it is not worse
	TooFew bool   `json:"too_few"`         // requests, to compare the times by; errors are compared at any number
}

// Judge compares.
func (r Rule) Judge(canary, others Sample) Verdict {
	v := Verdict{Canary: canary, Others: others, TooFew: canary.Requests < enough || others.Requests < enough}
	more := canary.Share() - others.Share()
	switch limit := slowest(others.P95, r.Slower); {
	case canary.Errors > fewErrors && more > float64(r.Errors):
		v.Worse = fmt.Sprintf("%.1f %% errors (%s of %s requests), the others %.1f %% (%s of %s): %.1f points more, and the rule allows %d",
			canary.Share(), Thousands(canary.Errors), Thousands(canary.Requests),
			others.Share(), Thousands(others.Errors), Thousands(others.Requests), more, r.Errors)
	case !v.TooFew && canary.P95 > limit:
		v.Worse = fmt.Sprintf("p95 %v, the others %v: %.0f %% more, and the rule allows %d %% (and %v in any case)",
			brief(canary.P95), brief(others.P95), 100*(float64(canary.P95)/float64(others.P95)-1), r.Slower, slowLeast)
	case canary.Requests >= some && others.Requests >= enough && canary.P50 > limit:
		v.Worse = fmt.Sprintf("half of its %s requests took %v or more, and the p95 of the others is %v: the rule allows %d %% more (and %v in any case)",
			Thousands(canary.Requests), brief(canary.P50), brief(others.P95), r.Slower, slowLeast)
	}
	return v
}

// slowest is the largest p95 that the rule allows.
func slowest(others time.Duration, percent int) time.Duration {
	return max(others+others*time.Duration(percent)/100, others+slowLeast)
}

// String is the verdict for people.
func (v *Verdict) String() string {
	if v.Worse != "" {
		return v.Worse
	}
	s := fmt.Sprintf("%s requests, %.1f %% errors, p95 %v; the others %s, %.1f %%, %v",
		Thousands(v.Canary.Requests), v.Canary.Share(), brief(v.Canary.P95), Thousands(v.Others.Requests), v.Others.Share(), brief(v.Others.P95))
	if v.TooFew {
		s += fmt.Sprintf(": too few requests to compare the times, which takes %d on both sides; errors were compared", enough)
	}
	return s
}

// brief is d without digits that say nothing.
func brief(d time.Duration) time.Duration {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond)
	case d < time.Second:
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}

// watch compares canaries with the others for the time of the plan; longer, up to a bound, when there are too few
// requests. More errors than the rule allows end it at once.
func (r *run) watch(ctx context.Context, canaries []Target) error {
	base, err := r.view(ctx)
	if err != nil {
		return r.lostView(ctx, err)
	}
	r.report(Event{Event: Watching, Took: r.plan.Watch})
	begin := time.Now()
	for {
		if !r.sleep(ctx, min(time.Second, r.plan.Watch)) {
			r.halt(errStopped)
			return errStopped
		}
		v, err := r.view(ctx)
		if err != nil {
			return r.lostView(ctx, err)
		}
		if v.ID != base.ID { // lb was restarted, and counts anew
			base, begin = v, time.Now()
			continue
		}
		for _, t := range canaries {
			if why := unwell(&v, t); why != "" {
				return r.withdrawAll(ctx, canaries, why)
			}
		}
		verdict := r.plan.Rule.Judge(compare(&base, &v, canaries))
		took := time.Since(begin)
		over := took >= r.plan.Watch && (!verdict.TooFew || verdict.Worse != "" || took >= longest*r.plan.Watch)
		if over || verdict.Worse != "" && verdict.Canary.Errors > fewErrors && verdict.errors(r.plan.Rule) {
			r.report(Event{Event: Judged, Target: canaries[0], Took: took, Verdict: &verdict})
			if verdict.Worse != "" {
				return r.withdrawAll(ctx, canaries, "worse than the others: "+verdict.Worse)
			}
			return nil
		}
	}
}

// errors reports whether it is the errors that are worse.
func (v *Verdict) errors(rule Rule) bool {
	return v.Canary.Share()-v.Others.Share() > float64(rule.Errors)
}

// withdrawAll takes canaries out, as far as others are ready to serve.
func (r *run) withdrawAll(ctx context.Context, canaries []Target, why string) error {
	var first error
	for _, t := range canaries {
		if err := r.withdraw(ctx, t, why); first == nil {
			first = err
		}
	}
	return first
}

// compare gives what became of the requests of the canaries and of the others between two views.
func compare(base, now *admin.RolloutView, canaries []Target) (canary, others Sample) {
	var times [2]map[int64]int64
	for i := range times {
		times[i] = map[int64]int64{}
	}
	for _, b := range now.Backends {
		var was admin.RolloutBackend
		if i := slices.IndexFunc(base.Backends, named(b.Name)); i >= 0 && base.Backends[i].Address == b.Address && base.Backends[i].Requests <= b.Requests {
			was = base.Backends[i]
		}
		side, at := &others, times[0]
		if slices.ContainsFunc(canaries, func(t Target) bool { return t.Name == b.Name }) {
			side, at = &canary, times[1]
		}
		side.Requests += b.Requests - was.Requests
		side.Errors += b.Errors - min(b.Errors, was.Errors)
		for _, cell := range b.Latency {
			at[cell[0]] += cell[1]
		}
		for _, cell := range was.Latency {
			at[cell[0]] -= cell[1]
		}
	}
	others.P50, canary.P50 = quantile(times[0], .5), quantile(times[1], .5)
	others.P95, canary.P95 = quantile(times[0], .95), quantile(times[1], .95)
	return canary, others
}

// quantile is the upper bound of the cell in which a share q of the counts ends.
func quantile(cells map[int64]int64, q float64) time.Duration {
	var bounds []int64
	var all int64
	for bound, n := range cells {
		if n > 0 {
			bounds = append(bounds, bound)
			all += n
		}
	}
	slices.Sort(bounds)
	var sum int64
	for _, bound := range bounds {
		if sum += cells[bound]; float64(sum) >= q*float64(all) {
			return time.Duration(bound)
		}
	}
	return 0
}
