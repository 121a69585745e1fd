package health

import (
	"time"

	"lb/upstream"
)

// Standing is what is known about a backend, for a process that takes over from this one. Its JSON goes from one version
// of lb to another: fields may be added, none changes its meaning.
type Standing struct {
	Probed  string    `json:"probed,omitempty"`  // up or down; else nobody has asked yet
	Asked   bool      `json:"asked,omitempty"`   // it asked to be drained, and is
	Ejected *Sentence `json:"ejected,omitempty"` // nil: it is not
	Times   int       `json:"times,omitempty"`   // ejections that count still
	Back    time.Time `json:"back,omitzero"`     // when the last one ended
}

// Sentence is an ejection.
type Sentence struct {
	Until   time.Time `json:"until"`
	Why     string    `json:"why,omitempty"`
	Dead    bool      `json:"dead,omitempty"`    // it refused a connection
	Connect bool      `json:"connect,omitempty"` // it could not be connected to
	Failed  bool      `json:"failed,omitempty"`  // a probe failed since
	Nth     int       `json:"nth,omitempty"`
}

// Standing is what is known about b.
func (m *Monitor) Standing(b *upstream.Backend) (s Standing) {
	if p := b.Life().Probed; p != upstream.Unknown {
		s.Probed = p.String()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.watches[b.Live]
	if w == nil {
		return s
	}
	s.Asked, s.Times, s.Back = w.asked.Load(), w.times, w.back
	if e := w.out; e != nil {
		s.Ejected = &Sentence{Until: e.until, Why: w.why, Dead: e.dead, Connect: e.connect, Failed: e.failed, Nth: e.nth}
	}
	return s
}

// inherit makes what another process knew w's own. The caller holds Monitor.mu, and w has not started.
func (w *watch) inherit(s Standing) {
	switch s.Probed {
	case upstream.Up.String():
		w.m.pool.SetProbed(w.b, upstream.Up)
	case upstream.Down.String():
		w.m.pool.SetProbed(w.b, upstream.Down)
	}
	w.asked.Store(s.Asked)
	w.times, w.back = s.Times, s.Back
	e := s.Ejected
	if e == nil {
		return
	}
	w.out = &ejection{until: e.Until, dead: e.Dead, connect: e.Connect, failed: e.Failed, nth: e.Nth}
	w.why = e.Why
	if e.Dead {
		w.m.pool.SetDead(w.b, e.Until)
	} else {
		w.m.pool.SetEjected(w.b, e.Until)
	}
}
