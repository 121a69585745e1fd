//go:build linux && !lb_portable

package loop

import (
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// pipe is what bytes pass through on their way from one socket to another inside the kernel.
type pipe struct{ r, w int }

const (
	// pipeSize is what a pipe may hold: the most that a process without privileges may ask for.
	pipeSize = 1 << 20
	// firstFill is how much goes through the pipe at first. Each time dst takes it at once it may be twice as much;
	// what waits for a slow peer is no more than slowFill, as it takes the kernel's memory.
	firstFill = 256 << 10
	slowFill  = 64 << 10
	// spliceTurn is how much one call moves in a round before everybody else is let first.
	spliceTurn = 1 << 20
)

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
		if size, err := unix.FcntlInt(uintptr(p.w), unix.F_GETPIPE_SZ, 0); err != nil || size < slowFill {
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

// Splice moves n bytes (n < 0: all up to the end of the stream) from src to dst and returns how many dst's socket
// has taken. It waits as Read and Write do, and ends with io.ErrUnexpectedEOF if src ends before n bytes.
// After an error dst may miss bytes that src has given. While it waits for src it holds no pipe.
func (l *Loop) Splice(dst, src *Conn, n int64) (moved int64, err error) {
	if err := dst.Flush(); err != nil {
		return 0, err
	}
	fill := firstFill
	for turn := int64(0); moved != n; {
		if err := src.Wait(); err != nil {
			return moved, err
		}
		if src.closed {
			return moved, ErrClosed
		}
		if moved-turn >= spliceTurn {
			turn = moved
			if err := l.Yield(); err != nil {
				return moved, err
			}
			continue
		}
		p, ok := l.getPipe()
		if !ok {
			if n >= 0 {
				n -= moved
			}
			k, err := copyN(dst, src, n)
			return moved + k, err
		}
		most := fill
		if n >= 0 && n-moved < int64(most) {
			most = int(n - moved)
		}
		k, err := src.spliceFrom(p, most)
		if k == 0 {
			l.pipes.Put(p)
			switch {
			case err == errAgain:
				continue
			case err == io.EOF && n < 0:
				return moved, nil
			case err == io.EOF:
				err = io.ErrUnexpectedEOF
			}
			return moved, err
		}
		left, waited, err := dst.drain(p, k)
		moved += int64(k - left)
		if err != nil {
			closePipe(p)
			return moved, err
		}
		l.pipes.Put(p)
		if waited {
			fill = slowFill
		} else {
			fill = min(2*fill, pipeSize)
		}
	}
	return moved, nil
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
