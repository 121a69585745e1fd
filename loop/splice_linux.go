//go:build linux && !lb_portable

package loop

import (
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// pipe is what bytes pass through on their way from one socket to another inside the kernel.
type pipe struct{ r, w int }

// pipeSize is what a pipe may hold: the most that a process without privileges may ask for.
const pipeSize = 1 << 20

const spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK

// getPipe returns false if there are no descriptors, or if the user has so many pipes that the kernel gives him but
// small ones.
func (l *Loop) getPipe() (pipe, bool) {
	if p, ok := l.pipes.Get(); ok {
		return p, true
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return pipe{}, false
	}
	p := pipe{fds[0], fds[1]}
	if _, err := unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, pipeSize); err != nil {
		if size, err := unix.FcntlInt(uintptr(p.w), unix.F_GETPIPE_SZ, 0); err != nil || size < SlowSplice {
			closePipe(p)
			return pipe{}, false
		}
	}
	return p, true
}

func closePipe(p pipe) {
	unix.Close(p.r)
	unix.Close(p.w)
}

// Splice moves what src has, up to most bytes, to dst inside the kernel. It does not wait for src: it returns 0 and
// nil when there is nothing, and io.EOF at the end of the stream. It does wait for dst to take it, as Write does, and
// says whether it had to: then the caller does well to move less at a time, SlowSplice bytes, as what waits takes the
// kernel's memory. After an error dst may miss bytes that src has given; if it was dst's, dst.Flush returns it.
func (l *Loop) Splice(dst, src *Conn, most int) (n int, waited bool, err error) {
	if err := dst.Flush(); err != nil {
		return 0, false, err
	}
	if src.closed {
		return 0, false, ErrClosed
	}
	if !src.readable {
		return 0, false, nil
	}
	p, ok := l.getPipe()
	if !ok {
		return l.copySome(dst, src, most)
	}
	n, err = src.spliceFrom(p, min(most, pipeSize))
	if n == 0 {
		l.pipes.Put(p)
		if err == errAgain {
			err = nil
		}
		return 0, false, err
	}
	left, waited, err := dst.drain(p, n)
	if err != nil {
		closePipe(p)
		return n - left, waited, err
	}
	l.pipes.Put(p)
	return n, waited, nil
}

// spliceFrom fills an empty pipe with what there is.
func (c *Conn) spliceFrom(p pipe, most int) (int, error) {
	for {
		r, _, e := syscall.RawSyscall6(syscall.SYS_SPLICE, uintptr(c.fd), 0, uintptr(p.w), 0, uintptr(most), spliceFlags)
		switch e {
		case 0:
			if r > 0 {
				// Less than was asked for says nothing: the pipe has a number of slots, too.
				return int(r), nil
			}
			c.ended, c.readable = true, true
			if c.lost != 0 {
				return 0, c.lost
			}
			return 0, io.EOF
		case syscall.EINTR:
		case syscall.EAGAIN: // the pipe is empty, so it is the socket
			c.readable = false
			return 0, errAgain
		default:
			c.broken, c.lost = true, e
			return 0, e
		}
	}
}

// drain gives the socket all that is in the pipe and says what could not be given. As with Flush, an
// interruption is the end of the connection's output, from which bytes are missing now.
func (c *Conn) drain(p pipe, held int) (left int, waited bool, err error) {
	t := c.loop.cur
	for held > 0 {
		if c.werr != nil {
			return held, waited, c.werr
		}
		if c.writable {
			r, _, e := syscall.RawSyscall6(syscall.SYS_SPLICE, uintptr(p.r), 0, uintptr(c.fd), 0, uintptr(held), spliceFlags)
			switch e {
			case 0:
				held -= int(r)
				c.given += uint32(r)
			case syscall.EINTR:
			case syscall.EAGAIN:
				c.writable = false
				c.enroll()
				c.stalled()
			default:
				c.broken = true
				if e != unix.EPIPE {
					c.lost = e
				}
				c.fail(e)
			}
			continue
		}
		waited = true
		if t.intr == nil {
			c.writer = t
			t.park()
			c.writer = nil
		}
		if t.intr != nil {
			c.fail(t.intr)
		} else if c.writeBy != 0 && c.loop.now >= c.writeBy {
			c.checkStall()
		}
	}
	c.writeBy = 0
	return 0, waited, nil
}
