package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"lb/config"
)

// given is a listening socket that was open before this process: that of the lb before it, or of systemd.
type given struct {
	network string // "tcp" or "unix"
	key     string // the address as a configuration had it, or the path; "" of systemd
	name    string // of the listener, or what systemd calls it
	addr    net.Addr
	file    *os.File
	lasting bool // systemd holds it, too, for as long as there is an lb.socket
	taken   bool
}

// newGiven takes fd over.
func newGiven(fd int, network, key, name string, lasting bool) (*given, error) {
	g := &given{network: network, key: key, name: name, lasting: lasting, file: os.NewFile(uintptr(fd), "listener")}
	ln, err := net.FileListener(g.file)
	if err != nil {
		g.file.Close()
		return nil, err
	}
	g.addr = ln.Addr()
	if g.network = g.addr.Network(); g.network == "unix" && key == "" {
		g.key = g.addr.String()
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return g, ln.Close() // only of this copy
}

// listener makes one of another copy of the descriptor.
func (g *given) listener() (net.Listener, error) {
	ln, err := net.FileListener(g.file)
	if err != nil {
		return nil, err
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return ln, nil
}

// givens are all that this process was given.
type givens []*given

// take finds the socket of an address in a configuration, nil when it was not given. That of the lb before is found by
// what its configuration called it, so that each port of 0 finds its own; and any by where it really is.
func (all givens) take(network, address, name string) *given {
	for _, fits := range []func(*given) bool{
		func(g *given) bool { return g.key == address && g.name == name },
		func(g *given) bool { return g.called(address, name) },
		func(g *given) bool { return network == "tcp" && listensAt(g.addr, address) },
	} {
		for _, g := range all {
			if g.network == network && (!g.taken || g.lasting) && fits(g) {
				g.taken = true
				return g
			}
		}
	}
	return nil
}

// called reports whether the socket had that address in a configuration. A listener may be renamed, but with port 0 the admin
// server, which has no name, and a listener are called the same and are not.
func (g *given) called(address, name string) bool {
	return g.key == address && (g.name == "") == (name == "")
}

// wanted reports whether cfg has an address that the socket is taken for.
func (g *given) wanted(cfg *config.Config) bool {
	fits := func(address, name string) bool {
		return g.called(address, name) || listensAt(g.addr, address)
	}
	return fits(cfg.Admin.Address, "") || slices.ContainsFunc(cfg.Listens, func(l config.Listen) bool { return fits(l.Address, l.Name) })
}

// lasts reports whether systemd holds the socket at a.
func (all givens) lasts(a net.Addr) bool {
	for _, g := range all {
		if g.lasting && g.network == a.Network() && g.addr.String() == a.String() {
			return true
		}
	}
	return false
}

// drop lets go of what will not be asked for again.
func (all givens) drop() (rest givens) {
	for _, g := range all {
		if g.lasting {
			rest = append(rest, g)
		} else {
			g.file.Close()
		}
	}
	return rest
}

// listensAt reports whether a socket bound to a is what listening at address would give.
func listensAt(a net.Addr, address string) bool {
	at, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port != strconv.Itoa(at.Port) || port == "0" {
		return false
	}
	bound := at.AddrPort().Addr().Unmap()
	if host == "" {
		return bound.IsUnspecified()
	}
	if want, err := netip.ParseAddr(host); err == nil {
		return want.Unmap().WithZone("") == bound.WithZone("")
	}
	if host == "localhost" {
		return bound.IsLoopback()
	}
	return false
}

// Activated takes the sockets over that systemd opened for this process (sd_listen_fds(3)), if there are any: the value
// is for Options.Sockets.
func Activated(getenv func(string) string) (Sockets, error) {
	const first = 3
	if getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return Sockets{}, nil
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n < 0 || n > 1000 {
		return Sockets{}, fmt.Errorf("LISTEN_FDS is %q, which is no number of sockets", getenv("LISTEN_FDS"))
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	var s Sockets
	for i := range n {
		fd := first + i
		syscall.CloseOnExec(fd)
		name := ""
		if i < len(names) {
			name = names[i]
		}
		g, err := newGiven(fd, "", "", name, true)
		if err != nil {
			return s, fmt.Errorf("socket %d of systemd's (%s) cannot be listened at: %w", i+1, name, err)
		}
		s.all = append(s.all, g)
	}
	return s, nil
}

// Sockets are listening sockets that were open before this process. The zero value is none.
type Sockets struct{ all givens }

// unmatched says which sockets of systemd's nothing of cfg listens at: connections to them would wait for ever.
func (s *Server) unmatched(cfg *config.Config) error {
	var all []error
	for _, g := range s.given {
		if g.lasting && !g.taken {
			all = append(all, fmt.Errorf("%s: systemd gave lb a socket at %s (%s), and no [listen] or [admin] address is that one: "+
				"have ListenStream= in lb.socket and the addresses in the file agree", cfg.File, g.addr, g.name))
		}
	}
	return errors.Join(all...)
}
