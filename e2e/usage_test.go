package e2e

import (
	"fmt"
	"os"
	"testing"
)

// usage is what lb holds.
type usage struct {
	memory      float64 // resident, MiB; 0 where the system does not tell
	goroutines  float64
	descriptors int // 0 where the system does not tell
}

func (u usage) String() string {
	return fmt.Sprintf("%.1f MiB, %v goroutines, %d descriptors", u.memory, u.goroutines, u.descriptors)
}

// usage reads it.
func (l *lb) usage() usage { return l.usageOf(l.cmd.Process.Pid) }

// usage is that of the process in charge.
func (n *lineage) usage() usage {
	all := n.pids()
	return n.usageOf(all[len(all)-1])
}

func (l *lb) usageOf(pid int) (u usage) {
	l.t.Helper()
	m := l.metrics()
	u.memory = m["process_resident_memory_bytes"] / (1 << 20)
	u.goroutines = m["go_goroutines"]
	if all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
		u.descriptors = len(all)
	}
	return u
}

// within fails the test if u is more than what load makes a process vary by.
func (u usage) within(t testing.TB, before usage) {
	t.Helper()
	if u.memory > before.memory+8 || u.goroutines > before.goroutines+10 || u.descriptors > before.descriptors+30 {
		t.Errorf("lb holds %v, before that %v", u, before)
	}
}
