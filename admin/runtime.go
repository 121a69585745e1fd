package admin

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

// Weighing is the body of a POST to /weight.
type Weighing struct {
	Pool    string `json:"pool"`
	Backend string `json:"backend"`
	Weight  string `json:"weight"` // "3", "50%" of what the file says, or "reset"
}

// Weighed is what came of it.
type Weighed struct {
	Pool    string  `json:"pool"`
	Backend string  `json:"backend"`
	Weight  float64 `json:"weight"`
	Was     float64 `json:"was"`
	File    float64 `json:"file"`   // what the configuration says, or what it was added with
	Others  int     `json:"others"` // other backends of the pool that are ready
}

// Joining is the body of a POST to /add.
type Joining struct {
	Pool        string `json:"pool"`
	Address     string `json:"address"`                // as in the file, a port alone included
	Name        string `json:"name,omitempty"`         // "": the address
	Weight      *int   `json:"weight,omitempty"`       // 1
	MaxInflight *int64 `json:"max_inflight,omitempty"` // that of the pool
	Wait        string `json:"wait,omitempty"`         // until it gets requests, such as "30s"; "": not at all
}

// Leaving is the body of a POST to /remove.
type Leaving struct {
	Pool    string `json:"pool"`
	Backend string `json:"backend"`
	Force   bool   `json:"force,omitempty"` // even if it is the last one of its pool
	Wait    string `json:"wait,omitempty"`  // until it is empty, such as "30s"; "": 30s
}

// controlRuntime adds the orders that change pools while lb runs.
func controlRuntime(mux *http.ServeMux, a Actions) {
	mux.HandleFunc("POST /weight", func(w http.ResponseWriter, r *http.Request) {
		var o Weighing
		if !readBody(w, r, &o, `{"pool": "app", "backend": "127.0.0.1:3000", "weight": "50%"}`) {
			return
		}
		reply(w)(a.Weight(r.Context(), o))
	})
	mux.HandleFunc("POST /add", func(w http.ResponseWriter, r *http.Request) {
		var o Joining
		if !readBody(w, r, &o, `{"pool": "app", "address": "127.0.0.1:3004"}`) {
			return
		}
		ctx, cancel, ok := patience(w, r, o.Wait, 0)
		if !ok {
			return
		}
		defer cancel()
		reply(w)(a.Add(ctx, o))
	})
	mux.HandleFunc("POST /remove", func(w http.ResponseWriter, r *http.Request) {
		var o Leaving
		if !readBody(w, r, &o, `{"pool": "app", "backend": "127.0.0.1:3000"}`) {
			return
		}
		ctx, cancel, ok := patience(w, r, o.Wait, DefaultWait)
		if !ok {
			return
		}
		defer cancel()
		reply(w)(a.Remove(ctx, o))
	})
}

// reply answers with what an action gives.
func reply(w http.ResponseWriter) func(v any, err error) {
	return func(v any, err error) {
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, v)
	}
}

// readBody reads a JSON object such as like into o.
func readBody(w http.ResponseWriter, r *http.Request, o any, like string) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	d.DisallowUnknownFields()
	err := d.Decode(o)
	if err == nil && d.Decode(new(any)) != io.EOF {
		err = errors.New("there is more after the object")
	}
	if err != nil {
		answer(w, http.StatusBadRequest, Fault{"wants a JSON object such as " + like + ": " + err.Error()})
	}
	return err == nil
}
