//go:build unix && (!linux || lb_portable)

package loop

import (
	"net"
	"syscall"
)

// tryWrite gives the socket what it takes at once. Without it, that the socket has taken what was written would be
// known only after what the peer answered.
func tryWrite(nc net.Conn, b []byte) (n int, err error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return 0, nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	werr := raw.Write(func(fd uintptr) bool {
		for {
			if n, err = syscall.Write(int(fd), b); err != syscall.EINTR {
				return true
			}
		}
	})
	switch {
	case werr != nil:
		return 0, werr
	case err == syscall.EAGAIN:
		return 0, nil
	}
	return max(n, 0), err
}
