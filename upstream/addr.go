package upstream

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Addr is where a backend listens: a TCP address, or a unix socket when Path is not empty.
type Addr struct {
	AddrPort netip.AddrPort
	Path     string // of a unix socket; a leading @ means Linux's abstract name space
}

// ParseAddr reads "127.0.0.1:3000", "[::1]:3000" or "unix:/run/app.sock". It resolves no names: that takes time and
// can fail, so whoever can wait does it beforehand.
func ParseAddr(s string) (Addr, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" {
			return Addr{}, errors.New("unix socket without a path, want unix:/run/app.sock")
		}
		return Addr{Path: path}, nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return Addr{}, fmt.Errorf("address %q: want 127.0.0.1:3000, [::1]:3000 or unix:/run/app.sock", s)
	}
	if ap.Port() == 0 {
		return Addr{}, fmt.Errorf("address %q: port 0 cannot be connected to", s)
	}
	return Addr{AddrPort: netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())}, nil
}

// String is the form that ParseAddr reads.
func (a Addr) String() string {
	if a.Path != "" {
		return "unix:" + a.Path
	}
	return a.AddrPort.String()
}

// Local reports whether the backend is on this machine: a unix socket or a loopback address.
func (a Addr) Local() bool { return a.Path != "" || a.AddrPort.Addr().IsLoopback() }
