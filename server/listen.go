package server

import (
	"context"
	"net"

	"lb/admin"
	"lb/config"
)

// listen opens every address of the configuration, and reports all that cannot be had.
func (s *Server) listen(cfg *config.Config) error {
	open := s.opt.Listen
	if open == nil {
		open = plainListen
	}
	var faults faults
	for _, l := range cfg.Listens {
		ln, err := open("tcp", l.Address)
		if err != nil {
			faults.add(cfg, l.Pos, "listen."+l.Name+".address", listenFault(l.Address, err))
			continue
		}
		s.sockets = append(s.sockets, socket{l.Name, ln})
	}
	if a := cfg.Admin; a.Address != "" {
		ln, err := open("tcp", a.Address)
		if err != nil {
			faults.add(cfg, a.Pos, "admin.address", listenFault(a.Address, err))
		} else {
			s.doors = append(s.doors, ln)
		}
	}
	if a := cfg.Admin; a.Socket != "" {
		ln, err := admin.ListenUnix(a.Socket)
		if err != nil {
			faults.add(cfg, a.Pos, "admin.socket", listenFault(a.Socket, err))
		} else {
			s.doors = append(s.doors, ln)
		}
	}
	return faults.err()
}

// plainListen is net.Listen without multipath TCP, which Go listens with by default: such a socket costs every accepted
// connection more, and hands fewer options on to it.
func plainListen(network, address string) (net.Listener, error) {
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	return c.Listen(context.Background(), network, address)
}
