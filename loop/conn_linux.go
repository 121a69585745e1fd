//go:build linux && !lb_portable

package loop

import (
	"io"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is what a Conn knows of the system.
type socket struct {
	fd   int32
	gen  int32         // tells it from an earlier one of the same descriptor
	lost syscall.Errno // what broke the stream; the kernel says it once, then calls it an end
}

// enrollAfter is how long a connection that is only watched for its end may stay out of the epoll set. Most
// connections of clients that open one for each request are closed before, also on a busy machine; and a quarter of
// what a client that goes away may take to be noticed (100 ms) is not missed.
const enrollAfter = int64(25 * time.Millisecond)

const connEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

// register makes a connection of a socket. Reading is tried before anybody waits, so that a request that is
// already there costs no round through the epoll set.
func (l *Loop) register(fd int, remote netip.AddrPort) *Conn {
	l.gen++
	if l.gen <= 0 {
		l.gen = 1 // 0 is for what is no connection
	}
	c := &Conn{loop: l, socket: socket{fd: int32(fd), gen: l.gen}, readable: true, writable: true, remote: remote}
	c.timer.target = c
	for len(l.byFD) <= fd {
		l.byFD = append(l.byFD, nil)
	}
	l.byFD[fd] = c
	l.conns++
	return c
}

// enroll adds the connection to the epoll set, now that it has to be waited for. What is already there to be
// told of is told in the next round.
func (c *Conn) enroll() {
	if c.enrolled || c.closed {
		return
	}
	c.enrolled = true
	if err := c.loop.watch(int(c.fd), connEvents, c.gen); err != nil {
		c.lost, _ = err.(syscall.Errno)
		c.broken, c.ended, c.readable = true, true, true
		c.tellSoon()
	}
}

// enrollSoon enrolls the connection if it is still open in a moment.
func (c *Conn) enrollSoon() {
	if c.enrolled || c.closed {
		return
	}
	l := c.loop
	l.soon = append(l.soon, c)
	if !l.soonTimer.Armed() {
		l.AfterFunc(&l.soonTimer, l.now+enrollAfter, l.enrollAll)
	}
}

func (c *Conn) event(events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			c.ended = true
			c.broken = c.broken || events&(unix.EPOLLHUP|unix.EPOLLERR) != 0
			c.tellWatcher()
		}
		c.hasInput()
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 && !c.writable {
		c.writable = true
		if c.pending() {
			c.markDirty()
		} else if c.writer != nil { // a dial
			c.writer.Wake()
		}
	}
}

func (c *Conn) recv(b []byte) (int, error) {
	for {
		r, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			n := int(r)
			if n < len(b) && !c.ended {
				// Drained. What comes later is a new edge, the end of the stream included.
				c.readable = false
			}
			if n == 0 && len(b) > 0 {
				c.ended, c.readable = true, true
				if c.lost != 0 {
					return 0, c.lost
				}
				return 0, io.EOF
			}
			return n, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			c.readable = false
			return 0, errAgain
		default:
			c.broken, c.lost = true, e
			return 0, e
		}
	}
}

// send gives the socket what it takes and reports whether that was all.
func (c *Conn) send() bool {
	for c.pending() {
		var r uintptr
		var e syscall.Errno
		if len(c.out[0]) != 0 && len(c.out[1]) != 0 {
			iov := [2]unix.Iovec{{Base: unsafe.SliceData(c.out[0])}, {Base: unsafe.SliceData(c.out[1])}}
			iov[0].SetLen(len(c.out[0]))
			iov[1].SetLen(len(c.out[1]))
			m := unix.Msghdr{Iov: &iov[0]}
			m.SetIovlen(2)
			r, _, e = syscall.RawSyscall(syscall.SYS_SENDMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&m)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		} else {
			b := c.out[0]
			if len(b) == 0 {
				b = c.out[1]
			}
			r, _, e = syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
		}
		switch e {
		case 0:
			n := int(r)
			c.given += uint32(n)
			k := min(n, len(c.out[0]))
			c.out[0] = c.out[0][k:]
			c.out[1] = c.out[1][n-k:]
			if c.pending() {
				c.writable = false // it took a part: full
				c.enroll()
				c.stalled()
				return false
			}
		case syscall.EINTR:
		case syscall.EAGAIN:
			c.writable = false
			c.enroll()
			c.stalled()
			return false
		default:
			c.broken = true
			if e != unix.EPIPE { // which says that there was an end, not that one was lost
				c.lost = e
			}
			c.fail(e)
			return false
		}
	}
	return true
}

// untaken is how many bytes the kernel holds that the peer has not acknowledged.
func (c *Conn) untaken() int32 {
	var n int32
	if _, _, e := syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(c.fd), unix.SIOCOUTQ, uintptr(unsafe.Pointer(&n))); e != 0 {
		return 0
	}
	return n
}

// Missed reports whether it is certain that the peer's program got nothing of what was written since Given was n, now that
// the end of the connection has been met. maybe is when that is not known yet, and will be when the peer's answer to those
// bytes is here.
//
// It is certain when the kernel never had them. It is, too, when the peer's FIN came first and acknowledged none of
// them, and then a reset: its program had closed the connection when they arrived, so its kernel threw them away. A
// reset alone says nothing, as a program that has read everything can cause it. All that was written before must have been
// answered, and the connection been dialed.
func (c *Conn) Missed(n uint32) (yes, maybe bool) {
	switch {
	case c.given == n:
		return true, false
	case c.closed || c.lost != 0 || !c.ended:
		return false, false
	}
	i, err := unix.GetsockoptTCPInfo(int(c.fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || uint32(i.Bytes_acked-1) != n { // the opening of a connection counts as one
		return false, false
	}
	switch i.State {
	case unix.BPF_TCP_CLOSE_WAIT:
		return false, true
	case unix.BPF_TCP_CLOSE:
		// The kernel calls a reset EPIPE where a FIN came first, unless a write has had that error already. It can
		// also have given up waiting for an answer.
		code, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR)
		return err == nil && (code == 0 || code == int(unix.EPIPE)), false
	}
	return false, false
}

// finish sends FIN.
func (c *Conn) finish() error { return unix.Shutdown(int(c.fd), unix.SHUT_WR) }

func (c *Conn) shut() error {
	c.loop.byFD[c.fd] = nil
	return unix.Close(int(c.fd))
}

func (c *Conn) resetOnClose() {
	unix.SetsockoptLinger(int(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// Detaches says whether Detach ever does.
const Detaches = true

// CanDetach reports whether Detach would take the connection off its loop: no task uses it, no output waits, and nothing is
// known to be wrong with it.
func (c *Conn) CanDetach() bool {
	return !c.closed && !c.pending() && c.werr == nil && c.lost == 0 && !c.broken && c.reader == nil && c.writer == nil
}

// Detach takes the connection off its loop, open as it is, and gives its descriptor to the caller: for Listener.Adopt of
// another process. It reports false, and does nothing, if it cannot.
func (c *Conn) Detach() (fd int, ok bool) {
	if !c.CanDetach() {
		return -1, false
	}
	l := c.loop
	if c.enrolled {
		// The socket lives on, and would be told of for as long as it does.
		unix.EpollCtl(l.ep, unix.EPOLL_CTL_DEL, int(c.fd), nil)
	}
	c.closed = true
	l.wheel.stop(&c.timer)
	l.conns--
	if c.accepted {
		l.accepted.Add(-1)
	}
	c.handler, c.watcher = nil, nil
	c.werr = ErrClosed
	l.byFD[c.fd] = nil
	return int(c.fd), true
}
