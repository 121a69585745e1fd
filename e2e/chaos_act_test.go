package e2e

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"
)

// variants is how many configurations there are.
const variants = 5

// setup is the configuration by what is in it now. The caller holds mu, or is alone.
func (c *chaos) setup(variant int) setup {
	s := setup{address: c.address, pool: "hold = \"30s\"\ntry_timeout = \"4s\"\nhealth = { path = \"/health/x\" }\n"}
	switch variant % variants {
	case 1:
		s.pool += "strategy = \"ewma\"\n"
	case 2:
		s.pool += "strategy = \"round_robin\"\nslow_start = \"2s\"\n"
		s.server = "header_timeout = \"9s\"\n"
	case 3:
		s.pool += "max_inflight = 100\nqueue = 1000\nqueue_timeout = \"30s\"\n"
		s.more = "[listen.side]\naddress = \"127.0.0.1:0\"\n"
	case 4: // requests wait in lb while instances are busy
		s.pool += "strategy = \"adaptive\"\n"
	}
	for _, n := range c.all {
		if n.in {
			s.backends = append(s.backends, n.app)
		}
	}
	return s
}

// reload has lb read a configuration of that variant. The caller holds mu. One that says something new of each backend,
// max_inflight, brings back those that are removed: that is not among what is tried.
func (c *chaos) reload(variant int) {
	if c.turns["removed"] > 0 && (variant == 3) != (c.variant == 3) {
		variant = c.variant
	}
	c.variant = variant
	s := c.setup(variant)
	s.write(c.t, c.l.config, c.l.logPath)
	if code, out := c.lb("reload", c.l.config); code != 0 {
		c.t.Errorf("reload: %d %s", code, out)
	}
}

// breakFile has lb read a file with a mistake, which it refuses.
func (c *chaos) breakFile() {
	free, ok := c.alone("upgrade") // which would refuse it, too
	if !ok {
		return
	}
	defer free()
	c.count("broken reload")
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.setup(c.variant)
	defer s.write(c.t, c.l.config, c.l.logPath)
	bad := s
	bad.more += "[route.bad]\npool = \"nobody\"\n"
	bad.write(c.t, c.l.config, c.l.logPath)
	if code, _ := c.lb("reload", c.l.config); code != 1 {
		c.t.Errorf("a broken file was reloaded: %d", code)
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
	switch what := r.IntN(29); what {
	case 0:
		c.count("reload")
		c.mu.Lock()
		defer c.mu.Unlock()
		c.reload(r.IntN(variants))
	case 1:
		c.count("equal reload")
		c.mu.Lock()
		defer c.mu.Unlock()
		c.reload(c.variant)
	case 2:
		c.breakFile()
	case 3:
		c.everybody(p(300))
	case 20, 21:
		c.upgrade(p(1000))
	case 22:
		c.moveListener(r)
	case 23, 24:
		c.rollout(r)
	case 25:
		n := c.all[r.IntN(len(c.all))]
		c.weigh(n, []string{"0", "25%", "3", "200%", "reset"}[r.IntN(5)])
	default:
		c.actOn(what, r.IntN(2) == 0, c.take(r), p(2000), p(3000))
	}
}

// actOn begins something with one instance, nil if all but one are busy.
func (c *chaos) actOn(what int, coin bool, n *instance, a, b time.Duration) {
	if n == nil {
		return
	}
	do := func(name string, f func()) {
		c.count(name)
		c.doing.Go(func() {
			f()
			c.free(n)
		})
	}
	switch what {
	case 4, 5, 6:
		do("kill", func() { n.killIt(); time.Sleep(a); n.revive() })
	case 7:
		do("kill and restart at once", func() { n.killIt(); n.revive() })
	case 8, 9:
		do("stop", func() { n.stopIt(false); time.Sleep(a); n.revive() })
	case 10:
		do("stop and restart at once", func() { n.stopIt(false); n.revive() })
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
		do("deploy", func() { n.stopIt(c.drain(n, "8s")); n.revive(); c.ready(n) })
	case 19:
		do("leave", func() {
			c.in(n, false)
			time.Sleep(a)
			if coin {
				n.stopIt(false)
				n.revive()
			}
			c.in(n, true)
		})
	case 26:
		do("remove and add", func() {
			c.turn("removed", 1)
			n.stopIt(c.remove(n, "8s"))
			n.revive()
			c.add(n)
			c.turn("removed", -1)
		})
	case 27:
		do("remove and add as it is", func() {
			c.turn("removed", 1)
			c.remove(n, "0s")
			time.Sleep(a)
			c.add(n)
			c.turn("removed", -1)
		})
	case 28:
		do("guest", func() { // one that the file does not have
			c.in(n, false)
			c.add(n)
			time.Sleep(a)
			c.remove(n, "1s")
			c.in(n, true)
		})
	}
}

// free says that an instance is left alone again.
func (c *chaos) free(n *instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n.busy = false
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
		all.Go(func() { n.killIt(); time.Sleep(wait); n.revive(); c.free(n) })
	}
	all.Wait()
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
