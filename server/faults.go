package server

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
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
		return fmt.Errorf("%q is taken%s; stop it, or choose another address (%w)", address, holderOf(address), bare(err))
	case errors.Is(err, syscall.EACCES):
		_, port, _ := net.SplitHostPort(address)
		if strings.Contains(address, "/") {
			break
		}
		return fmt.Errorf("not allowed to listen on %q: a port below 1024, such as %s, is for root and for programs with CAP_NET_BIND_SERVICE; lb.service has it, "+
			"and \"setcap cap_net_bind_service=+ep\" gives it to the program (%w)", address, port, bare(err))
	case errors.Is(err, syscall.ENOENT) && strings.Contains(address, "/"):
		return fmt.Errorf("cannot listen on %q: there is no directory %s: make it, for the user that lb runs as (%w)", address, filepath.Dir(address), bare(err))
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("cannot listen on %q: this machine has no such address (%w)", address, bare(err))
	}
	return fmt.Errorf("cannot listen on %q: %w", address, bare(err))
}

// holderOf says who listens at the port of address, if that can be seen, and how else to find out.
func holderOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return ": another program listens there already"
	}
	for _, holder := range holders(atPort(uint16(n))) {
		pid, _, _ := strings.Cut(holder, "@")
		if program := programOf(pid); program == "lb" {
			return fmt.Sprintf(" by another lb (process %s)", pid)
		} else if program != "" {
			return fmt.Sprintf(" by %s (process %s)", program, pid)
		}
	}
	return fmt.Sprintf(": another program listens there already, sudo ss -ltnp 'sport = :%s' says which", port)
}

// unwritten is how to choose another address where the file says nothing and a default is taken.
func unwritten(pos config.Pos, err error, how string) error {
	if pos == (config.Pos{}) && errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: write %s into the file", err, how)
	}
	return err
}

// fileFault says what to do about a file that cannot be written.
func fileFault(err error) error {
	var at *fs.PathError
	switch {
	case !errors.As(err, &at):
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: make the directory %s, for the user that lb runs as", err, filepath.Dir(at.Path))
	case errors.Is(err, fs.ErrPermission):
		name := "that lb runs as"
		if u, e := user.Current(); e == nil {
			name = u.Username
		}
		return fmt.Errorf("%w: the user %s has to be allowed to write there", err, name)
	}
	return err
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
