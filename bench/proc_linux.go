package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is what the processes have used of all CPUs, user and system, their threads that have ended included. The
// process's own CPU clock counts ns; utime and stime in /proc/PID/stat count ticks of 10 ms.
func cpuTime(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		var ts unix.Timespec
		// MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED), as clock_getcpuclockid(3) makes it.
		if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
			return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
		}
		sum += time.Duration(ts.Nano())
	}
	return sum, nil
}

// resident is the memory of the processes in bytes, from /proc/PID/smaps_rollup.
func resident(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		n, err := parseRollup(b)
		if err != nil {
			return 0, fmt.Errorf("process %d: %w", pid, err)
		}
		sum += n
	}
	return sum, nil
}

// parseRollup reads the Rss line, in bytes.
func parseRollup(b []byte) (int64, error) {
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) == 3 && string(f[0]) == "Rss:" && string(f[2]) == "kB" {
			n, err := strconv.ParseInt(string(f[1]), 10, 64)
			if err != nil {
				return 0, err
			}
			return n << 10, nil
		}
	}
	return 0, errors.New("no Rss line in smaps_rollup")
}

// tree is root and all that descend from it.
func tree(root int) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // gone meanwhile
		}
		if pid, ppid, err := parseStat(b); err == nil {
			children[ppid] = append(children[ppid], pid)
		}
	}
	pids := []int{root}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children[pids[i]]...)
	}
	return pids, nil
}

// parseStat reads the ids of a process and its parent from /proc/PID/stat. The name between may hold anything, spaces
// and parentheses too; what follows its last parenthesis is "state ppid".
func parseStat(b []byte) (pid, ppid int, err error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return 0, 0, errors.New("stat without a name")
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(string(b[:open]))); err != nil {
		return 0, 0, err
	}
	f := bytes.Fields(b[end+1:])
	if len(f) < 2 {
		return 0, 0, errors.New("short stat")
	}
	ppid, err = strconv.Atoi(string(f[1]))
	return pid, ppid, err
}

// coreBusy is the time that core cpu has not been idle, in ticks of 10 ms: anyone's.
func coreBusy(cpu int) time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	return parseCoreBusy(b, cpu)
}

// parseCoreBusy adds up what /proc/stat counts for the core, without idle and iowait, and without guest, which user
// holds already.
func parseCoreBusy(b []byte, cpu int) time.Duration {
	name := "cpu" + strconv.Itoa(cpu)
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) < 9 || f[0] != name {
			continue
		}
		var ticks int64
		for i, s := range f[1:9] {
			if i == 3 || i == 4 {
				continue
			}
			n, _ := strconv.ParseInt(s, 10, 64)
			ticks += n
		}
		return time.Duration(ticks) * 10 * time.Millisecond
	}
	return 0
}
