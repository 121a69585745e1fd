package proxy

import "lb/http1"

// cheap is how long, in ns, a connection may have taken to fail so that it is no loss: nothing listened there.
const cheap = 50e6

// mayRetry is the whole rule of what is tried again. Another backend is asked at once, without delay:
// whatever nothing was sent of, and what may be repeated, is in hand, and has not been answered in part.
func (x *exchange) mayRetry(f *failure) bool {
	if x.answered || x.task.Interrupted() != nil {
		return false
	}
	if f.reason == SessionUnknown { // see elsewhere
		return true
	}
	if x.lost > x.snap.Settings.Retries {
		// So many processes ended with this request that it may be what ends them. The others are spared.
		f.reason = BackendClosed
		return false
	}
	switch f.reason {
	case ConnectFailed, Exhausted:
		if x.connect < cheap && x.snap.Settings.Retries > 0 {
			return true // and again, until every backend has been tried, however often it was sent before
		}
	}
	if x.retry == 0 {
		return false
	}
	switch f.reason {
	case ConnectFailed, Exhausted:
	case ConnectTimeout:
	case BackendClosed:
		if !f.missed && !x.repeatable() {
			return false
		}
		x.shared()
	case ResponseTimeout: // see giveUp
		if !f.again {
			return false
		}
		x.shared()
		x.retry--
		return true
	case BackendUnready: // see unready
		x.retry--
		return true
	default:
		return false
	}
	if !x.route.Pool.AllowRetry(x.w.loop.Now()) {
		return false
	}
	x.retry--
	return true
}

// letPass waits before the last backend that a request may lose is asked. When instances end together, as all of an app do that is
// restarted at once, the first retries meet others that end in the same moment; a little later those that are left stay, and
// requests wait for the first that comes back.
func (x *exchange) letPass() failure {
	x.c.conn.Watch(x.task, x.watchFIN())
	defer x.c.conn.Watch(nil, false)
	x.task.Park(x.w.loop.Now() + askAgain)
	if x.task.Interrupted() != nil {
		return x.interruption()
	}
	return failure{}
}

// repeatable reports whether the request may be sent once more although a backend has got it.
func (x *exchange) repeatable() bool { return !x.body.lost && x.req.Idempotent() }

// missed reports whether it is certain that the backend got nothing of the request, so that any can be sent once more: it had
// closed the connection before the request came. Whether it had is known when its kernel has answered, which
// takes one round trip.
func (x *exchange) missed() bool {
	if x.answered || x.body.lost || x.task.Interrupted() != nil {
		return false
	}
	for end := x.w.loop.Now() + missedWait; ; {
		yes, maybe := x.bc.conn.Missed(x.given)
		now := x.w.loop.Now()
		if yes || !maybe || now >= end {
			return yes
		}
		if x.task.Park(now + missedLook); x.task.Interrupted() != nil {
			return false
		}
	}
}

// missedWait is for how long, in ns, the kernel of a backend is waited for, longer than a way through the network takes;
// missedLook how often it is looked.
const (
	missedWait = 250e6
	missedLook = 1e6
)

// unready reports whether a 503 is better tried elsewhere than passed on: it is that of an instance which warms up or
// goes away, the request may be repeated, and there is somebody else. One with Retry-After is the application's word to
// the client.
func (x *exchange) unready() bool {
	if x.resp.Status != 503 || x.retry == 0 || !x.repeatable() || x.resp.Has(http1.FieldRetryAfter) ||
		x.sel.Tried() >= len(x.route.Pool.Snapshot().Ready) {
		return false
	}
	b := x.lease.Backend()
	now := x.w.loop.Now()
	// That a connection ends says something only where it could have been kept.
	closes := !x.resp.KeepAlive && x.resp.Minor == 1 && x.resp.Length != http1.LengthUntilClose && x.snap.Settings.Reuse
	goes := closes || x.resp.Has(http1.FieldXLBDrain) || b.Draining() || b.Share(now) < 1
	return goes && x.route.Pool.AllowRetry(now)
}

// shared reports whether all backends have been tried and one of them may be a port that several processes share: that
// is when no connection is used twice, and it is what Node's cluster and PM2 make. A new connection may reach another
// worker, so the request is made free to go to the same backends again.
func (x *exchange) shared() bool {
	if x.snap.Settings.Reuse {
		return false
	}
	ready := x.route.Pool.Snapshot().Ready
	for _, b := range ready {
		if !x.sel.Has(b.Live) {
			return false
		}
	}
	x.sel.Forget()
	return len(ready) > 0
}

// giveUp reports whether a backend that was silent for TryTimeout is left for another: one that has room, or another
// worker behind the same port, for a request that may be repeated. Without those it is waited for like any: it may be at
// work on the answer.
func (x *exchange) giveUp() bool {
	if x.answered || x.first != 0 || x.retry == 0 || !x.repeatable() {
		return false
	}
	for _, b := range x.route.Pool.Snapshot().Ready {
		if !x.sel.Has(b.Live) && (b.MaxInflight <= 0 || b.Inflight() < b.MaxInflight) {
			return x.route.Pool.AllowRetry(x.w.loop.Now())
		}
	}
	return x.shared() && x.route.Pool.AllowRetry(x.w.loop.Now())
}
