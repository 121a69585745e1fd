package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// Actions change what runs. They are for whoever may open the unix socket, and for nobody else: see Control.
type Actions struct {
	// Drain takes a backend out of use and waits until it has done what it had, or ctx ends.
	Drain func(ctx context.Context, pool, backend string) (Drained, error)
	// Ready takes it into use again, once its check passes unless now is set, and waits for that until ctx ends.
	Ready func(ctx context.Context, pool, backend string, now bool) (Readied, error)
	// Weight changes the weight of a backend until the file says another.
	Weight func(ctx context.Context, o Weighing) (Weighed, error)
	// Add adds a backend to a pool, and waits until it gets requests or ctx ends.
	Add func(ctx context.Context, o Joining) (Readied, error)
	// Remove takes a backend out of its pool, and waits until it has done what it had, or ctx ends.
	Remove func(ctx context.Context, o Leaving) (Drained, error)
	// Explain gives decisions of a pool, or with "" of all, to each as they are made, at most one every gap, until ctx ends
	// or each returns an error. View is how the backends of pools stand now.
	Explain func(ctx context.Context, pool string, gap time.Duration, each func(Decision) error) error
	View    func(pool string) ([]Decision, error)
}

// Drained is what came of draining a backend.
type Drained struct {
	Pool     string        `json:"pool"`
	Backend  string        `json:"backend"`
	Empty    bool          `json:"empty"`    // nothing is left on it
	Requests int64         `json:"requests"` // left
	Tunnels  int64         `json:"tunnels"`  // left
	Others   int           `json:"others"`   // backends of the pool that are ready
	Took     time.Duration `json:"took_ns"`
}

// Readied is what came of taking a backend into use again.
type Readied struct {
	Pool    string        `json:"pool"`
	Backend string        `json:"backend"`
	Ready   bool          `json:"ready"` // it gets requests
	State   State         `json:"state"`
	Why     string        `json:"why,omitempty"` // it does not
	Took    time.Duration `json:"took_ns"`
}

// What Actions may fail for, beside other reasons.
var (
	ErrUnknown   = errors.New("not known")            // there is no such pool or backend
	ErrTakenBack = errors.New("taken back meanwhile") // a drain was ended by Ready
	ErrWrong     = errors.New("wrong")                // the order makes no sense, see Wrong
	ErrRefused   = errors.New("refused")              // the order makes sense, but not now, see Refused
	ErrNotNow    = errors.New("not while lb starts or stops")
)

// Wrong is an ErrWrong with the text of err alone.
func Wrong(err error) error { return kind{err, ErrWrong} }

// Refused is an ErrRefused with the text of err alone.
func Refused(err error) error { return kind{err, ErrRefused} }

// NotNow is an ErrNotNow with the text of err alone.
func NotNow(err error) error { return kind{err, ErrNotNow} }

type kind struct {
	error
	is error
}

func (k kind) Unwrap() []error { return []error{k.error, k.is} }

// MaxWait is how long a request to drain may wait at most.
const MaxWait = 24 * time.Hour

// Order is the body of a POST to Control.
type Order struct {
	Pool    string `json:"pool"`
	Backend string `json:"backend"`
	Wait    string `json:"wait,omitempty"` // such as "30s"; "": 30s of /drain, not at all of /ready
	Now     bool   `json:"now,omitempty"`  // of /ready: without a check first
}

// DefaultWait is how long a drain waits that does not say, and how long the commands do.
const DefaultWait = 30 * time.Second

// Fault is the body of an answer that is not 200.
type Fault struct {
	Error string `json:"error"`
}

// Control serves what Handler does, and takes orders as JSON.
//
//	POST /drain   Order: answers with Drained once the backend is empty or the wait is over
//	GET /explain  Decisions as they are made, a JSON object a line; ?pool=, ?last=, ?wait=, ?gap=
//	POST /weight  Weighing: answers with Weighed
//	POST /add     Joining: answers with Readied, as /ready does
//	POST /remove  Leaving: answers with Drained, as /drain does
//	POST /ready   Order: takes a backend into use again; answers with Readied once it gets requests or the wait is over
func Control(s Sources, a Actions) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", Handler(s))
	mux.HandleFunc("POST /drain", func(w http.ResponseWriter, r *http.Request) {
		o, ok := readOrder(w, r)
		if !ok {
			return
		}
		ctx, cancel, ok := patience(w, r, o.Wait, DefaultWait)
		if !ok {
			return
		}
		defer cancel()
		d, err := a.Drain(ctx, o.Pool, o.Backend)
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, d)
	})
	mux.HandleFunc("POST /ready", func(w http.ResponseWriter, r *http.Request) {
		o, ok := readOrder(w, r)
		if !ok {
			return
		}
		ctx, cancel, ok := patience(w, r, o.Wait, 0)
		if !ok {
			return
		}
		defer cancel()
		d, err := a.Ready(ctx, o.Pool, o.Backend, o.Now)
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, d)
	})
	controlRuntime(mux, a)
	mux.HandleFunc("GET /explain", func(w http.ResponseWriter, r *http.Request) { explain(w, r, a) })
	return mux
}

// patience is the context of an order that may wait for as long as it says.
func patience(w http.ResponseWriter, r *http.Request, said string, otherwise time.Duration) (context.Context, context.CancelFunc, bool) {
	wait := otherwise
	if said != "" {
		var err error
		if wait, err = time.ParseDuration(said); err != nil || wait < 0 || wait > MaxWait {
			answer(w, http.StatusBadRequest, Fault{`wait is a duration such as "30s", and at most 24h`})
			return nil, nil, false
		}
	}
	// The server's own limits are for those who are slow; this one was told to wait.
	until := time.Now().Add(wait + 10*time.Second)
	c := http.NewResponseController(w)
	c.SetReadDeadline(until)
	c.SetWriteDeadline(until)
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	return ctx, cancel, true
}

func readOrder(w http.ResponseWriter, r *http.Request) (o Order, ok bool) {
	switch {
	case !readBody(w, r, &o, `{"pool": "app", "backend": "127.0.0.1:3000"}`):
	case o.Pool == "" || o.Backend == "":
		answer(w, http.StatusBadRequest, Fault{"wants the names of a pool and of a backend"})
	default:
		return o, true
	}
	return o, false
}

func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, ErrNotNow):
		status = http.StatusServiceUnavailable
	case errors.Is(err, ErrUnknown):
		status = http.StatusNotFound
	case errors.Is(err, ErrWrong):
		status = http.StatusBadRequest
	case errors.Is(err, ErrTakenBack), errors.Is(err, ErrRefused):
		status = http.StatusConflict
	}
	answer(w, status, Fault{err.Error()})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.Encode(v) // fails only when the client has gone
}
