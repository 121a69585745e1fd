package main

import (
	"github.com/spf13/cobra"

	"lb/admin"
)

func drainCommand(w world) *cobra.Command {
	var to target
	wait := admin.DefaultWait
	c := &cobra.Command{
		Use:   "drain POOL BACKEND",
		Short: "Take a backend out of use, and wait until it is empty",
		Long: `Tells a running lb to send nothing more to a backend, for example before a deploy. Idle connections to it are
closed at once, requests that it works on are waited for, and clients of its WebSockets are told to connect again,
spread over the first half of the wait.

POOL and BACKEND are the names in the configuration; a backend without a name is called by its address. A port alone
will do where only one backend of the pool has it. It stays out of use, over reloads too, until "lb ready" or a
restart of lb.

Exit code: 0 when the backend is empty, 5 when something was left at the end of the wait, 1 when somebody took it back
meanwhile, 7 when there is no such backend, 4 when no lb runs.`,
		Example: "  lb drain app 127.0.0.1:3000\n  lb drain app 3000\n  lb drain app blue-1 --wait 5m",
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if wait < 0 || wait > admin.MaxWait {
				return misused("--wait %v: it is 0s to 24h", wait)
			}
			var d admin.Drained
			took, err := to.wait(w, &awaited{"/drain", args[0], args[1], wait, func(wait string) any {
				return admin.Order{Pool: args[0], Backend: args[1], Wait: wait}
			}, unfinished}, &d)
			if err != nil {
				return err
			}
			return printDrained(w, &d, took, "drained")
		},
	}
	c.Flags().DurationVar(&wait, "wait", wait, "how long to wait; 0s tells and does not wait")
	to.flags(c)
	return c
}

func readyCommand(w world) *cobra.Command {
	var to target
	wait, now := admin.DefaultWait, false
	c := &cobra.Command{
		Use:   "ready POOL BACKEND",
		Short: "Take a backend into use again, and wait until it gets requests",
		Long: `Takes back what "lb drain" did. The process behind the backend may be another by now, so what was known about it
does not count: its health check has to pass once before it gets requests, a tenth of its share at first. Until
then it is asked twice a second (health.changing). With --now, or without health checks, it is used at once.

Exit code: 0 when it gets requests, 5 when it did not by the end of the wait, 7 when there is no such backend, 4 when
no lb runs.`,
		Example: "  lb ready app 127.0.0.1:3000\n  lb ready app blue-1 --wait 2m",
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if wait < 0 || wait > admin.MaxWait {
				return misused("--wait %v: it is 0s to 24h", wait)
			}
			return to.ready(w, args[0], args[1], wait, now)
		},
	}
	c.Flags().DurationVar(&wait, "wait", wait, "how long to wait; 0s tells and does not wait")
	c.Flags().BoolVar(&now, "now", false, "use it at once, by what its checks saw last")
	to.flags(c)
	return c
}
