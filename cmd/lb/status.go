package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"lb/admin"
	"lb/config"
)

func statusCommand(w world) *cobra.Command {
	var to target
	var asJSON bool
	var every time.Duration
	c := &cobra.Command{
		Use:   "status [POOL]",
		Short: "Show listeners, pools and backends of a running lb",
		Long: `Shows what the lb that runs does now: its listeners, its pools and their backends. Rates, shares, latencies and
errors are of the last ten seconds. Below a backend that gets no requests is why.

  BUSY    requests that it has, long polls included
  SHARE   its part of the pool's requests
  ERR     its part of answers of status 5xx and of failures
  WS      WebSockets and other upgraded connections
  CHECK   health checks in a row that said the same

With --watch it is drawn anew every two seconds, or as often as is said, until Ctrl-C; where the output is no terminal,
one below the other. --json gives everything there is, as docs/api.md says; with --watch, an object a line.

Exit code: 0 when all backends are ready, 6 when some are not, 3 when a pool has none, 4 when no lb runs, 7 when there
is no such pool.`,
		Example: "  lb status\n  lb status app --watch\n  lb status --json | jq '.pools[].backends[] | select(.state != \"ready\")'",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			v := &view{w: w, to: &to, json: asJSON, term: terminalOf(w.stdout)}
			if len(args) > 0 {
				v.pool = args[0]
			}
			if c.Flags().Changed("watch") {
				for _, unit := range []string{"", "s"} {
					if _, err := time.ParseDuration(v.pool + unit); err == nil {
						return misused("%q is taken for a pool: write --watch=%s", v.pool, v.pool+unit)
					}
				}
			}
			if !c.Flags().Changed("watch") {
				st, raw, err := v.ask()
				if err != nil {
					return err
				}
				if err := v.show(st, raw); err != nil {
					return err
				}
				return fitness(st)
			}
			if every < 100*time.Millisecond || every > time.Hour {
				return misused("--watch=%v: it is 100ms to 1h", every)
			}
			return v.watch(every)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print everything as JSON")
	c.Flags().DurationVarP(&every, "watch", "w", 2*time.Second, "show it again and again, so often")
	c.Flags().Lookup("watch").NoOptDefVal = "2s"
	to.flags(c)
	return c
}

// fitness is the exit code of what was shown.
func fitness(st *admin.Status) error {
	all := true
	for _, p := range st.Pools {
		some := false
		for _, b := range p.Backends {
			some = some || b.State == admin.Ready
			all = all && b.State == admin.Ready
		}
		if !some {
			return &exit{code: exitNobody}
		}
	}
	if !all {
		return &exit{code: exitSome}
	}
	return nil
}

// view is where and how a status is shown.
type view struct {
	w    world
	to   *target
	pool string // "": all
	json bool
	term terminal
}

// ask gets the status, as it is and as the text that it came as.
func (v *view) ask() (*admin.Status, json.RawMessage, error) {
	var raw json.RawMessage
	if err := v.to.get("/status", &raw); err != nil {
		return nil, nil, err
	}
	st := new(admin.Status)
	if err := json.Unmarshal(raw, st); err != nil {
		return nil, nil, fmt.Errorf("lb's status makes no sense: %w", err)
	}
	if v.pool == "" {
		return st, raw, nil
	}
	var names []string
	for _, p := range st.Pools {
		if p.Name == v.pool {
			st.Pools = []admin.Pool{p}
			raw, err := keepPool(raw, v.pool)
			return st, raw, err
		}
		names = append(names, p.Name)
	}
	return nil, nil, coded(exitUnknown, fmt.Errorf("pool %q is not known%s", v.pool, config.DidYouMean(v.pool, names)))
}

// keepPool takes the other pools out of a status, and leaves all else as it came, what this lb does not know included.
func keepPool(raw json.RawMessage, pool string) (json.RawMessage, error) {
	var st map[string]json.RawMessage
	var pools []json.RawMessage
	err := json.Unmarshal(raw, &st)
	if err == nil {
		err = json.Unmarshal(st["pools"], &pools)
	}
	for _, p := range pools {
		var named struct{ Name string }
		if json.Unmarshal(p, &named) == nil && named.Name == pool {
			st["pools"] = append(append(json.RawMessage{'['}, p...), ']')
		}
	}
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(st, "", "  ")
}

func (v *view) show(st *admin.Status, raw json.RawMessage) error {
	text := string(raw) + "\n"
	if !v.json {
		text = statusText(st, v.term, time.Now())
	}
	_, err := io.WriteString(v.w.stdout, text)
	return err
}

// watch shows it again and again until a signal comes. A restart of lb is lived through.
func (v *view) watch(every time.Duration) error {
	signals := make(chan os.Signal, 1)
	v.w.notify(signals, syscall.SIGINT, syscall.SIGTERM)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for first := true; ; first = false {
		st, raw, err := v.ask()
		var e *exit
		switch {
		case err != nil && (first || errors.As(err, &e) && e.code == exitUnknown):
			return err
		case err != nil:
			err = v.draw(fmt.Sprintf("%s: %v\n", time.Now().Format(time.TimeOnly), strings.TrimPrefix(err.Error(), "lb: ")))
		case v.json:
			var line []byte
			if line, err = json.Marshal(raw); err == nil { // which takes the line breaks out
				_, err = fmt.Fprintf(v.w.stdout, "%s\n", line)
			}
		default:
			err = v.draw(statusText(st, v.term, time.Now()))
		}
		if err != nil {
			return nil // whoever read it has seen enough
		}
		select {
		case <-signals:
			return nil
		case <-tick.C:
		}
	}
}

// draw replaces what was drawn before in a terminal. What does not fit is cut off: a screen that scrolls cannot be
// drawn over.
func (v *view) draw(text string) error {
	if !v.term.is {
		_, err := io.WriteString(v.w.stdout, text+"\n")
		return err
	}
	_, height := v.term.size()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) > height-1 {
		lines = append(lines[:height-2], fmt.Sprintf("... %d more lines", len(lines)-height+2))
	}
	// Home, each line with what follows it erased, and the rest of the screen; without automatic margins, so that a line
	// stays a line.
	_, err := io.WriteString(v.w.stdout, "\x1b[?7l\x1b[H"+strings.Join(lines, "\x1b[K\n")+"\x1b[K\n\x1b[J\x1b[?7h")
	return err
}
