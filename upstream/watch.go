package upstream

// Watcher hears what passive health checks go by. Its methods are called on loops and block nobody.
type Watcher interface {
	// Fault is called for each attempt that failed by the backend's fault, before the attempt's place is free again.
	Fault(b *Backend, o Outcome)
	// Waiting is called when a request begins to wait while nobody is ready.
	Waiting()
	// HungUp is called when a backend closed a connection that lb kept for the next request.
	HungUp(l *Live)
}

// SetWatcher makes w the pool's watcher; nil: nobody's.
func (p *Pool) SetWatcher(w Watcher) {
	if w == nil {
		p.watcher.Store(nil)
		return
	}
	p.watcher.Store(&w)
}

// HungUp tells the watcher that the backend closed a connection that was kept for the next request.
func (l *Live) HungUp() {
	if w := l.pool.watcher.Load(); w != nil {
		(*w).HungUp(l)
	}
}

// blame tells the watcher.
func (p *Pool) blame(b *Backend, o Outcome) {
	if w := p.watcher.Load(); w != nil && o.Fault.Blames() {
		(*w).Fault(b, o)
	}
}
