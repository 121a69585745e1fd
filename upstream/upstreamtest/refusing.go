package upstreamtest

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// Refusing is an address that refuses connections for as long as the test runs. Its port is bound, so nobody else is given
// it: a port that is merely free may be a stranger's listener a moment later, who then gets what was sent to nobody.
func Refusing(t testing.TB) string {
	t.Helper()
	host := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: host.As4()}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(host, uint16(name.(*syscall.SockaddrInet4).Port)).String()
}

// IPv6Only listens at ::1, at a port of which 127.0.0.1 refuses connections, as some Node.js apps do that listen at
// "localhost". It skips the test where there is no IPv6.
func IPv6Only(t testing.TB) net.Listener {
	t.Helper()
	for range 20 {
		port := netip.MustParseAddrPort(Refusing(t)).Port()
		ln, err := net.Listen("tcp", netip.AddrPortFrom(netip.IPv6Loopback(), port).String())
		if err == nil {
			t.Cleanup(func() { ln.Close() })
			return ln
		}
		if ln, err = net.Listen("tcp", "[::1]:0"); err != nil {
			t.Skip("this machine has no IPv6: ", err)
		}
		ln.Close()
	}
	t.Fatal("no port is free at both")
	return nil
}
