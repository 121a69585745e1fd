package upstreamtest

import (
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
