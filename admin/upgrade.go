package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

// UpgradeOrder is the body of a POST to Upgrade. Fields that are left out are as Upgrade's defaults say.
type UpgradeOrder struct {
	Binary string `json:"binary,omitempty"` // what to start, an absolute path; "": that which this process was started from
	Wait   string `json:"wait,omitempty"`   // how long the new process may take to be ready; "": 60s
	Watch  string `json:"watch,omitempty"`  // how long the old one stays at hand then; "": 2s
}

// Upgraded is what came of an upgrade. Its JSON is an interface, as that of Status.
type Upgraded struct {
	Upgraded bool     `json:"upgraded"`         // another process is in charge
	PID      int      `json:"pid,omitempty"`    // its
	From     string   `json:"from"`             // version of the one before
	To       string   `json:"to,omitempty"`     // version of the new one
	Faults   []string `json:"faults,omitempty"` // why there was no upgrade; all goes on as before then
	Never    bool     `json:"never,omitempty"`  // and it is no use to try again: lb has to be restarted
	Took     float64  `json:"took_seconds"`
}

// Defaults of an UpgradeOrder, and the most that it may say.
const (
	DefaultUpgradeWait  = time.Minute
	DefaultUpgradeWatch = 2 * time.Second
	MaxUpgradeWait      = time.Hour
)

// ErrNotYours is what only root or lb's own user may order.
var ErrNotYours = errors.New("only root and the user of lb may name a binary")

// Durations are Wait and Watch.
func (o *UpgradeOrder) Durations() (wait, watch time.Duration, err error) {
	wait, watch = DefaultUpgradeWait, DefaultUpgradeWatch
	for _, d := range []struct {
		text string
		to   *time.Duration
	}{{o.Wait, &wait}, {o.Watch, &watch}} {
		if d.text == "" {
			continue
		}
		if *d.to, err = time.ParseDuration(d.text); err != nil || *d.to < 0 || *d.to > MaxUpgradeWait {
			return 0, 0, errors.New(`wait and watch are durations such as "30s", and at most 1h`)
		}
	}
	return wait, watch, nil
}

// Upgrade has f start a new lb and answers with what came of it, by status 200, 403 or 409. It belongs on a unix socket.
func Upgrade(f func(context.Context, UpgradeOrder) Upgraded, may func(ctx context.Context) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var o UpgradeOrder
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
		d.DisallowUnknownFields()
		if err := d.Decode(&o); err != nil && !errors.Is(err, io.EOF) {
			answer(w, http.StatusBadRequest, Fault{"wants a JSON object, or nothing: " + err.Error()})
			return
		}
		wait, watch, err := o.Durations()
		if err != nil {
			answer(w, http.StatusBadRequest, Fault{err.Error()})
			return
		}
		// Whoever may use the socket may have lb upgrade itself. To say what is run as lb's user is another matter.
		if o.Binary != "" && !may(r.Context()) {
			answer(w, http.StatusForbidden, Fault{ErrNotYours.Error()})
			return
		}
		c := http.NewResponseController(w)
		until := time.Now().Add(wait + watch + maxReload) // a reload may be under way
		c.SetReadDeadline(until)
		c.SetWriteDeadline(until)
		v := f(context.WithoutCancel(r.Context()), o) // who asked may go; half an upgrade is none
		status := http.StatusOK
		if !v.Upgraded {
			status = http.StatusConflict
		}
		answer(w, status, v)
	})
}
