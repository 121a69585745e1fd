//go:build !linux

package server

import "os"

func spawn(path string, args []string, attr *os.ProcAttr) (*os.Process, error) {
	p, err := os.StartProcess(path, args, attr)
	if err == nil {
		go p.Wait() // one that fails must not be left as a zombie; one that takes over outlives us
	}
	return p, err
}
