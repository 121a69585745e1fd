package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// The exit codes of all commands. 2 is not among them: a Go process that panics ends with it.
const (
	exitFailed  = 1
	exitNobody  = 3
	exitNoLB    = 4
	exitLeft    = 5
	exitSome    = 6
	exitUnknown = 7
	exitRestart = 8
	exitBad     = 9
	exitStopped = 10
	exitUsage   = 64 // EX_USAGE of BSD's sysexits.h
)

// exitCodes is what scripts go by. docs/api.md has the same table; a test compares.
var exitCodes = []struct {
	code int
	says string
}{
	{0, "done. lb status: every backend is ready"},
	{exitFailed, "it failed or was refused, and standard error says why. lb check and lb reload: the file has mistakes"},
	{2, "lb crashed, as every Go program that panics: please report what it printed"},
	{exitNobody, "lb status: a pool has no ready backend"},
	{exitNoLB, "no lb runs with that configuration, or at that socket"},
	{exitLeft, "the wait was over before all had ended. lb drain, lb remove: something is left. lb ready: the backend is not in use yet. lb run: the grace was over, and what was left was cut"},
	{exitSome, "lb status: a backend is not ready, and every pool has one that is"},
	{exitUnknown, "there is no such pool or backend"},
	{exitRestart, "lb upgrade: the lb that runs cannot be upgraded and has to be restarted"},
	{exitBad, "lb rollout: a backend is bad, and was left out of use; the others are in use"},
	{exitStopped, "lb rollout: it was interrupted, or could not go on; nothing is left out of use for good"},
	{exitUsage, "the command line is wrong"},
}

// exit is an error that ends the process with a code; err, when there is one, is printed as it is.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

// coded gives err a code.
func coded(code int, err error) error { return &exit{code, fmt.Errorf("lb: %w", err)} }

// misused is an error of the command line.
func misused(format string, args ...any) error { return coded(exitUsage, fmt.Errorf(format, args...)) }

// exitCode prints err, if there is anything to say, and gives the code of the process. begun is whether the command
// line was understood.
func exitCode(w world, err error, begun bool) int {
	var e *exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		if e.err != nil {
			fmt.Fprintln(w.stderr, e.err)
		}
		return e.code
	}
	fmt.Fprintf(w.stderr, "lb: %v\n", err)
	if !begun {
		return exitUsage
	}
	return exitFailed
}

// exitCodesTopic is `lb help exit-codes`.
func exitCodesTopic() *cobra.Command {
	var b strings.Builder
	b.WriteString("What the exit code of a command says:\n\n")
	for _, c := range exitCodes {
		for i, line := range wrap(c.says, 70) {
			if i == 0 {
				fmt.Fprintf(&b, "  %3d  %s\n", c.code, line)
			} else {
				fmt.Fprintf(&b, "       %s\n", line)
			}
		}
	}
	return &cobra.Command{Use: "exit-codes", Short: "What the exit code of a command says", Long: strings.TrimSuffix(b.String(), "\n")}
}

// wrap breaks text into lines of at most width bytes, where it has spaces.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
