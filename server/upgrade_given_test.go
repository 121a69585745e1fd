package server

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
)

// A socket is that of an address in a file only if listening there would give the same.
func TestListensAt(t *testing.T) {
	for _, c := range []struct {
		bound, address string
		want           bool
	}{
		{"[::]:80", ":80", true},
		{"0.0.0.0:80", ":80", true},
		{"0.0.0.0:80", "0.0.0.0:80", true},
		{"[::]:80", "0.0.0.0:80", false}, // which takes no IPv6
		{"0.0.0.0:80", "[::]:80", false},
		{"127.0.0.1:80", ":80", false},
		{"127.0.0.1:80", "127.0.0.1:80", true},
		{"127.0.0.1:80", "127.0.0.1:81", false},
		{"127.0.0.1:80", "localhost:80", true},
		{"[::ffff:127.0.0.1]:80", "127.0.0.1:80", true},
		{"[::1]:80", "127.0.0.1:80", false},
		{"127.0.0.1:80", "127.0.0.1:0", false},
	} {
		a := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.bound))
		if got := listensAt(a, c.address); got != c.want {
			t.Errorf("a socket at %s is that of %s: %t, want %t", c.bound, c.address, got, c.want)
		}
	}
}

// Sockets of the process before are found by what they were called, so that two of port 0 are not mixed up; each is given
// once, and those of systemd's as often as wanted.
func TestTake(t *testing.T) {
	at := func(port int) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port} }
	all := givens{
		{network: "tcp", key: "127.0.0.1:0", name: "one", addr: at(1001)},
		{network: "tcp", key: "127.0.0.1:0", name: "two", addr: at(1002)},
		{network: "unix", key: "/run/lb.sock", addr: &net.UnixAddr{Name: "/run/lb.sock", Net: "unix"}},
		{network: "tcp", addr: at(80), lasting: true},
		{network: "tcp", key: "127.0.0.1:0", addr: at(1003)}, // of the admin server
	}
	for _, c := range []struct {
		network, address, name string
		want                   int // -1: none
	}{
		{"tcp", "127.0.0.1:0", "two", 1},
		{"tcp", "127.0.0.1:0", "renamed", 0},
		{"tcp", "127.0.0.1:0", "three", -1},
		{"tcp", "127.0.0.1:0", "", 4},
		{"tcp", "127.0.0.1:0", "", -1},
		{"tcp", "/run/lb.sock", "", -1},
		{"unix", "/run/lb.sock", "", 2},
		{"unix", "/run/lb.sock", "", -1},
		{"tcp", "127.0.0.1:80", "web", 3},
		{"tcp", "127.0.0.1:80", "web", 3},
	} {
		got := all.take(c.network, c.address, c.name)
		if c.want < 0 && got != nil || c.want >= 0 && got != all[c.want] {
			t.Errorf("%s %s of %q: %+v, want number %d", c.network, c.address, c.name, got, c.want)
		}
	}
}

// Variables that are for another process, or make no sense, are not taken for sockets.
func TestActivated(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		return func(name string) string {
			for _, p := range pairs {
				if v, ok := strings.CutPrefix(p, name+"="); ok {
					return v
				}
			}
			return ""
		}
	}
	own := "LISTEN_PID=" + strconv.Itoa(os.Getpid())
	if s, err := Activated(env()); err != nil || len(s.all) != 0 {
		t.Errorf("without: %v, %v", s, err)
	}
	if s, err := Activated(env("LISTEN_PID=1", "LISTEN_FDS=1")); err != nil || len(s.all) != 0 {
		t.Errorf("another's: %v, %v", s, err)
	}
	for _, n := range []string{"", "x", "-1", "1000000"} {
		if _, err := Activated(env(own, "LISTEN_FDS="+n)); err == nil {
			t.Errorf("LISTEN_FDS=%q is taken", n)
		}
	}
}
