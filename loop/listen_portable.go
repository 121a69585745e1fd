//go:build !linux || lb_portable

package loop

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

type acceptor struct {
	ln   net.Listener
	off  bool          // suspended
	stop chan struct{} // closed when accepting ends
	done sync.WaitGroup
}

// Take is the part of Serve that can fail: it takes ln over, and connections wait in the kernel until Start.
func (g *Group) Take(ln net.Listener) (*Listener, error) {
	if f, ok := ln.(interface{ File() (*os.File, error) }); ok {
		if file, err := f.File(); err == nil {
			own, err := net.FileListener(file)
			file.Close()
			if err != nil {
				return nil, err
			}
			ln = own
		}
	}
	return &Listener{group: g, acceptor: acceptor{ln: ln, stop: make(chan struct{})}}, nil
}

// Start begins to accept, as Serve says. It is called once.
func (s *Listener) Start(accept func(*Conn)) {
	s.accept = accept
	s.done.Add(1)
	go s.acceptLoop()
}

func (s *Listener) acceptLoop() {
	defer s.done.Done()
	for {
		nc, err := s.ln.Accept()
		if err == nil {
			s.assign(nc)
			continue
		}
		var wait time.Duration
		switch {
		case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE):
			s.paused.Add(1)
			wait = time.Duration(acceptPause)
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
			return
		}
		select {
		case <-s.stop:
			return
		case <-time.After(wait):
		}
	}
}

func (s *Listener) assign(nc net.Conn) {
	if tcp, ok := nc.(*net.TCPConn); ok {
		tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second})
	}
	var remote netip.AddrPort
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		remote = netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	}
	l := s.group.least(s.group.loops[0])
	l.postOrDrop(func() { s.welcome(l.register(nc, remote)) }, func() { nc.Close() })
}

// lastAccepts is how long Close waits for connections that are queued: they are there at once or not at all.
const lastAccepts = 50 * time.Millisecond

// Control calls f with the descriptor of the socket, which f must neither close nor keep.
func (s *Listener) Control(f func(fd uintptr) error) error {
	sc, ok := s.ln.(syscall.Conn)
	if !ok {
		return fmt.Errorf("loop: a %T has no descriptor", s.ln)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = f(fd) }); e != nil {
		return e
	}
	return err
}

// until is when accepting shall end, where the listener knows deadlines.
func (s *Listener) until(t time.Time) bool {
	d, ok := s.ln.(interface{ SetDeadline(time.Time) error })
	return ok && d.SetDeadline(t) == nil
}

// Suspend stops accepting until Resume: connections wait in the kernel's queue, or go to whoever shares the socket. It
// returns when no loop will call accept any more, so it must not be called on one.
func (s *Listener) Suspend() {
	if s.accept != nil && !s.off && s.until(time.Unix(1, 0)) {
		s.off = true
		s.done.Wait()
		s.group.each(func(*Loop) {})
	}
}

// Resume goes on after Suspend.
func (s *Listener) Resume() {
	if s.off {
		s.off = false
		s.until(time.Time{})
		s.done.Add(1)
		go s.acceptLoop()
	}
}

// Close stops accepting and waits until no loop will call accept again, so it must not be called on one.
// Connections that the kernel had already queued are accepted first: closing the socket would reset them. One that is
// shared is only let go of.
func (s *Listener) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	wait := lastAccepts
	if s.shared.Load() {
		wait = -time.Second
	} else {
		s.Resume()
	}
	close(s.stop)
	if d, ok := s.ln.(interface{ SetDeadline(time.Time) error }); ok {
		d.SetDeadline(time.Now().Add(wait))
	} else {
		s.ln.Close()
	}
	s.done.Wait()
	err := s.ln.Close()
	s.group.each(func(*Loop) {})
	return err
}

// Adopt serves a connection that another process detached. None does: see Conn.Detach.
func (s *Listener) Adopt(fd int) { syscall.Close(fd) }

// AdoptPair serves two connections that another process detached. None does.
func (s *Listener) AdoptPair(fd, other int, _ func(c, other *Conn)) {
	syscall.Close(fd)
	syscall.Close(other)
}
