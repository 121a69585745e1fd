package loop

import (
	"testing"

	"golang.org/x/sys/unix"
)

// cpuPerOp reports the processor time of what the benchmark has done since: unlike the wall clock it does not
// depend on who else uses the machine.
func cpuPerOp(b *testing.B) (report func()) {
	used := func() int64 {
		var u unix.Rusage
		unix.Getrusage(unix.RUSAGE_SELF, &u)
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}
