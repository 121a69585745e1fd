package server

import (
	"context"
	"errors"
	"net"
	"slices"
	"syscall"

	"lb/config"
)

// A listener whose host changes, but not its port (":8080" to "127.0.0.1:8080"), is opened while the one before still has
// the port, by this process or by the one that it takes over from. Linux allows that to sockets that all have SO_REUSEPORT when the later one is bound. Only what moves gets it: a
// second lb that is started on the port by mistake asks without, and is refused.

// controlled is a socket whose descriptor can be had.
type controlled interface {
	Control(f func(fd uintptr) error) error
}

// listenBeside is listen, also at an address that overlaps with one that is about to be left.
func (s *Server) listenBeside(o *opening, address string, cfg *config.Config, old *places) (net.Listener, error) {
	ln, err := s.listen(address)
	if err == nil || s.opt.Listen != nil || !errors.Is(err, syscall.EADDRINUSE) || !s.shareLeaving(o, portOf(address), cfg, old) {
		return ln, err
	}
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if e := raw.Control(func(fd uintptr) { err = share(fd) }); e != nil {
			return e
		}
		return err
	}}
	c.SetMultipathTCP(false)
	return c.Listen(context.Background(), "tcp", address)
}

// shareLeaving makes what is about to be left at the port allow another beside it. It reports false when there is no such,
// or when something is there that stays: the next start would be refused both.
func (s *Server) shareLeaving(o *opening, port string, cfg *config.Config, old *places) bool {
	var leaving []controlled
	stays := slices.ContainsFunc(o.opened.sockets, func(k *socket) bool { return portOf(k.Addr().String()) == port })
	for _, k := range old.sockets {
		switch {
		case portOf(k.Addr().String()) != port:
		case slices.Contains(o.gone.sockets, k):
			leaving = append(leaving, k)
		default:
			stays = true
		}
	}
	for _, d := range old.doors {
		switch {
		case portOf(d.Addr().String()) != port:
		case d.key != "tcp "+cfg.Admin.Address:
			leaving = append(leaving, d)
		default:
			stays = true
		}
	}
	for _, g := range s.given { // of the lb before, which closes what this one does not take
		switch {
		case g.lasting || g.network != "tcp" || portOf(g.addr.String()) != port:
		case g.wanted(cfg):
			stays = true
		default:
			leaving = append(leaving, g)
		}
	}
	if stays {
		return false
	}
	for _, k := range leaving {
		if k.Control(share) != nil {
			return false
		}
	}
	return len(leaving) > 0
}

// Control implements controlled.
func (g *given) Control(f func(fd uintptr) error) error {
	raw, err := g.file.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = f(fd) }); e != nil {
		return e
	}
	return err
}

// Control implements controlled.
func (d *door) Control(f func(fd uintptr) error) error {
	sc, ok := d.Listener.(syscall.Conn)
	if !ok {
		return errors.ErrUnsupported
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
