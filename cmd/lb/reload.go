package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"lb/admin"
)

func reloadCommand(w world) *cobra.Command {
	var to target
	var reset bool
	c := &cobra.Command{
		Use:   "reload [FILE]",
		Short: "Have a running lb change to what its configuration says by now",
		Long: `Tells the lb that runs with FILE to read it again, waits until it has, and prints what changed, or every
mistake as "lb check" does. No request is lost either way; a file with mistakes changes nothing. What a file
cannot tell counts, too: an address that is taken, a host name that nobody knows.

Without FILE it is the one that "lb run" would read: ./config.toml, else /etc/lb/config.toml. If there is neither, it is the
only lb that runs here.

Backends that were changed by "lb weight", "lb add" or "lb remove" stay as they are unless the file says something new
of them; the verdict names them. With --reset all is as the file says.

SIGHUP does the same, and the verdict is in lb's log.

Exit code: 0 when the file is in force, 1 when it is not, 4 when no lb runs.`,
		Example: "  lb reload\n  lb reload /etc/lb/config.toml\n  lb reload --socket /run/lb/admin.sock",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				to.config = args[0]
			}
			at, err := to.find()
			if err != nil {
				return err
			}
			return askReload(w, at, reset)
		},
	}
	c.Flags().BoolVar(&reset, "reset", false, "take back what \"lb weight\", \"lb add\" and \"lb remove\" changed")
	to.socketFlag(c)
	return c
}

// askReload asks the lb at a socket and prints its verdict.
func askReload(w world, socket string, reset bool) error {
	url := "http://lb/reload"
	if reset {
		url += "?reset=true"
	}
	resp, err := overSocket(socket).Post(url, "application/json", http.NoBody)
	if err != nil {
		return unreachable(socket, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("%s: no verdict: %w", socket, err)
	}
	var v admin.Verdict
	if err := json.Unmarshal(body, &v); err != nil || resp.StatusCode != http.StatusOK && len(v.Faults) == 0 {
		return fmt.Errorf("%s: %s: whoever is there does not know how to reload", socket, resp.Status)
	}
	if !v.Reloaded {
		fmt.Fprintln(w.stdout, strings.Join(v.Faults, "\n"))
		return &exit{code: exitFailed}
	}
	_, err = io.WriteString(w.stdout, verdictText(&v))
	return err
}

// verdictText is a good verdict for people.
func verdictText(v *admin.Verdict) string {
	var b strings.Builder
	if len(v.Changes) == 0 {
		fmt.Fprintf(&b, "%s: nothing to change\n", v.File)
	} else {
		fmt.Fprintf(&b, "%s: reloaded\n", v.File)
	}
	for _, c := range v.Changes {
		b.WriteString("  " + c + "\n")
	}
	if len(v.Kept) > 0 {
		fmt.Fprintf(&b, "  kept: %s\n", strings.Join(v.Kept, ", "))
	}
	for _, n := range v.Notes {
		b.WriteString("  note: " + n + "\n")
	}
	return b.String()
}
