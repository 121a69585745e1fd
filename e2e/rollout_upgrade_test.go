package e2e

import (
	"strings"
	"testing"
	"time"
)

// lb is upgraded again and again while a rollout kills one instance after the other without a warning. Nothing fails: who is
// drained when the process changes stays drained, and is killed only when the lb before has nothing under way there,
// either.
func TestUpgradeInRollout(t *testing.T) {
	f := startPM2Fleet(t, 2, nil, "warmup = \"off\"")
	n := &lineage{lb: f.lb, binary: lbBinary}
	n.dieWithTest()
	before := f.pids()
	tr := startDeployLoad(t, f.addr, 100, 6)
	long := startLoad(t, f.addr, 8, 30, func(c *conn, n int64) sample {
		return sample{"/sleep/1500", c.do("POST", "/sleep/1500", "")}
	})
	p := f.startRollout("--exec", f.pm2.line("sendSignal SIGKILL {name}"))
	upgrades := 0
	for over := false; !over; upgrades++ {
		if code, _, errs := n.upgrade("--watch", "300ms"); code != 0 {
			t.Errorf("upgrade %d: exit code %d\n%s", upgrades, code, errs)
		}
		select {
		case <-p.done:
			over = true
		case <-time.After(500 * time.Millisecond): // the rollout has to get on, too
		}
	}
	out := strings.Join(append(p.stdout(), p.stderr()...), "\n")
	if code := p.wait(); code != 0 || !strings.Contains(out, "lb was restarted or upgraded: the rollout goes on with the new one") {
		t.Errorf("the rollout: exit code %d\n%s", code, out)
	}
	for i, pid := range f.pids() {
		if pid == before[i] {
			t.Errorf("%s was not restarted", f.ports[i])
		}
	}
	allOK(t, long.end())
	t.Logf("%d requests and %d upgrades in a rollout", tr.spotless(t), upgrades)
	n.end()
}
