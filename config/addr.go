package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// maxBackends is of a pool, and so of a range: a slip such as "1-30000" is found, and a file stays readable.
const maxBackends = 1024

// maxSocketPath is what Linux's sun_path holds beside its closing zero.
const maxSocketPath = 107

// span is the backends that one address gives: a socket, or a host and its ports from lo to hi.
type span struct {
	host   string // as in an address: IPv6 in brackets; a unix socket with "unix:"
	lo, hi int    // 0, 0 for a unix socket
}

func (s span) String() string {
	switch {
	case s.lo == 0:
		return s.host
	case s.lo == s.hi:
		return s.address(s.lo)
	}
	return fmt.Sprintf("%s:%d-%d", s.host, s.lo, s.hi)
}

func (s span) address(port int) string {
	if s.lo == 0 {
		return s.host
	}
	return s.host + ":" + strconv.Itoa(port)
}

// parseBackend reads an address of a backend, and says what would be right where it is none.
func parseBackend(s string) (span, error) {
	const forms = `"host:port", "host:3000-3003" or "unix:/path"`
	if strings.TrimSpace(s) != s || s == "" {
		return span{}, fmt.Errorf("%s is not an address: write %s, without spaces", quote(s), forms)
	}
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		rest, _, _ = strings.Cut(rest, "/")
		switch {
		case scheme == "unix":
			return span{}, fmt.Errorf("%s is not an address: write %s", quote(s), quote("unix:"+path.Clean("/"+strings.TrimPrefix(s, "unix://"))))
		case scheme == "https":
			return span{}, fmt.Errorf("%s: lb speaks plain HTTP to backends; write host:port of a port that does", quote(s))
		}
		if _, err := parseBackend(rest); err != nil {
			return span{}, fmt.Errorf("%s is not an address: write %s", quote(s), forms)
		}
		return span{}, fmt.Errorf("%s is not an address: write %s", quote(s), quote(rest))
	}
	if s[0] == '/' {
		return span{}, fmt.Errorf("%s is a path: for the unix socket there, write %s", quote(s), quote("unix:"+s))
	}
	if p, ok := strings.CutPrefix(s, "unix:"); ok {
		return span{host: "unix:" + path.Clean(p)}, checkSocket(p)
	}
	host, ports := "127.0.0.1", s
	if strings.Trim(s, "0123456789-") != "" {
		var err error
		if host, ports, err = splitHostPort(s, "3000"); err != nil {
			return span{}, err
		}
		if host, err = checkHost(host, s); err != nil {
			return span{}, err
		}
		switch host {
		case "":
			return span{}, fmt.Errorf("%s names no host: write %s", quote(s), quote("127.0.0.1"+s))
		case "0.0.0.0", "[::]":
			return span{}, fmt.Errorf("%s: %s means all addresses and cannot be connected to; write %s for this machine", quote(s), host, quote("127.0.0.1:"+ports))
		}
	}
	lo, hi, isRange := strings.Cut(ports, "-")
	if !isRange {
		hi = lo
	}
	var r = span{host: host}
	var err error
	if r.lo, err = parsePort(lo, s, 1); err != nil {
		return span{}, err
	}
	if r.hi, err = parsePort(hi, s, 1); err != nil {
		return span{}, err
	}
	if r.lo > r.hi {
		return span{}, fmt.Errorf("%s: a range goes from the lower port to the higher: write %d-%d", quote(s), r.hi, r.lo)
	}
	if n := r.hi - r.lo + 1; n > maxBackends {
		return span{}, fmt.Errorf("%s is a range of %d ports, %d is the most", quote(s), n, maxBackends)
	}
	return r, nil
}

func checkSocket(path string) error {
	switch {
	case !strings.HasPrefix(path, "/"):
		return fmt.Errorf("%s is not the path of a unix socket: it begins with \"/\", as in \"/run/app.sock\"", quote(path))
	case len(path) > maxSocketPath:
		return fmt.Errorf("the path of a unix socket has at most %d bytes, this one has %d", maxSocketPath, len(path))
	case strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%s has control characters in a path", quote(path))
	}
	return nil
}

// parseListen reads host:port to listen on; the host may be missing and the port 0.
func parseListen(s string) (string, error) {
	if s == "" {
		return "", errors.New(`is empty: write an address such as ":8080"`)
	}
	if strings.Trim(s, "0123456789") == "" {
		return "", fmt.Errorf("%s is not an address: write %s", quote(s), quote(":"+s))
	}
	if strings.HasPrefix(s, "unix:") || strings.HasPrefix(s, "/") {
		return "", fmt.Errorf("%s: this is for TCP addresses such as \":8080\", not for unix sockets", quote(s))
	}
	if _, rest, ok := strings.Cut(s, "://"); ok {
		rest = strings.TrimRight(rest, "/")
		if a, err := parseListen(rest); err == nil {
			return "", fmt.Errorf("%s is not an address: write %s", quote(s), quote(a))
		}
		return "", fmt.Errorf("%s is not an address: write one such as \":8080\" or \"127.0.0.1:8080\"", quote(s))
	}
	if strings.HasPrefix(s, "*:") {
		return "", fmt.Errorf("%s is not an address: write %s for all addresses", quote(s), quote(s[1:]))
	}
	host, port, err := splitHostPort(s, "8080")
	if err != nil {
		return "", err
	}
	if host, err = checkHost(host, s); err != nil {
		return "", err
	}
	n, err := parsePort(port, s, 0)
	return host + ":" + strconv.Itoa(n), err
}

// splitHostPort cuts at the last colon; example is the port of its suggestions.
func splitHostPort(s, example string) (host, port string, err error) {
	i := strings.LastIndexByte(s, ':')
	switch {
	case i < 0 || strings.HasSuffix(s, "]"):
		return "", "", fmt.Errorf("%s has no port: write it after the host, as in %s", quote(s), quote(s+":"+example))
	case strings.Count(s, ":") > 1 && s[0] != '[':
		if _, err := netip.ParseAddr(s[:i]); err == nil {
			return "", "", fmt.Errorf("%s: an IPv6 address stands in brackets: write %s", quote(s), quote("["+s[:i]+"]"+s[i:]))
		}
		if _, err := netip.ParseAddr(s); err == nil {
			return "", "", fmt.Errorf("%s has no port: write it after the address in brackets, as in %s", quote(s), quote("["+s+"]:"+example))
		}
		return "", "", fmt.Errorf("%s has more than one \":\"; an address is \"host:port\"", quote(s))
	}
	return s[:i], s[i+1:], nil
}

// checkHost gives the one form of a host: IPv6 in brackets and shortest, names in small letters. whole is quoted in errors.
func checkHost(host, whole string) (string, error) {
	if host == "" {
		return "", nil
	}
	if host[0] == '[' {
		a, err := netip.ParseAddr(strings.TrimSuffix(host[1:], "]"))
		if err != nil || !strings.HasSuffix(host, "]") || !a.Is6() {
			return "", fmt.Errorf("%s: %s is not an IPv6 address", quote(whole), quote(host))
		}
		return "[" + a.String() + "]", nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is4() {
		return a.String(), nil
	}
	if err := checkName(host); err != nil {
		if host == whole {
			return "", err
		}
		return "", fmt.Errorf("%s: %w", quote(whole), err)
	}
	return strings.ToLower(host), nil
}

// checkName says why host is not a name that DNS could know. Underscores are let pass: Docker Compose makes them.
func checkName(host string) error {
	if len(host) > 253 {
		return errors.New("a host name has at most 253 characters")
	}
	labels := strings.Split(host, ".")
	for i := range len(host) {
		if c := host[i]; !isBare(c) && c != '.' {
			if c >= 0x80 {
				return fmt.Errorf("%s is not a host name: letters beyond a-z are written in their xn-- form", quote(host))
			}
			return fmt.Errorf("%s is not a host name: it has %q in it", quote(host), string(c))
		}
	}
	for _, l := range labels {
		switch {
		case l == "":
			return fmt.Errorf("%s is not a host name: a dot too many", quote(host))
		case len(l) > 63:
			return fmt.Errorf("%s is not a host name: between dots are at most 63 characters", quote(host))
		case l[0] == '-' || l[len(l)-1] == '-':
			return fmt.Errorf("%s is not a host name: no part begins or ends with \"-\"", quote(host))
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return fmt.Errorf("%s is not an IPv4 address: those are four numbers from 0 to 255", quote(host))
	}
	return nil
}

func parsePort(port, whole string, least int) (int, error) {
	n, err := strconv.Atoi(port)
	if err != nil && !errors.Is(err, strconv.ErrRange) || strings.Trim(port, "0123456789") != "" {
		return 0, fmt.Errorf("%s: %s is not a port; ports are numbers from %d to 65535", quote(whole), quote(port), least)
	}
	if len(port) > 1 && port[0] == '0' {
		return 0, fmt.Errorf("%s: a port is written without zeros before it", quote(whole))
	}
	if err != nil || n < least || n > 65535 {
		return 0, fmt.Errorf("%s: there is no port %s; ports go from %d to 65535", quote(whole), short(port), least)
	}
	return n, nil
}

// parseProxy reads an address or a network.
func parseProxy(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf(`%s is not an address or network: write one such as "10.0.0.7" or "10.0.0.0/8"`, quote(s))
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%s is an address and a network at once: write %q or %q", quote(s), p.Addr(), p.Masked())
	}
	return p, nil
}

// overlap says whether two listening addresses cannot be had at once. A missing host, 0.0.0.0 and [::] stand for all
// addresses; Linux refuses a second socket on a port of which one is already bound to all. Port 0 is never taken.
func overlap(a, b string) bool {
	i, j := strings.LastIndexByte(a, ':'), strings.LastIndexByte(b, ':')
	if i < 0 || j < 0 || a[i:] != b[j:] || a[i:] == ":0" {
		return false
	}
	every := func(h string) bool { return h == "" || h == "[::]" }
	local := func(h string) bool { return h == "localhost" || h == "127.0.0.1" }
	all4 := func(h, other string) bool { return h == "0.0.0.0" && other[0] != '[' }
	ah, bh := a[:i], b[:j]
	return ah == bh || every(ah) || every(bh) || local(ah) && local(bh) || all4(ah, bh) || all4(bh, ah)
}

// ParseBackend reads the address of one backend as a file may have it, a port alone included, and gives its full form.
func ParseBackend(address string) (string, error) {
	s, err := parseBackend(address)
	if err != nil {
		return "", err
	}
	if s.hi > s.lo {
		return "", fmt.Errorf("%s is %d backends: add one at a time", quote(address), s.hi-s.lo+1)
	}
	return s.address(s.lo), nil
}

// CheckBackendName says why a file could not give a backend that name.
func CheckBackendName(name string) error { return checkBackendName(name) }
