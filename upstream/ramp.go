package upstream

// Slow start: a backend that returns, or joins a pool at work, is given a part of its share that grows, so that a
// process whose code is not compiled and whose caches are cold is not met by its whole share at once. Nothing here
// costs anything while no backend is in that state: Pool.attention says so.

const (
	rampPending = -1 // the clock of requests is not at hand where the ramp begins
	rampLeast   = .1
)

// Share is the part of its weight, above 0 and at most 1, that the backend should be given at time now. Strategies ask
// for it while Selection.Ramping.
func (l *Live) Share(now int64) float64 {
	from := l.ramp.Load()
	if from == 0 {
		return 1
	}
	if from == rampPending {
		if l.ramp.CompareAndSwap(from, max(1, now)) {
			return rampLeast
		}
		if from = l.ramp.Load(); from <= 0 {
			return 1
		}
	}
	share := rampShare(now-from, l.rampFor.Load())
	if share >= 1 && l.ramp.CompareAndSwap(from, 0) {
		l.pool.ramped()
	}
	return share
}

// rampShare is the share after elapsed of a ramp's length, both in ns.
func rampShare(elapsed, length int64) float64 {
	if elapsed >= length {
		return 1
	}
	return rampLeast + (1-rampLeast)*float64(max(0, elapsed))/float64(length)
}

// startRamps begins slow start for those in next who were away or have joined; not at boot. Shares are against each
// other: whoever is alone gets all, and those who come back together get as much as each other. If the first of them had
// no ramp it would carry most of the load until the others have theirs behind them. The caller holds p.mu.
func (p *Pool) startRamps(next *Snapshot) {
	for _, b := range next.All {
		if life := b.Life(); life.Wanted != In || !life.Ejected.IsZero() || life.dead() {
			b.cold = true
			b.ramp.Store(0)
		}
	}
	if next.Panic {
		return
	}
	for _, b := range next.Ready {
		if b.cold && next.Settings.SlowStart > 0 {
			b.rampFor.Store(int64(next.Settings.SlowStart))
			b.ramp.Store(rampPending)
		}
		b.cold = false
	}
}

// ramped sets the flag by whether a backend of the snapshot in force ramps, after one began or ended to. Another may do so
// while the flag is cleared, or another snapshot come, which is why it is looked again after that.
func (p *Pool) ramped() {
	if !p.anyRamps() {
		p.attention.And(^int64(ramping))
	}
	if p.anyRamps() {
		p.attention.Or(ramping)
	}
}

func (p *Pool) anyRamps() bool {
	for _, b := range p.snap.Load().All {
		if b.ramp.Load() != 0 {
			return true
		}
	}
	return false
}

// Ramps reports whether the backend's share may be less than whole.
func (l *Live) Ramps() bool { return l.ramp.Load() != 0 }

// StartRamp begins slow start for b from its beginning, as for one that comes back.
func (p *Pool) StartRamp(b *Backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	snap := p.snap.Load()
	for _, is := range snap.All {
		if is.Live == b.Live {
			is.cold = true
			p.publish(snap.All, snap.Settings)
		}
	}
}
