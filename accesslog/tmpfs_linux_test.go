package accesslog

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A real disk that fills up, in the middle of a line as disks do, and that has room again later.
func TestTmpfsFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	ballast, path := filepath.Join(dir, "ballast"), filepath.Join(dir, "access.log")
	if err := os.WriteFile(ballast, make([]byte, 32<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	var errs []error
	l := open(t, Options{Path: path, OnError: func(err error) { errs = append(errs, err) }})
	n := 0
	for range 4 {
		for range 300 {
			l.Append(0, numbered(n))
			n++
		}
		// The line that the disk stopped in the middle of is neither written nor dropped yet.
		until(t, "the lines are gone", func() bool { return l.Lines()+l.Dropped() >= uint64(n-1) })
	}
	if l.Lines() == 0 || l.Dropped() == 0 {
		t.Errorf("%d lines, %d dropped", l.Lines(), l.Dropped())
	}
	full := l.Lines()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		l.Append(0, numbered(n))
		n++
	}
	until(t, "the log comes back", func() bool { return l.Lines() >= full+100 })
	shut(t, l)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := ids(t, data)
	if len(got) != int(l.Lines()) || l.Lines()+l.Dropped() != uint64(n) || got[len(got)-1] != n-1 {
		t.Errorf("%d lines in the file, %d counted, %d dropped, of %d; the last is %d", len(got), l.Lines(), l.Dropped(), n, got[len(got)-1])
	}
	if len(errs) != 2 || !errors.Is(errs[0], syscall.ENOSPC) || errs[1] != nil {
		t.Errorf("told of %v", errs)
	}
}
