package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller is an epoll set whose waits, reads and writes are raw system calls: the Go scheduler is not told of them, as
// there is no other goroutine in the process to run meanwhile. That is worth about half a µs per request on the core
// that generator and origin share. A process that uses it must not need the garbage collector (GOGC=off).
type poller struct {
	fd     int
	events [256]unix.EpollEvent
}

const (
	rawIn   = unix.EPOLLIN
	rawOut  = unix.EPOLLOUT
	rawGone = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	rawEdge = unix.EPOLLET & 0xffffffff
)

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	return &poller{fd: fd}, nil
}

// add watches fd; id comes back with its events.
func (p *poller) add(fd int, events uint32, id int32) error {
	return p.ctl(unix.EPOLL_CTL_ADD, fd, events, id)
}

func (p *poller) change(fd int, events uint32, id int32) error {
	return p.ctl(unix.EPOLL_CTL_MOD, fd, events, id)
}

func (p *poller) ctl(op, fd int, events uint32, id int32) error {
	ev := unix.EpollEvent{Events: events, Fd: id}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), uintptr(op), uintptr(fd),
		uintptr(unsafe.Pointer(&ev)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("epoll_ctl: %w", errno)
	}
	return nil
}

// wait returns what is ready within ms milliseconds, -1 for no limit; none after a signal.
func (p *poller) wait(ms int) []unix.EpollEvent {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])),
		uintptr(len(p.events)), uintptr(ms), 0, 0)
	if errno != 0 {
		return nil
	}
	return p.events[:n]
}

// rawRecv is recv(2). With MSG_TRUNC in flags TCP drops what came instead of copying it to b, and n may exceed len(b):
// up to size bytes are dropped.
func rawRecv(fd int, b []byte, size int, flags int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(size),
		uintptr(flags), 0, 0)
	return int(n), errno
}

func rawSend(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

// rawDrain reads fd's 8-byte counter, of a timerfd.
func rawDrain(fd int) uint64 {
	var b [8]byte
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), 8)
	if errno != 0 || n != 8 {
		return 0
	}
	return binary.NativeEndian.Uint64(b[:])
}

// dial starts a TCP connection to an IPv4 address and does not wait for it.
func dial(to *unix.SockaddrInet4) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("TCP_NODELAY: %w", err)
	}
	if err := unix.Connect(fd, to); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, fmt.Errorf("connect: %w", err)
	}
	return fd, nil
}

func sockaddr(s string) (*unix.SockaddrInet4, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	if !ap.Addr().Is4() {
		return nil, fmt.Errorf("%s: not an IPv4 address", s)
	}
	return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}, nil
}
