// Package server is the process: it turns a configuration into running parts, listens, serves, reloads and stops.
//
// Everything that can fail comes first: New has every port, name and file before Run serves the first request, and
// Reload has all it needs before it changes anything.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"lb/accesslog"
	"lb/admin"
	"lb/config"
	"lb/loop"
	"lb/metrics"
	"lb/proxy"
	"lb/upstream"
)

// Options is the world that a Server lives in. The zero value is the real one, without events.
type Options struct {
	Version string
	Log     *slog.Logger // of events; nil: none

	// Listen opens a TCP address; nil is net.Listen's way.
	Listen func(network, address string) (net.Listener, error)
	// Resolve gives the addresses of a host name; nil asks the system.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// AccessLog is written to where the configuration says standard output.
	AccessLog io.Writer
	// Load reads the configuration again for Reload; nil: there is no other.
	Load func() (*config.Config, error)
}

// Server is one running configuration.
type Server struct {
	opt     Options
	log     *slog.Logger
	started time.Time

	group   *loop.Group
	proxy   *proxy.Proxy
	access  *accesslog.Log
	sockets []socket
	doors   []net.Listener // of the admin server

	state atomic.Int32
	cut   chan struct{}
	once  sync.Once               // closes cut
	pools atomic.Pointer[[]*pool] // in the order of the file

	supervisor *supervisor // nil: nobody

	reload  sync.Mutex // one Reload at a time; guards names
	names   *resolver
	cfg     atomic.Pointer[config.Config] // in force
	leaving leaving
	checks  checks
	gone    chan struct{} // closed when a stop begins
}

// pool is an upstream.Pool with what people want to know of it.
type pool struct {
	*upstream.Pool
	strategy string
}

// socket is a listener that waits for Run.
type socket struct {
	name string
	net.Listener
}

// What a Server does.
const (
	starting int32 = iota
	running
	stopping
)

var stateNames = [...]string{starting: "starting", running: "running", stopping: "stopping"}

// New makes everything ready that cfg asks for, and serves nothing yet. Its error has a line for each fault, with
// its place in the file and the key. Follow it by Run, or by Close.
func New(cfg *config.Config, o Options) (*Server, error) {
	s := &Server{
		opt: o, log: o.Log, started: time.Now(), names: newResolver(o.Resolve),
		cut: make(chan struct{}), gone: make(chan struct{}),
	}
	s.cfg.Store(cfg)
	s.checks.news = make(chan struct{}, 1)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.supervisor = newSupervisor(os.Getenv, s.log)
	p, err := newPlan(context.Background(), cfg, s.names)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.listen(cfg), s.openLog(cfg)); err != nil {
		s.Close()
		return nil, err
	}
	if s.group, err = loop.New(workers(cfg), loop.Options{Panicked: s.panicked}); err != nil {
		s.Close()
		return nil, fmt.Errorf("event loops: %w", err)
	}
	var all []*pool
	byName := map[string]*upstream.Pool{}
	for _, pp := range p.pools {
		up := upstream.NewPool(pp.name, s.group.Len(), pp.specs, pp.settings, pp.build)
		byName[pp.name] = up
		all = append(all, &pool{up, pp.strategy})
	}
	t, err := table(cfg, byName)
	if err != nil {
		s.Close()
		return nil, err
	}
	s.pools.Store(&all)
	s.proxy = proxy.New(s.group, proxySettings(&cfg.Server, t, s.access))
	return s, nil
}

// cores is asked for before there are loops, which raise it.
var cores = runtime.GOMAXPROCS(0)

func workers(cfg *config.Config) int {
	if cfg.Server.Workers > 0 {
		return cfg.Server.Workers
	}
	return cores
}

// panicked is told on the loop, which must not wait for whoever reads our events.
func (s *Server) panicked(v any, stack []byte) {
	go s.log.Error("panic", "value", fmt.Sprint(v), "stack", string(stack), "note", "its connection was closed, all else goes on; please report this")
}

func (s *Server) openLog(cfg *config.Config) (err error) {
	c := cfg.AccessLog
	o := accesslog.Options{Format: c.Format, Path: c.Path, Loops: workers(cfg), OnError: s.logTrouble}
	if c.Path == "" || c.Path == "-" {
		o.Writer = s.opt.AccessLog
	}
	if s.access, err = accesslog.Open(o); err != nil {
		var f faults
		f.add(cfg, c.Pos, "access_log.path", err)
		return f.err()
	}
	return nil
}

func (s *Server) logTrouble(err error) {
	if err != nil {
		s.log.Error("access log cannot be written, lines are lost", "err", err)
		return
	}
	s.log.Info("access log is written again", "lost", s.access.Dropped())
}

// Close lets go of what New took, for a Server that is not run.
func (s *Server) Close() {
	s.unwatch()
	for _, l := range s.sockets {
		l.Close()
	}
	for _, l := range s.doors {
		l.Close()
	}
	if s.access != nil {
		s.access.Close(context.Background())
	}
	if s.group != nil {
		s.group.Close()
	}
}

// Run serves until ctx is done, then stops: it takes no new connections, lets requests finish within the configured
// grace, and cuts what is left. It returns nil when nothing was cut, ErrGraceOver or ErrCut when something was, and
// another error when it could not go on.
func (s *Server) Run(ctx context.Context) error {
	actors, ctx := errgroup.WithContext(ctx)
	open := admin.NewServer(admin.Handler(s.sources()), s.log)
	private := admin.NewServer(admin.Control(s.sources(), admin.Actions{Drain: s.Drain, Ready: s.TakeBack}), s.log)
	for _, door := range s.doors {
		web := open
		if door.Addr().Network() == "unix" { // whoever may open it
			web = private
		}
		s.log.Info("admin", "address", door.Addr().String())
		actors.Go(func() error {
			if err := web.Serve(door); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("admin on %s: %w", door.Addr(), err)
			}
			return nil
		})
	}
	over := make(chan struct{})
	actors.Go(func() error {
		s.attend(over)
		return nil
	})
	actors.Go(func() error {
		defer close(over)
		s.watch(s.Config())
		s.awaitChecks(ctx)
		err := s.serve()
		if err == nil {
			<-ctx.Done()
		}
		err = errors.Join(err, s.stop())
		// To the end of the stop, people can see how it goes.
		last, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		for _, web := range []*http.Server{open, private} {
			if web.Shutdown(last) != nil {
				web.Close()
			}
		}
		return err
	})
	return actors.Wait()
}

// serve takes the first requests.
func (s *Server) serve() error {
	for _, l := range s.sockets {
		if _, err := s.proxy.Listen(l.name, l.Listener); err != nil {
			return fmt.Errorf("listen.%s: %w", l.name, err)
		}
		s.log.Info("listening", "listener", l.name, "address", l.Addr().String())
	}
	for _, p := range *s.pools.Load() {
		s.log.Info("pool", "pool", p.Name, "strategy", p.strategy, "backends", len(p.Snapshot().All))
	}
	s.state.CompareAndSwap(starting, running)
	s.supervisor.tell("READY=1", "STATUS="+s.summary())
	s.log.Info("ready", "version", s.opt.Version, "workers", s.group.Len(), "took", time.Since(s.started).Round(time.Millisecond))
	return nil
}

// Config is the configuration in force.
func (s *Server) Config() *config.Config { return s.cfg.Load() }

// ReopenLog opens the access log's file again, after it was renamed.
func (s *Server) ReopenLog() error { return s.access.Reopen() }

// Address is where something listens, under its name in the configuration.
type Address struct {
	Name string
	net.Addr
}

// Addrs are the addresses of the listeners, with the ports that were found where the configuration says 0.
func (s *Server) Addrs() (all []Address) {
	for _, l := range s.sockets {
		all = append(all, Address{l.name, l.Addr()})
	}
	return all
}

// AdminAddrs are where the admin server listens.
func (s *Server) AdminAddrs() (all []net.Addr) {
	for _, l := range s.doors {
		all = append(all, l.Addr())
	}
	return all
}

// Status is what is going on now.
func (s *Server) Status() admin.Status {
	st := admin.Status{
		Version: s.opt.Version, State: stateNames[s.state.Load()], Started: s.started.UTC().Truncate(time.Millisecond),
		Uptime:    int64(time.Since(s.started).Seconds()),
		Listeners: []admin.Listener{}, // not null in JSON, even before the first
	}
	for _, l := range s.proxy.Listeners() {
		n := l.Stats()
		st.Listeners = append(st.Listeners, admin.Listener{
			Name: l.Name(), Address: l.Addr().String(), Connections: n.Open, Accepted: n.Accepted, Requests: n.Requests,
		})
	}
	for _, p := range *s.pools.Load() {
		st.Pools = append(st.Pools, s.poolStatus(p))
	}
	return st
}

// Ready says why new requests had better go elsewhere: lb starts or stops, or no backend of any pool can be used. One
// pool of several that is out does not count: to send its requests elsewhere, all others would have to go, too, and
// another lb before the same backends knows no better.
func (s *Server) Ready() error {
	if st := s.state.Load(); st != running {
		return errors.New(stateNames[st])
	}
	for _, p := range *s.pools.Load() {
		if len(p.Snapshot().Ready) > 0 {
			return nil
		}
	}
	return errors.New("no backend of any pool is ready")
}

func (s *Server) sources() admin.Sources {
	return admin.Sources{
		Status: s.Status,
		Ready:  s.Ready,
		Events: s.checks.events.list,
		Metrics: metrics.Handler(metrics.Sources{
			Version: s.opt.Version,
			Pools: func() (all []*upstream.Pool) {
				for _, p := range *s.pools.Load() {
					all = append(all, p.Pool)
				}
				return all
			},
			Listeners: func() (all []metrics.Listener) {
				for _, l := range s.proxy.Listeners() {
					all = append(all, counted{l})
				}
				return all
			},
			LogLines:   s.access.Lines,
			LogDropped: s.access.Dropped,
			OnError:    func(err error) { s.log.Error("metrics", "err", err) },
		}),
	}
}

// counted is a listener as package metrics sees it.
type counted struct{ *proxy.Listener }

func (l counted) Stats() metrics.ListenerStats {
	n := l.Listener.Stats()
	out := metrics.ListenerStats{
		Accepted: n.Accepted, Open: n.Open, Paused: n.Paused, Requests: n.Requests, BytesIn: n.BytesIn, BytesOut: n.BytesOut,
	}
	for i, count := range n.Answers {
		out.Failed = append(out.Failed, metrics.Reason{Name: proxy.Reason(i).String(), Count: count})
	}
	return out
}
