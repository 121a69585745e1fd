package server

import "golang.org/x/sys/unix"

// share lets another socket of this user's be bound to the same port if that one has been told the same before. Linux
// looks at it when a socket is bound, so it can be said of one that has been listening for long.
func share(fd uintptr) error {
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}
