package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// A rollout restarts the backends of a pool one after the other. Who carries it out is elsewhere, see `lb rollout`; lb's
// part is to take backends out and in again, to say when an instance is well and new, and to look after what was left
// out when whoever carries it out is gone: a rollout lives as long as the connection that began it.

// Rollouts is what lb does for rollouts. They are for whoever may open the unix socket.
type Rollouts struct {
	// Hold begins a rollout, says so by begun, and ends it when ctx is done or lb stops. What it had taken out and not
	// declared bad is then put back.
	Hold func(ctx context.Context, o RolloutOrder, begun func(Rollout)) error
	List func() []Rollout
	View func(id string) (RolloutView, error)
	// Drain takes a backend out and waits until it has done what it had, or ctx ends.
	Drain func(ctx context.Context, id, backend string) (RolloutDrained, error)
	// Restart says that a backend that is out is about to be restarted, and by what its process is known until then.
	Restart func(ctx context.Context, id, backend string) (before string, err error)
	// Check waits until another process than the one before passes its checks, or ctx ends.
	Check func(ctx context.Context, id, backend, before string) (RolloutChecked, error)
	// Ready puts a backend back.
	Ready func(ctx context.Context, id, backend string) error
	// Bad leaves a backend out, for good.
	Bad func(ctx context.Context, id, backend, why string) error
	// End ends the rollout as the end of its connection does, and returns when that is done.
	End func(ctx context.Context, id string) error
	// Progress says what lb cannot know of it, for people to see.
	Progress func(ctx context.Context, id string, p RolloutProgress) error
}

// What Rollouts may fail for, beside ErrUnknown, ErrTakenBack and ErrNotNow.
var (
	ErrRolloutRuns = errors.New("another rollout of the pool runs")
	ErrRolloutOver = errors.New("there is no such rollout (any more)")
	ErrLastReady   = errors.New("no other backend of the pool is ready")
	ErrNotOut      = errors.New("the rollout has not taken it out")
)

// RolloutOrder is the body of POST /rollouts.
type RolloutOrder struct {
	Pool string `json:"pool"`
	Who  string `json:"who,omitempty"` // for people who come second: user, machine, process
	// Out is what the rollout has out already: it goes on after lb itself was restarted. The values are those of
	// RolloutBackend.Out.
	Out map[string]string `json:"out,omitempty"`
}

// Rollout is one that runs. It is also the first line of the answer to POST /rollouts.
type Rollout struct {
	ID    string    `json:"id"`
	Pool  string    `json:"pool"`
	Who   string    `json:"who,omitempty"`
	Since time.Time `json:"since"`
}

// RolloutView is the pool of a rollout, now.
type RolloutView struct {
	Rollout
	Now       time.Time        `json:"now"`
	SlowStart time.Duration    `json:"slow_start_ns"` // in which the share of a backend that was put back grows
	Rise      int              `json:"rise"`          // checks in a row that make a backend well
	Totals    RolloutTotals    `json:"totals"`
	Backends  []RolloutBackend `json:"backends"` // in the order of the configuration
}

// RolloutTotals is what became of the pool's requests since the rollout began.
type RolloutTotals struct {
	Requests uint64            `json:"requests"`
	Errors   uint64            `json:"errors"`           // answers of status 5xx that were the app's own
	Failed   map[string]uint64 `json:"failed,omitempty"` // to which clients got no whole answer, by reason; not by their own fault
}

// Lost is how many requests failed in all.
func (t *RolloutTotals) Lost() (n uint64) {
	for _, v := range t.Failed {
		n += v
	}
	return n
}

// RolloutBackend is a backend of the pool. Counts are since it joined the pool; they only grow.
type RolloutBackend struct {
	Name    string  `json:"name"`
	Address string  `json:"address"`
	Weight  float64 `json:"weight"`
	State   State   `json:"state"`
	Why     string  `json:"why,omitempty"` // it is not ready
	Out     string  `json:"out,omitempty"` // why it was taken out, see the constants

	Inflight int64 `json:"inflight"`
	Tunnels  int64 `json:"tunnels"`

	Requests uint64 `json:"requests"` // attempts ended, without those that the client ended
	Errors   uint64 `json:"errors"`   // answers of status 5xx, and attempts that went wrong by the backend's fault
	// Latency is pairs of an upper bound in nanoseconds and the number of requests that took up to it and longer than
	// the bound before; pairs without requests are left out.
	Latency [][2]int64 `json:"latency"`
}

// What RolloutBackend.Out may say.
const (
	OutDraining   = "draining"   // by this rollout, which has not begun to restart it
	OutRestarting = "restarting" // by this rollout
	OutBad        = "bad"        // a rollout declared it bad
	OutOther      = "other"      // somebody else, or the app itself
)

// RolloutDrained is what came of taking a backend out.
type RolloutDrained struct {
	Drained
	Moved int64 `json:"moved"` // tunnels that ended meanwhile
}

// RolloutChecked is what came of waiting for a backend to be well.
type RolloutChecked struct {
	Passed bool          `json:"passed"`
	Same   bool          `json:"same"`           // the process from before still listens
	Said   string        `json:"said,omitempty"` // what was wrong, by the last check
	Took   time.Duration `json:"took_ns"`
	Listen time.Duration `json:"listen_ns"` // until a connection was taken; 0: none was
	Checks int           `json:"checks"`    // in a row that passed
}

// RolloutStep is the body of an order of a rollout. Wait is of drain and check, Before of check, Why of bad.
type RolloutStep struct {
	Backend string `json:"backend"`
	Wait    string `json:"wait,omitempty"`
	Before  string `json:"before,omitempty"`
	Why     string `json:"why,omitempty"`
}

// Handler takes orders as JSON. Those of one rollout come on other connections than the one that began it.
//
//	GET  /rollouts               those that run
//	POST /rollouts               RolloutOrder: begins one; answers with a line, Rollout, and stays open until it ends
//	GET  /rollouts/ID            RolloutView
//	POST /rollouts/ID/drain      RolloutStep: answers with RolloutDrained when the backend is empty or the wait is over
//	POST /rollouts/ID/restart    RolloutStep: it is about to be restarted; answers with a RolloutStep that has Before
//	POST /rollouts/ID/check      RolloutStep: answers with RolloutChecked when it is new and well or the wait is over
//	POST /rollouts/ID/ready      RolloutStep: puts it back
//	POST /rollouts/ID/bad        RolloutStep: leaves it out, for good
//	POST /rollouts/ID/progress   RolloutProgress: for people to see
//	POST /rollouts/ID/end        ends it, as the end of its connection does, and answers when that is done
func (a Rollouts) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /rollouts", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK, a.List()) })
	mux.HandleFunc("POST /rollouts", a.hold)
	mux.HandleFunc("GET /rollouts/{id}", func(w http.ResponseWriter, r *http.Request) {
		v, err := a.View(r.PathValue("id"))
		replyRollout(w, v, err)
	})
	mux.HandleFunc("POST /rollouts/{id}/drain", rolloutOrder(func(ctx context.Context, id string, s RolloutStep) (any, error) {
		return a.Drain(ctx, id, s.Backend)
	}))
	mux.HandleFunc("POST /rollouts/{id}/restart", rolloutOrder(func(ctx context.Context, id string, s RolloutStep) (any, error) {
		before, err := a.Restart(ctx, id, s.Backend)
		return RolloutStep{Backend: s.Backend, Before: before}, err
	}))
	mux.HandleFunc("POST /rollouts/{id}/check", rolloutOrder(func(ctx context.Context, id string, s RolloutStep) (any, error) {
		return a.Check(ctx, id, s.Backend, s.Before)
	}))
	mux.HandleFunc("POST /rollouts/{id}/ready", rolloutOrder(func(ctx context.Context, id string, s RolloutStep) (any, error) {
		return RolloutStep{Backend: s.Backend}, a.Ready(ctx, id, s.Backend)
	}))
	mux.HandleFunc("POST /rollouts/{id}/bad", rolloutOrder(func(ctx context.Context, id string, s RolloutStep) (any, error) {
		return RolloutStep{Backend: s.Backend}, a.Bad(ctx, id, s.Backend, s.Why)
	}))
	mux.HandleFunc("POST /rollouts/{id}/end", rolloutOrder(func(ctx context.Context, id string, s RolloutStep) (any, error) { return s, a.End(ctx, id) }))
	mux.HandleFunc("POST /rollouts/{id}/progress", func(w http.ResponseWriter, r *http.Request) {
		var p RolloutProgress
		if readBody(w, r, &p, `{"of": 4, "done": ["127.0.0.1:3000"]}`) {
			replyRollout(w, p, a.Progress(r.Context(), r.PathValue("id"), p))
		}
	})
	return mux
}

// hold answers POST /rollouts.
func (a Rollouts) hold(w http.ResponseWriter, r *http.Request) {
	var o RolloutOrder
	if !readBody(w, r, &o, `{"pool": "app"}`) {
		return
	}
	c := http.NewResponseController(w)
	c.SetReadDeadline(time.Time{}) // it lasts as long as it lasts
	c.SetWriteDeadline(time.Time{})
	begun := false
	err := a.Hold(r.Context(), o, func(b Rollout) {
		begun = true
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusOK)
		json.NewEncoder(w).Encode(b)
		c.Flush()
	})
	if !begun {
		refuseRollout(w, err)
	}
}

// rolloutOrder is the handler of an order of a rollout that runs.
func rolloutOrder(do func(ctx context.Context, id string, s RolloutStep) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var s RolloutStep
		if !readBody(w, r, &s, `{"backend": "127.0.0.1:3000"}`) {
			return
		}
		ctx, cancel, ok := patience(w, r, s.Wait, DefaultWait)
		if !ok {
			return
		}
		defer cancel()
		v, err := do(ctx, r.PathValue("id"), s)
		replyRollout(w, v, err)
	}
}

func replyRollout(w http.ResponseWriter, v any, err error) {
	if err != nil {
		refuseRollout(w, err)
		return
	}
	answer(w, http.StatusOK, v)
}

// RolloutStatuses says by which status an order is refused, for whoever has to tell the reasons apart.
var RolloutStatuses = map[error]int{
	ErrUnknown:     http.StatusNotFound,
	ErrRolloutOver: http.StatusGone,
	ErrRolloutRuns: http.StatusLocked,
	ErrTakenBack:   http.StatusConflict,
	ErrNotOut:      http.StatusConflict,
	ErrLastReady:   http.StatusPreconditionFailed,
	ErrNotNow:      http.StatusServiceUnavailable,
}

func refuseRollout(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	for is, s := range RolloutStatuses {
		if errors.Is(err, is) {
			status = s
		}
	}
	answer(w, status, Fault{Error: err.Error()})
}
