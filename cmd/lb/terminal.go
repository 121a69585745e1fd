package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// terminal is what is known of where output goes.
type terminal struct {
	fd     int
	is     bool // a terminal that can move its cursor
	colors bool
}

// terminalOf looks at out. Colours are left out where NO_COLOR is set (no-color.org), whatever its value.
func terminalOf(out io.Writer) terminal {
	f, ok := out.(*os.File)
	if !ok {
		return terminal{}
	}
	t := terminal{fd: int(f.Fd())}
	t.is = term.IsTerminal(t.fd) && os.Getenv("TERM") != "dumb"
	t.colors = t.is && os.Getenv("NO_COLOR") == ""
	return t
}

// size is that of the window, 80 by 24 where there is none.
func (t *terminal) size() (width, height int) {
	if w, h, err := term.GetSize(t.fd); t.is && err == nil && w > 0 && h > 0 {
		return w, h
	}
	return 80, 24
}

// paint makes text coloured.
func (t *terminal) paint(code, text string) string {
	if !t.colors || code == "" || text == "" {
		return text
	}
	return code + text + plain
}
