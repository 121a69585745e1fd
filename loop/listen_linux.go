//go:build linux && !lb_portable

package loop

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

type acceptor struct{ fd int }

// lnSide is one loop's view of a Listener.
type lnSide struct {
	l     *Loop
	ln    *Listener
	retry Timer
	added bool
	off   bool // suspended
}

// maxAccepts bounds what one loop accepts in one round, so that a storm of connections does not hold up
// those that are there.
const maxAccepts = 128

// Take is the part of Serve that can fail: it takes ln over, and connections wait in the kernel until Start.
func (g *Group) Take(ln net.Listener) (*Listener, error) {
	sc, ok := ln.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("loop: cannot serve a %T: it has no descriptor", ln)
	}
	fd, err := duplicate(sc)
	if err != nil {
		return nil, fmt.Errorf("loop: %w", err)
	}
	s := &Listener{group: g, acceptor: acceptor{fd}}
	if _, ok := ln.(*net.TCPListener); ok {
		// Linux hands these on to accepted connections, which saves two system calls for each.
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15)
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15)
	}
	return s, nil
}

// duplicate makes a descriptor of our own. The listener's File method would give one that Go's own poller watches too:
// each new connection would then wake a thread of the runtime's for nothing, which cost a fifth of the processor time
// of a request that brings its own connection.
func duplicate(sc syscall.Conn) (fd int, err error) {
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	if e := raw.Control(func(of uintptr) {
		if fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			if err = unix.SetNonblock(fd, true); err != nil {
				unix.Close(fd)
			}
		}
	}); e != nil {
		return -1, e
	}
	return fd, err
}

// Start begins to accept, as Serve says. It is called once.
func (s *Listener) Start(accept func(*Conn)) {
	s.accept = accept
	for _, l := range s.group.loops {
		l.Post(func() {
			side := &lnSide{l: l, ln: s}
			l.lns[int32(s.fd)] = side
			side.add()
		})
	}
}

// Control calls f with the descriptor of the socket, which f must neither close nor keep.
func (s *Listener) Control(f func(fd uintptr) error) error { return f(uintptr(s.fd)) }

// Suspend stops accepting until Resume: connections wait in the kernel's queue, or go to whoever shares the socket. It
// returns when no loop will call accept any more, so it must not be called on one.
func (s *Listener) Suspend() {
	s.group.each(func(l *Loop) {
		if side := l.lns[int32(s.fd)]; side != nil {
			side.remove()
			side.off = true // this round may have an event of it yet
		}
	})
	s.group.each(func(*Loop) {}) // connections on their way from one loop to another have arrived
}

// Resume goes on after Suspend.
func (s *Listener) Resume() {
	s.group.each(func(l *Loop) {
		if side := l.lns[int32(s.fd)]; side != nil && side.off {
			side.off = false
			side.add()
		}
	})
}

// Close stops accepting and waits until no loop will call accept again, so it must not be called on one.
// Connections that the kernel had already queued are accepted first: closing the socket would reset them. One that is
// shared is only let go of.
func (s *Listener) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	last := s.accept != nil && !s.shared.Load()
	if last {
		time.Sleep(s.shun())
	}
	s.group.each(func(l *Loop) {
		if side := l.lns[int32(s.fd)]; side != nil {
			side.remove()
			delete(l.lns, int32(s.fd))
		}
	})
	var err error
	closed := false
	s.group.each(func(l *Loop) {
		if l.index == 0 {
			side := &lnSide{l: l, ln: s}
			if last {
				side.acceptUpTo(1 << 20)
				side.remove() // it may wait for descriptors
			}
			// At once, and not by who called: until then the kernel goes on completing connections, and resets them.
			err, closed = unix.Close(s.fd), true
		}
	})
	if !closed { // the loops have ended
		err = unix.Close(s.fd)
	}
	s.group.each(func(*Loop) {}) // connections on their way from one loop to another have arrived
	return err
}

// How long handshakes that have begun may take to end when a listener closes: on this machine they are over before
// the client's connect returns, elsewhere it takes the client's answer to come. They are few and the wait is paid
// once, so this is more than most clients need and less than anybody notices.
const (
	handshakeHere = time.Millisecond
	handshakeFar  = 200 * time.Millisecond
)

// noSYN drops packets that open a connection: the byte at 13 of a TCP header holds its flags.
var noSYN = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
	{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0x12},               // SYN, ACK
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0x02, Jt: 0, Jf: 1}, // SYN alone
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
}

// shun has the kernel take no new connections, so that the queue has an end: what it completes between the last accept
// and the close of a socket would be reset, with a request on it maybe. Clients whose first packet is dropped send it
// again after a second, and are refused then, or served by whoever has the address by that time. It returns how long
// those that are half-way may need. Where the kernel does not know how, nothing is lost but this.
func (s *Listener) shun() time.Duration {
	sa, err := unix.Getsockname(s.fd)
	if err != nil {
		return 0
	}
	far := handshakeFar
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		if sa.Addr[0] == 127 {
			far = handshakeHere
		}
	case *unix.SockaddrInet6:
		if netip.AddrFrom16(sa.Addr).Unmap().IsLoopback() {
			far = handshakeHere
		}
	default: // a unix socket: connect refuses from here on, and accept still gives what waits
		unix.Shutdown(s.fd, unix.SHUT_RD)
		return 0
	}
	if unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(noSYN)), Filter: &noSYN[0]}) != nil {
		return 0
	}
	return far
}

func (s *lnSide) add() {
	// Level-triggered, so that what one round leaves is seen by the next; exclusive, so that not every loop
	// wakes for one connection.
	err := s.l.watch(s.ln.fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, 0)
	s.added = err == nil
	if err != nil {
		s.pause()
	}
}

func (s *lnSide) remove() {
	s.l.Stop(&s.retry)
	if s.added {
		unix.EpollCtl(s.l.ep, unix.EPOLL_CTL_DEL, s.ln.fd, nil)
		s.added = false
	}
}

// pause stops accepting for a moment: a level-triggered socket that cannot be accepted from would keep the loop
// spinning.
func (s *lnSide) pause() {
	s.ln.paused.Add(1)
	s.remove()
	s.l.AfterFunc(&s.retry, s.l.now+acceptPause, s.add)
}

func (s *lnSide) acceptUpTo(n int) {
	if s.off {
		return
	}
	for range n {
		var sa unix.RawSockaddrAny
		size := uint32(unsafe.Sizeof(sa))
		r, _, e := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(s.ln.fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch e {
		case 0:
			s.assign(int(r), peer(&sa))
		case unix.EINTR, unix.ECONNABORTED:
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			s.pause()
			return
		default: // EAGAIN: another loop was faster
			return
		}
	}
}

// assign gives the connection to the loop that has the fewest.
func (s *lnSide) assign(fd int, remote netip.AddrPort) {
	to := s.ln.group.least(s.l)
	if to == s.l {
		s.ln.adopt(to, fd, remote)
		return
	}
	to.postOrDrop(func() { s.ln.adopt(to, fd, remote) }, func() { unix.Close(fd) })
}

func (s *Listener) adopt(l *Loop, fd int, remote netip.AddrPort) {
	s.welcome(l.register(fd, remote))
}

// Adopt serves a connection that another process accepted from the same socket and detached, as if it had been accepted
// here. The descriptor is the Listener's from then on.
func (s *Listener) Adopt(fd int) {
	remote := peerOf(fd)
	to := s.group.least(s.group.loops[0])
	to.postOrDrop(func() { s.adopt(to, fd, remote) }, func() { unix.Close(fd) })
}

// AdoptPair is Adopt for a connection and another one that goes with it, on the same loop. They are handed to accept in
// place of what the Listener was started with, which does not hear of them.
func (s *Listener) AdoptPair(fd, other int, accept func(c, other *Conn)) {
	remote := peerOf(fd)
	to := s.group.least(s.group.loops[0])
	to.postOrDrop(func() {
		c := to.register(fd, remote)
		c.accepted = true
		to.blame = c
		accept(c, to.register(other, netip.AddrPort{}))
		to.blame = nil
	}, func() {
		unix.Close(fd)
		unix.Close(other)
	})
}

func peerOf(fd int) (remote netip.AddrPort) {
	var sa unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(sa))
	if _, _, e := syscall.RawSyscall(syscall.SYS_GETPEERNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size))); e == 0 {
		remote = peer(&sa)
	}
	return remote
}

func peer(sa *unix.RawSockaddrAny) netip.AddrPort {
	switch sa.Addr.Family {
	case unix.AF_INET:
		p := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(p.Addr), ntohs(p.Port))
	case unix.AF_INET6:
		p := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa))
		ip := netip.AddrFrom16(p.Addr).Unmap()
		if p.Scope_id != 0 && ip.Is6() && ip.IsLinkLocalUnicast() {
			ip = ip.WithZone(strconv.Itoa(int(p.Scope_id)))
		}
		return netip.AddrPortFrom(ip, ntohs(p.Port))
	}
	return netip.AddrPort{}
}

func ntohs(p uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&p))
	return uint16(b[0])<<8 | uint16(b[1])
}

func zoneIndex(zone string) uint32 {
	if i, err := strconv.Atoi(zone); err == nil {
		return uint32(i)
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	return 0
}
