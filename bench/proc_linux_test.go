package main

import (
	"os"
	"slices"
	"testing"
	"time"
)

func TestParseRollup(t *testing.T) {
	const text = "55e0-7ffd ---p 00000000 00:00 0    [rollup]\nRss:                1234 kB\nPss:                 999 kB\n"
	if n, err := parseRollup([]byte(text)); err != nil || n != 1234<<10 {
		t.Errorf("parseRollup = %d, %v", n, err)
	}
	for _, bad := range []string{"", "Pss: 3 kB\n", "Rss: x kB\n"} {
		if n, err := parseRollup([]byte(bad)); err == nil {
			t.Errorf("parseRollup(%q) = %d without an error", bad, n)
		}
	}
}

func TestParseStat(t *testing.T) {
	pid, ppid, err := parseStat([]byte("42 (a) b (c)) S 7 42 42 0 -1 4194560"))
	if pid != 42 || ppid != 7 || err != nil {
		t.Errorf("parseStat = %d, %d, %v", pid, ppid, err)
	}
	for _, bad := range []string{"", "42 a S 7", "x (a) S 7", "42 (a) S", "42 (a) S y"} {
		if _, _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) has no error", bad)
		}
	}
}

func TestParseCoreBusy(t *testing.T) {
	const text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 1 2 3 1000 2000 4 5 6 100 200\ncpu11 7 0 0 0 0 0 0 0 0 0\n"
	if d := parseCoreBusy([]byte(text), 1); d != 210*time.Millisecond {
		t.Errorf("core 1: %v, want its 21 ticks", d)
	}
	if d := parseCoreBusy([]byte(text), 11); d != 70*time.Millisecond {
		t.Errorf("core 11: %v", d)
	}
	if d := parseCoreBusy([]byte(text), 2); d != 0 {
		t.Errorf("core 2, which is not there: %v", d)
	}
}

func TestOwnProcess(t *testing.T) {
	pid := os.Getpid()
	before, err := cpuTime([]int{pid})
	if err != nil {
		t.Fatal(err)
	}
	for sum := 0; ; sum++ {
		after, err := cpuTime([]int{pid})
		if err != nil {
			t.Fatal(err)
		}
		if after > before {
			break
		}
	}
	if n, err := resident([]int{pid}); err != nil || n < 1<<20 {
		t.Errorf("resident = %d, %v", n, err)
	}
	pids, err := tree(os.Getppid())
	if err != nil || !slices.Contains(pids, pid) {
		t.Errorf("tree of the parent = %v, %v, without %d", pids, err, pid)
	}
	if _, err := cpuTime([]int{1 << 22}); err == nil {
		t.Error("the CPU time of a process that cannot be has no error")
	}
}
