package e2e

import (
	"strconv"
	"strings"
	"sync"
	"syscall"
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
	drained  bool      // lb had said that it was drained
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

func (n *instance) drained(from time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drains = append(n.drains, span{from: from, to: time.Now()})
}

func (n *instance) killIt() {
	d := span{from: time.Now(), killed: true}
	n.kill()
	d.to = time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deaths = append(n.deaths, d)
}

// stopIt tells the instance to stop, whether or not lb has said that it is drained, and waits until it has; what takes too
// long is killed.
func (n *instance) stopIt(drained bool) {
	d := span{from: time.Now(), drained: drained}
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
