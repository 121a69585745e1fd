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

// holdsNoMore waits until lb holds no more than before, but for so many MiB and what load makes a process vary by. At a single
// moment it may: while checks are under way, or the collector has no processor.
func holdsNoMore(t testing.TB, before usage, memory float64, now func() usage) {
	t.Helper()
	after := before
	defer func() { t.Logf("lb held %v, and holds %v", before, after) }()
	eventually(t, "lb holds no more than before", func() bool {
		after = now()
		return after.memory <= before.memory+memory && after.goroutines <= before.goroutines+10 && after.descriptors <= before.descriptors+30
	})
}
