package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// plain asks an app of edges.mjs for a path of its own.
func plain(c *conn, i int) sample {
	path := fmt.Sprintf("/length?n=%d", i)
	return sample{path, c.do("GET", path, "")}
}

// Rotation under load: each request has its line in one of the files, whole. (Row 34.)
func TestLogRotation(t *testing.T) {
	apps := startApps(t, 2, "edges.mjs")
	l := startLB(t, setup{backends: apps})
	traffic := startLoad(t, l.addr, 16, 1000, func(c *conn, n int64) sample { return plain(c, int(n)) })
	var files []string
	reopened := func() (n int) {
		for _, line := range l.stderr() {
			if strings.Contains(line, `msg="access log reopened"`) {
				n++
			}
		}
		return n
	}
	for i := range 5 {
		traffic.goesOn(t, 300)
		old := fmt.Sprintf("%s.%d", l.logPath, i)
		if err := os.Rename(l.logPath, old); err != nil {
			t.Fatal(err)
		}
		l.signal(syscall.SIGUSR1)
		eventually(t, "the log is opened again", func() bool { return reopened() == i+1 })
		files = append(files, old)
		// From here on the old file is a rotator's to compress or remove.
		before := size(t, old)
		traffic.goesOn(t, 300)
		if after := size(t, old); after != before {
			t.Errorf("%s grew from %d to %d bytes after lb had said that it was closed", old, before, after)
		}
	}
	all := traffic.end()
	allOK(t, all)
	if got := l.settled().sum("lb_access_log_dropped_lines_total"); got != 0 {
		t.Errorf("lb dropped %v lines", got)
	}
	l.stop(0)
	var log []record
	for _, f := range append(files, l.logPath) {
		lines := readLog(t, f)
		if len(lines) < 200 {
			t.Errorf("%s has only %d lines", f, len(lines))
		}
		log = append(log, lines...)
	}
	holdsAgainst(t, log, all)
}

func size(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// A log that cannot be written costs lines, which are counted, and no request. (Row 33.)
func TestLogFull(t *testing.T) {
	apps := startApps(t, 1, "edges.mjs")
	l := startLB(t, setup{backends: apps, log: `path = "/dev/full"`})
	all := flood(l.addr, 8, 1000, plain)
	allOK(t, all)
	l.event(`level=ERROR msg="access log cannot be written, lines are lost" err=.*no space left`)
	l.reaches(float64(len(all)), "lb_access_log_dropped_lines_total")
	l.stop(0)
	l.sawEvent(`msg="access log lost lines" lost=1000`)
}

// A pipe that nobody reads holds up no request either; when somebody does, lines come whole again.
func TestLogPipe(t *testing.T) {
	apps := startApps(t, 1, "edges.mjs")
	pipe := filepath.Join(t.TempDir(), "access.pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	l := startLB(t, setup{backends: apps, log: fmt.Sprintf("path = %q", pipe)})
	// Long lines, to fill what lb keeps for the reader: a megabyte for each loop.
	long := strings.Repeat("x", 7000)
	all := flood(l.addr, 8, 1500, func(c *conn, i int) sample {
		path := fmt.Sprintf("/length?n=%d&%s", i, long)
		return sample{path, c.do("GET", path, "")}
	})
	allOK(t, all)
	if got := l.settled().sum("lb_access_log_dropped_lines_total"); got == 0 {
		t.Error("lb dropped no line: the pipe was read, or lb keeps more than it should")
	}
	f, err := os.OpenFile(pipe, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	done := make(chan int)
	go func() {
		lines := 0
		for r := bufio.NewScanner(bufio.NewReaderSize(f, 64<<10)); r.Scan(); lines++ {
			var line record
			if err := json.Unmarshal(r.Bytes(), &line); err != nil {
				t.Errorf("%v in %q", err, shorten(r.Text()))
			}
		}
		done <- lines
	}()
	flushed := func() float64 {
		m := l.metrics()
		return m.sum("lb_access_log_dropped_lines_total") + m.sum("lb_access_log_lines_total")
	}
	eventually(t, "lb writes what it kept", func() bool { return flushed() == 1500 })
	dropped := l.metrics().sum("lb_access_log_dropped_lines_total")
	more := flood(l.addr, 8, 200, plain)
	allOK(t, more)
	eventually(t, "all is written", func() bool { return flushed() == 1700 })
	if got := l.metrics().sum("lb_access_log_dropped_lines_total"); got != dropped {
		t.Errorf("with a reader, lb dropped %v lines", got-dropped)
	}
	l.stop(0)
	if got := <-done; float64(got) != 1700-dropped {
		t.Errorf("%d lines came through the pipe, want %v", got, 1700-dropped)
	}
}

// The log goes to standard output by default, and its reader may go away.
func TestLogToStandardOutput(t *testing.T) {
	apps := startApps(t, 1, "edges.mjs")
	l := startLB(t, setup{backends: apps, log: `format = "combined"`})
	all := flood(l.addr, 4, 50, plain)
	allOK(t, all)
	l.stop(0)
	lines := l.stdout()
	if len(lines) != 50 || !strings.HasPrefix(lines[0], "127.0.0.1 - - [") || !strings.Contains(lines[0], `] "GET /length?n=`) || !strings.Contains(lines[0], ` HTTP/1.1" 200 12 "-" "-"`) {
		t.Errorf("%d lines for 50 requests, the first: %q", len(lines), lines[:1])
	}

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	l = startLBWith(t, setup{backends: apps, log: `path = "-"`}, func(args ...string) *exec.Cmd {
		cmd := exec.Command(lbBinary, args...)
		cmd.Stdout = w
		return cmd
	})
	r.Close()
	allOK(t, flood(l.addr, 4, 500, plain))
	l.event(`level=ERROR msg="access log cannot be written, lines are lost" err=.*broken pipe`)
	allOK(t, flood(l.addr, 4, 100, plain))
	l.stop(0)
}
