package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// scene is instances and what they do; row is how much of it is asked of them.
type scene struct {
	kind kind
	spin bool // they burn processor time, and proxies are loaded in turn; else they only wait, and all are loaded at once
	slow []float64
	mean time.Duration
	rows []float64 // loads, of what they can do together
}

func (s *scene) name(load float64) string {
	work, equal := "wait", "slowed"
	if s.spin {
		work = "spin"
	}
	if s.slowed() == "" {
		equal = "equal"
	}
	return fmt.Sprintf("%s-%s-%s-%.0f", work, equal, s.kind.name, 100*load)
}

func (s *scene) title(load float64) string {
	work := "waiting"
	if s.spin {
		work = "computing"
	}
	return fmt.Sprintf("%d %s%s, %s, %.0f %%", len(s.slow), work, s.slowed(), s.kind.name, 100*load)
}

func (s *scene) slowed() string {
	for _, x := range s.slow {
		if x != 1 {
			return fmt.Sprintf(", one %g times slower", x)
		}
	}
	return ""
}

// scenes in the order they run in. spinning is how many instances the machine's cores can carry.
func scenes(spinning int) []scene {
	equal := func(n int) []float64 { return slices.Repeat([]float64{1}, n) }
	slowed := func(n int) []float64 { return append([]float64{2}, equal(n-1)...) }
	const wait, spin = 20 * time.Millisecond, 5 * time.Millisecond
	loads := []float64{.7, .85, .95}
	return []scene{
		{lognormal, false, slowed(4), wait, loads},
		{bimodal, false, slowed(4), wait, loads},
		{lognormal, false, equal(4), wait, []float64{.85}},
		{lognormal, true, slowed(spinning), spin, loads},
		{bimodal, true, slowed(spinning), spin, loads[1:2]},
	}
}

// lead is the time at the beginning of a round that is not counted: what balancers know of the speed of instances is out of
// date when these have been idle for as long as the others' rounds take.
const lead = time.Second

// brief is the time before the first round for balancers that learn nothing, while the others are idle.
const brief = 2 * time.Second

// balance is a run of the balance bench.
type balance struct {
	lb, rows, names, out string
	picture              string
	rounds               int
	wait, spin, warm     time.Duration // of a round, by what instances do, lead apart; and before the first
	short                bool

	dir  string
	site site
	all  []balancer
	cpus []int
	note func(string, ...any)
}

// stall is a balancer in one scene: its instances, the proxy, and its clients.
type stall struct {
	*balancer
	apps    []*process
	proxy   *instance
	clients *opener
}

// entry is what came of a balancer in one row.
type entry struct {
	*stall
	rounds []round
}

// round is what came of the shots of a round.
type round struct {
	shots   []shot
	replies []reply
	first   int   // that counts, see lead
	bound   bound // of those that count
}

func balanceMain(ctx context.Context, args []string) error {
	b := &balance{}
	f := flag.NewFlagSet("bench balance", flag.ContinueOnError)
	f.StringVar(&b.lb, "lb", "bin/lb", "lb's `program`")
	f.StringVar(&b.rows, "rows", "", "only rows with one of these `words` in their names, with commas")
	f.StringVar(&b.names, "balancers", "", "only `balancers` with one of these words in their names, with commas")
	f.IntVar(&b.rounds, "rounds", 2, "rounds of each row")
	f.DurationVar(&b.wait, "wait", 15*time.Second, "`length` of a round of waiting instances, all balancers at once")
	f.DurationVar(&b.spin, "spin", 5*time.Second, "`length` of a round of computing instances, for each balancer")
	f.DurationVar(&b.warm, "warm", 20*time.Second, "`time` before the first round, for balancers that learn")
	f.BoolVar(&b.short, "short", false, "a look in a minute: two rows, nothing written without -o")
	f.StringVar(&b.out, "o", "", "`file` for the report (a full run writes bench/BALANCE.md and docs/balancing.svg)")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if f.NArg() > 0 || b.rounds < 1 || b.wait <= 0 || b.spin <= 0 || b.warm < 0 {
		return errors.New("bench balance: -h lists its flags; rounds and lengths are above 0")
	}
	full := b.rows == "" && b.names == "" && !b.short
	if b.short {
		b.rounds, b.wait, b.spin, b.warm = 2, 6*time.Second, 2*time.Second, 10*time.Second
		if b.rows == "" {
			b.rows = "wait-slowed-lognormal-85,spin-slowed-lognormal-85"
		}
	}
	if full && b.out == "" {
		b.out, b.picture = filepath.FromSlash("bench/BALANCE.md"), filepath.FromSlash("docs/balancing.svg")
	}
	return b.run(ctx)
}

func (b *balance) run(ctx context.Context) (err error) {
	began := time.Now()
	// Collections of this process would delay answers by nothing that is worth telling; they are made rare all the same.
	debug.SetGCPercent(400)
	rep := &balanceReport{}
	b.note = func(format string, args ...any) {
		rep.notes = append(rep.notes, fmt.Sprintf(format, args...))
		fmt.Println(rep.notes[len(rep.notes)-1])
	}
	if b.cpus, err = allowed(); err != nil {
		return err
	}
	b.site.conns = 10_000
	if b.site.files, err = raiseFiles(65_000); err != nil {
		return err
	}
	b.site.conns = min(b.site.conns, int(b.site.files/4))
	if b.dir, err = os.MkdirTemp("", "lb-balance-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	node, err := exec.Command("node", "--version").Output()
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	rep.machine = []string{
		time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		fmt.Sprintf("%s, %d cores, %s, %s, Node.js %s", cpuModel(), runtime.NumCPU(), kernel(), runtime.Version(), strings.TrimSpace(string(node))),
		fmt.Sprintf("%d rounds of %v (waiting) and %v (computing)", b.rounds, b.wait, b.spin),
	}
	for _, p := range balancers(b.lb) {
		if b.names != "" && !matches(p.name, b.names) {
			continue
		}
		c, err := p.find(ctx)
		if err != nil {
			b.note("%s is left out: %v", p.name, err)
			continue
		}
		if says := c.says; !slices.Contains(rep.machine, says) {
			rep.machine = append(rep.machine, says)
		}
		b.all = append(b.all, p)
	}
	spinning := min(4, len(b.cpus))
	if spinning < 2 {
		b.note("There is one core only: what instances compute is not measured.")
	}
	for _, s := range scenes(spinning) {
		s.rows = slices.DeleteFunc(slices.Clone(s.rows), func(load float64) bool { return b.rows != "" && !matches(s.name(load), b.rows) })
		if len(s.rows) == 0 || s.spin && spinning < 2 {
			continue
		}
		err := b.play(ctx, &s, func(t *balanceTable) {
			rep.tables = append(rep.tables, t)
			fmt.Printf("%-26s %s (%v)\n", t.name, t.verdict(), time.Since(began).Round(time.Second))
		})
		if err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	fmt.Println()
	if err := rep.write(os.Stdout); err != nil {
		return err
	}
	if b.out != "" {
		if err := rep.save(b.out); err != nil {
			return err
		}
	}
	if b.picture != "" {
		if err := os.WriteFile(b.picture, rep.picture(), 0o644); err != nil {
			return err
		}
	}
	fmt.Printf("took %v\n\n", time.Since(began).Round(time.Second))
	for _, t := range rep.tables {
		fmt.Printf("%-26s %s\n", t.name, t.verdict())
	}
	return nil
}

func matches(name, words string) bool {
	for w := range strings.SplitSeq(words, ",") {
		if strings.Contains(name, w) {
			return true
		}
	}
	return false
}

// play runs the rows of a scene on the same instances and proxies.
func (b *balance) play(ctx context.Context, s *scene, done func(*balanceTable)) error {
	p := &stage{scene: s}
	defer p.stop()
	for i := range b.all {
		st, err := b.open(ctx, s, &b.all[i])
		if st != nil {
			p.stalls = append(p.stalls, st)
		}
		if err != nil {
			return err
		}
	}
	if err := p.calibrate(ctx); err != nil {
		return err
	}
	length, warm := b.wait, b.warm
	if s.spin {
		length = b.spin
	}
	seed := uint64(0)
	next := func(load float64, length time.Duration) []shot {
		seed++
		return shots(seed, load*p.capacity, length, s.mean, s.kind)
	}
	for i, load := range s.rows {
		if i == 1 {
			warm = min(warm, 2*brief) // the load alone is new to them
		}
		p.warmUp(ctx, next(load, warm))
		t := &balanceTable{scene: s, load: load, name: s.name(load), capacity: p.capacity, fleet: p.fleet}
		for _, st := range p.stalls {
			t.entries = append(t.entries, &entry{stall: st})
		}
		for k := range b.rounds {
			x := next(load, lead+length)
			for i, replies := range p.round(ctx, x, k) {
				t.entries[i].rounds = append(t.entries[i].rounds, round{shots: x, replies: replies, first: before(x, lead)})
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		t.bounds()
		done(t)
	}
	return nil
}

// stage is a scene that is set.
type stage struct {
	*scene
	stalls   []*stall
	capacity float64 // requests a second
	fleet    instances
}

// warmUp lets the balancers that learn learn, and everybody get warm.
func (p *stage) warmUp(ctx context.Context, s []shot) {
	if !p.spin {
		p.round(ctx, s, 0)
		return
	}
	for _, st := range p.stalls {
		mine := s
		if !st.learns {
			mine = s[:before(s, brief)]
		}
		st.clients.fire(ctx, time.Now().Add(10*time.Millisecond), mine)
	}
}

// round loads all stalls: all at once where instances only wait, else one after the other, each round beginning with
// another.
func (p *stage) round(ctx context.Context, s []shot, k int) [][]reply {
	out := make([][]reply, len(p.stalls))
	if p.spin {
		for j := range p.stalls {
			i := (j + k) % len(p.stalls)
			out[i] = p.stalls[i].clients.fire(ctx, time.Now().Add(10*time.Millisecond), s)
		}
		return out
	}
	var all sync.WaitGroup
	start := time.Now().Add(10 * time.Millisecond)
	for i, st := range p.stalls {
		// They see the same arrivals, but not at the same moments: that would be a burst of work for the machine.
		shift := time.Duration(i) * 37 * time.Millisecond
		all.Go(func() { out[i] = st.clients.fire(ctx, start.Add(shift), s) })
	}
	all.Wait()
	return out
}

// calibrate finds out what the instances can do together, in requests of the mean work, behind a proxy that keeps them all
// busy; and from that what a request costs them beside its work.
func (p *stage) calibrate(ctx context.Context) error {
	i := slices.IndexFunc(p.stalls, func(st *stall) bool { return st.name == "lb least_conn" })
	clients := p.stalls[max(0, i)].clients
	if _, err := clients.flood(ctx, 8*len(p.slow), p.mean, 500*time.Millisecond); err != nil { // warms them up
		return err
	}
	var err error
	p.capacity, err = clients.flood(ctx, 8*len(p.slow), p.mean, 2*time.Second)
	p.fleet = instances{slow: p.slow}
	p.fleet.fit(p.capacity, p.mean)
	return err
}

// bounds replays what instances said they worked. Where that is known from several balancers, the median counts.
func (t *balanceTable) bounds() {
	for k := range t.entries[0].rounds {
		s := slices.Clone(t.entries[0].rounds[k].shots)
		for i := range s {
			var said []float64
			for _, st := range t.entries {
				if r := st.rounds[k].replies[i]; r.by != 0 {
					said = append(said, float64(r.work)/t.slow[r.by-'a'])
				}
			}
			if len(said) > 0 {
				s[i].work = time.Duration(median(said))
			}
		}
		b := t.fleet.bound(s, before(s, lead))
		for _, st := range t.entries {
			st.rounds[k].bound = b
		}
	}
}

// open starts the instances and the proxy of a balancer.
func (b *balance) open(ctx context.Context, s *scene, who *balancer) (*stall, error) {
	st := &stall{balancer: who, clients: &opener{header: "x-wall"}}
	work := "wait"
	if s.spin {
		work, st.clients.header = "spin", "x-cpu"
	}
	var to []string
	for i, slow := range s.slow {
		// Instances that compute have a core each, and let proxies and clients go first: what is compared is who gets a
		// request, not how long a proxy waits for a processor.
		cpu, cmd := -1, exec.Command("node", "bench/balance.mjs")
		if s.spin {
			cpu, cmd = b.cpus[i%len(b.cpus)], exec.Command("nice", "-n", "10", "node", "bench/balance.mjs")
		}
		cmd.Env = append(os.Environ(), "WORK="+work, fmt.Sprintf("SLOW=%g", slow), fmt.Sprintf("NAME=%c", 'a'+i))
		p, addr, err := startListening(cmd, cpu)
		if err != nil {
			return st, err
		}
		st.apps = append(st.apps, p)
		to = append(to, addr)
	}
	c, err := who.find(ctx)
	if err != nil {
		return st, err
	}
	at := b.site
	at.origin = strings.Join(to, " ")
	if st.proxy, _, err = c.start(ctx, b.dir, -1, at); err != nil {
		return st, err
	}
	st.clients.addr = st.proxy.site.listen
	return st, nil
}

// startListening starts an instance and waits until it says where it listens.
func startListening(cmd *exec.Cmd, cpu int) (*process, string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, "", err
	}
	defer r.Close()
	cmd.Stdout = w
	p, err := startPinned("instance", cmd, cpu)
	w.Close()
	if err != nil {
		return nil, "", err
	}
	r.SetReadDeadline(time.Now().Add(20 * time.Second))
	line, err := bufio.NewReader(r).ReadString('\n')
	port, ok := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	if err != nil || !ok {
		p.stop()
		return nil, "", fmt.Errorf("instance: %v %q\n%s", err, line, p.log.String())
	}
	return p, "127.0.0.1:" + port, nil
}

func (p *stage) stop() {
	var all sync.WaitGroup
	for _, st := range p.stalls {
		st.clients.close()
		all.Go(func() {
			if st.proxy != nil {
				st.proxy.stop()
			}
			for _, app := range st.apps {
				app.stop()
			}
		})
	}
	all.Wait()
}
