package e2e

import "syscall"

// dieWithParent has the kernel end a child whose test was killed and could not do so itself.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
