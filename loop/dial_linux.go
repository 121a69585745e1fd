//go:build linux && !lb_portable

package loop

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Dial connects to addr, or to the unix socket at path if that is not empty, and waits for it until the
// given time of the loop's clock (0: as long as the system does).
func (l *Loop) Dial(addr netip.AddrPort, path string, until int64) (*Conn, error) {
	t := l.cur
	if t.intr != nil {
		return nil, t.intr
	}
	if l.stopping {
		return nil, ErrStopped
	}
	family, sa := sockaddr(addr, path)
	for {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		if path == "" {
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		}
		err = unix.Connect(fd, sa)
		switch err {
		case nil, unix.EINPROGRESS:
		case unix.EAGAIN: // a unix socket whose queue is full; there is no event to wait for
			unix.Close(fd)
			const again = 5_000_000
			if until != 0 && l.now+again >= until {
				return nil, ErrTimeout
			}
			if err := l.Sleep(again); err != nil {
				return nil, err
			}
			continue
		default:
			unix.Close(fd)
			return nil, err
		}
		if err == nil && path == "" && toItself(fd, sa) {
			unix.Close(fd)
			return nil, unix.ECONNREFUSED
		}
		c := l.register(fd, addr)
		c.readable = false
		c.enroll()
		if err == nil {
			return c, nil
		}
		err = c.connected(until)
		if err == nil && path == "" && toItself(fd, sa) {
			err = unix.ECONNREFUSED
			c.resetOnClose() // else the port stays taken for a minute
		}
		if err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}
}

// toItself tells a socket that connected to itself. That happens when nobody listens on a local port from which the
// system gives out ports to dial from: besides talking to ourselves we would keep the port from the
// app that comes back to it.
func toItself(fd int, to unix.Sockaddr) bool {
	from, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		to, ok := to.(*unix.SockaddrInet4)
		return ok && from.Port == to.Port && from.Addr == to.Addr
	case *unix.SockaddrInet6:
		to, ok := to.(*unix.SockaddrInet6)
		return ok && from.Port == to.Port && from.Addr == to.Addr
	}
	return false
}

func (c *Conn) connected(until int64) error {
	t := c.loop.cur
	c.writable = false
	c.writeBy = until
	c.schedule(until)
	for !c.writable && !c.closed {
		if until != 0 && c.loop.now >= until {
			return ErrTimeout
		}
		c.writer = t
		t.park()
		c.writer = nil
		if t.intr != nil {
			return t.intr
		}
	}
	c.writeBy = 0
	if c.closed {
		return ErrClosed
	}
	e, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if e != 0 {
		return unix.Errno(e)
	}
	return nil
}

func sockaddr(addr netip.AddrPort, path string) (int, unix.Sockaddr) {
	if path != "" {
		return unix.AF_UNIX, &unix.SockaddrUnix{Name: path}
	}
	ip := addr.Addr().Unmap()
	if ip.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: ip.As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(addr.Port()), Addr: ip.As16()}
	if z := ip.Zone(); z != "" {
		sa.ZoneId = zoneIndex(z)
	}
	return unix.AF_INET6, sa
}
