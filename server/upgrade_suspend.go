package server

import (
	"net"
	"os"

	"golang.org/x/sys/unix"

	"lb/admin"
	"lb/proxy"
)

// copy is another listener of the same socket.
func (d *door) copy() (ln net.Listener, err error) {
	err = d.Control(func(fd uintptr) error {
		own, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(own), d.key)
		defer f.Close()
		ln, err = net.FileListener(f)
		return err
	})
	if u, ok := ln.(*net.UnixListener); ok && err == nil {
		return admin.TakeUnix(d.Addr().String(), u)
	}
	return ln, err
}

// suspended is what this process takes no connections at while its successor is watched.
type suspended struct {
	sockets []*proxy.Listener
	numbers map[*proxy.Listener]int // of sockets, as the successor knows them
	named   map[string]int          // numbers by the name of a listener, for connections that came by an address that it had
	doors   []*door
	copies  []net.Listener // of the doors' sockets; nil where there is none
}

// suspend has the successor take all new connections. Those who talk to a door are seen off: what they ask next is for
// the successor.
func (s *Server) suspend(sockets []offered, p *preparation) *suspended {
	off := &suspended{numbers: map[*proxy.Listener]int{}, named: map[string]int{}}
	taken := map[int]bool{}
	for _, i := range p.Taken {
		taken[i] = true
	}
	for i, name := range p.Own {
		off.named[name] = len(sockets) + i
	}
	at := s.places.Load()
	for i, k := range at.sockets { // in the order of offer
		if taken[i] { // others are closed by the stop that follows
			k.Suspend()
			off.sockets = append(off.sockets, k.Listener)
			off.numbers[k.Listener] = i
			if _, moved := off.named[k.name]; !moved {
				off.named[k.name] = i
			}
		}
	}
	for i, d := range at.doors {
		if !taken[len(at.sockets)+i] {
			continue
		}
		again, err := d.copy()
		if err != nil {
			s.log.Warn("admin", "address", d.Addr().String(), "err", err)
		}
		off.doors, off.copies = append(off.doors, d), append(off.copies, again)
		admin.Own(d.Listener, false)
		s.tasks.Go(func() { d.shut(s.ended) })
	}
	return off
}

// resume goes on as if there had been no successor.
func (off *suspended) resume(s *Server) {
	for _, k := range off.sockets {
		k.Resume()
	}
	o := &opening{places: *s.places.Load()}
	var doors []*door
	for _, d := range o.doors {
		for i, was := range off.doors {
			if was == d && off.copies[i] != nil {
				admin.Own(off.copies[i], true)
				d = s.newDoor(d.key, off.copies[i])
				o.opened.doors = append(o.opened.doors, d)
			}
		}
		doors = append(doors, d)
	}
	o.places.doors = doors
	s.places.Store(&o.places)
	s.serve(o)
}

// release leaves the sockets to the successor.
func (off *suspended) release(s *Server) {
	for _, ln := range off.copies {
		if ln != nil {
			ln.Close()
		}
	}
	for _, k := range off.sockets {
		k.SetShared(true)
		k.Close()
	}
}
