package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

type options struct {
	lb, rows, peers, out, head, subject string
	rounds, core, conns, nice           int
	seconds                             float64
	quick                               bool
	extra                               []peer
}

const resultsFile = "bench/RESULTS.md"

func main() {
	if childMain() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == "balance" {
		if err := balanceMain(ctx, os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench balance:", err)
			stop()
			os.Exit(1)
		}
		return
	}
	o, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func parseFlags(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.lb, "lb", "bin/lb", "lb's `program`")
	f.StringVar(&o.rows, "rows", "", "only these `rows`, with commas: "+rowNames(rows(0)))
	f.StringVar(&o.peers, "peers", "", "only these `proxies`, with commas: lb, haproxy, nginx and those of -extra")
	f.IntVar(&o.rounds, "rounds", 7, "rounds of each row; memory takes at most 3")
	f.Float64Var(&o.seconds, "seconds", 2, "length of a load")
	f.BoolVar(&o.quick, "quick", false, "3 rounds of 0.5 s, memory once, nothing written without -o")
	f.StringVar(&o.out, "o", "", "`file` for the report (a full run writes "+resultsFile+")")
	f.StringVar(&o.head, "head", headSmall, "`kind` of request and response heads: small (3 fields) or browser (10)")
	f.IntVar(&o.core, "core", -1, "CPU `number` of the proxies (default the last)")
	f.IntVar(&o.conns, "conns", 5000, "idle connections")
	f.IntVar(&o.nice, "nice", 0, "scheduling priority of all processes, -20 to 19; below 0 keeps other work off them")
	f.StringVar(&o.subject, "subject", "lb", "the `proxy` whose goals are judged")
	f.Func("extra", "one more proxy, as `name=program arg ...` with {port}, {listen}, {origin}, {dir}", func(s string) error {
		p, err := extraPeer(s)
		o.extra = append(o.extra, p)
		return err
	})
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case requestFields[o.head] == "":
		return o, fmt.Errorf("-head %q: small or browser", o.head)
	case o.rounds < 1 || o.conns < 1 || !(o.seconds > 0 && o.seconds <= 600):
		return o, errors.New("-rounds and -conns must be at least 1, -seconds over 0 and at most 600")
	}
	if o.quick {
		o.rounds, o.seconds = min(o.rounds, 3), min(o.seconds, 0.5)
	}
	return o, nil
}

func rowNames(rows []row) string {
	var n []string
	for _, r := range rows {
		n = append(n, r.name)
	}
	return strings.Join(n, ",")
}

func run(ctx context.Context, o options) (err error) {
	var notes []string
	note := func(format string, args ...any) {
		notes = append(notes, fmt.Sprintf(format, args...))
		fmt.Println(notes[len(notes)-1])
	}
	b, err := prepare(ctx, o, note)
	if err != nil {
		return err
	}
	chosen, err := choose(rows(b.site.conns), o.rows)
	if err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "lb-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	origin, addr, err := startOrigin(o.head, b.cores.origin)
	if err != nil {
		return err
	}
	defer origin.stop()
	b.origin, b.site.origin = addr, addr
	defer b.stopAll()
	if err := b.startAll(ctx); err != nil {
		return err
	}

	rep := &report{subject: o.subject, machine: describe(b, o)}
	for _, c := range b.contenders {
		rep.names = append(rep.names, c.name)
		for _, n := range c.notes {
			note("%s", n)
		}
	}
	for _, r := range chosen {
		if !r.held && r.job.Rate == 0 && !r.job.PerRequest {
			most, err := b.ceiling(ctx, r)
			if err != nil {
				return err
			}
			note("%s: generator and origin alone, without a proxy, do %.0f requests/s", r.name, most)
		}
		t, err := b.measure(ctx, r)
		if err != nil {
			return err
		}
		if quiet, dropped := t.quiet(); dropped > 0 {
			note("%s: %d of %d rounds are left out, others used over %.0f %% of the proxies' core in them",
				r.name, dropped, len(t.samples[0]), 100*disturbed)
			t = quiet
		}
		rep.tables = append(rep.tables, t)
		fmt.Printf("%s done: %s\n", r.name, rep.verdict(t))
	}
	rep.notes = notes
	rep.noise()
	fmt.Println()
	if err := rep.write(os.Stdout); err != nil {
		return err
	}
	return save(rep, o)
}

// save writes the report to the file asked for; without one only a full run may replace the record.
func save(rep *report, o options) error {
	if o.out == "" {
		if o.quick || o.rows != "" || o.peers != "" || o.subject != "lb" || !slices.Contains(rep.names, "lb") {
			return nil
		}
		o.out = filepath.FromSlash(resultsFile)
	}
	f, err := os.Create(o.out)
	if err != nil {
		return err
	}
	if err := errors.Join(rep.write(f), f.Close()); err != nil {
		return err
	}
	fmt.Println("\nwritten to", o.out)
	return nil
}

// prepare looks at the machine and for the peers.
func prepare(ctx context.Context, o options, note func(string, ...any)) (*bench, error) {
	b := &bench{
		head: o.head, rounds: o.rounds, heldRounds: min(o.rounds, 3), settle: 2 * time.Second,
		duration: time.Duration(o.seconds * float64(time.Second)),
		progress: io.Discard,
	}
	if _, err := unix.IoctlGetTermios(1, unix.TCGETS); err == nil {
		b.progress = os.Stdout
	}
	if o.quick {
		b.heldRounds, b.settle = 1, time.Second
	}
	cpus, err := allowed()
	if err != nil {
		return nil, err
	}
	if b.cores, err = layout(cpus, o.core, siblingsOf); err != nil {
		return nil, err
	}
	if b.cores.load == b.cores.proxy {
		note("There is one core only: the generator and the origin share it with the proxies.")
	}
	if err := settle(b.cores.others, o.nice); err != nil {
		return nil, err
	}

	// A proxy needs two files for each connection it holds, nginx wants to see more, and there are some of its own.
	const each, spare = 3, 1024
	b.site.conns = o.conns
	if b.site.files, err = raiseFiles(uint64(each*o.conns + spare)); err != nil {
		return nil, err
	}
	if most := (int(b.site.files) - spare) / each; o.conns > most {
		if most < 64 {
			return nil, fmt.Errorf("only %d open files are allowed", b.site.files)
		}
		b.site.conns = most
		note("Only %d open files are allowed: %d idle connections instead of %d.", b.site.files, most, o.conns)
	}

	all := append(peers(o.lb), o.extra...)
	if o.peers != "" {
		var some []peer
		for name := range strings.SplitSeq(o.peers, ",") {
			i := slices.IndexFunc(all, func(p peer) bool { return p.name == name })
			if i < 0 {
				return nil, fmt.Errorf("-peers: there is no %q", name)
			}
			some = append(some, all[i])
		}
		all = some
	}
	for _, p := range all {
		c, err := p.find(ctx)
		if err != nil {
			note("%s is left out: %v", p.name, err)
			continue
		}
		b.contenders = append(b.contenders, c)
	}
	if len(b.contenders) == 0 {
		return nil, errors.New("there is nothing to measure")
	}
	return b, nil
}

// settle keeps this process, all its threads, off the proxies' core, and gives it its priority, which children inherit.
func settle(cpus []int, nice int) error {
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
			return fmt.Errorf("sched_setaffinity: %w", err)
		}
		if nice == 0 {
			continue
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, nice); err != nil && err != unix.ESRCH {
			return fmt.Errorf("-nice %d: %w", nice, err)
		}
	}
	return nil
}

func choose(all []row, names string) ([]row, error) {
	if names == "" {
		return all, nil
	}
	var some []row
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(r row) bool { return r.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-rows: there is no %q, only %s", name, rowNames(all))
		}
		some = append(some, all[i])
	}
	return some, nil
}

func describe(b *bench, o options) []string {
	var versions []string
	for _, c := range b.contenders {
		versions = append(versions, c.name+": "+c.says)
	}
	where := fmt.Sprintf("proxies on core %d, load generator on core %d, origin on core %d",
		b.cores.proxy, b.cores.load, b.cores.origin)
	return append([]string{
		time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		fmt.Sprintf("%s, %d cores, %s, %s", cpuModel(), runtime.NumCPU(), kernel(), runtime.Version()),
		where,
		fmt.Sprintf("%d rounds of %v each, memory %d rounds; %s heads", b.rounds, b.duration, b.heldRounds, o.head),
	}, versions...)
}
