package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"lb/admin"
)

// lasts is what all commands say that change a pool while lb runs.
const lasts = `The change lasts over reloads until the file says something new of that backend, "lb reload --reset", or the end of lb.
"lb status" shows what differs from the file; the log and the events say who changed it.`

func weightCommand(w world) *cobra.Command {
	var to target
	c := &cobra.Command{
		Use:   "weight POOL BACKEND N|N%|reset",
		Short: "Change the share of a backend",
		Long: `Gives a backend another weight against the others of its pool: a number from 0 to 256, a percentage of the weight in the
file, or that again by "reset". With 0 it gets nothing new, but is not waited for as by "lb drain".

` + lasts,
		Example: "  lb weight app 127.0.0.1:3000 3\n  lb weight app blue-1 25%\n  lb weight app blue-1 reset",
		Args:    cobra.ExactArgs(3),
		RunE: func(_ *cobra.Command, args []string) error {
			var got admin.Weighed
			if err := to.order("/weight", admin.Weighing{Pool: args[0], Backend: args[1], Weight: args[2]}, &got); err != nil {
				return err
			}
			if got.Weight == 0 && got.Others == 0 {
				fmt.Fprintf(w.stderr, "lb: no other backend of pool %s is ready: requests wait, or fail\n", got.Pool)
			}
			file := ""
			if got.Weight != got.File {
				file = fmt.Sprintf("; the file says %.4g", got.File)
			}
			_, err := fmt.Fprintf(w.stdout, "%s %s: weight %.4g, was %.4g%s\n", got.Pool, got.Backend, got.Weight, got.Was, file)
			return err
		},
	}
	to.flags(c)
	return c
}

func addCommand(w world) *cobra.Command {
	var to target
	wait := admin.DefaultWait
	var weight int
	var most int64
	o := admin.Joining{}
	c := &cobra.Command{
		Use:   "add POOL ADDRESS",
		Short: "Add a backend to a pool, and wait until it gets requests",
		Long: `Adds a backend to a pool. ADDRESS is what the file may have: 127.0.0.1:3004, a port alone, host:port, unix:/run/app.sock.
It gets requests once its health check passes, a tenth of its share at first. A backend that the file has and "lb
remove" took out comes back.

` + lasts + `

Exit code: 0 when it gets requests, 5 when it did not by the end of the wait (it stays in the pool), 1 when the pool
has that backend already, 7 when there is no such pool, 4 when no lb runs.`,
		Example: "  lb add app 127.0.0.1:3004\n  lb add app 3005 --name green-1 --weight 2",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if wait < 0 || wait > admin.MaxWait {
				return misused("--wait %v: it is 0s to 24h", wait)
			}
			o.Pool, o.Address = args[0], args[1]
			if c.Flags().Changed("weight") {
				o.Weight = &weight
			}
			if c.Flags().Changed("max-inflight") {
				o.MaxInflight = &most
			}
			// The wait is an order of its own: to add it again, when an upgrade of lb overtakes that, would be refused.
			var r admin.Readied
			if err := to.order("/add", o, &r); err != nil {
				return err
			}
			return to.ready(w, r.Pool, r.Backend, wait, false)
		},
	}
	c.Flags().StringVar(&o.Name, "name", "", "what the backend is called; by default its address")
	c.Flags().IntVar(&weight, "weight", 1, "its share of requests against the others', 0 to 256")
	c.Flags().Int64Var(&most, "max-inflight", 0, "requests that it may have at once, 0: any; by default as the pool says")
	c.Flags().DurationVar(&wait, "wait", wait, "how long to wait; 0s tells and does not wait")
	to.flags(c)
	return c
}

func removeCommand(w world) *cobra.Command {
	var to target
	wait := admin.DefaultWait
	o := admin.Leaving{}
	c := &cobra.Command{
		Use:   "remove POOL BACKEND",
		Short: "Take a backend out of its pool, and wait until it is empty",
		Long: `Takes a backend out of its pool as a reload would whose file does not have it: it gets nothing new, idle connections to it
are closed, requests that it works on are waited for, and clients of its WebSockets are told to connect again. "lb add"
brings it back.

` + lasts + `

Exit code: 0 when the backend is empty, 5 when something was left at the end of the wait (it gets nothing new all the
same), 1 when it is the last one of its pool and --force is not given, 7 when there is no such backend, 4 when no lb
runs.`,
		Example: "  lb remove app 127.0.0.1:3003 --wait 1m",
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if wait < 0 || wait > admin.MaxWait {
				return misused("--wait %v: it is 0s to 24h", wait)
			}
			o.Pool, o.Backend = args[0], args[1]
			var d admin.Drained
			took, err := to.wait(w, &awaited{"/remove", o.Pool, o.Backend, wait, func(wait string) any {
				o.Wait = wait
				return o
			}, unfinished}, &d)
			if err != nil {
				return err
			}
			return printDrained(w, &d, took, "removed, and empty")
		},
	}
	c.Flags().BoolVar(&o.Force, "force", false, "even if it is the last one of its pool")
	c.Flags().DurationVar(&wait, "wait", wait, "how long to wait; 0s tells and does not wait")
	to.flags(c)
	return c
}

// ready takes a backend into use, and says what came of it.
func (t *target) ready(w world, pool, backend string, wait time.Duration, now bool) error {
	var r admin.Readied
	took, err := t.wait(w, &awaited{"/ready", pool, backend, wait, func(wait string) any {
		return admin.Order{Pool: pool, Backend: backend, Wait: wait, Now: now}
	}, unready}, &r)
	if err != nil {
		return err
	}
	name := r.Pool + " " + r.Backend
	if r.Ready {
		_, err := fmt.Fprintf(w.stdout, "%s: in use after %v\n", name, took.Round(time.Millisecond))
		return err
	}
	why := ""
	if r.Why != "" {
		why = ": " + r.Why
	}
	fmt.Fprintf(w.stdout, "%s: gets no requests after %v, it is %s%s\n", name, took.Round(time.Millisecond), r.State, why)
	return &exit{code: exitLeft}
}

// printDrained says what came of taking a backend out of use; done is what it is when nothing is left.
func printDrained(w world, d *admin.Drained, took time.Duration, done string) error {
	if d.Others == 0 {
		fmt.Fprintf(w.stderr, "lb: no other backend of pool %s is ready: requests wait, or fail\n", d.Pool)
	}
	name := d.Pool + " " + d.Backend
	if d.Empty {
		_, err := fmt.Fprintf(w.stdout, "%s: %s after %v\n", name, done, took.Round(time.Millisecond))
		return err
	}
	fmt.Fprintf(w.stdout, "%s: %s and %s left after %v; it gets nothing new\n",
		name, plural(d.Requests, "request"), plural(d.Tunnels, "WebSocket"), took.Round(time.Millisecond))
	return &exit{code: exitLeft}
}
