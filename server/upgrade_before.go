package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"lb/admin"
	"lb/proxy"
	"lb/upstream"
)

// Predecessor is the lb that this process takes over from.
type Predecessor struct {
	*link
	sockets    givens
	version    string
	key        string
	deviations map[string]map[string]*deviation

	taken map[*given]*proxy.Listener // that it has, too, until this process is in charge
	doors []*door                    // the same
	order []*proxy.Listener          // taken, by the number of the socket, nil where it is not; then those of this process alone
	state *state
	yours chan struct{} // closed when this process is in charge, or the one before is gone
	back  chan struct{} // closed when it has been told that this one leaves, and takes connections again
	gone  chan struct{} // closed when it has ended
	once  sync.Once     // closes yours
	drains
	left atomic.Bool // this process ends, and the one before goes on
}

// Inherit is the lb before this one, nil when there is none. It waits for the sockets, which come at once.
func Inherit(getenv func(string) string) (*Predecessor, error) {
	text := getenv(upgradeVariable)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s is %q, which is no descriptor of a link", upgradeVariable, text)
	}
	os.Unsetenv(upgradeVariable)
	l, err := newLink(os.NewFile(uintptr(fd), "link"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", upgradeVariable, err)
	}
	b := newPredecessor(l)
	if err := b.greet(); err != nil {
		b.Fail(err)
		return nil, err
	}
	return b, nil
}

func newPredecessor(l *link) *Predecessor {
	return &Predecessor{
		link: l, taken: map[*given]*proxy.Listener{}, drains: drains{answers: make(chan away, 1)},
		yours: make(chan struct{}), back: make(chan struct{}), gone: make(chan struct{}),
	}
}

// greet takes the sockets.
func (b *Predecessor) greet() error {
	b.c.SetReadDeadline(time.Now().Add(linkWait))
	defer b.c.SetReadDeadline(time.Time{})
	m, err := b.receive()
	if err != nil {
		return fmt.Errorf("the lb before: %w", err)
	}
	var h hello
	if err := json.Unmarshal(m.Body, &h); err != nil || m.Kind != "hello" {
		return fmt.Errorf("the lb before said %q: %w", m.Kind, err)
	}
	if h.Protocol != upgradeProtocol {
		return fmt.Errorf("the lb before (%s) hands over by protocol %d, this one knows %d: restart it", h.Version, h.Protocol, upgradeProtocol)
	}
	b.version, b.key, b.deviations = h.Version, h.Key, takeDeviations(h.Deviations)
	for len(b.sockets) < len(h.Sockets) {
		if m, err = b.receive(); err != nil {
			return fmt.Errorf("the lb before: %w", err)
		}
		if m.Kind != "sockets" || len(m.fds) == 0 || len(b.sockets)+len(m.fds) > len(h.Sockets) {
			closeAll(m.fds)
			return fmt.Errorf("the lb before said %q with %d sockets", m.Kind, len(m.fds))
		}
		for i, fd := range m.fds {
			o := h.Sockets[len(b.sockets)]
			g, err := newGiven(fd, o.Network, o.Key, o.Name, o.Lasting)
			if err != nil {
				closeAll(m.fds[i+1:])
				return fmt.Errorf("the socket of %s: %w", o.Key, err)
			}
			b.sockets = append(b.sockets, g)
		}
	}
	return nil
}

// Sockets are those that the lb before listened at, for Options.Sockets; none of nil.
func (b *Predecessor) Sockets() Sockets {
	if b == nil {
		return Sockets{}
	}
	return Sockets{b.sockets}
}

// Fail tells the lb before why this one cannot take over, and that it is to go on. b may be nil.
func (b *Predecessor) Fail(err error) {
	if b != nil {
		b.send("failed", upgradeFailure{err.Error()}) // if it cannot be told, it sees that this process ends
	}
}

// prepared tells the lb before that all that can fail is done, and waits for its word to begin.
func (b *Predecessor) prepared(ctx context.Context, s *Server) error {
	p := preparation{Version: s.opt.Version, Taken: []int{}}
	for i, g := range b.sockets {
		b.order = append(b.order, b.taken[g])
		if g.taken {
			p.Taken = append(p.Taken, i)
		}
	}
	for _, k := range s.places.Load().sockets {
		if !slices.Contains(b.order, k.Listener) {
			p.Own = append(p.Own, k.name)
			b.order = append(b.order, k.Listener)
		}
	}
	s.given = s.given.drop()
	b.sockets = nil
	if err := b.send("prepared", p); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { b.c.SetReadDeadline(time.Now()) })
	m, err := b.receive()
	if !stop() {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("the lb before does not hand over: %w", err)
	}
	if m.Kind != "go" {
		return fmt.Errorf("the lb before said %q and not \"go\"", m.Kind)
	}
	b.state = new(state)
	return json.Unmarshal(m.Body, b.state)
}

// serving says that this process accepts connections, and listens to what comes of it.
func (b *Predecessor) serving(s *Server) {
	if err := b.send("serving", nil); err != nil {
		s.log.Error("the lb before", "err", err)
	}
	s.tasks.Go(func() { b.listen(s) })
}

func (b *Predecessor) listen(s *Server) {
	defer close(b.gone)
	defer func() {
		if !b.left.Load() {
			b.inCharge(s) // it has gone, and there is nobody else
		}
	}()
	for {
		m, err := b.receive()
		if err != nil {
			return
		}
		switch m.Kind {
		case "well?":
			if s.loopsAnswer() {
				b.send("well", nil)
			}
		case "yours":
			b.inCharge(s)
		case "clients":
			b.adopt(s, m)
			continue
		case "tunnels":
			b.adoptTunnels(s, m)
			continue
		case "left":
			b.drains.answer(m)
		case "back":
			close(b.back)
		case "stop":
			s.log.Info("told to stop by the lb before, which is stopping")
			s.stopNow()
		}
		closeAll(m.fds)
	}
}

// moved says of connections which sockets they came by.
type moved struct {
	By []int `json:"by"`
}

// adopt serves clients' connections of the process before that are at rest.
func (b *Predecessor) adopt(s *Server, m *message) {
	var by moved
	if err := json.Unmarshal(m.Body, &by); err != nil || len(by.By) != len(m.fds) {
		s.log.Error("connections of the lb before are lost", "connections", len(m.fds), "err", err)
		closeAll(m.fds)
		return
	}
	for i, fd := range m.fds {
		if at := by.By[i]; at >= 0 && at < len(b.order) && b.order[at] != nil {
			b.order[at].Adopt(fd)
		} else {
			syscall.Close(fd)
		}
	}
}

// movedTunnels are tunnels that come with two descriptors each.
type movedTunnels struct {
	By      []int          `json:"by"` // which sockets their clients came by
	Tunnels []*proxy.Moved `json:"tunnels"`
}

// adoptTunnels goes on with tunnels of the process before.
func (b *Predecessor) adoptTunnels(s *Server, m *message) {
	var all movedTunnels
	if err := json.Unmarshal(m.Body, &all); err != nil || len(all.By) != len(all.Tunnels) || 2*len(all.By) != len(m.fds) {
		s.log.Error("WebSockets of the lb before are lost", "tunnels", len(m.fds)/2, "err", err)
		closeAll(m.fds)
		return
	}
	for i, t := range all.Tunnels {
		client, backend := m.fds[2*i], m.fds[2*i+1]
		at := all.By[i]
		if at < 0 || at >= len(b.order) || b.order[at] == nil {
			s.proxy.RefuseTunnel(t, client, backend)
			continue
		}
		var p *upstream.Pool
		if own := s.pool(t.Pool); own != nil {
			p = own.Pool
		}
		b.order[at].AdoptTunnel(p, t, client, backend)
	}
}

// inCharge makes this process the only one.
func (b *Predecessor) inCharge(s *Server) {
	b.once.Do(func() {
		for _, k := range b.taken {
			k.SetShared(s.given.lasts(k.Addr()))
		}
		for _, d := range b.doors {
			admin.Own(d.Listener, !s.given.lasts(d.Addr()))
		}
		close(b.yours)
		if s.state.Load() == running {
			s.log.Info("in charge", "before", b.version)
		}
		s.supervisor.speak()
		s.tellReady()
		s.supervisor.tell("WATCHDOG=1")
	})
}

// isCharged reports whether this process is in charge.
func (b *Predecessor) isCharged() bool {
	select {
	case <-b.yours:
		return true
	default:
		return false
	}
}

// leave is for a stop before this process is in charge: the one before takes connections again. It returns whether that
// has the sockets now.
func (b *Predecessor) leave() bool {
	if b.isCharged() {
		return false
	}
	b.left.Store(true)
	b.send("leaving", nil)
	select {
	case <-b.back:
	case <-b.gone:
	case <-b.yours:
		return false
	case <-time.After(cutWait):
	}
	return true
}

// loopsAnswer reports whether every event loop runs a function within a while.
func (s *Server) loopsAnswer() bool {
	var all sync.WaitGroup
	for i := range s.group.Len() {
		all.Add(1)
		s.group.Loop(i).Post(all.Done)
	}
	done := make(chan struct{})
	go func() {
		all.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(wellWait):
		return false
	}
}

var errTaking = errors.New("not while lb takes over from the one before; that is a matter of seconds")
