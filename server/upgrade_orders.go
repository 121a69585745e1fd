package server

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"lb/admin"
	"lb/upstream"
)

// While two processes serve, an order to one of them has to be good for both. There are two such times. Before an upgrade
// is decided, what is known of backends has been told to the new process, and may yet be the old one's again: orders wait
// for the decision. After it, the old process goes on with the requests that it has: a backend is empty when it has none
// of both.

var (
	// errHanded is for whoever came to this process and is to ask again: the other one listens at the same socket.
	errHanded    = admin.NotNow(errors.New("another lb is in charge by now: ask again"))
	errUndecided = errors.New("an upgrade of lb is under way, and not decided yet")
)

// turnWait is how long an order waits for its turn at least, also if it is not to wait for anything else: longer than an
// upgrade usually takes to be decided.
const turnWait = 5 * time.Second

// turn is a lock that can be waited for beside other things.
type turn chan struct{}

func (t turn) Lock()   { t <- struct{}{} }
func (t turn) Unlock() { <-t }

// inTurn gives an order its turn to change what runs. It is over when done is called, which must be soon: an upgrade, a
// reload and a stop wait for it.
func (s *Server) inTurn(ctx context.Context) (done func(), err error) {
	ctx, cancel := atLeast(ctx, turnWait)
	defer cancel()
	if s.before != nil && !s.before.isCharged() {
		select {
		case <-s.before.yours:
		case <-s.gone: // it was called off, and the one before goes on
			return nil, errHanded
		case <-ctx.Done():
			return nil, admin.Refused(errUndecided)
		}
	}
	select {
	case s.turn <- struct{}{}:
	default:
		select {
		case s.turn <- struct{}{}:
		case <-s.gone:
			return nil, errHanded
		case <-ctx.Done():
			return nil, admin.Refused(errUndecided)
		}
	}
	if s.upgrades.hasHanded() {
		s.turn.Unlock()
		return nil, errHanded
	}
	return s.turn.Unlock, nil
}

// atLeast is ctx, but it does not end before d has passed.
func atLeast(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	begin := time.Now()
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(time.Until(begin.Add(d)), cancel) })
	return longer, func() {
		stop()
		cancel()
	}
}

// away is a backend as the processes call it between themselves, and what it has to do.
type away struct {
	Pool     string `json:"pool"`
	Name     string `json:"name"`
	Address  string `json:"address"`
	Requests int64  `json:"requests,omitempty"`
	Tunnels  int64  `json:"tunnels,omitempty"`
}

func awayOf(b *upstream.Backend) away {
	return away{Pool: b.Pool().Name, Name: b.Name, Address: b.Addr.String()}
}

func (a away) key() string { return a.Pool + " " + a.Name + " " + a.Address }

// drains is what a process in charge has the one before it do.
type drains struct {
	asking  sync.Mutex
	told    map[string]bool // guarded by asking: backends that drain there, as it was told to or did by itself
	deaf    bool            // guarded by asking: it is of a version that does not answer
	answers chan away       // has room for one
}

// leftPace is how often the process before is asked, and leftWait how long it may take to answer.
const (
	leftPace = 50 * time.Millisecond
	leftWait = 5 * time.Second
)

// leftBefore has the process before this one drain b, too, and says what b has to do there. It is nothing once that process
// has ended, and when b is in use again.
func (s *Server) leftBefore(b *upstream.Backend) away {
	none := awayOf(b)
	if s.before == nil {
		return none
	}
	d := &s.before.drains
	d.asking.Lock()
	defer d.asking.Unlock()
	if b.Life().Wanted == upstream.In || d.deaf {
		return none
	}
	d.note(b)
	select {
	case <-d.answers: // one that came too late
	default:
	}
	if s.before.send("drain", none) != nil {
		return none
	}
	late := time.NewTimer(leftWait)
	defer late.Stop()
	for {
		select {
		case a := <-d.answers:
			if a.key() == none.key() {
				return a
			}
		case <-s.before.gone:
			return none
		case <-late.C:
			d.deaf = true
			s.log.Warn("the lb before does not say what it has under way: drains do not wait for that")
			return none
		}
	}
}

// drainsThere notes that b drained in the process before when this one took over: what waits there for somebody to come
// back would wait in vain otherwise.
func (d *drains) drainsThere(b *upstream.Backend) {
	d.asking.Lock()
	defer d.asking.Unlock()
	d.note(b)
}

// note is drainsThere. The caller holds asking.
func (d *drains) note(b *upstream.Backend) {
	if d.told == nil {
		d.told = map[string]bool{}
	}
	d.told[awayOf(b).key()] = true
}

// answer takes one of the process before in.
func (d *drains) answer(m *message) {
	var a away
	if json.Unmarshal(m.Body, &a) != nil {
		return
	}
	select {
	case d.answers <- a:
	default: // nobody asked
	}
}

// tellBefore has the process before use b again, if it drains there.
func (s *Server) tellBefore(b *upstream.Backend) {
	if s.before == nil {
		return
	}
	a, d := awayOf(b), &s.before.drains
	d.asking.Lock()
	defer d.asking.Unlock()
	if d.told[a.key()] {
		delete(d.told, a.key())
		s.before.send("ready", a) // if it has ended, it has no use for it
	}
}

// awaitBefore waits until the process before this one has done what it had for b, or ctx ends, and says what is left there.
func (s *Server) awaitBefore(ctx context.Context, b *upstream.Backend) away {
	for {
		a := s.leftBefore(b)
		if a.Requests+a.Tunnels == 0 {
			return a
		}
		select {
		case <-time.After(leftPace):
		case <-s.before.gone:
		case <-ctx.Done():
			return a
		}
	}
}

// obey does what the process in charge has this one do, which only ends what it has.
func (s *Server) obey(to *successor, m *message) {
	var a away
	if err := json.Unmarshal(m.Body, &a); err != nil {
		s.log.Error("an order of the lb in charge makes no sense", "kind", m.Kind, "err", err)
		return
	}
	a.Requests, a.Tunnels = 0, 0
	for _, b := range s.busy() {
		if own := awayOf(b); own.key() != a.key() {
			continue
		}
		if m.Kind == "ready" {
			b.Pool().SetWanted(b, upstream.In)
			s.tellBefore(b)
			continue
		}
		if b.Life().Wanted == upstream.In {
			b.Pool().SetWanted(b, upstream.Draining)
			s.letGo(b, time.Second, 0)
		}
		more := s.leftBefore(b) // there may be a third
		a.Requests += b.Inflight() + more.Requests
		a.Tunnels += b.Tunnels() + more.Tunnels
	}
	if m.Kind == "drain" {
		to.send("left", a)
	}
}

// awaitEmpty waits until a backend that gets nothing new has done what it had, in this process and in the one before, or
// ctx ends, and says what is left. The error is an admin.ErrTakenBack, or an admin.ErrNotNow: another process is in charge
// by now, has taken over what could be moved, and knows when all is done.
func (s *Server) awaitEmpty(ctx context.Context, b *upstream.Backend) (admin.Drained, error) {
	begin := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.upgrades.handed:
			if s.handed(b) {
				cancel()
			}
		case <-ctx.Done():
		}
	}()
	err := upstream.AwaitDrained(ctx, b)
	before := s.awaitBefore(ctx, b)
	d := admin.Drained{
		Pool: b.Pool().Name, Backend: b.Name, Requests: b.Inflight() + before.Requests, Tunnels: b.Tunnels() + before.Tunnels,
		Others: len(b.Pool().Snapshot().Ready), Took: time.Since(begin),
	}
	d.Empty = err == nil && before.Requests+before.Tunnels == 0
	if errors.Is(err, upstream.ErrTakenBack) || b.Life().Wanted == upstream.In {
		return d, admin.ErrTakenBack
	}
	if s.handed(b) {
		return d, errHanded
	}
	return d, nil
}

// handed reports whether another process is in charge of b. One that had left its pool before ends here.
func (s *Server) handed(b *upstream.Backend) bool {
	if !s.upgrades.hasHanded() {
		return false
	}
	now := s.backend(b.Pool().Name, b.Name)
	return now != nil && now.Live == b.Live
}
