package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one fault in a file.
type Error struct {
	File         string
	Line, Column int    // from 1; columns in characters
	Path         string // of the key, such as pool.app.backends[1].weight; "" where it is not about a key
	Msg          string // what is wrong and what would be right
}

// Error gives file:line:column: path: message.
func (e Error) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg)
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s", e.File, e.Line, e.Column, e.Path, e.Msg)
}

// Errors is all that is wrong with a file, in the order of its lines.
type Errors []Error

// Error gives a line for each fault.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

func (es Errors) sort() {
	slices.SortStableFunc(es, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
