package e2e

import (
	"fmt"
	"os"
	"strings"
)

// memory reads a value of /proc/PID/status, such as VmRSS (resident now) or VmHWM (the most ever), in MiB.
func (l *lb) memory(key string) float64 {
	l.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.cmd.Process.Pid))
	if err != nil {
		l.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kb float64
		if n, _ := fmt.Sscanf(line, key+": %f kB", &kb); n == 1 {
			return kb / 1024
		}
	}
	l.t.Fatalf("no %s in %s", key, b)
	return 0
}
