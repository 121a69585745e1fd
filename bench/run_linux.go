package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// bench is a run of the whole comparison.
type bench struct {
	dir        string // for the peers' files
	cores      cores
	origin     string
	head       string
	site       site // what all instances have in common
	contenders []*contender
	rounds     int
	duration   time.Duration // of a load
	heldRounds int
	settle     time.Duration // from the last connection to the reading of memory
	progress   io.Writer
}

// sample is what one peer did in one round of a row.
type sample struct {
	result
	cpu      float64 // µs per request
	busy     float64 // share of its core that the proxy used
	foreign  float64 // share of its core that others used
	perConn  float64 // KiB per held connection
	resident float64 // MiB while they were held
}

// table is a row's samples: by contender, then round.
type table struct {
	row
	samples [][]sample
}

const (
	// A load in which others used more of the proxies' core than this is disturbed: a proxy that has to wait for its
	// core finds more work at once when it gets it, and looks cheaper than it is.
	disturbed = 0.1
	// Disturbed rounds are left out as long as so many are left.
	enoughRounds = 3
)

// quiet is t without its disturbed rounds, whole rounds so that ratios stay within one; or t itself when too few were
// quiet. Rounds with errors stay.
func (t table) quiet() (q table, dropped int) {
	q = table{row: t.row, samples: make([][]sample, len(t.samples))}
	for round := range t.samples[0] {
		keep := true
		for _, s := range t.samples {
			keep = keep && s[round].foreign <= disturbed
		}
		for _, s := range t.samples {
			keep = keep || s[round].invalid()
		}
		if !keep {
			dropped++
			continue
		}
		for i, s := range t.samples {
			q.samples[i] = append(q.samples[i], s[round])
		}
	}
	if len(q.samples[0]) < enoughRounds {
		return t, 0
	}
	return q, dropped
}

// errEnded makes a round invalid instead of ending the run: the proxy is started again for the next.
var errEnded = errors.New("the proxy ended by itself")

func (b *bench) startAll(ctx context.Context) error {
	for _, c := range b.contenders {
		head, err := b.start(ctx, c)
		if err != nil {
			return err
		}
		if field([]byte(head), "x-forwarded-for") == nil {
			c.notes = append(c.notes, c.name+" sends no X-Forwarded-For: it does less than the others")
		}
	}
	return nil
}

// start starts the contender's instance that the loads go to, and returns the head of a request that it passed on.
func (b *bench) start(ctx context.Context, c *contender) (head string, err error) {
	c.instance, head, err = c.start(ctx, b.dir, b.cores.proxy, b.site)
	return head, err
}

func (b *bench) stopAll() {
	for _, c := range b.contenders {
		if c.instance != nil {
			c.stop()
		}
	}
}

// measure runs a row: every contender once a round, each round begun by another, so that neither a slow drift of the
// machine nor the traces that one leaves for the next fall on the same peer always.
func (b *bench) measure(ctx context.Context, r row) (table, error) {
	t := table{row: r, samples: make([][]sample, len(b.contenders))}
	rounds := b.rounds
	if r.held {
		rounds = b.heldRounds
	} else if err := b.warm(ctx, r); err != nil {
		return t, err
	}
	for round := range rounds {
		for k := range b.contenders {
			i := (round + k) % len(b.contenders)
			c := b.contenders[i]
			fmt.Fprintf(b.progress, "\r\x1b[K%s: round %d of %d, %s", r.name, round+1, rounds, c.name)
			take := b.load
			if r.held {
				take = b.hold
			}
			s, err := take(ctx, r, c)
			if errors.Is(err, errEnded) {
				s.Errors++
				s.First = err.Error()
			} else if err != nil {
				return t, fmt.Errorf("%s, %s: %w", r.name, c.name, err)
			}
			t.samples[i] = append(t.samples[i], s)
		}
	}
	fmt.Fprint(b.progress, "\r\x1b[K")
	return t, nil
}

// warm gives every contender a short load that does not count.
func (b *bench) warm(ctx context.Context, r row) error {
	for _, c := range b.contenders {
		if _, err := runJob(ctx, b.job(r, c.site.listen, 200*time.Millisecond), b.cores.load, nil); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) job(r row, addr string, d time.Duration) job {
	j := r.job
	j.Addr, j.Head = addr, b.head
	if !j.Hold {
		j.Duration = d
	}
	return j
}

// load loads the contender's instance. Its CPU time is taken around the whole load, with the opening of connections
// before and, after a moment, their closing; requests are counted likewise.
func (b *bench) load(ctx context.Context, r row, c *contender) (sample, error) {
	var s sample
	if c.ended() {
		if _, err := b.start(ctx, c); err != nil {
			return s, err
		}
	}
	time.Sleep(30 * time.Millisecond) // what the load before left to do
	before, err := cpuTime(c.pids)
	if err != nil {
		return s, err
	}
	start, core := time.Now(), coreBusy(b.cores.proxy)
	if s.result, err = runJob(ctx, b.job(r, c.site.listen, b.duration), b.cores.load, nil); err != nil {
		return s, err
	}
	time.Sleep(30 * time.Millisecond)
	if c.ended() {
		return s, errEnded
	}
	after, err := cpuTime(c.pids)
	if err != nil {
		return s, err
	}
	core = coreBusy(b.cores.proxy) - core
	used := after - before
	if s.Requests > 0 {
		s.cpu = float64(used.Nanoseconds()) / 1e3 / float64(s.Requests)
	}
	s.busy = float64(used) / float64(s.Elapsed)
	s.foreign = max(0, float64(core-used)) / float64(time.Since(start))
	return s, nil
}

// hold measures memory on an instance of its own, for one that has worked before has memory to spare. It is warmed by
// the row of small requests first, so that what any load would make it allocate does not count.
func (b *bench) hold(ctx context.Context, r row, c *contender) (sample, error) {
	var s sample
	in, _, err := c.start(ctx, b.dir, b.cores.proxy, b.site)
	if err != nil {
		return s, err
	}
	defer in.stop()
	warm := b.job(rows(0)[0], in.site.listen, 300*time.Millisecond)
	if _, err := runJob(ctx, warm, b.cores.load, nil); err != nil {
		return s, err
	}
	if err := sleep(ctx, b.settle/2); err != nil {
		return s, err
	}
	before, err := resident(in.pids)
	if err != nil {
		return s, err
	}
	var after int64
	s.result, err = runJob(ctx, b.job(r, in.site.listen, 0), b.cores.load, func() error {
		if err := sleep(ctx, b.settle); err != nil {
			return err
		}
		if in.ended() {
			return errEnded
		}
		after, err = resident(in.pids)
		return err
	})
	s.perConn = float64(after-before) / 1024 / float64(r.job.Conns)
	s.resident = float64(after) / (1 << 20)
	return s, err
}

// ceiling is what the generator and the origin do without a proxy, in requests per second of the given row. Where they
// share a core, as on a machine with two, a proxy far below it was not held up by them.
func (b *bench) ceiling(ctx context.Context, r row) (float64, error) {
	res, err := runJob(ctx, b.job(r, b.origin, min(b.duration, 500*time.Millisecond)), b.cores.load, nil)
	if err == nil && res.Errors > 0 {
		err = fmt.Errorf("%d errors without a proxy, %s", res.Errors, res.First)
	}
	return res.perSecond(), err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
