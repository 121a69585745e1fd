package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// cores says which CPU runs what.
type cores struct {
	proxy  int   // every proxy
	load   int   // the generator
	origin int   // the origin
	others []int // all but proxy's: this process
}

// allowed lists the CPUs that this process may run on.
func allowed() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	var cpus []int
	for i := range 8 * len(set) * 8 {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return cpus, nil
}

// layout gives the proxies a core of their own: want, or when it is negative the last one, as the first is the one that
// most often takes interrupts. A core's hyper-threads share what is measured, so the proxy's siblings stay empty as
// long as another core is left.
func layout(cpus []int, want int, siblings func(int) []int) (cores, error) {
	c := cores{proxy: cpus[len(cpus)-1]}
	if want >= 0 {
		c.proxy = want
	}
	near := map[int]bool{c.proxy: true}
	for _, s := range siblings(c.proxy) {
		near[s] = true
	}
	found := false
	var rest, far []int
	for _, cpu := range cpus {
		if cpu == c.proxy {
			found = true
			continue
		}
		rest = append(rest, cpu)
		if !near[cpu] {
			far = append(far, cpu)
		}
	}
	if !found {
		return c, fmt.Errorf("core %d is not among those allowed, %v", want, cpus)
	}
	switch {
	case len(far) > 0:
		c.others = far
	case len(rest) > 0:
		c.others = rest
	default:
		c.others = []int{c.proxy}
	}
	c.load, c.origin = c.others[0], c.others[len(c.others)-1]
	return c, nil
}

func siblingsOf(cpu int) []int {
	b, err := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu))
	if err != nil {
		return nil
	}
	return parseCPUList(string(b))
}

// parseCPUList reads the kernel's lists: "0-3,8".
func parseCPUList(s string) []int {
	var cpus []int
	for part := range strings.SplitSeq(strings.TrimSpace(s), ",") {
		first, last, ranged := strings.Cut(part, "-")
		lo, err := strconv.Atoi(first)
		if err != nil {
			continue
		}
		hi := lo
		if ranged {
			if hi, err = strconv.Atoi(last); err != nil {
				continue
			}
		}
		for cpu := lo; cpu <= hi; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// raiseFiles sets the limit of open files to want, or as near as the system lets it come, and returns what it is now.
// It uses package syscall because that, and only that, also tells the runtime to leave the limit so for children.
func raiseFiles(want uint64) (uint64, error) {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("getrlimit: %w", err)
	}
	if lim.Max < want { // needs a privilege; without it the hard limit stands
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: want, Max: want}) == nil {
			return want, nil
		}
	}
	lim.Cur = min(want, lim.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("setrlimit: %w", err)
	}
	return lim.Cur, nil
}

// cpuModel reads /proc/cpuinfo.
func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown CPU"
	}
	return parseCPUModel(b)
}

func parseCPUModel(b []byte) string {
	for line := range bytes.Lines(b) {
		if k, v, ok := bytes.Cut(line, []byte(":")); ok && string(bytes.TrimSpace(k)) == "model name" {
			return string(bytes.TrimSpace(v))
		}
	}
	return "unknown CPU (" + runtime.GOARCH + ")"
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown kernel"
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}
