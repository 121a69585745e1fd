package accesslog

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func prepare(t *testing.T, l *Log, o Options) *Next {
	t.Helper()
	n, err := l.Prepare(o)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func use(t *testing.T, l *Log, o Options) {
	t.Helper()
	if err := prepare(t, l, o).Use(); err != nil {
		t.Fatal(err)
	}
}

// Two loops write while the log moves between files, formats and off: no line is torn, mixed up or lost, but for those
// of the time when it was off, and every file has lines of its own format only.
func TestNextUnderLoad(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	all := []Options{
		{Path: at("json")}, {Path: at("combined"), Format: Combined}, {Format: Off}, {Path: at("json2")},
		{Path: at("combined2"), Format: Combined}, {Path: at("json")},
	}
	l := open(t, Options{Path: at("json"), Loops: 2})
	stop := make(chan struct{})
	var loops sync.WaitGroup
	var sent [2]int
	for i := range 2 {
		loops.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if l.On() {
					l.Append(i, numbered(sent[i]*2+i))
					sent[i]++
				}
			}
		})
	}
	before := l.Lines()
	for i := range 30 {
		use(t, l, all[i%len(all)])
		if l.On() {
			until(t, "lines", func() bool { return l.Lines() > before })
			before = l.Lines()
		}
	}
	close(stop)
	loops.Wait()
	shut(t, l)
	lines := 0
	for _, name := range []string{"json", "json2", "combined", "combined2"} {
		b, err := os.ReadFile(at(name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "json") {
			ids(t, b)
		} else if n := bytes.Count(b, []byte(`"- - -" 200`)) + bytes.Count(b, []byte("] \"")); n < bytes.Count(b, []byte("\n")) || bytes.Contains(b, []byte("{")) {
			t.Errorf("%s has lines of another format", name)
		}
		lines += bytes.Count(b, []byte("\n"))
	}
	if lines == 0 || uint64(lines) != l.Lines() {
		t.Errorf("%d lines in the files, %d counted", lines, l.Lines())
	}
	if most := uint64(sent[0] + sent[1]); l.Lines()+l.Dropped() > most {
		t.Errorf("%d lines and %d dropped, of %d", l.Lines(), l.Dropped(), most)
	}
}

// What is there before goes to the old file, also when the next line comes first thing after.
func TestNextSplitsAtUse(t *testing.T) {
	dir := t.TempDir()
	old, next := filepath.Join(dir, "old"), filepath.Join(dir, "next")
	l := open(t, Options{Path: old})
	l.Append(0, numbered(1))
	n := prepare(t, l, Options{Path: next, Format: Combined})
	l.Append(0, numbered(2))
	if err := n.Use(); err != nil {
		t.Fatal(err)
	}
	l.Append(0, numbered(3))
	b, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(t, b); len(got) != 2 {
		t.Errorf("the old file has %v", got)
	}
	if err := os.Rename(next, next+".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil { // of the new path
		t.Fatal(err)
	}
	shut(t, l)
	if _, err := os.Stat(next); err != nil {
		t.Error(err)
	}
}

func TestNextDiscarded(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Path: filepath.Join(dir, "a")})
	if _, err := l.Prepare(Options{Path: filepath.Join(dir, "no", "b")}); err == nil {
		t.Error("no error")
	}
	prepare(t, l, Options{Path: filepath.Join(dir, "b")}).Discard()
	l.Append(0, numbered(1))
	shut(t, l)
	if b, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || len(ids(t, b)) != 1 {
		t.Errorf("%v %q", err, b)
	}
	if err := prepare(t, l, Options{Path: filepath.Join(dir, "b")}).Use(); err == nil {
		t.Error("Use after Close: no error")
	}
}

// A pipe that nobody reads does not keep the log from moving on.
func TestNextLeavesAStuckPipe(t *testing.T) {
	dir := t.TempDir()
	fifo, next := filepath.Join(dir, "fifo"), filepath.Join(dir, "next")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Skip(err)
	}
	l := open(t, Options{Path: fifo})
	for i := range 5000 {
		l.Append(0, numbered(i))
	}
	use(t, l, Options{Path: next, Format: Combined})
	l.Append(0, numbered(0))
	shut(t, l)
	b, err := os.ReadFile(next)
	if err != nil || bytes.Count(b, []byte("\n")) != 1 || bytes.Contains(b, []byte("{")) {
		t.Errorf("%v %q", err, b)
	}
}
