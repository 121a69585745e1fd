package proxy

import "lb/upstream"

// askAgain is when, in ns, a request is tried again whose backends all refused it and are not known to be dead.
const askAgain = 100e6

// lookAround is how often, in ns, a request that waits looks whether a reload has taken its pool away.
const lookAround = 500e6

// place is an exchange's place in the queue of its pool.
type place struct {
	upstream.Waiter
	waiting bool
	woken   bool
	until   int64 // when the exchange gives up; set by its first wait
}

// initPlace prepares the one thing that comes from other goroutines: the news that it is the exchange's turn.
func (x *exchange) initPlace() {
	woken := func() {
		x.place.woken = true
		if x.place.waiting {
			x.task.Wake()
		}
	}
	x.place.Wake = func() { x.w.loop.Post(woken) }
}

// queue waits until a backend can take the request: until one of those that are at their limit is done with another
// request, or until one comes back when all are away. err is why Acquire refused, last why an attempt failed.
func (x *exchange) queue(err error, last *failure) (upstream.Lease, failure) {
	set := x.snap.Settings
	none := failure{reason: NoBackend}
	limit := int64(set.HoldTimeout)
	switch err {
	case upstream.ErrBusy:
		none, limit = failure{reason: Overloaded}, int64(set.QueueTimeout)
		if x.snap.Held() {
			limit = max(limit, int64(set.ResponseTimeout))
		}
	case upstream.ErrTried:
		// BackendClosed counts against the retries of the request, so that one that kills backends is not sent for ever.
		if none = *last; last.reason != ConnectFailed && last.reason != BackendClosed {
			return upstream.Lease{}, none
		}
	}
	p := &x.place
	if p.until == 0 {
		p.until = x.w.loop.Now() + limit
	}
	if x.w.loop.Now() >= p.until {
		return upstream.Lease{}, none
	}
	x.c.conn.Watch(x.task, x.watchFIN())
	defer x.c.conn.Watch(nil, false)
	if err == upstream.ErrTried {
		return x.askAgain(none)
	}
	pool := x.route.Pool
	p.Size = int64(len(x.in) + cap(x.body.kept))
	p.woken = false
	if !pool.Wait(&p.Waiter, &x.sel) {
		return upstream.Lease{}, none
	}
	p.waiting = true
	defer func() { p.waiting = false }()
	for {
		if !p.woken {
			err := x.task.Park(min(p.until, x.w.loop.Now()+lookAround))
			now := x.w.loop.Now()
			switch {
			case err == nil:
			case x.task.Interrupted() != nil:
				pool.Leave(&p.Waiter, false, now)
				return upstream.Lease{}, x.interruption()
			case now >= p.until, pool.Overdue(&p.Waiter, now):
				pool.Leave(&p.Waiter, true, now)
				return upstream.Lease{}, none
			case x.routesChanged():
				pool.Leave(&p.Waiter, false, now)
				return upstream.Lease{}, none
			}
			continue
		}
		p.woken = false
		x.sel.Now = x.w.loop.Now()
		lease, err := pool.Acquire(&x.sel)
		switch err {
		case nil:
			return lease, failure{}
		case upstream.ErrTried: // and out of the queue by that
			return upstream.Lease{}, none
		}
	}
}

// askAgain tries all backends of the pool once more after a while.
func (x *exchange) askAgain(none failure) (upstream.Lease, failure) {
	if x.w.asking >= x.snap.Settings.HoldRequests {
		return upstream.Lease{}, none
	}
	x.w.asking++
	err := x.task.Park(min(x.place.until, x.w.loop.Now()+askAgain))
	x.w.asking--
	if x.task.Interrupted() != nil {
		return upstream.Lease{}, x.interruption()
	}
	if err == nil || x.w.loop.Now() >= x.place.until {
		return upstream.Lease{}, none
	}
	x.sel.Forget()
	x.sel.Now = x.w.loop.Now()
	lease, err := x.route.Pool.Acquire(&x.sel)
	if err == nil {
		return lease, failure{}
	}
	return x.queue(err, &none)
}
