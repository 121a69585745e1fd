package admin

import (
	"context"
	"net/http"
	"time"
)

// Verdict is what came of reading the configuration again. Its JSON is an interface, as that of Status.
type Verdict struct {
	File     string   `json:"file"`
	Reloaded bool     `json:"reloaded"`         // what the file says is in force
	Changes  []string `json:"changes"`          // in words; none when the file says what it said before
	Kept     []string `json:"kept,omitempty"`   // listeners and pools without a change, when there are others
	Notes    []string `json:"notes,omitempty"`  // what is not yet as the file says
	Faults   []string `json:"faults,omitempty"` // why it was not reloaded; nothing was changed then
	Took     float64  `json:"took_seconds"`
}

// maxReload is how long a client may wait for a verdict: name servers and other reloads may keep it waiting.
const maxReload = 2 * time.Minute

// Reload answers with the verdict of f, by status 200 or 422. With ?reset=true what was changed while lb runs is as the
// file says again. It changes what runs, so it belongs where only those may
// ask who may change the configuration: on a unix socket.
func Reload(f func(ctx context.Context, reset bool) Verdict) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		c.SetReadDeadline(time.Now().Add(maxReload)) // else the server's own ends the wait
		c.SetWriteDeadline(time.Now().Add(maxReload))
		ctx, cancel := context.WithTimeout(r.Context(), maxReload)
		defer cancel()
		v := f(ctx, r.URL.Query().Get("reset") == "true")
		status := http.StatusOK
		if !v.Reloaded {
			status = http.StatusUnprocessableEntity
		}
		answer(w, status, v)
	})
}
