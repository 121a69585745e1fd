package proxy

import (
	"errors"
	"net/netip"

	"lb/affinity"
	"lb/http1"
	"lb/loop"
	"lb/route"
	"lb/upstream"
)

var (
	errStopped = errors.New("proxy: the grace of a shutdown is over")
	errUpload  = errors.New("proxy: the request body broke off")
)

// exchange is one client request and the attempts to get it answered. Exchanges are kept for use again;
// begin says what a new one starts with.
type exchange struct {
	w    *worker
	c    *client
	task *loop.Task
	set  *Settings

	limits http1.Limits
	in     []byte // of the client's bytes, in[:have]: the head, then what came with it
	have   int
	head   int // in[:head] is the request head
	req    http1.Request
	body   requestBody
	peer   netip.Addr // who connected
	client netip.Addr // who asked: the peer, or whom a trusted proxy names
	trust  bool       // the peer is a trusted proxy
	id     [32]byte   // X-Request-Id where the client's is not believed
	reqID  []byte

	route  *route.Route
	snap   *upstream.Snapshot
	sel    upstream.Selection
	visit  affinity.Visit
	ask    affinity.Request
	place  place
	lease  upstream.Lease
	leased bool
	tries  int
	retry  int // further attempts that are left
	lost   int // times that a backend was gone, or closed, once it had the request

	bc    *backendConn
	given uint32 // bytes that bc had taken before this request
	out   []byte // the head under way, first the request's, then the response's
	back  []byte // the backend's bytes, while there are any
	resp  http1.Response
	up    upload

	headBy    int64 // until when the head must be there, once it has begun
	hurried   bool  // headBy is that of a shutdown
	start     int64 // when the head had come
	connect   int64 // ns that connecting took, 0 on a connection that was there
	first     int64 // when the first byte of the answer came
	sent      int64 // when the backend had got all of the request
	respondBy int64 // until when the response head must be there; 0 while the request is still being sent
	hasty     bool  // respondBy is that of TryTimeout
	status    int   // sent to the client
	why       failure
	answered  bool // bytes of an answer have gone to the client
	continued bool // 100 Continue is among them
	keep      bool // the client's connection stays open
	cut       bool // the answer is incomplete: the client must be able to tell
	bytesIn   int64
	bytesOut  int64
	left      bool // the client's connection has been taken care of
}

func (w *worker) takeExchange(c *client) *exchange {
	x, ok := w.exchanges.Get()
	if !ok {
		x = &exchange{w: w, out: make([]byte, 0, 4<<10)}
		x.up.x = x
		x.sel.Of = x
		x.initPlace()
	}
	x.c, x.task = c, w.loop.Current()
	x.have, x.left = 0, false
	x.peer = c.conn.RemoteAddr().Addr().Unmap().WithZone("") // which means something on this machine only
	c.x = x
	return x
}

// Asks implements upstream.Asker: what a decision was about, without what a query may hold.
func (x *exchange) Asks() string {
	return string(x.req.Method) + " " + string(x.req.Host) + string(x.req.Path)
}

// inSize is how much room there is for a request head, and for what comes with it. It is one more than the limit,
// so that a head that is too large is seen to be so.
func inSize(set *Settings) int { return max(set.MaxHeaderBytes+1, 16<<10) }

// begin makes x ready for the next request of its client.
func (x *exchange) begin() {
	set := x.w.proxy.settings.Load()
	x.set = set
	if want := inSize(set); len(x.in) < want {
		in := make([]byte, want)
		copy(in, x.in[:x.have])
		x.in = in
	}
	x.limits = http1.Limits{MaxBytes: set.MaxHeaderBytes, MaxFields: set.MaxHeaderFields}
	x.req.Reset()
	x.head, x.hurried = 0, false
	x.route, x.snap = nil, nil
	x.forgetVisit()
	x.tries, x.lost, x.connect, x.first, x.respondBy = 0, 0, 0, 0, 0
	x.place.until = 0
	x.status = 0
	x.why = failure{}
	x.answered, x.continued, x.keep, x.cut = false, false, false, false
	x.bytesIn, x.bytesOut = 0, 0
	x.reqID = nil
}

// release gives back what the exchange holds. It runs after a panic too, and then the connections it had are
// of no further use.
func (x *exchange) release() {
	c := x.c
	x.visit.End()
	c.conn.Watch(nil, false)
	if !x.left { // a panic
		if x.up.task != nil {
			x.up.task.Interrupt(errStopped)
		}
		if x.leased {
			x.settle(upstream.FaultClient)
		}
		x.dropBackend()
		if x.route != nil {
			x.route.Pool.Fail(int(InternalError), x.tries > 0)
		}
		c.stats().answers[InternalError].Inc()
		c.x = nil
		c.abort()
		return // and x is left to the collector: who knows what state it is in
	}
	if x.back != nil {
		x.w.giveBuffer(x.back)
		x.back = nil
	}
	x.freeKept()
	if len(x.in) > 2*inSize(x.set) {
		x.in = nil // it held what came behind a chunked body
	}
	x.c, x.task, x.set, x.bc, x.route, x.snap = nil, nil, nil, nil, nil, nil
	x.w.exchanges.Put(x)
}

// leave ends the exchange's hold of its client; then, if not nil, says what comes next for it.
func (x *exchange) leave(then func(*Settings)) {
	x.left = true
	x.c.x = nil
	if then != nil {
		then(x.set)
	}
}

// serve answers the request.
func (x *exchange) serve() {
	x.start = x.w.loop.Now()
	x.c.stats().requests.Inc()
	f := x.admit()
	if f.failed() {
		x.refuse(f)
		return
	}
	for {
		b, none := x.choose(&f)
		if b == nil {
			f = none
			break
		}
		lost := x.lost
		f = x.attempt(b)
		if !f.failed() {
			return
		}
		if !x.mayRetry(&f) {
			break
		}
		if x.lost > lost && x.lost == max(2, x.snap.Settings.Retries) {
			if gone := x.letPass(); gone.failed() {
				f = gone
				break
			}
		}
	}
	x.refuse(f)
}

// admit finds out where the request goes, and whether it may.
func (x *exchange) admit() failure {
	x.identify()
	f := x.prepareBody()
	if f.failed() {
		return f
	}
	if !x.findRoute() {
		return failure{reason: NoRoute}
	}
	return failure{}
}

// findRoute looks the request up in the routing table, and begins the search for a backend.
func (x *exchange) findRoute() bool {
	x.route = x.set.Table.Match(x.req.Host, x.req.Path)
	if x.route == nil {
		return false
	}
	x.snap = x.route.Pool.Snapshot()
	x.retry = x.snap.Settings.Retries
	x.sel.Reset(x.start, x.w.index)
	x.sel.Tunnel = x.req.Upgrade
	x.beginVisit()
	switch {
	case x.req.Upgrade:
	case x.req.Has(http1.FieldAccept) && x.wantsEvents():
		x.sel.Stream = true
	case x.snap.Holds():
		x.sel.Kind = upstream.KindOf(x.req.Method, x.req.Path)
	}
	return true
}

// wantsEvents reports whether the client asks for a stream of events and nothing else, as a browser's EventSource does.
func (x *exchange) wantsEvents() bool {
	for i := range x.req.Fields {
		if f := &x.req.Fields[i]; f.Kind == http1.FieldAccept {
			return equalName(f.Value(x.in), eventStream)
		}
	}
	return false
}

// choose admits the request to a backend that has not been tried, if need be after a wait. last is how the attempt
// before failed.
func (x *exchange) choose(last *failure) (*upstream.Backend, failure) {
	x.sel.Now = x.w.loop.Now()
	if x.tries > 0 {
		x.sel.Prefer = nil // it had its chance
	}
	lease, err := x.route.Pool.Acquire(&x.sel)
	if err != nil {
		if x.routesChanged() {
			return x.reroute(last)
		}
		var f failure
		lease, f = x.queue(err, last)
		if f.failed() && x.routesChanged() {
			return x.reroute(last)
		}
		if f.failed() {
			return nil, f
		}
	}
	x.lease, x.leased = lease, true
	x.tries++
	return lease.Backend(), failure{}
}

// routesChanged reports whether a reload has come since the request was matched.
func (x *exchange) routesChanged() bool { return x.w.proxy.settings.Load().Table != x.set.Table }

// reroute looks the request up again: its pool may have left the configuration.
func (x *exchange) reroute(last *failure) (*upstream.Backend, failure) {
	x.set = x.w.proxy.settings.Load()
	if !x.findRoute() {
		return nil, failure{reason: NoRoute}
	}
	return x.choose(last)
}

// settle ends the lease.
func (x *exchange) settle(fault upstream.Fault) {
	now := x.w.loop.Now()
	latency := int64(0)
	if x.first != 0 {
		latency = x.first - x.lease.Start()
	}
	x.leased = false
	x.lease.Done(upstream.Outcome{Now: now, Latency: latency, Status: x.status, Fault: fault})
}

// attempt sends the request to one backend and passes its answer on. Without a failure the request has been
// answered.
func (x *exchange) attempt(b *upstream.Backend) failure {
	f := x.try(b, false)
	if f.stale {
		b.HungUp()
	}
	if f.stale && (f.missed || x.repeatable()) {
		// The backend closed a connection that had served before just as the request went out. It is well
		// enough to have done so in order, so the same one is asked on a new connection.
		x.tries++
		if f = x.try(b, true); f.reason == ConnectFailed {
			x.lost++ // it may have been closed by its end, and that by the request
		}
	}
	if f.reason == BackendClosed && !f.missed {
		x.lost++
	}
	if f.failed() && x.leased {
		x.settle(f.blame(x.w.loop.Now() - x.lease.Start()))
	}
	return f
}

func (x *exchange) try(b *upstream.Backend, fresh bool) failure {
	x.connect = 0
	x.first = 0
	var f failure
	if !fresh && x.snap.Settings.Reuse {
		x.bc = x.w.takeIdle(b)
	}
	x.c.conn.Watch(x.task, x.watchFIN())
	if x.bc == nil {
		if x.bc, f = x.dial(b); f.failed() {
			x.c.conn.Watch(nil, false)
			return f
		}
	} else {
		x.bc.stats.ConnsReused.Inc()
	}
	f = x.send()
	if !f.failed() {
		f = x.receive()
	}
	if x.bc != nil && f.failed() {
		x.stopUpload()
		if f.reason == BackendClosed && !x.repeatable() {
			f.missed = x.missed()
		}
		x.dropBackend()
	}
	x.c.conn.Watch(nil, false)
	return f
}

// watchFIN says whether the client's FIN means that it is gone. It does, as for nginx and Go, except from a
// client that said that this is its last request: that one may close its sending side and wait.
func (x *exchange) watchFIN() bool { return x.req.KeepAlive && !x.c.conn.Gone(true) }

// interruption is what a wait of the exchange's task was cut short by. The task can wait again afterwards.
func (x *exchange) interruption() failure {
	err := x.task.Interrupted()
	x.task.ClearInterrupt()
	switch err {
	case loop.ErrPeerGone:
		return failure{reason: ClientGone}
	case errUpload:
		return x.up.why
	}
	x.c.conn.Watch(nil, false)
	return failure{reason: Stopped}
}

// dropBackend closes the connection to the backend, which cancels the request there.
func (x *exchange) dropBackend() {
	if x.bc != nil {
		x.bc.close()
		x.bc = nil
	}
}

// refuse answers in lb's own name, or cuts the connection when an answer has begun.
func (x *exchange) refuse(f failure) {
	x.why = f
	// A 5xx of the application counts as one, also when it breaks off.
	if x.route != nil && !f.reason.clients() && !(x.answered && x.status >= 500) {
		x.route.Pool.Fail(int(f.reason), x.tries > 0)
	}
	x.c.stats().answers[f.reason].Inc()
	if x.answered {
		x.cut = true
		return
	}
	x.status = f.statusCode()
	if f.reason == ClientGone || f.reason == ClientStalled {
		x.cut = true
		return
	}
	// The connection can go on when the next request is where it should be.
	x.keep = x.head > 0 && x.req.KeepAlive && !x.body.more && f.reason != BadRequest && f.reason != Stopped && !x.c.closing()
	connection := ""
	switch {
	case !x.keep:
		connection = "Connection: close\r\n"
	case x.req.Minor == 0:
		connection = "Connection: keep-alive\r\n"
	}
	x.freeOut()
	bodyless := x.head > 0 && x.req.MethodID == http1.MethodHead
	x.out = appendAnswer(x.out[:0], x.status, connection, bodyless)
	if _, err := x.c.conn.Write(x.out); err != nil {
		x.cut = true
	}
	if !bodyless {
		x.bytesOut = int64(len(ownAnswers[x.status].body))
	}
	if x.head == 0 { // refused by the reader: nobody else ends it
		x.log()
		x.c.end()
	}
}

// freeOut makes sure that out can be written to: what it holds may still be on its way to a backend.
func (x *exchange) freeOut() {
	if x.bc != nil && x.bc.conn.Pending() {
		x.out = make([]byte, 0, 4<<10)
	}
}

// finish logs the exchange and sees to the client's connection. It reports whether the client may have sent
// another request.
func (x *exchange) finish() bool {
	if x.c.tunnel != nil {
		return false
	}
	x.log()
	x.freeKept()
	sh := x.c.stats()
	sh.bytesIn.Add(uint64(x.bytesIn))
	sh.bytesOut.Add(uint64(x.bytesOut))
	switch {
	case x.cut:
		x.c.abort()
		return false
	case !x.keep:
		if x.body.more || x.have > x.body.end || x.c.conn.Readable() {
			x.c.end()
		} else {
			x.c.close()
		}
		return false
	}
	// What came after the request is the beginning of the next.
	x.have = copy(x.in, x.in[x.body.end:x.have])
	return true
}
