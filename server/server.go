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

	"lb/accesslog"
	"lb/admin"
	"lb/affinity"
	"lb/config"
	"lb/history"
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
	// Binary is what Upgrade starts, with Args and in the environment of this process; "": Upgrade has to be told.
	Binary string
	Args   []string
	// Before is the lb that this process takes over from; nil: none.
	Before *Predecessor
	// Sockets are listened at in place of opening those of their addresses.
	Sockets Sockets
	// Socket is the path of a unix socket that is there beside those of the configuration, so that it does not take the
	// configuration to find lb. "": none.
	Socket string
}

// Server is one running configuration.
type Server struct {
	opt     Options
	log     *slog.Logger
	started time.Time

	group  *loop.Group
	proxy  *proxy.Proxy
	access *accesslog.Log
	places atomic.Pointer[places]
	web    struct{ open, private http.Handler } // of the admin server, by who may come in
	broken chan error                           // has room for one: why Run cannot go on
	tasks  sync.WaitGroup                       // goroutines that Run waits for
	ended  context.Context                      // is done when nothing is to be waited for any more
	end    context.CancelFunc

	state atomic.Int32
	cut   chan struct{}
	once  sync.Once               // closes cut
	pools atomic.Pointer[[]*pool] // in the order of the file

	supervisor *supervisor // nil: nobody
	before     *Predecessor
	upgrades   *upgrades
	given      givens
	told       chan struct{} // closed when this process is told to stop from inside
	tell       sync.Once     // closes told

	turn    turn       // held by whoever changes what runs, and by a stop that begins
	reload  sync.Mutex // one Reload at a time; guards names
	names   *resolver
	keys    *keyring
	reloads reloads
	cfg     atomic.Pointer[config.Config] // in force
	leaving leaving

	deviations deviations // from the configuration
	checks     checks
	rollouts   rollouts
	keeping    sync.Map // *keeping by *upstream.Live of backends that drain and keep their sessions
	history    *history.Recorder
	live       *admin.Live
	page       *admin.Page
	gone       chan struct{} // closed when a stop begins
}

// pool is an upstream.Pool with what people want to know of it.
type pool struct {
	*upstream.Pool
	strategy string
	file     []upstream.Spec // its backends by the configuration; guarded by Server.reload
	variant  string
	affinity *affinity.Affinity // nil: none
	options  *affinity.Options  // of it
	percent  int                // of tunnels above the mean that are moved in a minute

	owed map[string]float64 // tunnels by backend that may be moved; belongs to Server.tend
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
func New(cfg *config.Config, opt Options) (*Server, error) {
	s := &Server{
		opt: opt, log: opt.Log, started: time.Now(), names: newResolver(opt.Resolve),
		history: history.New(),
		cut:     make(chan struct{}), gone: make(chan struct{}), broken: make(chan error, 1),
		before: opt.Before, given: opt.Sockets.all, upgrades: newUpgrades(), told: make(chan struct{}), turn: make(turn, 1),
	}
	s.ended, s.end = context.WithCancel(context.Background())
	s.places.Store(&places{})
	s.reloads.last = metrics.Reloads{OK: true, Time: s.started}
	s.cfg.Store(cfg)
	s.checks.news = make(chan struct{}, 1)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.newLive()
	s.supervisor = newSupervisor(os.Getenv, s.log)
	s.keys = &keyring{dir: stateDirectory(os.Getenv), warn: s.log.Warn}
	if s.before != nil {
		s.supervisor.hush() // the one before speaks for both
		s.keys.text = s.before.key
		s.deviations.store(s.before.deviations)
	}
	p, err := newPlan(context.Background(), cfg, s.names, s.keys)
	if err != nil {
		return nil, err
	}
	if s.before != nil {
		kept, notes := s.deviatePlan(p, false)
		s.deviations.store(kept)
		for _, n := range notes {
			s.log.Info("not as in the file", "note", n)
		}
	}
	if s.group, err = loop.New(workers(cfg), loop.Options{Panicked: s.panicked}); err != nil {
		s.Close()
		return nil, fmt.Errorf("event loops: %w", err)
	}
	var all []*pool
	byName := map[string]*pool{}
	for _, pp := range p.pools {
		np := pp.pool()
		np.Pool = upstream.NewPool(pp.name, s.group.Len(), pp.specs, pp.settings, pp.build)
		if np.affinity, err = s.newAffinity(np.Pool, pp.affinity, nil); err != nil {
			s.Close()
			return nil, fmt.Errorf("pool %s: %w", pp.name, err)
		}
		byName[pp.name] = np
		all = append(all, np)
	}
	t, err := table(cfg, byName)
	if err != nil {
		s.Close()
		return nil, err
	}
	s.pools.Store(&all)
	if s.before == nil {
		s.recall()
	}
	s.proxy = proxy.New(s.group, proxySettings(&cfg.Server, t, nil))
	s.web.open = admin.Handler(s.sources())
	s.web.private = s.private()
	o, err := s.open(cfg, s.places.Load())
	if err == nil {
		s.places.Store(&o.places)
		err = s.unmatched(cfg)
	}
	if err := errors.Join(err, s.openLog(cfg)); err != nil {
		s.Close()
		return nil, err
	}
	s.proxy.Update(proxySettings(&cfg.Server, t, s.access))
	return s, nil
}

func (s *Server) actions() admin.Actions {
	return admin.Actions{
		Drain: s.Drain, Ready: s.TakeBack, Weight: s.SetWeight, Add: s.Add, Remove: s.Remove, Explain: s.Explain, View: s.View,
	}
}

// private is the admin server of unix sockets: whoever may open them may also change what runs.
func (s *Server) private() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", admin.Control(s.sources(), s.actions()))
	mux.Handle("POST /reload", admin.Reload(s.verdict))
	mux.Handle("POST /upgrade", admin.Upgrade(s.Upgrade, admin.IsOwner))
	rollouts := s.rolloutActions().Handler()
	mux.Handle("/rollouts", rollouts)
	mux.Handle("/rollouts/", rollouts)
	return mux
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
	if s.access, err = accesslog.Open(s.logOptions(cfg)); err != nil {
		return logFault(cfg, err)
	}
	return nil
}

func (s *Server) logOptions(cfg *config.Config) accesslog.Options {
	c := &cfg.AccessLog
	o := accesslog.Options{Format: c.Format, Path: c.Path, Loops: s.group.Len(), OnError: s.logTrouble}
	if c.Path == "" || c.Path == "-" {
		o.Writer = s.opt.AccessLog
	}
	return o
}

func logFault(cfg *config.Config, err error) error {
	var f faults
	f.add(cfg, cfg.AccessLog.Pos, "access_log.path", fileFault(err))
	return f.err()
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
	for _, k := range s.places.Load().sockets {
		k.Close()
	}
	for _, d := range s.places.Load().doors {
		d.Close()
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
	at := s.places.Load()
	if s.before != nil {
		if err := s.before.prepared(ctx, s); err != nil {
			s.Close()
			return err
		}
		s.adopt(s.before.state)
	} else {
		s.given = s.given.drop()
	}
	s.tasks.Go(func() { s.live.Run(s.ended) })
	s.serve(&opening{opened: places{doors: at.doors}})
	over := make(chan struct{})
	s.tasks.Go(func() { s.attend(over) })
	s.tasks.Go(func() { s.history.Run(s.ended, s.upstreams, s.live.Tick) })
	s.watch(s.Config())
	s.tasks.Go(s.tend)
	s.awaitChecks(ctx)
	s.serve(&opening{opened: places{sockets: at.sockets}})
	s.ready()
	if s.before != nil {
		s.before.serving(s)
	}
	var err error
	select {
	case <-ctx.Done():
	case <-s.told:
	case <-s.upgrades.handed:
	case err = <-s.broken:
	}
	err = errors.Join(err, s.stop())
	if !s.upgrades.hasHanded() { // else another process knows by now
		s.remember()
	}
	close(over)
	// To the end of the stop, people can see how it goes; and who ordered an upgrade gets the verdict.
	late, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var doors sync.WaitGroup
	for _, d := range s.places.Load().doors {
		doors.Go(func() { d.shut(late) })
	}
	doors.Wait()
	s.end()
	s.unlink()
	s.tasks.Wait()
	return err
}

// stopNow has Run stop as if its context were done.
func (s *Server) stopNow() { s.tell.Do(func() { close(s.told) }) }

// ready says that all is there.
func (s *Server) ready() {
	for _, p := range *s.pools.Load() {
		s.log.Info("pool", "pool", p.Name, "strategy", p.strategy, "backends", len(p.Snapshot().All))
	}
	s.warnPage()
	s.state.CompareAndSwap(starting, running)
	s.log.Info("ready", "version", s.opt.Version, "pid", os.Getpid(), "workers", s.group.Len(), "took", time.Since(s.started).Round(time.Millisecond))
	s.tellReady()
}

// Config is the configuration in force.
func (s *Server) Config() *config.Config { return s.cfg.Load() }

// ReopenLog opens the access log's file again, after it was renamed.
func (s *Server) ReopenLog() error { return s.access.Reopen() }

// Status is what is going on now.
func (s *Server) Status() admin.Status {
	st := admin.Status{
		Version: s.opt.Version, State: stateNames[s.state.Load()], Started: s.started.UTC().Truncate(time.Millisecond),
		Uptime: int64(time.Since(s.started).Seconds()), PID: os.Getpid(), File: s.Config().File, Reload: s.reloads.status(),
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
		Live:   s.live,
		Page:   s.page,
		Metrics: metrics.Handler(metrics.Sources{
			Version:  s.opt.Version,
			Pools:    s.upstreams,
			Affinity: s.affinityMetrics,
			Listeners: func() (all []metrics.Listener) {
				for _, l := range s.proxy.Listeners() {
					all = append(all, counted{l})
				}
				return all
			},
			LogLines:   func() uint64 { return s.access.Lines() }, // there is none yet
			LogDropped: func() uint64 { return s.access.Dropped() },
			Reloads:    s.reloads.count,
			Upgrades:   s.upgrades.count,
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
