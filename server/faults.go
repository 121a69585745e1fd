package server

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"lb/config"
)

// faults collects what keeps a good file from running here and now: a port that is taken, a name that nobody knows.
type faults []error

// add notes err about the key at path, which stands at pos in the file of cfg, or is a default when pos is zero.
func (f *faults) add(cfg *config.Config, pos config.Pos, path string, err error) {
	file := cmp.Or(cfg.File, "config")
	if pos == (config.Pos{}) {
		*f = append(*f, fmt.Errorf("%s: %s: %w", file, path, err))
		return
	}
	*f = append(*f, fmt.Errorf("%s:%d:%d: %s: %w", file, pos.Line, pos.Column, path, err))
}

func (f faults) err() error { return errors.Join(f...) }

// listenFault says what is wrong with listening on address in words, and what would help.
func listenFault(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%q is taken: another program listens there already; stop it, or choose another address (%w)", address, bare(err))
	case errors.Is(err, syscall.EACCES):
		_, port, _ := net.SplitHostPort(address)
		if strings.Contains(address, "/") {
			break
		}
		return fmt.Errorf("not allowed to listen on %q: a port below 1024, such as %s, is for root and for programs with CAP_NET_BIND_SERVICE (%w)", address, port, bare(err))
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("cannot listen on %q: this machine has no such address (%w)", address, bare(err))
	}
	return fmt.Errorf("cannot listen on %q: %w", address, bare(err))
}

// bare takes the wrapping off that repeats the address and names the system call.
func bare(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		err = sys.Err
	}
	return err
}
