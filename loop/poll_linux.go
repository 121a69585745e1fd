//go:build linux && !lb_portable

package loop

import (
	"encoding/binary"
	"math"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller is a loop's epoll set.
type poller struct {
	ep     int
	wake   int     // eventfd
	byFD   []*Conn // by descriptor
	gen    int32
	lns    map[int32]*lnSide
	pipes  Pool[pipe]
	events []unix.EpollEvent
	event  int // first of events that was not looked at

	soon      []*Conn // to be enrolled if they last
	soonTimer Timer
}

const maxEvents = 256

func (l *Loop) open() (err error) {
	l.lns = map[int32]*lnSide{}
	l.pipes.Drop = closePipe
	l.events = make([]unix.EpollEvent, 0, maxEvents)
	if l.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(l.ep)
		return err
	}
	if err = l.watch(l.wake, unix.EPOLLIN|unix.EPOLLET, 0); err != nil {
		l.close()
	}
	return err
}

func (l *Loop) close() {
	l.pipes.Clear()
	unix.Close(l.ep)
	unix.Close(l.wake)
}

// trimPoller gives back what the system lent for a burst.
func (l *Loop) trimPoller() { l.pipes.Trim() }

func (l *Loop) closeListeners() {
	for _, s := range l.lns {
		s.remove()
	}
}

func (l *Loop) abortAll() {
	for _, c := range l.byFD {
		if c != nil {
			c.Abort()
		}
	}
}

// wakeUp ends the sleep in poll.
func (l *Loop) wakeUp() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	unix.Write(l.wake, one[:])
}

// doze is how long, in ms, a loop without work waits in a system call that the scheduler knows nothing of before
// it sleeps in one that it does know of. With the latter the runtime may give the loop's processor away and
// must find one again at each wake-up, which at some thousand requests a second costs as much as the requests
// themselves. The price is that the processor is not at the disposal of ordinary goroutines meanwhile, for whom
// New keeps one more.
const doze = 5

// poll looks for events, and waits for them when there is nothing else to do.
func (l *Loop) poll() {
	l.event = 0
	l.events = l.events[:maxEvents]
	n := l.epollRaw(0)
	if n == 0 && !l.busy() {
		n = l.sleep()
	}
	l.events = l.events[:n]
}

// epollRaw waits for up to the given number of ms without telling the scheduler.
func (l *Loop) epollRaw(ms int) int {
	r, _, _ := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.ep), uintptr(unsafe.Pointer(&l.events[0])), maxEvents, uintptr(ms), 0, 0)
	if n := int(r); n > 0 && n <= maxEvents {
		return n
	}
	return 0 // none, or a signal: the runtime's request to stop for a moment is one
}

func (l *Loop) sleep() int {
	l.sleeping.Store(true)
	defer l.sleeping.Store(false)
	if l.npost.Load() > 0 {
		return 0
	}
	wait := l.wheel.wait(Clock())
	if wait == 0 {
		return 0
	}
	if wait > 0 {
		wait = min((wait+999_999)/1_000_000, math.MaxInt32)
	}
	if wait > 0 && wait <= doze {
		return l.epollRaw(int(wait))
	}
	if n := l.epollRaw(doze); n > 0 || l.npost.Load() > 0 {
		return n
	}
	if wait > 0 {
		wait -= doze
	}
	n, err := unix.EpollWait(l.ep, l.events, int(wait))
	if err != nil {
		return 0
	}
	return n
}

func (l *Loop) enrollAll() {
	for _, c := range l.soon {
		c.enroll()
	}
	clear(l.soon)
	l.soon = l.soon[:0]
}

func (l *Loop) watch(fd int, events uint32, gen int32) error {
	return unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd), Pad: gen})
}

func (l *Loop) dispatch() {
	for l.event < len(l.events) {
		e := &l.events[l.event]
		l.event++
		fd := int(e.Fd)
		if e.Pad != 0 { // connections begin at 1
			// Another generation was closed earlier in this round, and the descriptor perhaps given out again.
			if c := l.byFD[fd]; c != nil && c.gen == e.Pad {
				c.event(e.Events)
			}
		} else if fd == l.wake {
			var b [8]byte
			unix.Read(fd, b[:])
		} else if s := l.lns[e.Fd]; s != nil {
			s.acceptUpTo(maxAccepts)
		}
	}
}
