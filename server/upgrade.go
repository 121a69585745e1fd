package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lb/admin"
	"lb/metrics"
)

// An upgrade goes like this, the old process on the left:
//
//	starts the new one, gives it a link
//	hello: every listening socket  -->  reads the configuration, opens what else there is to open
//	                               <--  prepared
//	go: what is known of backends  -->  checks those that are not known, serves
//	                               <--  serving
//	takes no more connections, but keeps the sockets, and watches the new one for a while
//	well?                          -->  asks its event loops
//	                               <--  well
//	lets go of the sockets, tells systemd who is in charge
//	yours                          -->  in charge
//	drains, ends
//
// Up to "yours" the old process is in charge: whatever happens to the new one, it goes on accepting from the same
// sockets, in whose queues those who connected meanwhile wait. That is also why neither of them may put the filter of
// loop.Listener.Close on a socket that the other has.

// upgradeVariable tells a process that it takes over from another: it holds the descriptor of the link.
const upgradeVariable = "LB_UPGRADE_FD"

// upgrades is what a Server knows of upgrades from it, and counts.
type upgrades struct {
	busy chan struct{} // has room for one: an upgrade is under way

	mu     sync.Mutex
	n      metrics.Upgrades        // guarded by mu
	cancel context.CancelCauseFunc // guarded by mu; of the one that is under way
	over   chan struct{}           // guarded by mu; closed when that has come to an end
	closed bool                    // guarded by mu: a stop has begun

	all []*successor // guarded by mu; that may be alive

	handed chan struct{} // closed when another process is in charge
	mover  *mover        // of clients to that; set before

	start func(binary string) (*successor, error) // nil: startSuccessor. For tests
}

func newUpgrades() *upgrades {
	return &upgrades{busy: make(chan struct{}, 1), handed: make(chan struct{})}
}

func (u *upgrades) count() metrics.Upgrades {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.n
}

// hasHanded reports whether another process is in charge.
func (u *upgrades) hasHanded() bool {
	select {
	case <-u.handed:
		return true
	default:
		return false
	}
}

// settle ends an upgrade that is under way, lets none begin, and reports whether another process is in charge.
func (u *upgrades) settle() bool {
	u.mu.Lock()
	u.closed = true
	cancel, over := u.cancel, u.over
	u.mu.Unlock()
	if cancel != nil {
		cancel(errStopping)
		<-over
	}
	return u.hasHanded()
}

// Upgrade starts another process in the place of this one, and returns once that is in charge, or has failed: then all
// goes on as before. One at a time: others are refused. When it succeeds, Run drains and returns.
func (s *Server) Upgrade(ctx context.Context, o admin.UpgradeOrder) admin.Upgraded {
	begin := time.Now()
	v := admin.Upgraded{From: s.opt.Version}
	done := func(err error) admin.Upgraded {
		v.Took = time.Since(begin).Seconds()
		if err != nil {
			v.Faults = strings.Split(err.Error(), "\n")
			s.log.Error("not upgraded, all goes on as before", "err", err)
		}
		return v
	}
	wait, watch, err := o.Durations()
	if err != nil {
		return done(err)
	}
	select {
	case s.upgrades.busy <- struct{}{}:
		defer func() { <-s.upgrades.busy }()
	default:
		return done(errors.New("another upgrade is under way"))
	}
	binary := o.Binary
	if binary == "" {
		binary = s.opt.Binary
	}
	if err := s.mayUpgrade(binary); err != nil {
		v.Never = errors.Is(err, errNever)
		return done(err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := make(chan struct{})
	defer close(over)
	s.upgrades.mu.Lock()
	if s.upgrades.closed {
		s.upgrades.mu.Unlock()
		return done(errStopping)
	}
	s.upgrades.cancel, s.upgrades.over = cancel, over
	s.upgrades.mu.Unlock()

	for !s.reload.TryLock() { // what is handed over is the whole of one configuration
		select {
		case <-ctx.Done():
			return done(errStopping)
		case <-time.After(10 * time.Millisecond):
		}
	}
	defer s.reload.Unlock()
	if err := s.mayChange(); err != nil {
		return done(err)
	}
	s.log.Info("upgrading", "binary", binary, "wait", wait, "by", admin.By(ctx))
	s.supervisor.tell("STATUS=upgrading: starting " + binary)
	next, err := s.handOver(ctx, binary, wait, watch)
	s.upgrades.mu.Lock()
	if err != nil {
		s.upgrades.n.Failed++
	}
	s.upgrades.mu.Unlock()
	if err != nil {
		s.tellReady() // else the service manager goes on showing what was tried
		return done(err)
	}
	v.Upgraded, v.PID, v.To = true, next.pid, next.version
	s.log.Info("upgraded: another process is in charge, this one drains", "pid", next.pid, "version", next.version, "took", time.Since(begin).Round(time.Millisecond))
	return done(nil)
}

var errStopping = errors.New("lb is stopping")

var errNever = errors.New("restart it")

// mayUpgrade says what is in the way of every upgrade.
func (s *Server) mayUpgrade(binary string) error {
	switch {
	case binary == "":
		return fmt.Errorf("this lb does not know what it was started from: %w", errNever)
	case os.Getpid() == 1:
		return fmt.Errorf("lb is process 1 of its container, which ends with it: start another container, or %w", errNever)
	}
	return nil
}

// hello is the first message to a successor.
type hello struct {
	Protocol int       `json:"protocol"`
	Version  string    `json:"version"`
	Sockets  []offered `json:"sockets"` // each comes with a descriptor, in messages "sockets" of up to maxFiles

	Key        string            `json:"key,omitempty"`        // of cookies, when it was made for want of a place to keep one
	Deviations []handedDeviation `json:"deviations,omitempty"` // from the file
}

// offered is a listening socket.
type offered struct {
	Network string `json:"network"`
	Key     string `json:"key"`
	Name    string `json:"name,omitempty"`
	Lasting bool   `json:"lasting,omitempty"` // systemd holds it
}

const upgradeProtocol = 1

// preparation is what a successor says when all that can fail is done.
type preparation struct {
	Version string `json:"version"`
	Taken   []int  `json:"taken"` // of the sockets, by their number

	Own []string `json:"own,omitempty"` // listeners that it opened itself: their numbers follow those of the sockets
}

// failure is what a successor says when it cannot take over.
type upgradeFailure struct {
	Why string `json:"why"`
}

// handOver brings another process into charge, or returns an error and has everything as it was.
func (s *Server) handOver(ctx context.Context, binary string, wait, watch time.Duration) (*successor, error) {
	sockets, files, err := s.offer()
	defer closeFiles(files)
	if err != nil {
		return nil, err
	}
	start := s.startSuccessor
	if s.upgrades.start != nil {
		start = s.upgrades.start
	}
	next, err := start(binary)
	if err != nil {
		return nil, err
	}
	late, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("it was not ready within %v", wait))
	defer cancel()
	h := hello{upgradeProtocol, s.opt.Version, sockets, "", s.handDeviations()}
	if s.keys.own != nil {
		h.Key = s.keys.text
	}
	p, err := next.prepare(late, &h, files)
	s.turn.Lock() // what is told from here on has to stay true until one of the two is in charge: see inTurn
	defer s.turn.Unlock()
	if err == nil {
		err = next.send("go", s.stateNow())
	}
	if err == nil {
		_, err = next.await(late, "serving")
	}
	if err != nil {
		next.kill()
		return nil, err
	}

	off := s.suspend(sockets, p)
	s.log.Info("the new lb serves, and is watched", "pid", next.pid, "version", next.version, "for", watch)
	if err := next.watch(ctx, watch); err != nil {
		switch {
		case errors.Is(err, errLeaves):
			off.resume(s)
			next.send("back", nil)
		case ctx.Err() != nil && next.alive():
			// We stop, and so shall it, with the requests that it has by now.
			if next.send("stop", nil) == nil {
				late, cancel := context.WithTimeout(context.Background(), cutWait)
				defer cancel()
				next.await(late, "leaving")
			}
			off.resume(s)
			next.send("back", nil)
		default:
			off.resume(s)
			next.kill()
		}
		return nil, err
	}
	s.upgrades.mover = newMover(s, next, off)
	off.release(s)
	// systemd takes orders from the main process only, so the next word is the new one's.
	s.supervisor.tell("MAINPID="+strconv.Itoa(next.pid), "STATUS=upgraded to "+next.version)
	s.supervisor.hush()
	if err := next.send("yours", nil); err != nil {
		s.log.Error("upgrade", "err", err)
	}
	close(s.upgrades.handed)
	return next, nil
}

// offer copies the descriptors of all listening sockets.
func (s *Server) offer() (sockets []offered, files []*os.File, err error) {
	add := func(o offered, of func(f func(fd uintptr) error) error) {
		e := of(func(fd uintptr) error {
			own, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
			if err == nil {
				sockets, files = append(sockets, o), append(files, os.NewFile(uintptr(own), o.Key))
			}
			return err
		})
		if e != nil {
			err = errors.Join(err, fmt.Errorf("the socket of %s cannot be handed over: %w", o.Key, e))
		}
	}
	at := s.places.Load()
	for _, k := range at.sockets {
		add(offered{"tcp", k.address, k.name, s.given.lasts(k.Addr())}, k.Control)
	}
	for _, d := range at.doors {
		network, key, _ := strings.Cut(d.key, " ")
		add(offered{network, key, "", s.given.lasts(d.Addr())}, d.Control)
	}
	for _, g := range s.given {
		if !g.taken {
			add(offered{g.network, g.key, g.name, true}, g.Control)
		}
	}
	return sockets, files, err
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
