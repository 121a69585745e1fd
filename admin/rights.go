package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// Rights say who may use a unix socket, and so change what runs.
type Rights struct {
	Mode     fs.FileMode
	UID, GID int // -1: those of the process
}

// DefaultRights let the user and the group in that lb runs as.
var DefaultRights = Rights{Mode: 0o660, UID: -1, GID: -1}

// FindUser is the number of a user, by its name or number.
func FindUser(name string) (int, error) {
	return find(name, "user", func() (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
}

// FindGroup is the number of a group, by its name or number.
func FindGroup(name string) (int, error) {
	return find(name, "group", func() (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
}

func find(name, what string, lookup func() (string, error)) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	id, err := lookup()
	if err != nil {
		return 0, fmt.Errorf("there is no %s %q on this machine", what, name)
	}
	return strconv.Atoi(id)
}

// give sets the rights of path.
func (r Rights) give(path string) error {
	if r.UID >= 0 || r.GID >= 0 {
		if err := os.Lchown(path, r.UID, r.GID); err != nil {
			if errors.Is(err, fs.ErrPermission) {
				return errors.New("lb may not give its sockets to that user or group: it runs neither as root nor with that group")
			}
			return err
		}
	}
	return os.Chmod(path, r.Mode.Perm())
}

// place sets the rights of a socket and gives it its name.
func (r Rights) place(from, to string) error {
	if err := r.give(from); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// SetRights changes who may use ln, a listener of ListenUnix or TakeUnix; undo takes that back. It does nothing to others.
func SetRights(ln net.Listener, r Rights) (undo func(), err error) {
	undo = func() {}
	s, ok := ln.(*socket)
	if !ok {
		return undo, nil
	}
	now, err := os.Lstat(s.path)
	if err != nil || !os.SameFile(now, s.own) {
		return undo, nil // another's by now
	}
	was := Rights{Mode: now.Mode(), UID: -1, GID: -1}
	if sys, ok := now.Sys().(*syscall.Stat_t); ok {
		was.UID, was.GID = int(sys.Uid), int(sys.Gid)
		if r.UID < 0 {
			r.UID = os.Geteuid()
		}
		if r.GID < 0 {
			r.GID = os.Getegid()
		}
		if r.UID == was.UID && r.GID == was.GID {
			r.UID, r.GID = -1, -1
		}
	}
	undo = func() { was.give(s.path) }
	if err := r.give(s.path); err != nil {
		undo()
		return func() {}, err
	}
	return undo, nil
}
