package server

import (
	"context"
	"errors"
	"time"

	"lb/upstream"
)

// How a stop can end that was not a clean one.
var (
	ErrGraceOver = errors.New("the grace was over before all requests had ended: what was left was cut")
	ErrCut       = errors.New("told to stop at once: what was under way was cut")
)

const (
	// cutWait is how long connections may take to end that were told to: they only have to run once more.
	cutWait = 3 * time.Second
	// flushWait is how long the access log may take for its last lines. A disk that does not answer, or a pipe that
	// nobody reads, must not keep the process.
	flushWait = 3 * time.Second
)

// Cut ends the grace of a stop at once; before one, it takes the grace from it.
func (s *Server) Cut() { s.once.Do(func() { close(s.cut) }) }

// stop ends what serves, in the order in which it depends on each other.
func (s *Server) stop() error {
	handed := s.upgrades.settle() // another process is in charge, and this one only ends what it has
	s.turn.Lock()                 // a reload either comes before, with all that it opened, or not at all
	s.state.Store(stopping)
	s.turn.Unlock()
	if s.before != nil && !handed {
		s.before.leave()
	}
	s.tellStop()
	grace := s.Config().Server.Grace
	begin := time.Now()
	requests, tunnels := s.underWay()
	s.log.Info("stopping", "grace", grace, "requests", requests, "tunnels", tunnels)
	if !handed {
		s.stopPause()
	}
	close(s.gone)

	// The deadline is for those who pace what they do; it is the timer that cuts.
	ctx, cut := context.WithDeadline(context.Background(), time.Now().Add(grace+time.Second))
	defer cut()
	if handed {
		s.upgrades.mover.begin()
	}
	done := make(chan struct{})
	go func() {
		s.proxy.Shutdown(ctx)
		close(done)
	}()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	var why error
	select {
	case <-done:
	case <-timer.C:
		why = ErrGraceOver
	case <-s.cut:
		why = ErrCut
	}
	clean := true
	if why != nil {
		requests, tunnels = s.underWay()
		s.log.Warn(why.Error(), "requests", requests, "tunnels", tunnels, "after", time.Since(begin).Round(time.Millisecond))
		cut()
		select {
		case <-done:
		case <-time.After(cutWait):
			clean = false
			s.log.Error("connections do not end, and are left to the system")
		}
	}
	s.unwatch()
	s.awaitOthers(begin.Add(grace))
	if handed {
		s.loopsAnswer() // the last ones that came from the process before have been passed on
		s.upgrades.mover.end()
	}
	s.flush()
	if clean {
		s.group.Close()
	}
	s.log.Info("stopped", "took", time.Since(begin).Round(time.Millisecond))
	return why
}

// stopPause goes on as before for a while, but for not being ready: whoever spreads connections over several lb needs
// time to notice.
func (s *Server) stopPause() {
	pause := s.Config().Server.StopPause
	if pause == 0 {
		return
	}
	s.log.Info("not ready, and taking connections still", "for", pause)
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.cut:
	}
}

// awaitOthers waits for processes that drain for this one: the one before it, and one that was to come after it. When
// the main process of a service has ended, systemd ends the others at once. Those who take longer than until are cut.
func (s *Server) awaitOthers(until time.Time) {
	type other struct {
		*link
		gone <-chan struct{}
	}
	var all []other
	if b := s.before; b != nil && b.isCharged() { // else it is that one which waits
		all = append(all, other{b.link, b.gone})
	}
	if !s.upgrades.hasHanded() { // else the last one stays
		s.upgrades.mu.Lock()
		for _, n := range s.upgrades.all {
			all = append(all, other{n.link, n.gone})
		}
		s.upgrades.mu.Unlock()
	}
	for _, o := range all {
		t := time.NewTimer(time.Until(until))
		select {
		case <-o.gone:
		case <-s.cut:
		case <-t.C:
		}
		t.Stop()
		o.send("cut", nil) // if it has not ended
		select {
		case <-o.gone:
		case <-time.After(cutWait):
			s.log.Error("another lb that drains does not end")
		}
	}
}

// unlink lets the processes before and after know that this one has ended.
func (s *Server) unlink() {
	if s.before != nil {
		s.before.close()
	}
	s.upgrades.mu.Lock()
	defer s.upgrades.mu.Unlock()
	for _, n := range s.upgrades.all {
		n.close()
	}
}

func (s *Server) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), flushWait)
	defer cancel()
	if err := s.access.Close(ctx); err != nil {
		s.log.Error("access log could not be written to its end", "err", err)
	}
	if n := s.access.Dropped(); n > 0 {
		s.log.Warn("access log lost lines", "lost", n)
	}
}

// underWay counts what a stop waits for.
func (s *Server) underWay() (requests, tunnels int64) {
	for _, b := range s.busy() {
		requests += b.Inflight()
		tunnels += b.Tunnels()
	}
	return requests, tunnels
}

// busy are the backends that may have something to do, also those that have left their pool.
func (s *Server) busy() (all []*upstream.Backend) {
	for _, p := range *s.pools.Load() {
		all = append(all, p.Snapshot().All...)
	}
	return s.leaving.appendTo(all)
}
