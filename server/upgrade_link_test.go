package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pair is both ends of a link.
func pair(t *testing.T) (a, b *link) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*link
	for i, fd := range fds {
		if ends[i], err = newLink(os.NewFile(uintptr(fd), "link")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(ends[i].close)
	}
	return ends[0], ends[1]
}

// Messages come as they were sent, each with its own descriptors, whatever their size and however many are on their way.
func TestLink(t *testing.T) {
	a, b := pair(t)
	const messages = 300
	sent := make(chan error, 1)
	go func() {
		sent <- func() error {
			defer a.close()
			for i := range messages {
				var files []*os.File
				for j := range i % 5 {
					f, err := os.CreateTemp(t.TempDir(), "")
					if err != nil {
						return err
					}
					fmt.Fprintf(f, "%d of %d", j, i)
					files = append(files, f)
				}
				if err := a.send(fmt.Sprint("kind ", i), strings.Repeat("x", i*i%100_000), files...); err != nil {
					return err
				}
				for _, f := range files {
					f.Close()
				}
			}
			return nil
		}()
	}()
	for i := range messages {
		m, err := b.receive()
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind != fmt.Sprint("kind ", i) || len(m.Body) != i*i%100_000+2 || len(m.fds) != i%5 {
			t.Fatalf("message %d: %s, %d bytes, %d descriptors", i, m.Kind, len(m.Body), len(m.fds))
		}
		for j, fd := range m.fds {
			f := os.NewFile(uintptr(fd), "came")
			text := make([]byte, 100)
			n, err := f.ReadAt(text, 0)
			if want := fmt.Sprintf("%d of %d", j, i); err != io.EOF || !bytes.Equal(text[:n], []byte(want)) {
				t.Errorf("%v: %q, want %q", err, text[:n], want)
			}
			f.Close()
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if _, err := b.receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

// What makes no sense is an error, and neither a panic nor gigabytes.
func TestLinkNonsense(t *testing.T) {
	for name, bytes := range map[string]string{
		"size":  "\xff\xff\xff\xff",
		"json":  "\x00\x00\x00\x02{]",
		"files": "\x00\x00\x00\x0b{\"files\":1}",
	} {
		a, b := pair(t)
		if _, err := a.c.Write([]byte(bytes)); err != nil {
			t.Fatal(err)
		}
		if _, err := b.receive(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
