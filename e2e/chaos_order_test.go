package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// drain takes an instance out of use and reports whether lb says that it is empty.
func (c *chaos) drain(n *instance, wait string) bool {
	defer n.drained(time.Now())
	return c.order(n, "drain", "app", n.name, "--wait", wait) == 0
}

// remove is drain, and out of the pool.
func (c *chaos) remove(n *instance, wait string) bool {
	defer n.drained(time.Now())
	return c.order(n, "remove", "app", n.name, "--force", "--wait", wait) == 0
}

func (c *chaos) add(n *instance)   { c.order(n, "add", "app", n.addr(), "--name", n.name) }
func (c *chaos) ready(n *instance) { c.order(n, "ready", "app", n.name) }

// weigh gives an instance another weight. One that is taken out of the pool meanwhile has none.
func (c *chaos) weigh(n *instance, weight string) {
	c.count("weight")
	if code, out := c.lb("weight", "--config", c.l.config, "app", n.name, weight); code != 0 && code != 7 {
		c.t.Errorf("weight: %d %s", code, out)
	}
}

// order gives an order about an instance. What is to be used again may be so later than the command waits.
func (c *chaos) order(n *instance, args ...string) int {
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		code, out := c.lb(append([]string{args[0], "--config", c.l.config}, args[1:]...)...)
		joins := args[0] == "ready" || args[0] == "add"
		switch {
		case code == 0, code == 5 && (!joins || strings.Contains(out, "its weight is 0")): // 5: something is left of what was drained
			return code
		case time.Now().After(end):
		case code == 5:
			args = []string{"ready", "app", n.name}
			continue
		}
		c.t.Errorf("%v: %d %s", args, code, out)
		return code
	}
}

// upgrade has another process take over.
func (c *chaos) upgrade(watch time.Duration) {
	free, ok := c.alone("upgrade")
	if !ok {
		return
	}
	c.count("upgrade")
	c.doing.Go(func() {
		defer free()
		if code, out := c.lb("upgrade", c.l.config, "--watch", watch.String()); code != 0 {
			c.t.Errorf("upgrade: %d %s", code, out)
		}
	})
}

// moveListener has lb listen at another port, or at another host's with the same port.
func (c *chaos) moveListener(r *rand.Rand) {
	c.mu.Lock()
	defer c.mu.Unlock()
	host, port, _ := net.SplitHostPort(c.address)
	if r.IntN(2) == 0 {
		port = freePorts(c.t, 1)[0]
	}
	if r.IntN(2) == 0 {
		host = map[string]string{"127.0.0.1": "0.0.0.0", "0.0.0.0": "127.0.0.1"}[host]
	}
	c.done["move"]++
	c.load.door.moving("127.0.0.1:" + port)
	c.address = net.JoinHostPort(host, port)
	c.reload(c.variant)
	c.load.door.moved()
}

// bell is where the command of a rollout asks for the restart of an instance.
type bell struct {
	c    *chaos
	addr string

	mu   sync.Mutex
	from map[string]time.Time // guarded by mu; since when a rollout may have taken an instance out
}

func hangBell(c *chaos) *bell {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	d := &bell{c: c, addr: ln.Addr().String(), from: map[string]time.Time{}}
	server := &http.Server{Handler: d}
	go server.Serve(ln)
	c.t.Cleanup(func() { server.Close() })
	return d
}

// ServeHTTP restarts the instance that the path names, as soon as nothing else is done to it.
func (d *bell) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	i := slices.IndexFunc(d.c.all, func(n *instance) bool { return n.name == name })
	if i < 0 || !d.c.takeThis(d.c.all[i]) {
		w.WriteHeader(http.StatusConflict)
		return
	}
	n := d.c.all[i]
	d.c.doing.Go(func() { // also when the rollout that asked has ended
		n.stopIt(false)
		n.revive()
		d.out(n)
		d.c.free(n)
	})
	for d.c.isBusy(n) {
		time.Sleep(5 * time.Millisecond)
	}
}

// out notes that a rollout may have taken an instance out until now.
func (d *bell) out(n *instance) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n.drained(d.from[n.name])
}

// ask is the other side: what the command of a rollout runs.
func ask(url string) int {
	resp, err := http.Get(url)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		fmt.Fprintln(os.Stderr, resp.Status)
		return 1
	}
	return 0
}

// askVariable has the test's own program be such a command.
const askVariable = "LB_E2E_ASK"

// takeThis waits until nothing is done to an instance and makes it busy.
func (c *chaos) takeThis(n *instance) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		c.mu.Lock()
		free := !n.busy
		n.busy = true
		c.mu.Unlock()
		if free {
			return true
		}
	}
	return false
}

func (c *chaos) isBusy(n *instance) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return n.busy
}

// rollout restarts two instances, or all, by lb rollout. What else is done to them meanwhile may make it fail; it may be
// interrupted, too.
func (c *chaos) rollout(r *rand.Rand) {
	free, ok := c.alone("rollout")
	if !ok {
		return
	}
	args := []string{"rollout", "app", "--config", c.l.config, "--force", "--wait", "4s", "--warmup", "0s", "--timeout", "60s", "--start-timeout", "20s",
		"--exec", fmt.Sprintf("%s=http://%s/{name} %s", askVariable, c.bell.addr, os.Args[0])}
	if first := r.IntN(len(c.all)); c.short || r.IntN(2) == 0 {
		args = append(args, "--only", c.all[first].name, "--only", c.all[(first+1)%len(c.all)].name)
	}
	how := r.IntN(8)
	after := time.Duration(r.IntN(5000)) * time.Millisecond
	c.count("rollout")
	c.doing.Go(func() {
		defer free()
		c.bell.mu.Lock()
		for _, n := range c.all {
			c.bell.from[n.name] = time.Now()
		}
		c.bell.mu.Unlock()
		cmd := exec.Command(lbBinary, args...)
		if signal := map[int]os.Signal{0: syscall.SIGTERM, 1: syscall.SIGKILL}[how]; signal != nil {
			defer time.AfterFunc(after, func() { cmd.Process.Signal(signal) }).Stop()
		}
		hangs := time.AfterFunc(8*patience, func() {
			c.t.Error("the rollout does not end")
			cmd.Process.Signal(syscall.SIGQUIT)
		})
		defer hangs.Stop()
		out, _ := cmd.CombinedOutput()
		code := cmd.ProcessState.ExitCode()
		c.count(fmt.Sprint("rollout: ", code))
		if code != 0 {
			c.t.Logf("rollout: %d\n%s", code, strings.Join(tail(strings.Split(string(out), "\n"), 6), "\n"))
		}
		if !slices.Contains([]int{-1, 0, 1, 9, 10}, code) {
			c.t.Errorf("rollout: %d %s", code, out)
		}
		for _, n := range c.all { // what it left out, unless somebody else has taken it out
			if c.takeThis(n) {
				c.ready(n)
				c.bell.out(n)
				c.free(n)
			}
		}
	})
}
