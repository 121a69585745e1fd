package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ListenUnix is ListenUnixFor the user and the group of the process.
func ListenUnix(path string) (net.Listener, error) { return ListenUnixFor(path, DefaultRights) }

// ListenUnixFor listens on a unix socket at path that those may connect to whom r lets. What a process that died left
// there is replaced; a socket that somebody answers on, and a file that is none, are not. Closing the listener removes
// the path, unless it is another's by then.
func ListenUnixFor(path string, r Rights) (net.Listener, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, errors.New("there is a file that is not a socket, and it stays as it is")
	default:
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return nil, fmt.Errorf("somebody else serves it: %w", syscall.EADDRINUSE)
		}
	}
	// Made under another name, so that nobody ever finds the path with wider rights, or missing.
	next := path + "~"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: next, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	if err := r.place(next, path); err != nil {
		ln.Close()
		os.Remove(next)
		return nil, err
	}
	own, err := os.Lstat(path)
	if err != nil {
		ln.Close()
		return nil, err
	}
	return &socket{UnixListener: ln, path: path, own: own}, nil
}

// TakeUnix makes a listener as ListenUnix does of one that another process opened at path. Until Own, closing it leaves
// the path to that process.
func TakeUnix(path string, ln *net.UnixListener) (net.Listener, error) {
	own, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	s := &socket{UnixListener: ln, path: path, own: own}
	s.others.Store(true)
	return s, nil
}

// Own says whether the path of ln, if it is one of ListenUnix or TakeUnix, goes when ln is closed. It stays when another
// process goes on with the socket.
func Own(ln net.Listener, is bool) {
	if s, ok := ln.(*socket); ok {
		s.others.Store(!is)
	}
}

type socket struct {
	*net.UnixListener
	path   string
	own    fs.FileInfo
	others atomic.Bool // the path is another process's
	once   sync.Once
}

// Addr is where clients find it.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

func (s *socket) Close() error {
	s.once.Do(func() {
		if s.others.Load() {
			return
		}
		if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.own) {
			os.Remove(s.path)
		}
	})
	return s.UnixListener.Close()
}
