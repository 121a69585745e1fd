package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lb/admin"
)

func upgradeCommand(w world) *cobra.Command {
	var to target
	var o admin.UpgradeOrder
	wait, watch := admin.DefaultUpgradeWait, admin.DefaultUpgradeWatch
	c := &cobra.Command{
		Use:   "upgrade [FILE]",
		Short: "Have a new lb take over from a running one, losing no request",
		Long: `Tells the lb that runs with FILE to start the program that is at its path on disk by now, with the arguments that it
was started with itself, and waits until that one is in charge. Both serve for a moment: the new lb gets the listening
sockets, reads FILE, opens what else it needs, and begins with what is known about backends. The old one then takes
no more connections, stays at hand for --watch, lets go, finishes the requests that it has, and ends.

Nobody is refused and no request fails. When the new lb does not come to be ready, for a mistake in FILE, within
--wait, or for ending in the time of --watch, the old one goes on as before.

Without FILE it is the one that "lb run" would read: ./config.toml, else /etc/lb/config.toml. If there is neither, it is the
only lb that runs here.

SIGUSR2 does the same, and the verdict is in lb's log.

Exit code: 0 when the new lb is in charge, 1 when the old one goes on, 4 when no lb runs, 8 when this lb cannot be
upgraded at all and has to be restarted.`,
		Example: "  lb upgrade\n  lb upgrade /etc/lb/config.toml\n  lb upgrade --binary ./lb-next --watch 30s",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			for flag, d := range map[string]time.Duration{"--wait": wait, "--watch": watch} {
				if d < 0 || d > admin.MaxUpgradeWait {
					return misused("%s %v: it is 0s to 1h", flag, d)
				}
			}
			if o.Binary != "" {
				var err error
				if o.Binary, err = filepath.Abs(o.Binary); err != nil {
					return err
				}
				if _, err := os.Stat(o.Binary); err != nil {
					return err
				}
			}
			if len(args) > 0 {
				to.config = args[0]
			}
			o.Wait, o.Watch = wait.String(), watch.String()
			return askUpgrade(w, &to, &o)
		},
	}
	c.Flags().StringVar(&o.Binary, "binary", "", "start this program; by default the one that is where the running lb was started from")
	c.Flags().DurationVar(&wait, "wait", wait, "how long the new lb may take to be ready")
	c.Flags().DurationVar(&watch, "watch", watch, "how long the old lb stays at hand once the new one serves")
	to.socketFlag(c)
	return c
}

// askUpgrade sends the order and prints the verdict.
func askUpgrade(w world, to *target, o *admin.UpgradeOrder) error {
	socket, err := to.find()
	if err != nil {
		return err
	}
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	resp, err := overSocket(socket).Post("http://lb/upgrade", "application/json", strings.NewReader(string(body)))
	if err != nil {
		return unreachable(socket, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("%s: no verdict: %w", socket, err)
	}
	var v admin.Upgraded
	var f admin.Fault
	switch resp.StatusCode {
	case http.StatusOK, http.StatusConflict:
		if err := json.Unmarshal(text, &v); err != nil {
			return fmt.Errorf("%s: lb's answer makes no sense: %w", socket, err)
		}
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return coded(exitRestart, errors.New("the lb that runs is too old to be upgraded: restart it"))
	default:
		if json.Unmarshal(text, &f) == nil && f.Error != "" {
			return errors.New(f.Error)
		}
		return fmt.Errorf("%s: %s", socket, resp.Status)
	}
	if !v.Upgraded {
		fmt.Fprintln(w.stderr, "lb: not upgraded, the lb that runs goes on:\n"+strings.Join(v.Faults, "\n"))
		if v.Never {
			return &exit{code: exitRestart}
		}
		return &exit{code: exitFailed}
	}
	_, err = fmt.Fprintf(w.stdout, "upgraded from %s to %s in %.1fs: process %d is in charge\n", v.From, v.To, v.Took, v.PID)
	return err
}

// ownBinary is where this program was started from: by that name, so that a link that points to the next version is
// followed, and not to where it pointed once. It is "" if that cannot be told.
func ownBinary() string {
	is, err := os.Executable()
	if err != nil {
		return ""
	}
	name := os.Args[0]
	if !strings.ContainsRune(name, filepath.Separator) {
		if name, err = exec.LookPath(name); err != nil {
			return is
		}
	}
	if name, err = filepath.Abs(name); err != nil {
		return is
	}
	a, errA := os.Stat(name)
	b, errB := os.Stat(is)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return name
	}
	return is
}
