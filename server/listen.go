package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"lb/admin"
	"lb/config"
	"lb/proxy"
)

// places is where a server listens. It is immutable: a reload makes another.
type places struct {
	sockets []*socket // of clients, in the order of the file
	doors   []*door   // of the admin server
}

// socket is a [listen] and what serves it.
type socket struct {
	name    string
	address string // as the file has it: what a listener is known by across reloads
	*proxy.Listener
}

// door is a way in to the admin server.
type door struct {
	key string // what it is known by across reloads
	net.Listener
	web  *http.Server
	left atomic.Bool // a reload closed it
}

// opening is the places of a configuration, and how to come there from those of another.
type opening struct {
	places
	opened places   // what is new, to be served or closed
	gone   places   // what is not there any more
	undo   []func() // changes to what was there
}

// discard closes what was opened in vain.
func (o *opening) discard() {
	for _, k := range o.opened.sockets {
		k.Close()
	}
	for _, d := range o.opened.doors {
		d.Close()
	}
	for _, undo := range o.undo {
		undo()
	}
}

// open opens every address of cfg that old has not, and reports all that cannot be had.
func (s *Server) open(cfg *config.Config, old *places) (*opening, error) {
	var faults faults
	o := &opening{gone: places{slices.Clone(old.sockets), slices.Clone(old.doors)}}
	kept := s.keep(cfg, o)
	for i, l := range cfg.Listens {
		if was := kept[i]; was != nil {
			o.sockets = append(o.sockets, &socket{l.Name, l.Address, was.Listener})
			continue
		}
		k, err := s.openSocket(o, l, cfg, old)
		if err != nil {
			fault := s.explain(listenFault(l.Address, err), err, l.Address, old)
			faults.add(cfg, l.Pos, "listen."+l.Name+".address", unwritten(l.Pos, fault, `[listen.web] and below it an address such as ":8081"`))
			continue
		}
		o.sockets = append(o.sockets, k)
		o.opened.sockets = append(o.opened.sockets, k)
	}
	if a := cfg.Admin; a.Address != "" {
		if err := s.openDoor(o, "tcp "+a.Address, func() (net.Listener, error) { return s.listenBeside(o, a.Address, cfg, old) }); err != nil {
			fault := s.explain(listenFault(a.Address, err), err, a.Address, old)
			faults.add(cfg, a.Pos, "admin.address", unwritten(a.Pos, fault, `[admin] and below it address = "127.0.0.1:9902", or "off",`))
		}
	}
	rights, rightsErr := rightsOf(&cfg.Admin)
	if rightsErr != nil {
		faults.add(cfg, cfg.Admin.Pos, rightsErr.key, rightsErr)
	}
	if a := cfg.Admin; a.Socket != "" && rightsErr == nil {
		if err := s.openDoor(o, "unix "+a.Socket, func() (net.Listener, error) { return admin.ListenUnixFor(a.Socket, rights) }); err != nil {
			faults.add(cfg, a.Pos, "admin.socket", listenFault(a.Socket, err))
		}
	}
	var unfound error
	if path := s.opt.Socket; path != "" && path != cfg.Admin.Socket && rightsErr == nil {
		// Whatever the file says, or said, `lb reload` finds lb here. To be without is no reason not to serve.
		if err := s.openDoor(o, "unix "+path, func() (net.Listener, error) { return admin.ListenUnixFor(path, rights) }); err != nil {
			unfound = listenFault(path, err)
		}
	}
	if rightsErr == nil {
		for _, d := range o.doors {
			undo, err := admin.SetRights(d.Listener, rights) // of those that were there before
			o.undo = append(o.undo, undo)
			if err != nil {
				faults.add(cfg, cfg.Admin.Pos, "admin.socket_mode", fmt.Errorf("%s: %w", d.Addr(), err))
			}
		}
	}
	if err := faults.err(); err != nil {
		o.discard()
		return nil, err
	}
	if unfound != nil {
		say := "no socket for `lb status`, `lb reload` and the like"
		if s.opt.Load != nil {
			say += "; SIGHUP reloads"
		}
		s.log.Warn(say, "err", unfound)
	}
	return o, nil
}

// rightsFault is what is wrong with the rights of the admin sockets, and in which key.
type rightsFault struct {
	error
	key string
}

func rightsOf(a *config.Admin) (r admin.Rights, fault *rightsFault) {
	r = admin.DefaultRights
	if n, err := strconv.ParseUint(a.SocketMode, 8, 32); err == nil { // else it is of a test that sets nothing
		r.Mode = fs.FileMode(n)
	}
	var err error
	if r.UID, err = admin.FindUser(a.SocketOwner); err != nil {
		return r, &rightsFault{err, "admin.socket_owner"}
	}
	if r.GID, err = admin.FindGroup(a.SocketGroup); err != nil {
		return r, &rightsFault{err, "admin.socket_group"}
	}
	return r, nil
}

// keep finds for each [listen] of cfg the socket that has its address already, and takes it off those that are gone:
// one of the same name first, since several may have the address of port 0.
func (s *Server) keep(cfg *config.Config, o *opening) []*socket {
	kept := make([]*socket, len(cfg.Listens))
	for _, byName := range []bool{true, false} {
		for i, l := range cfg.Listens {
			at := slices.IndexFunc(o.gone.sockets, func(k *socket) bool { return k.address == l.Address && (k.name == l.Name || !byName) })
			if kept[i] == nil && at >= 0 {
				kept[i] = o.gone.sockets[at]
				o.gone.sockets = slices.Delete(o.gone.sockets, at, at+1)
			}
		}
	}
	return kept
}

func (s *Server) openSocket(o *opening, l config.Listen, cfg *config.Config, old *places) (*socket, error) {
	ln, g, err := s.take("tcp", l.Address, l.Name, func() (net.Listener, error) { return s.listenBeside(o, l.Address, cfg, old) })
	if err != nil {
		return nil, err
	}
	p, err := s.proxy.Open(l.Name, ln)
	if err != nil {
		return nil, err
	}
	if p.SetShared(g != nil); g != nil && s.before != nil {
		s.before.taken[g] = p
	}
	return &socket{l.Name, l.Address, p}, nil
}

// openDoor keeps the door of that key or opens it.
func (s *Server) openDoor(o *opening, key string, open func() (net.Listener, error)) error {
	if at := slices.IndexFunc(o.gone.doors, func(d *door) bool { return d.key == key }); at >= 0 {
		o.doors = append(o.doors, o.gone.doors[at])
		o.gone.doors = slices.Delete(o.gone.doors, at, at+1)
		return nil
	}
	network, address, _ := strings.Cut(key, " ")
	ln, g, err := s.take(network, address, "", open)
	if err != nil {
		return err
	}
	d := s.newDoor(key, ln)
	if g != nil && s.before != nil {
		s.before.doors = append(s.before.doors, d)
	}
	o.doors = append(o.doors, d)
	o.opened.doors = append(o.opened.doors, d)
	return nil
}

func (s *Server) newDoor(key string, ln net.Listener) *door {
	h := s.web.open
	if ln.Addr().Network() == "unix" { // whoever may open it
		h = s.web.private
	}
	return &door{key: key, Listener: ln, web: admin.NewServer(h, s.log)}
}

// take is the socket of that address that this process was given, with what it was, else what open opens.
func (s *Server) take(network, address, name string, open func() (net.Listener, error)) (ln net.Listener, g *given, err error) {
	if g = s.given.take(network, address, name); g == nil {
		ln, err = open()
		return ln, nil, err
	}
	if ln, err = g.listener(); err != nil {
		return nil, nil, err
	}
	if u, ok := ln.(*net.UnixListener); ok {
		if ln, err = admin.TakeUnix(address, u); err != nil {
			u.Close()
		}
	}
	return ln, g, err
}

// explain adds to the fault of an address that is taken that it is lb itself who has it.
func (s *Server) explain(fault, err error, address string, old *places) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fault
	}
	port := portOf(address)
	for _, k := range old.sockets {
		if portOf(k.Addr().String()) == port {
			return fmt.Errorf("%q overlaps %q, where listener %s of this lb is", address, k.address, k.name)
		}
	}
	for _, d := range old.doors {
		if portOf(d.Addr().String()) == port {
			return fmt.Errorf("%q overlaps %q, where the admin server of this lb is", address, d.Addr())
		}
	}
	return fault
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

func (s *Server) listen(address string) (net.Listener, error) {
	if s.opt.Listen != nil {
		return s.opt.Listen("tcp", address)
	}
	return plainListen("tcp", address)
}

// plainListen is net.Listen without multipath TCP, which Go listens with by default: such a socket costs every accepted
// connection more, and hands fewer options on to it.
func plainListen(network, address string) (net.Listener, error) {
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	return c.Listen(context.Background(), network, address)
}

// serve takes requests at what was opened; it cannot fail.
func (s *Server) serve(o *opening) {
	for _, k := range o.opened.sockets {
		k.Serve()
		s.log.Info("listening", "listener", k.name, "address", k.Addr().String())
	}
	for _, d := range o.opened.doors {
		s.log.Info("admin", "address", d.Addr().String())
		s.tasks.Go(func() {
			if err := d.web.Serve(d.Listener); !errors.Is(err, http.ErrServerClosed) && !d.left.Load() {
				select {
				case s.broken <- fmt.Errorf("admin on %s: %w", d.Addr(), err):
				default: // the first one ends Run
				}
			}
		})
	}
}

// leave stops listening at what is gone. Connections that were accepted go on.
func (s *Server) leave(gone *places) {
	var closing sync.WaitGroup
	for _, k := range gone.sockets {
		closing.Go(func() {
			if err := k.Close(); err != nil {
				s.log.Warn("closing a listener", "listener", k.name, "err", err)
			}
		})
	}
	closing.Wait()
	for _, d := range gone.doors {
		d.left.Store(true)
		if err := d.Close(); err != nil { // before the reload is said to have happened
			s.log.Warn("closing a listener", "listener", "admin", "err", err)
		}
		s.tasks.Go(func() { d.shut(s.ended) })
	}
}

// shut stops listening at d and lets requests end until ctx does. Each has a limit of its own, but for the rollout that
// lasts as long as its connection: to cut those would put back what is being restarted.
func (d *door) shut(ctx context.Context) {
	if d.web.Shutdown(ctx) != nil {
		d.web.Close()
	}
}

// Address is where something listens, under its name in the configuration.
type Address struct {
	Name string
	net.Addr
}

// Addrs are the addresses of the listeners, with the ports that were found where the configuration says 0.
func (s *Server) Addrs() (all []Address) {
	for _, k := range s.places.Load().sockets {
		all = append(all, Address{k.name, k.Addr()})
	}
	return all
}

// AdminAddrs are where the admin server listens.
func (s *Server) AdminAddrs() (all []net.Addr) {
	for _, d := range s.places.Load().doors {
		all = append(all, d.Addr())
	}
	return all
}
