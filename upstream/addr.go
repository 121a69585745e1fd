package upstream

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

// Addr is where a backend listens: a TCP address, or a unix socket when Path is not empty.
type Addr struct {
	AddrPort netip.AddrPort
	Path     string // of a unix socket; a leading @ means Linux's abstract name space

	// Localhost: it was given as "localhost", which is both 127.0.0.1, as in AddrPort, and ::1. Node.js takes the first
	// one that the system names, so which of them an app listens at depends on the machine.
	Localhost bool
}

// ParseAddr reads "127.0.0.1:3000", "[::1]:3000", "localhost:3000" or "unix:/run/app.sock". It resolves no other names: that
// takes time and can fail, so whoever can wait does it beforehand.
func ParseAddr(s string) (Addr, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" {
			return Addr{}, errors.New("unix socket without a path, want unix:/run/app.sock")
		}
		return Addr{Path: path}, nil
	}
	port, localhost := strings.CutPrefix(s, "localhost:")
	if localhost {
		s = "127.0.0.1:" + port
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return Addr{}, fmt.Errorf("address %q: want 127.0.0.1:3000, [::1]:3000 or unix:/run/app.sock", s)
	}
	if ap.Port() == 0 {
		return Addr{}, fmt.Errorf("address %q: port 0 cannot be connected to", s)
	}
	return Addr{AddrPort: netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), Localhost: localhost}, nil
}

// String is the form that ParseAddr reads.
func (a Addr) String() string {
	switch {
	case a.Path != "":
		return "unix:" + a.Path
	case a.Localhost:
		return "localhost:" + strconv.Itoa(int(a.AddrPort.Port()))
	}
	return a.AddrPort.String()
}

// Other is where to connect to when a refuses; ok is false where there is no such place.
func (a Addr) Other() (other Addr, ok bool) {
	return Addr{AddrPort: netip.AddrPortFrom(netip.IPv6Loopback(), a.AddrPort.Port())}, a.Localhost
}

// Absent reports whether err, of a connection to Other, says that nobody is there: it refuses, too, or this machine has no such
// address, as IPv6 is switched off. After any other error, such as a timeout, somebody may be, who is only busy.
func Absent(err error) bool {
	for _, e := range []syscall.Errno{syscall.ECONNREFUSED, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT, syscall.ENETUNREACH} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Is reports whether a and b are the same place to begin with, where "localhost" is 127.0.0.1.
func (a Addr) Is(b Addr) bool { return a.AddrPort == b.AddrPort && a.Path == b.Path }

// Local reports whether the backend is on this machine: a unix socket or a loopback address.
func (a Addr) Local() bool { return a.Path != "" || a.AddrPort.Addr().IsLoopback() }
