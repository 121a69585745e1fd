package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"lb/config"
	"lb/rollout"
)

// rolloutFlags is what can be said about a rollout on the command line. What is not said is as the file has it.
type rolloutFlags struct {
	to                                  target
	exec, most                          string
	wait, timeout, start, warmup, watch time.Duration
	canary, errors, slower              int
	only                                []string
	inPlace, force, dry, json           bool
}

func rolloutCommand(w world) *cobra.Command {
	var f rolloutFlags
	c := &cobra.Command{
		Use:   "rollout POOL [--exec COMMAND]",
		Short: "Restart the instances of a pool one by one, losing no request",
		Long: `Takes one backend after the other out of use, waits until it is empty, runs a command that restarts it, waits until
another process listens and passes its checks, gives it back its share little by little, and goes on with the next.
At the end it says what became of the requests meanwhile, by lb's own counters.

The command is run by sh, once for each backend. In it, {port}, {host}, {address}, {name}, {index} (from 0) and {pool}
are filled in; LB_PORT, LB_HOST, LB_ADDRESS, LB_BACKEND, LB_INDEX and LB_POOL are in its environment. Without --exec it
is exec in [pool.POOL.rollout] of the configuration, where the other flags can stand, too.

The first backend that is bad stops it: its command fails or takes too long, it does not listen, does not pass its
checks, goes down again while it warms up, or does worse than the others as a canary. It stays out of use, the others
in use. The next rollout begins with it; "lb ready POOL BACKEND" puts it back as it is.

Ctrl-C (or SIGTERM, SIGHUP) ends a rollout after the backend whose command runs; one that was only taken out is put
back. A second one kills the command: lb puts the backend back as soon as it passes its checks, as it does when this
process is killed or its connection is gone. "lb help exit-codes" says what the exit codes mean.`,
		Example: `  lb rollout app --exec 'pm2 restart app-{port}'
  lb rollout app --exec 'systemctl restart app@{port}' --max-unavailable 25%
  lb rollout app --exec ./restart.sh --canary 1 --watch 60s
  lb rollout app --dry-run`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runRollout(w, c, &f, args[0]) },
	}
	d := config.DefaultPool("").Rollout
	l := c.Flags()
	l.StringVar(&f.exec, "exec", "", "the command that restarts one instance")
	l.StringVar(&f.most, "max-unavailable", d.MaxUnavailable, "how many may be out at a time, as 2 or 25%")
	l.IntVar(&f.canary, "canary", d.Canary, "after so many, compare them with the others before going on; 0: do not")
	l.DurationVar(&f.watch, "watch", d.Watch, "for how long; longer when there are too few requests")
	l.IntVar(&f.errors, "canary-errors", d.CanaryErrors, "by how many percentage points their errors may be more")
	l.IntVar(&f.slower, "canary-slower", d.CanarySlower, "by how many percent their p95 may be more")
	l.DurationVar(&f.wait, "wait", d.Wait, "how long one may take to be empty")
	l.DurationVar(&f.timeout, "timeout", d.Timeout, "how long the command may take")
	l.DurationVar(&f.start, "start-timeout", d.StartTimeout, "how long one may take from there to pass its checks")
	l.DurationVar(&f.warmup, "warmup", 0, "how long one that is back is watched before the next; by default the pool's slow_start")
	l.StringSliceVar(&f.only, "only", nil, "restart only these backends")
	l.BoolVar(&f.inPlace, "in-place", d.InPlace, "the command changes the instance without another process, as a reload does")
	l.BoolVar(&f.force, "force", false, "begin although others are away or draining")
	l.BoolVar(&f.dry, "dry-run", false, "say what would be done, and do nothing")
	l.BoolVar(&f.json, "json", false, "a JSON object a line for each thing that happens")
	f.to.flags(c)
	return c
}

// options is what the flags say, and the file where they say nothing.
func (f *rolloutFlags) options(c *cobra.Command, file *config.Rollout) (o rollout.Options, err error) {
	said := c.Flags().Changed
	o = rollout.Options{
		Exec: file.Exec, Wait: file.Wait, Timeout: file.Timeout, StartTimeout: file.StartTimeout, Warmup: file.Warmup,
		Canary: file.Canary, Watch: file.Watch, Rule: rollout.Rule{Errors: file.CanaryErrors, Slower: file.CanarySlower},
		InPlace: file.InPlace, Only: f.only, Force: f.force,
	}
	most := file.MaxUnavailable
	set := func(name string, to func()) {
		if said(name) {
			to()
		}
	}
	set("exec", func() { o.Exec = f.exec })
	set("max-unavailable", func() { most = f.most })
	set("canary", func() { o.Canary = f.canary })
	set("watch", func() { o.Watch = f.watch })
	set("canary-errors", func() { o.Rule.Errors = f.errors })
	set("canary-slower", func() { o.Rule.Slower = f.slower })
	set("wait", func() { o.Wait = f.wait })
	set("timeout", func() { o.Timeout = f.timeout })
	set("start-timeout", func() { o.StartTimeout = f.start })
	set("in-place", func() { o.InPlace = f.inPlace })
	set("warmup", func() {
		if o.Warmup = f.warmup; f.warmup == 0 {
			o.Warmup = -1
		}
	})
	if err := config.CheckCommand(o.Exec); err != nil {
		return o, misused("--exec: %v", err)
	}
	if o.AtOnce.N, o.AtOnce.Percent, err = config.ParseAmount(most); err != nil {
		return o, misused("--max-unavailable: %v", err)
	}
	const day = 24 * time.Hour
	for _, t := range []struct {
		flag        string
		value, from time.Duration
	}{
		{"wait", o.Wait, 0}, {"timeout", o.Timeout, time.Millisecond}, {"start-timeout", o.StartTimeout, time.Millisecond},
		{"warmup", f.warmup, 0}, {"watch", o.Watch, time.Second},
	} {
		if t.value < t.from || t.value > day {
			return o, misused("--%s %v: it is %v to 24h", t.flag, t.value, t.from)
		}
	}
	for _, n := range []struct {
		flag        string
		value, most int
	}{{"canary", o.Canary, 1000}, {"canary-errors", o.Rule.Errors, 100}, {"canary-slower", o.Rule.Slower, 10_000}} {
		if n.value < 0 || n.value > n.most {
			return o, misused("--%s %d: it is 0 to %d", n.flag, n.value, n.most)
		}
	}
	if said("watch") && o.Canary == 0 {
		return o, misused("--watch is for --canary, as in --canary 1 --watch %v", o.Watch)
	}
	return o, nil
}

// fileOf is what the configuration file says of rollouts of a pool. It is read here, and not from the lb that runs: who
// may run commands as this user is up to this user's files, and not to whoever is behind a socket.
func (f *rolloutFlags) fileOf(pool string) (*config.Rollout, error) {
	none := config.DefaultPool(pool).Rollout
	var args []string
	if f.to.config != "" {
		args = []string{f.to.config}
	}
	path, err := configFile(args)
	if err != nil {
		return &none, nil // whether there is an lb without it, is seen next
	}
	cfg, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	for i := range cfg.Pools {
		if cfg.Pools[i].Name == pool {
			return &cfg.Pools[i].Rollout, nil
		}
	}
	return &none, nil
}

// runRollout is the command from its flags to its exit code.
func runRollout(w world, c *cobra.Command, f *rolloutFlags, pool string) error {
	file, err := f.fileOf(pool)
	if err != nil {
		return err
	}
	o, err := f.options(c, file)
	if err != nil {
		return err
	}
	link := newRolloutLink(f.to.find, pool, whoAmI())
	defer link.close()
	ctx, abort := context.WithCancel(context.Background())
	defer abort()
	if err := link.begin(ctx); err != nil {
		return err
	}
	plan, err := planRollout(ctx, link, o)
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	var once sync.Once
	halt := func() { once.Do(func() { close(stop) }) }
	p := newRolloutPrinter(w.stdout, f.json, halt)
	defer p.close()
	link.note = p.note
	p.event(rollout.Event{Time: time.Now(), Event: rollout.Planned, Pool: plan.Pool, Of: len(plan.Steps), Plan: plan})
	if f.dry {
		return nil
	}

	signals := make(chan os.Signal, 4)
	// SIGPIPE, so that it is an error of a write: to ignore it would be inherited by the command.
	w.notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	over := make(chan struct{})
	defer close(over)
	go func() {
		for told := false; ; {
			select {
			case sig := <-signals:
				if sig == syscall.SIGPIPE {
					continue
				}
			case <-over:
				return
			}
			if !told {
				told = true
				p.note("stopping: an instance whose command runs is seen through; once more kills the command")
				halt()
				continue
			}
			p.note("aborting: commands are killed, and lb puts back what is out as soon as it passes its checks")
			abort()
		}
	}()
	teller := newRolloutTeller(link.tell)
	teller.event(rollout.Event{Event: rollout.Planned, Of: len(plan.Steps)})
	link.note = func(text string) {
		p.note(text)
		teller.again()
	}
	res := rollout.Run(ctx, plan, rollout.World{LB: link, Command: rollout.Shell(plan.Exec), Stop: stop, Report: func(e rollout.Event) {
		p.event(e)
		teller.event(e)
	}})
	teller.end(&res)
	code := rolloutCode(&res)
	p.end(&res, code)
	if code != 0 {
		return &exit{code: code}
	}
	return nil
}

func rolloutCode(res *rollout.Result) int {
	switch res.Ending {
	case rollout.Finished:
		return 0
	case rollout.FoundBad:
		return exitBad
	}
	return exitStopped
}

// planRollout asks lb for the pool and makes a plan, or says why there is none.
func planRollout(ctx context.Context, lb rollout.LB, o rollout.Options) (*rollout.Plan, error) {
	v, err := lb.View(ctx)
	if err != nil {
		return nil, err
	}
	plan, err := rollout.NewPlan(&v, o)
	var no *rollout.Refusal
	if errors.As(err, &no) {
		return nil, &exit{exitFailed, fmt.Errorf("lb: no rollout of pool %s:\n  %s", v.Pool, strings.Join(no.Lines, "\n  "))}
	}
	if err != nil {
		return nil, err
	}
	for _, t := range plan.Steps {
		if _, err := rollout.Expand(plan.Exec, t); err != nil {
			return nil, misused("the command of %s: %v", t.Name, err)
		}
	}
	return plan, nil
}

// whoAmI is for whoever comes second.
func whoAmI() string {
	name := os.Getenv("SUDO_USER")
	if name == "" {
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
	}
	return fmt.Sprintf("%s (process %d)", name, os.Getpid())
}
