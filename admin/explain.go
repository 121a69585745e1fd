package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"lb/upstream"
)

// Decision is which backend a request went to, and why. Its JSON is an interface, as that of Status.
type Decision struct {
	Time       time.Time   `json:"time"`
	Pool       string      `json:"pool"`
	Strategy   string      `json:"strategy"`
	Request    string      `json:"request,omitempty"` // its method, host and path; none in a view of how backends stand
	Chosen     string      `json:"chosen"`            // "": nobody
	Why        string      `json:"why"`
	Attempt    int         `json:"attempt"`                // of the same request, from 1; 0 in a view
	Held       float64     `json:"held_ms,omitempty"`      // in the queue before
	Waiting    int64       `json:"waiting,omitempty"`      // requests in the queue
	Refused    int         `json:"refused,omitempty"`      // backends that were chosen first and had no place any more
	Again      int         `json:"chosen_again,omitempty"` // the choice was made again because another event loop changed the load meanwhile
	FailOpen   bool        `json:"fail_open,omitempty"`
	Candidates []Candidate `json:"candidates"`
	Ended      *Ended      `json:"ended,omitempty"` // what became of it; none while it goes on
}

// Ended is what became of a request that was sent to a backend. One that is tried elsewhere is another Decision.
type Ended struct {
	Status int     `json:"status"`          // of the answer, 0 when there was none
	Took   float64 `json:"took_ms"`         // from the choice to the end of the answer
	Fault  string  `json:"fault,omitempty"` // what went wrong: connect, refused, timeout, reset, malformed, status or client
}

// NewEnded is e as people get it.
func NewEnded(e *upstream.Ended) *Ended {
	out := &Ended{Status: e.Status, Took: millis(e.Took.Seconds())}
	if e.Fault != upstream.FaultNone {
		out.Fault = e.Fault.String()
	}
	return out
}

// Candidate is a backend as it was seen for a Decision.
type Candidate struct {
	Name     string  `json:"name"`
	Inflight int64   `json:"inflight"` // requests in work before
	Parked   int64   `json:"parked,omitempty"`
	Tunnels  int64   `json:"tunnels,omitempty"`
	Weight   float64 `json:"weight"`
	Share    float64 `json:"share"`           // of its weight that it counts with: below 1 during slow start
	Out      string  `json:"out,omitempty"`   // why it could not be chosen
	Score    string  `json:"score,omitempty"` // in the strategy's words
}

// NewDecision is d as people get it.
func NewDecision(d *upstream.Decision, strategy string) Decision {
	out := Decision{
		Time: d.Time.UTC(), Pool: d.Pool, Strategy: strategy, Request: d.Request, Chosen: d.Chosen, Why: d.Why, Attempt: d.Attempt,
		Held: millis(d.Held.Seconds()), Waiting: d.Waiting, Refused: d.Refused, Again: d.Again, FailOpen: d.FailOpen,
	}
	for _, c := range d.Candidates {
		out.Candidates = append(out.Candidates, Candidate{
			Name: c.Name, Inflight: c.Load.Active(), Parked: c.Load.Parked(), Tunnels: c.Load.Tunnels(),
			Weight: c.Weight, Share: thousandths(c.Share), Out: c.Out, Score: c.Score,
		})
	}
	return out
}

const maxDecisions = 10_000

var errEnough = errors.New("enough")

// explain streams decisions. It ends after last of them, or when there was none for as long as wait says: then comes, if
// there was none at all, how the backends stand. With last=0 it goes on until the client leaves.
func explain(w http.ResponseWriter, r *http.Request, a Actions) {
	q := r.URL.Query()
	last, wait, gap := 1, 10*time.Second, time.Duration(0)
	var err [3]error
	if s := q.Get("last"); s != "" {
		last, err[0] = strconv.Atoi(s)
	}
	if s := q.Get("wait"); s != "" {
		wait, err[1] = time.ParseDuration(s)
	}
	if s := q.Get("gap"); s != "" {
		gap, err[2] = time.ParseDuration(s)
	}
	if errors.Join(err[:]...) != nil || last < 0 || last > maxDecisions || wait < 0 || wait > MaxWait || gap < 0 || gap > time.Hour {
		answer(w, http.StatusBadRequest, Fault{fmt.Sprintf(`last is a number from 0 to %d, wait a duration of at most 24h such as "10s", gap one of at most 1h`, maxDecisions)})
		return
	}
	view, fault := a.View(q.Get("pool"))
	if fault != nil {
		refuse(w, fault)
		return
	}
	c := http.NewResponseController(w)
	c.SetReadDeadline(time.Time{}) // it may go on for days
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	line := json.NewEncoder(w)
	put := func(d Decision) error {
		c.SetWriteDeadline(time.Now().Add(10 * time.Second)) // who does not read is not waited for
		if err := line.Encode(d); err != nil {
			return err
		}
		return c.Flush()
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if last > 0 {
		quiet := time.AfterFunc(wait, cancel)
		defer quiet.Stop()
		n := 0
		a.Explain(ctx, q.Get("pool"), gap, func(d Decision) error {
			quiet.Reset(wait)
			if err := put(d); err != nil {
				return err
			}
			if n++; n >= last {
				return errEnough
			}
			return nil
		})
		if n == 0 && r.Context().Err() == nil {
			for _, d := range view {
				put(d)
			}
		}
		return
	}
	if c.Flush() != nil { // so that the client knows that it is heard
		return
	}
	a.Explain(ctx, q.Get("pool"), gap, put)
}
