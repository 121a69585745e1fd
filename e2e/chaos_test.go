package e2e

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// chaos is one run of TestChaos.
type chaos struct {
	t     *testing.T
	l     *lineage
	load  *mixed
	all   []*instance
	short bool // it runs among other tests: what takes long is done in part
	doing sync.WaitGroup
	bell  *bell

	mu      sync.Mutex // guards what the configuration holds, and orders its changes
	variant int
	address string         // of [listen.web]
	turns   map[string]int // of what is under way, how many there are
	done    map[string]int // what was done to them, and how often
}

// Mixed load goes to four instances while they are killed, stopped, restarted, suspended, made slow, drained, removed, added
// and rolled out, and while lb reloads, moves its listener and is upgraded: each at random, from a seed. Not one request
// fails that could have been served.
//
// What could not have been served follows from what lb may do again (docs/reliability.md), and is decided for each
// request by what clients and instances recorded, without any tolerance:
//
//   - An answer that had begun, when its instance was killed in the meantime. lb cannot take back what it passed on.
//   - A request that may not be repeated (a POST without an Idempotency-Key; a PUT of which more had been sent than lb
//     keeps), when it was under way while the instance that lb had sent it to was killed: nobody knows what it had
//     done. If that instance was told to stop instead, only when it had not seen the request, and lb had not said that it
//     was drained: what it has seen, it finishes. And likewise when it was suspended or stood still for more than half a
//     second: a Node.js process that goes on closes kept connections whose time is over before it reads what has come by
//     them.
//   - A request that may be repeated, when three instances went away while it was under way: it is tried three times.
//
// Everything else must be answered, and rightly. Of a POST without an Idempotency-Key, no two instances may see
// anything. A WebSocket may end with code 1012 (lb sends its client elsewhere) when its instance was drained or taken out
// of the configuration, as the instance ends it, or without a word when that was killed. A session of Socket.IO stays with its
// instance until that ends, is drained, or stands still for so long that it is left out.
//
// CHAOS_TIME says how long, CHAOS_SEED from which seed.
func TestChaos(t *testing.T) {
	length := lasting(t, "CHAOS_TIME", 25*time.Second)
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CHAOS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("CHAOS_SEED: %v", err)
		}
	}
	t.Logf("CHAOS_SEED=%d CHAOS_TIME=%v", seed, length)
	r := rand.New(rand.NewPCG(seed, 1))
	c := &chaos{t: t, short: length < time.Minute, turns: map[string]int{}, done: map[string]int{}}
	// While one is down, an outgoing connection of some process would take its port now and then, or even be connected to
	// itself, were it of those that the system gives to anybody.
	for i, port := range freePorts(t, 4) {
		a := startProgramAt(t, port, "chaos.mjs", string(rune('a'+i)), "RECORD=1", "SESSIONS=1")
		c.all = append(c.all, &instance{app: a, in: true})
	}
	for _, n := range c.all {
		n.hears("listening")
	}
	c.address = "127.0.0.1:" + freePorts(t, 1)[0]
	c.bell = hangBell(c)
	c.l = startLineage(t, c.setup(0))
	c.load = startMixed(t, c.l.addr, 150, seed, true)
	c.load.startVisits(8, seed)
	time.Sleep(min(5*time.Second, length/4)) // until lb has its size
	before := c.l.usage()
	for begin := time.Now(); time.Since(begin) < length && !t.Failed(); {
		c.act(r)
		time.Sleep(time.Duration(r.IntN(800)) * time.Millisecond)
	}
	c.doing.Wait()
	c.mu.Lock()
	c.reload(0)
	c.mu.Unlock()
	c.load.over()
	t.Logf("done: %v", c.done)

	c.l.settled()
	c.l.reaches(0, "lb_backend_tunnels")
	c.l.reaches(0, "lb_pool_waiting_requests")
	c.l.reaches(0, "lb_listener_connections")
	m := c.l.metrics()
	holdsNoMore(t, before, 24, c.l.usage)
	c.l.stopAll()
	for _, n := range c.all {
		n.kill()
		n.bury()
	}
	c.judge(m)
}

// lb runs a command of lb's; again, while it is told that this is not the moment, as another process takes over.
func (c *chaos) lb(args ...string) (code int, out string) {
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		code, out = c.command(args...)
		if code != 1 || !notNow.MatchString(out) || time.Now().After(end) {
			return code, out
		}
	}
}

var notNow = regexp.MustCompile("not while lb|another lb is in charge")

// command runs a command once. One that does not end is a fault of lb's, which then shows what its goroutines wait for.
func (c *chaos) command(args ...string) (code int, out string) {
	cmd := exec.Command(lbBinary, args...)
	hangs := time.AfterFunc(4*patience, func() {
		c.t.Errorf("lb %v does not end", args)
		for _, pid := range c.l.pids() {
			syscall.Kill(pid, syscall.SIGQUIT)
		}
		cmd.Process.Kill()
	})
	defer hangs.Stop()
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		return -1, err.Error()
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

// count counts what is done.
func (c *chaos) count(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[what]++
}

// alone reports whether nothing else of a kind is under way; then it is until free is called.
func (c *chaos) alone(what string) (free func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turns[what] > 0 {
		return nil, false
	}
	c.turns[what]++
	return func() { c.turn(what, -1) }, true
}

// turn says that one more, or less, of a kind is under way.
func (c *chaos) turn(what string, by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turns[what] += by
}

func clock(at time.Time) string { return at.Format("05.000") }
