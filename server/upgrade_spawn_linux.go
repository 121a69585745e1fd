package server

import (
	"os"
	"syscall"
)

// spawn starts the process that is to take over. It becomes a child of our parent, not ours: systemd waits for the main
// process of a service, and notices its end, only when it is its own child.
func spawn(path string, args []string, attr *os.ProcAttr) (*os.Process, error) {
	attr.Sys = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_PARENT}
	return os.StartProcess(path, args, attr)
}
