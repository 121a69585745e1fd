package loop

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Group is a set of loops that share listening sockets.
type Group struct {
	loops    []*Loop
	options  Options
	done     sync.WaitGroup
	panics   atomic.Uint64
	stopOnce sync.Once
}

// Options of a Group. The zero value is useful.
type Options struct {
	// Panicked is called on the loop with what a task, a Handler or another function that the loop called
	// panicked with; nil stands for runtime.Goexit. Without it the panic is printed to standard error.
	// The connection that was served is closed either way.
	Panicked func(v any, stack []byte)
}

var epoch = time.Now()

// Clock is the time of every loop's clock now: nanoseconds on the process's monotonic clock. On a loop,
// Loop.Now is cheaper and the same for a whole round.
func Clock() int64 { return int64(time.Since(epoch)) + 1 }

// WallTime converts a time of the loops' clock to the wall clock as it was at the start of the process.
func WallTime(at int64) time.Time { return epoch.Add(time.Duration(at - 1)) }

// New starts n loops, at least one, each on a goroutine of its own, until Close. It raises GOMAXPROCS to n+1 if it
// is less: loops hold on to theirs, and other goroutines shall not have to wait for the scheduler to take it away.
func New(n int, o Options) (*Group, error) {
	if n < 1 {
		return nil, fmt.Errorf("loop: %d loops cannot serve anybody", n)
	}
	if runtime.GOMAXPROCS(0) <= n {
		runtime.GOMAXPROCS(n + 1)
	}
	g := &Group{options: o}
	for i := range n {
		l := &Loop{group: g, index: i}
		if err := l.open(); err != nil {
			for _, l := range g.loops {
				l.close()
			}
			return nil, fmt.Errorf("loop: %w", err)
		}
		l.now = Clock()
		l.wheel.init(l.now)
		l.tasks.Drop = l.endTask
		l.armTrim()
		g.loops = append(g.loops, l)
	}
	g.done.Add(n)
	for _, l := range g.loops {
		go l.main()
	}
	return g, nil
}

// Len is the number of loops.
func (g *Group) Len() int { return len(g.loops) }

// Loop returns the loop with index i.
func (g *Group) Loop(i int) *Loop { return g.loops[i] }

// Panics counts the tasks and other functions called by loops that panicked.
func (g *Group) Panics() uint64 { return g.panics.Load() }

// Close ends every loop: all connections are closed, parked tasks return with ErrStopped. It waits for the
// loops to end, so it must not be called on one.
func (g *Group) Close() {
	g.stopOnce.Do(func() {
		for _, l := range g.loops {
			l.Post(func() { l.stopping = true })
		}
	})
	g.done.Wait()
}

func (g *Group) crashed(v any) {
	g.panics.Add(1)
	stack := debug.Stack()
	if g.options.Panicked != nil {
		g.options.Panicked(v, stack)
		return
	}
	if v == nil {
		v = "runtime.Goexit was called"
	}
	fmt.Fprintf(os.Stderr, "loop: a task panicked: %v\n%s", v, stack)
}
