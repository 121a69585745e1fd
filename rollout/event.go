package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"lb/admin"
)

// What happens in a rollout. The words are those of Event in JSON.
const (
	Planned    = "planned"    // the plan is made
	Draining   = "draining"   // a backend gets nothing new
	Waiting    = "waiting"    // it still has work to do, or something is waited for; comes again and again
	Drained    = "drained"    // it is empty, or its time is over
	PutBack    = "put back"   // it was taken out, and is in use again as it was
	Restarting = "restarting" // its command begins
	Output     = "output"     // the command says something
	Restarted  = "restarted"  // the command is done
	Passed     = "passed"     // the instance is new and passes its checks
	Back       = "back"       // it is in use again
	Warm       = "warm"       // and has its whole share
	Paused     = "paused"     // others are away
	Resumed    = "resumed"    // they are back
	Watching   = "watching"   // the canaries are compared with the others from now on
	Judged     = "judged"     // the verdict on them
	Bad        = "bad"        // a backend is left out
	Note       = "note"       // something that people should know
	Ended      = "ended"
)

// Event is something that happened. Fields that mean nothing to it are empty.
type Event struct {
	Time  time.Time
	Event string
	Pool  string
	Of    int // steps in all
	Target

	Took     time.Duration
	Listen   time.Duration // of Passed: until it listened
	Checks   int           // of Passed: in a row
	Requests int64         // that are left
	Tunnels  int64         // that are left
	Moved    int64         // tunnels that were told to connect again, and did
	Line     string        // of Output
	Why      string
	Verdict  *Verdict // of Judged
	Plan     *Plan    // of Planned
}

// Proof is what became of the pool's requests during a rollout, by lb's own counters.
type Proof struct {
	Requests uint64
	Failed   map[string]uint64 // without a whole answer, by reason
	Errors   uint64            // answers of status 5xx by the app
	Moved    int64             // tunnels
	Cut      int64             // tunnels that were left when their backend was restarted
	Restarts int               // of lb meanwhile: what it counted just before is missing

	id   string
	base admin.RolloutTotals // of those before the rollout had this ID
}

// see takes the newest counts. They begin anew when lb was restarted and the rollout got another ID.
func (p *Proof) see(v *admin.RolloutView) {
	if p.id != "" && p.id != v.ID {
		p.Restarts++
		p.base = admin.RolloutTotals{Requests: p.Requests, Errors: p.Errors, Failed: p.Failed}
	}
	p.id = v.ID
	p.Requests = p.base.Requests + v.Totals.Requests
	p.Errors = p.base.Errors + v.Totals.Errors
	p.Failed = maps.Clone(p.base.Failed)
	for reason, n := range v.Totals.Failed {
		if p.Failed == nil {
			p.Failed = map[string]uint64{}
		}
		p.Failed[reason] += n
	}
}

// Lost is how many requests failed.
func (p *Proof) Lost() uint64 { return (&admin.RolloutTotals{Failed: p.Failed}).Lost() }

// String is the proof in a sentence.
func (p Proof) String() string {
	s := fmt.Sprintf("%s requests during the rollout, %s failed", Thousands(p.Requests), Thousands(p.Lost()))
	if len(p.Failed) > 0 {
		var why []string
		for _, reason := range slices.Sorted(maps.Keys(p.Failed)) {
			why = append(why, fmt.Sprintf("%s %s", Thousands(p.Failed[reason]), reason))
		}
		s += " (" + strings.Join(why, ", ") + ")"
	}
	s += fmt.Sprintf(", %s WebSockets moved", Thousands(uint64(p.Moved)))
	if p.Cut > 0 {
		s += fmt.Sprintf(", %s cut", Thousands(uint64(p.Cut)))
	}
	if p.Errors > 0 {
		s += fmt.Sprintf("; the app itself answered %s with 5xx", Thousands(p.Errors))
	}
	if p.Restarts > 0 {
		s += "; lb was restarted meanwhile, and what it counted in its last second is missing"
	}
	return s
}

// Thousands writes a number for people: 48,211.
func Thousands(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
