package loop

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Listener is a listening socket shared by all loops.
type Listener struct {
	group  *Group
	accept func(*Conn)
	closed atomic.Bool
	shared atomic.Bool   // somebody else holds the socket, too
	paused atomic.Uint64 // times accepting stopped for want of descriptors
	acceptor
}

// acceptPause is how long accepting rests when there are no descriptors left: short, so that service is
// back within a second of their return.
const acceptPause = int64(100 * time.Millisecond)

// Serve accepts connections of ln on every loop until the Listener is closed. Each is handed to the loop that
// has the fewest; there accept is called, on the loop, and must not wait. ln may be closed afterwards where the
// system lets a descriptor be copied (Windows does not). (A net.UnixListener removes its path then, unless told not
// to.)
func (g *Group) Serve(ln net.Listener, accept func(*Conn)) (*Listener, error) {
	s, err := g.Take(ln)
	if err == nil {
		s.Start(accept)
	}
	return s, err
}

// SetShared says whether somebody else, such as another process, holds the socket as well. Then Close leaves to them what
// waits in the kernel's queue, and does nothing to the socket that they would notice.
func (s *Listener) SetShared(is bool) { s.shared.Store(is) }

// Paused counts how often accepting paused for want of descriptors.
func (s *Listener) Paused() uint64 { return s.paused.Load() }

// each runs fn on every loop of the group that has not ended, and waits for it. What the loops had been told
// before has been done by then, too.
func (g *Group) each(fn func(*Loop)) {
	var done sync.WaitGroup
	done.Add(len(g.loops))
	for _, l := range g.loops {
		l.postOrDrop(func() {
			defer done.Done()
			fn(l)
		}, done.Done)
	}
	done.Wait()
}

// least is the loop with the fewest accepted connections; first, if none has fewer. The connection to come is
// counted at once, so that several loops that accept do not all choose the same.
func (g *Group) least(first *Loop) *Loop {
	to, least := first, first.accepted.Load()
	for _, l := range g.loops {
		if n := l.accepted.Load(); n < least {
			to, least = l, n
		}
	}
	to.accepted.Add(1)
	return to
}

// welcome hands an accepted connection to whoever serves it.
func (s *Listener) welcome(c *Conn) {
	c.accepted = true
	c.loop.blame = c
	s.accept(c)
	c.loop.blame = nil
}
