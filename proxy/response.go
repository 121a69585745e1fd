package proxy

import (
	"lb/http1"
	"lb/loop"
	"lb/upstream"
)

// responseLimits bound a backend's response head. Node's own limit is 16 KiB; others allow more. The head and
// the buffer it is read into go together: it must fit with a byte to spare.
var responseLimits = http1.Limits{MaxBytes: bodyBuffer - 1, MaxFields: 1000}

// maxInformed is how many 1xx responses may come before the final one: a flood of them would not let the timeout for
// that one pass.
const maxInformed = 50

// smallBody is up to which size a body is copied behind its head rather than sent as a second piece.
const smallBody = 4 << 10

// send sends the head and what is there of the body, and starts an upload of the rest.
func (x *exchange) send() failure {
	x.out = x.appendRequestHead(x.out[:0])
	x.given = x.bc.conn.Given()
	if err := x.bc.conn.Queue(x.out, x.body.held); err != nil {
		return x.backendFailure(err)
	}
	x.bc.stats.BytesSent.Add(uint64(len(x.out) + len(x.body.held)))
	x.requestSent()
	if x.body.more || len(x.body.kept) > 0 {
		if !x.req.Expect { // who expects 100 Continue sends nothing until it comes
			x.respondBy = 0
		}
		x.startUpload()
	}
	return failure{}
}

// requestSent begins the wait for the response.
func (x *exchange) requestSent() {
	set := x.snap.Settings
	x.sent = x.w.loop.Now()
	x.respondBy = x.sent + int64(set.ResponseTimeout)
	if x.hasty = set.TryTimeout > 0 && set.TryTimeout < set.ResponseTimeout; x.hasty {
		x.respondBy = x.sent + int64(set.TryTimeout)
	}
}

// backendFailure is what an error of the backend's connection means before any byte of an answer has come.
func (x *exchange) backendFailure(err error) failure {
	switch {
	case x.task.Interrupted() != nil:
		return x.interruption()
	case err == loop.ErrTimeout:
		return failure{reason: ResponseTimeout}
	}
	return failure{reason: BackendClosed, stale: x.bc.served > 0}
}

// await waits for bytes of the backend's until the time that by points at, which may change meanwhile; 0 is
// no end. A request that waits for long is looked at now and then: it may be one that waits for something
// other than the backend's attention.
func (x *exchange) await(by *int64) error {
	conn := x.bc.conn
	for !conn.Readable() {
		now := x.w.loop.Now()
		until := *by
		if until != 0 && until <= now {
			return loop.ErrTimeout
		}
		if look := now + upstream.ParkAfter; !x.lease.Park(now) && (until == 0 || look < until) {
			until = look
		}
		conn.SetReadDeadline(until)
		if err := conn.Wait(); err != nil && err != loop.ErrTimeout {
			return err
		}
	}
	return nil
}

// receive reads the response and passes it on.
func (x *exchange) receive() failure {
	conn := x.bc.conn
	x.resp.Reset()
	have, informed := 0, 0
reading:
	for {
		if err := x.await(&x.respondBy); err != nil {
			if err == loop.ErrTimeout && x.hasty && x.task.Interrupted() == nil {
				if x.giveUp() {
					return failure{reason: ResponseTimeout, again: true}
				}
				x.hasty = false
				x.respondBy = x.sent + int64(x.snap.Settings.ResponseTimeout)
				continue
			}
			return x.backendFailure(err)
		}
		if x.back == nil {
			x.back = x.w.takeBuffer()
		}
		n, err := conn.Read(x.back[have:])
		if err != nil {
			if have > 0 && x.task.Interrupted() == nil {
				return failure{reason: BackendClosed} // in the middle of a head: not a matter of a stale connection
			}
			return x.backendFailure(err)
		}
		if x.first == 0 {
			x.first = x.w.loop.Now()
		}
		x.bc.stats.BytesReceived.Add(uint64(n))
		have += n
		for {
			head, err := x.resp.Parse(x.back[:have], &responseLimits, x.req.MethodID)
			if err != nil {
				return badResponse(err)
			}
			if head == 0 {
				break
			}
			switch s := x.resp.Status; {
			case s == 101 && x.resp.Upgrade && x.req.Upgrade:
				return x.upgrade(head, have)
			case s == 101:
				return failure{reason: BadResponse, detail: "unasked_upgrade"}
			case x.unready():
				return failure{reason: BackendUnready}
			case s >= 200:
				yes, wait := x.elsewhere(head, have)
				switch {
				case yes:
					return failure{reason: SessionUnknown}
				case wait: // for the body
					x.resp.Reset()
					continue reading
				}
				return x.relay(head, have)
			}
			if informed++; informed > maxInformed {
				return failure{reason: BadResponse, detail: "too_many_1xx"}
			}
			if f := x.inform(head); f.failed() {
				return f
			}
			have = copy(x.back, x.back[head:have])
			x.resp.Reset()
			if have == 0 {
				break
			}
		}
	}
}

// inform passes on a response that is not the final one.
func (x *exchange) inform(head int) failure {
	if x.req.Minor == 0 || x.resp.Status == 100 && !x.req.Expect {
		return failure{} // HTTP/1.0 knows none, and nobody asked
	}
	if x.resp.Status == 100 {
		x.continued = true
		x.respondBy = 0
		if x.up.task == nil {
			x.requestSent()
		} else {
			x.c.conn.SetReadDeadline(x.w.loop.Now() + int64(x.set.BodyTimeout))
		}
	}
	x.freeOut()
	x.out = append(x.appendResponseHead(x.out[:0], x.back[:head], 0, ""), "\r\n"...)
	if _, err := x.c.conn.Write(x.out); err != nil {
		return x.clientFailure(err)
	}
	return failure{}
}

// clientFailure is what an error of the client's connection means while an answer is sent.
func (x *exchange) clientFailure(err error) failure {
	switch {
	case x.task.Interrupted() != nil:
		return x.interruption()
	case err == loop.ErrTimeout:
		return failure{reason: ClientStalled}
	}
	return failure{reason: ClientGone}
}

const eventStream = "text/event-stream"

// isEvents reports whether the answer is a stream of events: what it waits for is not the backend's attention.
func (x *exchange) isEvents() bool {
	for i := range x.resp.Fields {
		if f := &x.resp.Fields[i]; f.Kind == http1.FieldContentType {
			v := f.Value(x.back)
			return len(v) >= len(eventStream) && equalName(v[:len(eventStream)], eventStream)
		}
	}
	return false
}

// coding is how a response body goes to the client.
type coding int

const (
	asIs    coding = iota // by length, or chunked and passed on byte for byte
	encoded               // chunks made of a body that ends with the connection, so that its end can be told from a cut
	decoded               // a chunked body for HTTP/1.0, which has no chunks: it ends with the connection
	toClose               // ends with the connection on both sides
)

// relay passes the final response on; in x.back, [:head] is the head and [head:have] the beginning of the
// body.
func (x *exchange) relay(head, have int) failure {
	r := &x.resp
	old := x.req.Minor == 0
	x.keep = x.req.KeepAlive && !x.uploading() && !x.c.closing()
	how := asIs
	drop := mask(0)
	more := ""
	switch {
	case r.Length == http1.LengthUntilClose && !old:
		how, more = encoded, "Transfer-Encoding: chunked\r\n"
	case r.Length == http1.LengthUntilClose:
		how, x.keep = toClose, false
	case r.Length == http1.LengthChunked && old:
		how, x.keep = decoded, false
	}
	if old { // what it has no chunks for, it shall not hear of in the answer to HEAD either
		drop = kinds(http1.FieldTransferEncoding, http1.FieldTrailer)
	}
	switch {
	case !x.keep && more == "":
		more = "Connection: close\r\n"
	case !x.keep:
		more += "Connection: close\r\n"
	case old:
		more = "Connection: keep-alive\r\n"
	}
	if r.Length < 0 && x.isEvents() {
		x.lease.Stream(x.w.loop.Now())
	}
	x.freeOut()
	x.out = x.appendResponseHead(x.out[:0], x.back[:head], drop, more)
	x.out = append(x.visited(x.out), "\r\n"...)
	x.status = r.Status

	p := pump{x: x, how: how, left: r.Length}
	if f := p.run(x.out, x.back[head:have]); f.failed() {
		return f
	}
	whole := !x.uploading()
	if !whole {
		// The client was told that its connection ends here: what it still sends is of no use.
		x.stopUpload()
	}
	fault := upstream.FaultNone
	if s := r.Status; s >= 502 && s <= 504 {
		fault = upstream.FaultStatus
	}
	bc := x.bc
	// An answer to a request that has not all been sent is as good a reason as any not to send another.
	reuse := r.KeepAlive && !p.poisoned && whole && !bc.conn.Pending() && x.snap.Settings.Reuse
	x.bc = nil
	x.settle(fault)
	if reuse && !bc.live.Draining() {
		bc.served++
		x.w.putIdle(bc, x.snap.Settings, x.idleTimeout())
	} else {
		bc.close()
	}
	x.freeBack()
	return failure{}
}

func (x *exchange) freeBack() {
	if x.back != nil {
		x.w.giveBuffer(x.back)
		x.back = nil
	}
}
