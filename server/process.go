package server

import (
	"slices"
	"strings"

	"lb/upstream"
)

// A command that restarts an instance may be done before the instance is: while the old process goes on for a moment,
// checks pass, and say nothing of the new one. What tells the two apart is the listening socket. A new process makes a
// new one, with an inode of its own, which every user may see. Only where a socket is handed on, as by systemd's socket
// activation, does it stay the same: then it is the processes that have it open, where those can be seen.

// process is by what the process that listens at a backend's address is known.
type process struct{ sockets, holders []string }

func processAt(a upstream.Addr) process {
	p := process{sockets: listeners(a)}
	if len(p.sockets) > 0 {
		p.holders = holders(p.sockets)
	}
	return p
}

// String is for parseProcess.
func (p process) String() string {
	if len(p.sockets) == 0 {
		return ""
	}
	return strings.Join(p.sockets, ",") + " " + strings.Join(p.holders, ",")
}

func parseProcess(s string) (p process) {
	sockets, holders, _ := strings.Cut(s, " ")
	split := func(s string) []string {
		return slices.DeleteFunc(strings.Split(s, ","), func(s string) bool { return s == "" })
	}
	return process{split(sockets), split(holders)}
}

// stillAt reports whether p, or a part of it, still listens at a. What is not known counts as gone.
func (p process) stillAt(a upstream.Addr) bool {
	if len(p.sockets) == 0 {
		return false
	}
	now := process{sockets: listeners(a)}
	if !common(p.sockets, now.sockets) {
		return false
	}
	if len(p.holders) == 0 {
		return true
	}
	now.holders = holders(now.sockets)
	return len(now.holders) == 0 || common(p.holders, now.holders)
}

func common(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}
