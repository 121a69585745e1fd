package server

import (
	"sync"

	"lb/loop"
	"lb/proxy"
)

// mover sends clients' connections to the process that is in charge by now, off the loops.
type mover struct {
	s   *Server
	to  *successor
	off *suspended

	mu   sync.Mutex
	fds  []int         // guarded by mu
	by   []int         // guarded by mu; numbers
	ts   movedTunnels  // guarded by mu
	ends []int         // guarded by mu; two for each of ts
	more chan struct{} // has room for one
	over chan struct{} // closed when there will be no more
	done chan struct{} // closed when all have been sent
}

func newMover(s *Server, to *successor, off *suspended) *mover {
	return &mover{s: s, to: to, off: off, more: make(chan struct{}, 1), over: make(chan struct{}), done: make(chan struct{})}
}

// number is what the successor knows a listener by: the one it has the socket of, or else its own of that name, when this one
// closed, or will, because its address is another now.
func (m *mover) number(l *proxy.Listener) (n int, ok bool) {
	if n, ok = m.off.numbers[l]; !ok {
		n, ok = m.off.named[l.Name()]
	}
	return n, ok
}

// begin has clients go as they come to rest.
func (m *mover) begin() {
	m.s.tasks.Go(m.run)
	m.s.proxy.Move(&proxy.Mover{
		Takes:  func(l *proxy.Listener) bool { _, ok := m.number(l); return ok && loop.Detaches },
		Move:   m.move,
		Tunnel: m.tunnel,
	})
}

func (m *mover) tunnel(l *proxy.Listener, t *proxy.Moved, client, backend int) {
	by, _ := m.number(l)
	m.mu.Lock()
	m.ts.By, m.ts.Tunnels = append(m.ts.By, by), append(m.ts.Tunnels, t)
	m.ends = append(m.ends, client, backend)
	m.mu.Unlock()
	m.wake()
}

func (m *mover) wake() {
	select {
	case m.more <- struct{}{}:
	default:
	}
}

func (m *mover) move(l *proxy.Listener, fd int) {
	by, _ := m.number(l)
	m.mu.Lock()
	m.fds, m.by = append(m.fds, fd), append(m.by, by)
	m.mu.Unlock()
	m.wake()
}

func (m *mover) run() {
	defer close(m.done)
	for last := false; ; {
		m.send()
		if last {
			return
		}
		select {
		case <-m.more:
		case <-m.over:
			last = true
		}
	}
}

// send sends what there is, and closes this process's copies.
func (m *mover) send() {
	m.mu.Lock()
	fds, by := m.fds, m.by
	m.fds, m.by = nil, nil
	ts, ends := m.ts, m.ends
	m.ts, m.ends = movedTunnels{}, nil
	m.mu.Unlock()
	for len(ends) > 0 {
		n := min(len(ends)/2, maxFiles/2)
		if err := m.to.sendFDs("tunnels", movedTunnels{ts.By[:n], ts.Tunnels[:n]}, ends[:2*n]); err != nil {
			m.s.log.Error("WebSockets could not be handed over", "tunnels", len(ends)/2, "err", err)
			closeAll(ends)
			break
		}
		closeAll(ends[:2*n])
		ts.By, ts.Tunnels, ends = ts.By[n:], ts.Tunnels[n:], ends[2*n:]
	}
	for len(fds) > 0 {
		n := min(len(fds), maxFiles)
		if err := m.to.sendFDs("clients", moved{by[:n]}, fds[:n]); err != nil {
			m.s.log.Error("connections could not be handed over", "connections", len(fds), "err", err)
			closeAll(fds)
			return
		}
		closeAll(fds[:n])
		fds, by = fds[n:], by[n:]
	}
}

// end returns when all that were moved have been sent.
func (m *mover) end() {
	close(m.over)
	<-m.done
}
