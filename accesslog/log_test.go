package accesslog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// until polls for a condition that another goroutine brings about.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func open(t *testing.T, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func shut(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(context.Background()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func numbered(n int) *Record {
	return &Record{Time: time.Unix(1e9, 0), Status: 200, RequestID: strconv.AppendInt(nil, int64(n), 10)}
}

// ids reads the request ids of whole lines and fails at anything that is none.
func ids(t *testing.T, data []byte) []int {
	t.Helper()
	if len(data) == 0 {
		return nil
	}
	if data[len(data)-1] != '\n' {
		t.Errorf("the last line is torn: ...%q", data[max(0, len(data)-40):])
	}
	var out []int
	for line := range bytes.Lines(data) {
		var v struct {
			ID string `json:"request_id"`
		}
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		n, err := strconv.Atoi(v.ID)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

// limited is a disk: it takes room bytes, in pieces, and then fails as a full one does.
type limited struct {
	mu   sync.Mutex
	data []byte
	room int
}

func (w *limited) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(p), w.room)
	w.data = append(w.data, p[:n]...)
	w.room -= n
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (w *limited) grant(n int) {
	w.mu.Lock()
	w.room += n
	w.mu.Unlock()
}

func TestOffAndNil(t *testing.T) {
	var none *Log
	off := open(t, Options{Format: Off, Path: "/nowhere/at/all"})
	for _, l := range []*Log{none, off} {
		l.Append(3, sample())
		if l.On() || l.Lines() != 0 || l.Dropped() != 0 || l.Reopen() != nil {
			t.Error("a log that is off does something")
		}
		shut(t, l)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, o := range []Options{{Format: "xml"}, {Path: filepath.Join(t.TempDir(), "no", "such", "dir")}, {Path: t.TempDir()}} {
		if l, err := Open(o); err == nil {
			t.Errorf("%+v: no error", o)
			shut(t, l)
		}
	}
}

// A line is written without anything following it.
func TestALonelyLineIsWritten(t *testing.T) {
	w := &limited{room: 1 << 20}
	l := open(t, Options{Writer: w, Loops: 4})
	defer shut(t, l)
	for i := range 3 {
		l.Append(i, numbered(i))
		until(t, "the line", func() bool { return l.Lines() == uint64(i+1) })
	}
}

// Partial writes and a full disk: whole lines only, each at most once, and the log comes back by itself.
func TestDiskFull(t *testing.T) {
	w := &limited{room: 1000}
	var failed, recovered int
	l := open(t, Options{Writer: w, OnError: func(err error) {
		if errors.Is(err, syscall.ENOSPC) {
			failed++
		} else if err == nil {
			recovered++
		}
	}})
	n := 0
	for range 15 { // whatever the grants, they end in the middle of lines
		for range 10 {
			l.Append(0, numbered(n))
			n++
		}
		until(t, "the lines are gone", func() bool { return l.Lines()+l.Dropped() >= uint64(n-1) })
		w.grant(337)
	}
	if l.Dropped() == 0 || l.Lines() < 10 {
		t.Errorf("%d lines, %d dropped", l.Lines(), l.Dropped())
	}
	w.grant(1 << 20)
	l.Append(0, numbered(n))
	n++
	shut(t, l)
	got := ids(t, w.data)
	for i := 1; i < len(got); i++ {
		if got[i] <= got[i-1] {
			t.Errorf("line %d after line %d", got[i], got[i-1])
		}
	}
	if got[len(got)-1] != n-1 {
		t.Error("the log did not come back when there was room")
	}
	if int(l.Lines()) != len(got) || l.Lines()+l.Dropped() != uint64(n) {
		t.Errorf("%d lines in the file, %d counted, %d dropped, of %d", len(got), l.Lines(), l.Dropped(), n)
	}
	if failed == 0 || failed != recovered {
		t.Errorf("told %d times of failure, %d times of recovery", failed, recovered)
	}
}

func TestDevFull(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	var errs []error
	l := open(t, Options{Path: "/dev/full", OnError: func(err error) { errs = append(errs, err) }})
	for i := range 2000 {
		l.Append(0, numbered(i))
	}
	until(t, "lines counted as dropped", func() bool { return l.Dropped() == 2000 })
	if err := l.Reopen(); err != nil {
		t.Error(err)
	}
	shut(t, l)
	if l.Lines() != 0 || len(errs) != 1 || !errors.Is(errs[0], syscall.ENOSPC) {
		t.Errorf("%d lines, errors %v", l.Lines(), errs)
	}
}

// blocked is a writer that hangs, as a blocking descriptor does when nobody reads.
type blocked struct {
	entered chan struct{}
	release chan struct{}
	bytes.Buffer
}

func (w *blocked) Write(p []byte) (int, error) {
	select {
	case w.entered <- struct{}{}:
	default:
	}
	<-w.release
	return w.Buffer.Write(p)
}

func TestReaderStops(t *testing.T) {
	w := &blocked{entered: make(chan struct{}, 1), release: make(chan struct{})}
	l := open(t, Options{Writer: w, Loops: 2})
	l.Append(0, numbered(0))
	<-w.entered
	n := 1
	for ; l.Dropped() == 0; n++ { // Append must not wait, and memory is bounded: it ends
		l.Append(n%2, numbered(n))
	}
	for i := range l.lanes {
		if c := cap(l.lanes[i].buf); c > limit {
			t.Errorf("a buffer of %d bytes", c)
		}
	}
	// Once the reader is back, everything that waited goes out and new lines are taken.
	w.release <- struct{}{}
	close(w.release)
	until(t, "the waiting lines", func() bool { return l.Lines()+l.Dropped() == uint64(n) })
	l.Append(0, numbered(n))
	shut(t, l)
	if got := ids(t, w.Bytes()); len(got) != int(l.Lines()) || got[len(got)-1] != n {
		t.Errorf("%d lines, %d counted", len(got), l.Lines())
	}
	l.Append(0, numbered(0)) // after Close
	if l.Lines()+l.Dropped() != uint64(n+2) {
		t.Error("a line after Close is not counted")
	}
}

func TestCloseKeepsItsDeadline(t *testing.T) {
	w := &blocked{entered: make(chan struct{}, 1), release: make(chan struct{})}
	l := open(t, Options{Writer: w})
	l.Append(0, numbered(0))
	<-w.entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	close(w.release)
	<-l.done
}

func TestFIFOWithoutReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	l := open(t, Options{Path: path, Loops: 2})
	n := 0
	for ; l.Dropped() == 0; n++ {
		l.Append(n%2, numbered(n))
	}
	if err := l.Reopen(); err != nil { // the same FIFO: nothing may be lost or torn by it
		t.Error(err)
	}

	r, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var data []byte
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 3000)
		for {
			k, err := r.Read(buf)
			mu.Lock()
			data = append(data, buf[:k]...)
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	until(t, "what waited", func() bool { return l.Lines()+l.Dropped() == uint64(n) })
	l.Append(0, numbered(n))
	shut(t, l) // ends the FIFO for the reader
	<-read
	r.Close()
	got := ids(t, data)
	if len(got) != int(l.Lines()) || got[len(got)-1] != n {
		t.Errorf("%d lines read, %d counted, last %d of %d", len(got), l.Lines(), got[len(got)-1], n)
	}
	seen := map[int]bool{}
	for _, id := range got {
		if seen[id] {
			t.Errorf("line %d twice", id)
		}
		seen[id] = true
	}
}

func TestCloseWithoutReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	l := open(t, Options{Path: path})
	n := 0
	for ; l.Dropped() == 0; n++ {
		l.Append(0, numbered(n))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := l.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	<-l.done // interrupted, not left behind
	if l.Lines()+l.Dropped() != uint64(n) {
		t.Errorf("%d lines + %d dropped of %d", l.Lines(), l.Dropped(), n)
	}
}

func TestReopenKeepsTheOldFileOnFailure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{Path: filepath.Join(dir, "a.log")})
	l.Append(0, numbered(0))
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err == nil {
		t.Error("no error")
	}
	l.Append(0, numbered(1))
	shut(t, l)
	data, err := os.ReadFile(filepath.Join(dir+".old", "a.log"))
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(t, data); len(got) != 2 {
		t.Errorf("lines %v", got)
	}
	if err := l.Reopen(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Reopen after Close: %v", err)
	}
}

// Rotation under load: every line is in exactly one of the files, whole, and old files do not grow after Reopen.
func TestRotation(t *testing.T) {
	const loops, each, rotations = 3, 8000, 25
	path := filepath.Join(t.TempDir(), "access.log")
	l := open(t, Options{Path: path, Loops: loops})
	var wg sync.WaitGroup
	for loop := range loops {
		wg.Go(func() {
			for i := range each {
				l.Append(loop, numbered(loop*each+i))
				// Slower than the writer: a loss here would be the test's doing, not rotation's.
				for i%1000 == 0 && int(l.Lines()) < loops*(i-2000) {
					runtime.Gosched()
				}
			}
		})
	}
	sizes := map[string]int64{}
	for i := range rotations {
		old := fmt.Sprint(path, ".", i)
		if err := os.Rename(path, old); err != nil {
			t.Fatal(err)
		}
		if err := l.Reopen(); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(old)
		if err != nil {
			t.Fatal(err)
		}
		sizes[old] = fi.Size()
	}
	wg.Wait()
	shut(t, l)
	seen := make([]int, loops*each)
	files, _ := filepath.Glob(path + "*")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if size, ok := sizes[file]; ok && size != int64(len(data)) {
			t.Errorf("%s grew from %d to %d after Reopen", file, size, len(data))
		}
		for _, id := range ids(t, data) {
			seen[id]++
		}
	}
	for id, n := range seen {
		if n != 1 {
			t.Fatalf("line %d is there %d times; %d dropped", id, n, l.Dropped())
		}
	}
	if len(files) != rotations+1 || l.Lines() != loops*each || l.Dropped() != 0 {
		t.Errorf("%d files, %d lines, %d dropped", len(files), l.Lines(), l.Dropped())
	}
}

// When a torn line can never be finished in its file, its beginning is taken off again.
func TestATornLineIsTakenBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	f, err := openFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "whole\nbegin"); err != nil {
		t.Fatal(err)
	}
	full := &target{w: &limited{}, f: f}
	l := &Log{out: writer{target: full}}
	rest, lines := l.tear([]byte("whole\nbeginning\nnext\n"), len("whole\nbegin"), 2)
	if string(rest) != "next\n" || lines != 1 || string(l.out.torn) != "ning\n" {
		t.Errorf("rest %q, %d lines, torn %q", rest, lines, l.out.torn)
	}
	l.leave()
	if data, _ := os.ReadFile(path); string(data) != "whole\n" || l.Dropped() != 1 {
		t.Errorf("left %q, %d dropped", data, l.Dropped())
	}
}

// The reader of standard output may go away; a process that dies of it takes the traffic with it.
func TestStandardOutputClosed(t *testing.T) {
	if os.Getenv("ACCESSLOG_CHILD") != "" {
		var failed error
		l, err := Open(Options{OnError: func(err error) { failed = err }})
		if err != nil {
			t.Fatal(err)
		}
		l.Append(0, numbered(0))
		_ = l.Close(context.Background())
		fmt.Fprintf(os.Stderr, "alive, %d lines, %d dropped: %v", l.Lines(), l.Dropped(), failed)
		os.Exit(0) // the test framework itself would write to standard output
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	var told strings.Builder
	child := exec.Command(os.Args[0], "-test.run=^TestStandardOutputClosed$")
	child.Env = append(os.Environ(), "ACCESSLOG_CHILD=1")
	child.Stdout, child.Stderr = w, &told
	if err := child.Run(); err != nil {
		t.Fatalf("%v: %s", err, &told)
	}
	if !strings.HasPrefix(told.String(), "alive, 0 lines, 1 dropped: ") || !strings.Contains(told.String(), "broken pipe") {
		t.Error(told.String())
	}
}
