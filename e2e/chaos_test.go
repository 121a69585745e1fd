package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// span is from when to when something befell an instance.
//
// A killed one (SIGKILL) loses all that it has not answered: from the moment of the signal until the process is gone.
// One that is told to stop (SIGTERM) finishes what it has seen. What it has not seen, in connections that it has not
// accepted yet or that it closes as idle, is lost: from the moment of the signal until it says that it no longer
// listens.
type span struct {
	from, to time.Time
	killed   bool
	ended    time.Time // when it was gone, after it had been told to stop
}

// instance is one of the four: an app, and the record of what befell it.
type instance struct {
	*app
	in   bool // the configuration of lb has it; guarded by chaos.mu
	busy bool // something is done to it; guarded by chaos.mu

	past []*process // that ended

	mu     sync.Mutex
	deaths []span // guarded by mu
	stalls []span // it could not run; guarded by mu
	drains []span // while lb was told to have its clients go elsewhere; guarded by mu
}

// chaos is one run of TestChaos.
type chaos struct {
	t     *testing.T
	l     *lb
	all   []*instance
	doing sync.WaitGroup

	mu      sync.Mutex // guards what the configuration holds, and orders its changes
	variant int
	done    map[string]int // what was done to them, and how often
}

// Mixed load goes to four instances while they are killed, stopped, restarted, suspended, made slow and drained, and
// while lb reloads: each at random, from a seed. Not one request fails that could have been served.
//
// What could not have been served follows from what lb may do again (docs/reliability.md), and is decided for each
// request by what clients and instances recorded, without any tolerance:
//
//   - An answer that had begun, when its instance was killed in the meantime. lb cannot take back what it passed on.
//   - A request that may not be repeated (a POST without an Idempotency-Key; a PUT of which more had been sent than lb
//     keeps), when it was under way while the instance that lb had sent it to was killed: nobody knows what it had
//     done. If that instance was told to stop instead, only when it had not seen the request: what it has seen, it
//     finishes. And likewise when it was suspended or stood still for more than half a second: a Node.js process that
//     goes on closes kept connections whose time is over before it reads what has come by them.
//   - A request that may be repeated, when three instances went away while it was under way: it is tried three times.
//
// Everything else must be answered, and rightly. Of a POST without an Idempotency-Key, no two instances may see
// anything. A WebSocket may end with code 1012 (lb sends its client elsewhere) when its instance was drained or taken out
// of the configuration, as the instance ends it, or without a word when that was killed.
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
	c := &chaos{t: t, done: map[string]int{}}
	for i := range 4 {
		a := startProgram(t, "chaos.mjs", string(rune('a'+i)), "RECORD=1")
		c.all = append(c.all, &instance{app: a, in: true})
	}
	for _, n := range c.all {
		n.port = n.hears("listening")
	}
	c.movePorts(r)
	c.l = startLB(t, c.setup(0))
	load := startMixed(t, c.l.addr, 150, seed, true)
	for begin := time.Now(); time.Since(begin) < min(5*time.Second, length/4); {
		time.Sleep(100 * time.Millisecond) // until lb has its size
	}
	before := c.l.usage()
	for begin := time.Now(); time.Since(begin) < length && !t.Failed(); {
		c.act(r)
		time.Sleep(time.Duration(r.IntN(800)) * time.Millisecond)
	}
	c.doing.Wait()
	c.mu.Lock()
	c.reload(0)
	c.mu.Unlock()
	load.over()
	t.Logf("done: %v", c.done)

	m := c.l.settled()
	c.l.reaches(0, "lb_backend_tunnels")
	c.l.reaches(0, "lb_pool_waiting_requests")
	c.l.reaches(0, "lb_listener_connections")
	eventually(t, "lb holds no more than before", func() bool {
		after := c.l.usage()
		return after.goroutines <= before.goroutines+10 && after.descriptors <= before.descriptors+30
	})
	after := c.l.usage()
	t.Logf("lb held %v, and holds %v", before, after)
	if after.memory > before.memory+24 {
		t.Errorf("lb holds %v, before that %v", after, before)
	}
	c.l.stop(0)
	for _, n := range c.all {
		n.kill()
		n.bury()
	}
	c.judge(load, m)
}

// movePorts puts the instances on ports that the system gives to nobody by itself: while one is down, an outgoing
// connection of some process would otherwise take its port now and then, or even be connected to itself.
func (c *chaos) movePorts(r *rand.Rand) {
	for _, n := range c.all {
		n.kill()
		for {
			port := 15000 + r.IntN(15000)
			ln, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
			if err == nil {
				ln.Close()
				n.port = strconv.Itoa(port)
				break
			}
		}
		n.again(c.t)
	}
}

// setup is the configuration by what is in it now. The caller holds mu, or is alone.
func (c *chaos) setup(variant int) setup {
	s := setup{pool: "hold = \"30s\"\ntry_timeout = \"4s\"\nhealth = { path = \"/health/x\" }\n"}
	switch variant % 4 {
	case 1:
		s.pool += "strategy = \"ewma\"\n"
	case 2:
		s.pool += "strategy = \"round_robin\"\nslow_start = \"2s\"\n"
		s.server = "header_timeout = \"9s\"\n"
	case 3:
		s.pool += "max_inflight = 100\nqueue = 1000\nqueue_timeout = \"30s\"\n"
		s.more = "[listen.side]\naddress = \"127.0.0.1:0\"\n"
	}
	for _, n := range c.all {
		if n.in {
			s.backends = append(s.backends, n.app)
		}
	}
	return s
}

// reload has lb read a configuration of that variant. The caller holds mu.
func (c *chaos) reload(variant int) {
	c.variant = variant
	s := c.setup(variant)
	s.write(c.t, c.l.config, c.l.logPath)
	if code, out := c.lb("reload", c.l.config); code != 0 {
		c.t.Errorf("reload: %d %s", code, out)
	}
}

// take makes an instance busy by chance, unless it would be the last one that is left alone.
func (c *chaos) take(r *rand.Rand) *instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	var free []*instance
	for _, n := range c.all {
		if !n.busy {
			free = append(free, n)
		}
	}
	if len(free) < 2 {
		return nil
	}
	n := free[r.IntN(len(free))]
	n.busy = true
	return n
}

// act begins something.
func (c *chaos) act(r *rand.Rand) {
	p := func(most int) time.Duration { return time.Duration(r.IntN(most)) * time.Millisecond }
	count := func(what string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.done[what]++
	}
	switch what := r.IntN(20); what {
	case 0:
		count("reload")
		c.mu.Lock()
		defer c.mu.Unlock()
		c.reload(r.IntN(4))
		return
	case 1:
		count("equal reload")
		c.mu.Lock()
		defer c.mu.Unlock()
		c.reload(c.variant)
		return
	case 2:
		count("broken reload")
		c.mu.Lock()
		defer c.mu.Unlock()
		s := c.setup(c.variant)
		s.more += "[route.bad]\npool = \"nobody\"\n"
		s.write(c.t, c.l.config, c.l.logPath)
		if code, _ := c.lb("reload", c.l.config); code != 1 {
			c.t.Errorf("a broken file was reloaded: %d", code)
		}
		return
	case 3:
		c.everybody(p(300))
		return
	default:
		n := c.take(r)
		if n == nil {
			return
		}
		a, b := p(2000), p(3000)
		do := func(name string, f func()) {
			count(name)
			c.doing.Go(func() {
				f()
				c.mu.Lock()
				defer c.mu.Unlock()
				n.busy = false
			})
		}
		switch what {
		case 4, 5, 6:
			do("kill", func() { n.killIt(); time.Sleep(a); n.revive() })
		case 7:
			do("kill and restart at once", func() { n.killIt(); n.revive() })
		case 8, 9:
			do("stop", func() { n.stopIt(); time.Sleep(a); n.revive() })
		case 10:
			do("stop and restart at once", func() { n.stopIt(); n.revive() })
		case 11, 12:
			do("suspend", func() { n.suspend(b) })
		case 13:
			do("suspend and kill", func() {
				from := time.Now()
				n.signal(syscall.SIGSTOP)
				time.Sleep(a)
				n.stalled(from)
				n.killIt()
				n.revive()
			})
		case 14:
			do("slow", func() { n.order("slow", "400"); time.Sleep(b); n.order("slow", "0") })
		case 15:
			do("block", func() { n.order("block", fmt.Sprint(a.Milliseconds())); time.Sleep(a) })
		case 16:
			do("drain", func() { c.drain(n, "1s"); time.Sleep(a); c.ready(n) })
		case 17, 18:
			do("deploy", func() { c.drain(n, "5s"); n.stopIt(); n.revive(); c.ready(n) })
		case 19:
			do("leave", func() {
				c.in(n, false)
				time.Sleep(a)
				if b > 1500*time.Millisecond {
					n.stopIt()
					n.revive()
				}
				c.in(n, true)
			})
		}
	}
}

// everybody kills all instances at the same time and starts them again, if all are left alone: requests wait.
func (c *chaos) everybody(wait time.Duration) {
	c.mu.Lock()
	for _, n := range c.all {
		if n.busy {
			c.mu.Unlock()
			return
		}
	}
	for _, n := range c.all {
		n.busy = true
	}
	c.done["kill all"]++
	c.mu.Unlock()
	var all sync.WaitGroup
	for _, n := range c.all {
		all.Go(func() { n.killIt(); time.Sleep(wait); n.revive() })
	}
	all.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.all {
		n.busy = false
	}
}

// in takes an instance into the configuration, or out of it.
func (c *chaos) in(n *instance, in bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from := time.Now()
	n.in = in
	c.reload(c.variant)
	if !in {
		n.drained(from)
	}
}

func (c *chaos) drain(n *instance, wait string) {
	defer n.drained(time.Now())
	if code, out := c.lb("drain", "--config", c.l.config, "app", n.name, "--wait", wait); code != 0 && code != 5 { // 5: something is left
		c.t.Errorf("drain: %d %s", code, out)
	}
}

// lb runs a command of lb's.
func (c *chaos) lb(args ...string) (code int, out string) {
	cmd := exec.Command(lbBinary, args...)
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		return -1, err.Error()
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

func (n *instance) drained(from time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drains = append(n.drains, span{from: from, to: time.Now()})
}

func (c *chaos) ready(n *instance) {
	if code, out := c.lb("ready", "--config", c.l.config, "app", n.name); code != 0 {
		c.t.Errorf("ready: %d %s", code, out)
	}
}

func (n *instance) killIt() {
	d := span{from: time.Now(), killed: true}
	n.kill()
	d.to = time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deaths = append(n.deaths, d)
}

// stopIt tells the instance to stop and waits until it has; what takes too long is killed.
func (n *instance) stopIt() {
	d := span{from: time.Now()}
	n.signal(syscall.SIGTERM)
	n.hears("leaving")
	d.to = time.Now()
	late := false
	select {
	case <-n.done:
	case <-time.After(20 * time.Second):
		late = true
	}
	d.ended = time.Now()
	n.mu.Lock()
	n.deaths = append(n.deaths, d)
	n.mu.Unlock()
	if late {
		n.killIt()
	}
}

func (n *instance) suspend(d time.Duration) {
	from := time.Now()
	n.signal(syscall.SIGSTOP)
	time.Sleep(d)
	n.signal(syscall.SIGCONT)
	n.stalled(from)
}

func (n *instance) stalled(from time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stalls = append(n.stalls, span{from: from, to: time.Now()})
}

// bury keeps what an ended process said.
func (n *instance) bury() { n.past = append(n.past, n.process) }

func (n *instance) revive() {
	n.bury()
	n.again(n.t)
}

// story is what the processes of an instance said.
type story struct {
	seen, done map[string]int // by request
	deaths     []span
	stalls     []span
	drains     []span
}

func (n *instance) story() *story {
	s := &story{seen: map[string]int{}, done: map[string]int{}, deaths: n.deaths, stalls: n.stalls, drains: n.drains}
	for _, p := range n.past {
		for _, line := range p.stdout() {
			f := strings.Fields(line)
			switch f[0] {
			case "seen":
				s.seen[f[1]]++
			case "done":
				s.done[f[1]]++
			case "stranger":
				if f[1] != "-" {
					n.t.Errorf("%s got by lb what nobody sent: %s", n.name, line)
				}
			case "stalled":
				from, _ := strconv.ParseInt(f[1], 10, 64)
				to, _ := strconv.ParseInt(f[2], 10, 64)
				s.stalls = append(s.stalls, span{from: time.UnixMilli(from), to: time.UnixMilli(to)})
			}
		}
	}
	return s
}

// within reports whether one of the deaths that match overlaps with the time from begin to end.
func within(all []span, begin, end time.Time, match func(span) bool) bool {
	return slices.ContainsFunc(all, func(d span) bool { return match(d) && !d.from.After(end) && !d.to.Before(begin) })
}

func killed(d span) bool { return d.killed }
func gone(span) bool     { return true }

// under is how many times an instance went away from begin to end.
func under(stories map[string]*story, begin, end time.Time) (n int) {
	for _, st := range stories {
		for _, d := range st.deaths {
			if !d.from.After(end) && !d.to.Before(begin) {
				n++
			}
		}
	}
	return n
}

// excuse is why a failed request could not have been served, "" if it could.
func excuse(s *shot, sentTo string, stories map[string]*story) string {
	if s.err != nil && s.begun {
		if st := stories[s.instance]; st != nil && within(st.deaths, s.begin, s.end, killed) {
			return "cut in its answer, by its instance's death"
		}
		return ""
	}
	if s.repeatable() {
		if under(stories, s.begin, s.end) >= 3 {
			return "three instances went away under it"
		}
		return ""
	}
	st := stories[sentTo]
	switch {
	case st == nil:
	case within(st.deaths, s.begin, s.end, killed):
		return "not repeatable, its instance was killed"
	case st.seen[s.id] > 0:
	case within(st.deaths, s.begin, s.end, gone):
		return "not repeatable, its instance went away without having seen it"
	case within(st.stalls, s.begin, s.end, gone):
		return "not repeatable, its instance stood still and had not seen it"
	}
	return ""
}

// judge holds all that clients saw to what instances and lb recorded.
func (c *chaos) judge(load *mixed, m metrics) {
	t := c.t
	stories := map[string]*story{}
	for _, n := range c.all {
		stories[n.name] = n.story()
	}
	lines := map[string]record{}
	for _, r := range readLog(t, c.l.logPath) {
		id := r.Path[strings.LastIndexByte(r.Path, '/')+1:]
		if _, ok := lines[id]; ok {
			t.Errorf("request %s is there twice in the access log", id)
		}
		lines[id] = r
	}
	kinds, excuses, reasons, bad := map[string]int{}, map[string]int{}, map[string]int{}, 0
	complain := func(format string, args ...any) {
		if bad++; bad <= 20 {
			t.Errorf(format, args...)
		}
	}
	for i := range load.shots {
		s := &load.shots[i]
		kinds[s.kind]++
		line, logged := lines[s.id]
		if !logged {
			complain("not in the access log: %s", s.String())
			continue
		}
		if line.Reason != "" {
			reasons[line.Reason]++
		}
		seen := 0
		for _, st := range stories {
			seen += st.seen[s.id]
		}
		if strings.HasPrefix(s.kind, "post") && s.kind != "post keyed" && seen > 1 {
			complain("seen by %d instances, though it may not be repeated: %s", seen, s.String())
		}
		if s.ok() {
			if line.Status != 200 || line.Backend != s.instance || line.Reason != "" || stories[s.instance].seen[s.id] == 0 {
				complain("%s from %s, but the log has %+v, and the instance saw it %d times", s.String(), s.instance, line, stories[s.instance].seen[s.id])
			}
			continue
		}
		if why := excuse(s, line.Backend, stories); why != "" {
			excuses[why]++
			if line.Reason == "" || s.err == nil && line.Status != s.status {
				complain("%s, but the log has %+v", s.String(), line)
			}
			continue
		}
		complain("could have been served: from %s to %s %s\nthe log has %+v\n%s", clock(s.begin), clock(s.end), s.String(), line, c.history(s.begin, s.end))
	}
	ends := map[string]int{}
	for i := range load.talks {
		k := &load.talks[i]
		kinds["websocket"]++
		if _, logged := lines[k.id]; !logged {
			complain("not in the access log: WebSocket %s: %+v", k.id, k)
		}
		name := k.instance
		if name == "" { // it ended before its first message
			name = lines[k.id].Backend
		}
		st := stories[name]
		how := ""
		switch {
		case k.ours:
			how = "by the client"
		case !k.dialed:
			if under(stories, k.begin, k.end) >= 3 {
				how = "before it began, by three instances that went away"
			}
		case st == nil:
		case k.code == 1012 && within(st.drains, k.begin, k.end, gone):
			how = "1012, its instance was drained"
		case k.code == 1001 && slices.ContainsFunc(st.deaths, func(d span) bool {
			return !d.killed && !d.from.After(k.end) && !d.ended.Before(k.begin)
		}):
			how = "1001, by its instance that was told to stop"
		case within(st.deaths, k.begin, k.end, killed):
			how = fmt.Sprintf("%d, its instance was killed", k.code)
		}
		if how == "" {
			complain("WebSocket %s of %s, from %s to %s, after %d messages: code %d, %v\nthe log has %+v\n%s", k.id, k.instance, clock(k.begin), clock(k.end), k.said, k.code, k.err, lines[k.id], c.history(k.begin, k.end))
		}
		ends[how]++
	}
	if bad > 20 {
		t.Errorf("and %d more", bad-20)
	}
	t.Logf("requests: %v", kinds)
	t.Logf("could not have been served: %v", excuses)
	t.Logf("WebSockets ended: %v", ends)

	n := len(load.shots) + len(load.talks)
	if got := m.sum("lb_listener_requests_total"); got != float64(n) || len(lines) != n {
		t.Errorf("clients sent %d requests; lb counts %v and logs %d", n, got, len(lines))
	}
	failed := 0
	for _, line := range lines {
		if line.Reason != "" {
			failed++
		}
	}
	if got := m.sum("lb_listener_failed_requests_total"); got != float64(failed) {
		t.Errorf("lb counts %v requests that failed, and logs %d", got, failed)
	}
	for reason, n := range reasons {
		if got := m.sum("lb_listener_failed_requests_total", "reason="+reason); got < float64(n) {
			t.Errorf("clients saw %d requests fail by %s, lb counts %v", n, reason, got)
		}
	}
}

func clock(at time.Time) string { return at.Format("05.000") }

// history is what befell the instances around a time.
func (c *chaos) history(begin, end time.Time) string {
	var b strings.Builder
	for _, n := range c.all {
		st := n.story()
		fmt.Fprintf(&b, "  %s:", n.name)
		for _, d := range st.deaths {
			if d.to.After(begin.Add(-3*time.Second)) && d.from.Before(end.Add(time.Second)) {
				fmt.Fprintf(&b, " gone %s to %s (killed: %t)", clock(d.from), clock(d.to), d.killed)
			}
		}
		for _, d := range st.stalls {
			if d.to.After(begin.Add(-3*time.Second)) && d.from.Before(end.Add(time.Second)) {
				fmt.Fprintf(&b, " stood still %s to %s", clock(d.from), clock(d.to))
			}
		}
		for _, d := range st.drains {
			if d.to.After(begin.Add(-30*time.Second)) && d.from.Before(end) {
				fmt.Fprintf(&b, " drained %s to %s", clock(d.from), clock(d.to))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
