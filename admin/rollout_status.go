package admin

import "time"

// RolloutStatus is a rollout as people look at it: while it runs, and for a while after.
type RolloutStatus struct {
	Rollout
	Of       int             `json:"of"`              // instances that are to be restarted; 0: whoever carries it out does not say
	Done     []string        `json:"done"`            // were restarted, and are in use again
	Under    []RolloutUnder  `json:"under"`           // are being restarted
	Bad      []RolloutReason `json:"bad"`             // were left out
	Waits    string          `json:"waits,omitempty"` // what all of it waits for, in words
	Requests uint64          `json:"requests"`        // of the pool since it began
	Failed   uint64          `json:"failed"`          // of those: clients got no whole answer, and not by their own fault
	Ended    *time.Time      `json:"ended,omitempty"`
	Ending   string          `json:"ending,omitempty"` // finished, bad, interrupted, aborted or failed
	Why      string          `json:"why,omitempty"`    // of an ending that is not finished
}

// RolloutUnder is an instance that is being restarted.
type RolloutUnder struct {
	Backend string    `json:"backend"`
	Step    string    `json:"step"` // see the constants
	Since   time.Time `json:"since"`
}

// What RolloutUnder.Step may say.
const (
	StepDraining   = "draining"   // it gets nothing new and finishes what it has
	StepRestarting = "restarting" // its command runs
	StepChecking   = "checking"   // it has to be another process, and pass its checks
	StepWarming    = "warming up" // it is in use, and watched
)

// RolloutReason is an instance and what is wrong with it.
type RolloutReason struct {
	Backend string `json:"backend"`
	Why     string `json:"why"`
}

// RolloutProgress is what lb cannot know of a rollout, and whoever carries it out tells for others to see: the body of
// POST /rollouts/ID/progress. Each takes the place of the one before.
type RolloutProgress struct {
	Of      int      `json:"of"`
	Done    []string `json:"done"`
	Warming []string `json:"warming"`
	Waits   string   `json:"waits,omitempty"`
	Ending  string   `json:"ending,omitempty"`
	Why     string   `json:"why,omitempty"`
}
