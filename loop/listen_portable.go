//go:build !linux || lb_portable

package loop

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

type acceptor struct {
	ln   net.Listener
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

// Close stops accepting and waits until no loop will call accept again, so it must not be called on one.
// Connections that the kernel had already queued are accepted first: closing the socket would reset them.
func (s *Listener) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	close(s.stop)
	if d, ok := s.ln.(interface{ SetDeadline(time.Time) error }); ok {
		d.SetDeadline(time.Now().Add(lastAccepts))
	} else {
		s.ln.Close()
	}
	s.done.Wait()
	err := s.ln.Close()
	s.group.each(func(*Loop) {})
	return err
}
