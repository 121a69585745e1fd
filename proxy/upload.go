package proxy

import (
	"io"

	"lb/http1"
	"lb/loop"
)

// requestBody is the body of a request as far as it came with the head.
type requestBody struct {
	held    []byte // goes out together with the head
	end     int    // where in the exchange's buffer the request ends, as far as it is there
	more    bool   // the client has not sent all of it, or nobody has taken it yet
	kept    []byte // what was taken after held, for another attempt; at most bodyBuffer bytes
	lost    bool   // more than that was taken: there can be no other attempt
	left    int64  // of a body of known length, what is still to come
	chunked bool
	chunks  http1.Chunked // follows a chunked body; stands after held
}

// prepareBody looks at what came with the head.
func (x *exchange) prepareBody() failure {
	b := &x.body
	b.left, b.chunked, b.more, b.lost = 0, false, false, false
	rest := x.in[x.head:x.have]
	switch n := x.req.Length; {
	case n == 0:
		rest = rest[:0]
	case n > 0:
		if x.set.MaxBody > 0 && n > x.set.MaxBody {
			b.more = true
			b.end = x.head
			return failure{reason: BodyTooLarge}
		}
		if int64(len(rest)) >= n {
			rest = rest[:n]
		} else {
			b.left = n - int64(len(rest))
			b.more = true
		}
	default:
		b.chunked = true
		b.chunks.Reset()
		n, size, done, err := b.feed(rest)
		if err != nil {
			b.more, b.end = true, x.head
			return badRequest(err)
		}
		rest = rest[:n]
		b.more = !done
		x.bytesIn = size
		if x.set.MaxBody > 0 && size > x.set.MaxBody {
			b.more, b.end = true, x.head
			return failure{reason: BodyTooLarge}
		}
	}
	b.held = rest
	b.end = x.head + len(rest)
	if !b.chunked {
		x.bytesIn = int64(len(rest))
	}
	return failure{}
}

// feed follows the next bytes of a chunked body. The first n of them belong to it, and size of those are data.
func (b *requestBody) feed(p []byte) (n int, size int64, done bool, err error) {
	for n < len(p) && !done && err == nil {
		var data []byte
		var k int
		data, k, done, err = b.chunks.Next(p[n:])
		n += k
		size += int64(len(data))
	}
	return n, size, done, err
}

// upload sends the rest of a request body, in a task of its own, so that an answer that comes early is passed
// on while the body is still coming.
type upload struct {
	x       *exchange
	task    *loop.Task // nil when it does not run
	waiting bool       // the exchange waits for it to end
	why     failure    // why the body broke off, for the exchange that is interrupted with errUpload
}

// uploading reports whether the backend has not got all of the request.
func (x *exchange) uploading() bool { return x.body.more || x.up.task != nil }

func (x *exchange) startUpload() {
	x.up.why = failure{}
	x.up.waiting = false
	x.up.task = x.w.loop.Go(&x.up, x.c.conn)
}

// stopUpload ends the upload and waits until it has.
func (x *exchange) stopUpload() {
	if x.up.task == nil {
		return
	}
	kept := x.task.Interrupted()
	x.task.ClearInterrupt()
	x.up.task.Interrupt(errStopped)
	x.up.waiting = true
	for x.up.task != nil {
		if err := x.task.Park(0); err != nil {
			kept = err
			x.task.ClearInterrupt()
		}
	}
	x.up.waiting = false
	if kept != nil {
		x.task.Interrupt(kept)
	}
}

// Run sends the body until it ends or cannot go on.
func (u *upload) Run() {
	x := u.x
	f := failure{reason: InternalError} // if it comes to a panic
	defer func() {
		u.task = nil
		if f.failed() {
			u.why = f
			x.task.Interrupt(errUpload)
		} else if u.waiting {
			x.task.Wake()
		}
	}()
	if len(x.body.kept) > 0 && !u.write(x.body.kept, &f) {
		return
	}
	for x.body.more {
		step := u.step()
		if step.failed() || u.task.Interrupted() != nil {
			f = step
			return
		}
	}
	x.requestSent()
	x.bc.conn.SetReadDeadline(x.respondBy) // the exchange may be waiting without one
	f = failure{}
}

// step passes on what has come.
func (u *upload) step() failure {
	x := u.x
	b := &x.body
	conn := x.c.conn
	by := x.w.loop.Now() + int64(x.set.BodyTimeout)
	if x.req.Expect && !x.continued {
		by = 0 // the client waits as we do
	}
	conn.SetReadDeadline(by)
	if err := conn.Wait(); err != nil {
		return u.readFailure(err)
	}
	buf := x.w.takeBuffer()
	defer x.w.giveBuffer(buf)
	room := buf
	if !b.chunked {
		room = buf[:min(int64(len(buf)), b.left)]
	}
	n, err := conn.Read(room)
	if err != nil {
		return u.readFailure(err)
	}
	x.respondBy = 0 // who waits for 100 Continue has lost patience, and the backend may take its time
	if b.chunked {
		k, size, done, err := b.feed(buf[:n])
		if err != nil {
			return badRequest(err)
		}
		if done {
			// What follows the body in the same read goes back to where the next request is read from.
			x.in = append(x.in[:b.end], buf[k:n]...)
			x.have = len(x.in)
			x.in = x.in[:cap(x.in)]
			b.more = false
		}
		n = k
		x.bytesIn += size
	} else {
		b.left -= int64(n)
		b.more = b.left > 0
		x.bytesIn += int64(n)
	}
	if x.set.MaxBody > 0 && x.bytesIn > x.set.MaxBody {
		b.more = true
		return failure{reason: BodyTooLarge}
	}
	x.keepForRetry(buf[:n])
	var f failure
	u.write(buf[:n], &f)
	return f
}

// write sends bytes to the backend and reports whether it took them.
func (u *upload) write(b []byte, f *failure) bool {
	x := u.x
	_, err := x.bc.conn.Write(b)
	switch {
	case err == nil:
		x.bc.stats.BytesSent.Add(uint64(len(b)))
		return true
	case u.task.Interrupted() != nil:
		*f = failure{}
	case err == loop.ErrTimeout:
		*f = failure{reason: BackendStalled}
	default:
		// The backend does not want the rest. It may have said why: the exchange reads on, and sees the end of
		// the connection if it has not.
		*f = failure{}
		u.task.Interrupt(err)
	}
	return false
}

// keepForRetry keeps what was taken of the body as long as another attempt may need it.
func (x *exchange) keepForRetry(taken []byte) {
	b := &x.body
	if b.lost {
		return
	}
	// What may not be repeated is kept for a backend that had closed the connection, see missed.
	if x.retry == 0 || x.answered || !x.req.Idempotent() && x.bc.served == 0 || len(b.kept)+len(taken) > bodyBuffer {
		b.lost = true
		x.freeKept()
		return
	}
	if b.kept == nil {
		b.kept = x.w.takeBuffer()[:0]
	}
	b.kept = append(b.kept, taken...)
}

func (x *exchange) freeKept() {
	if x.body.kept != nil {
		x.w.giveBuffer(x.body.kept)
		x.body.kept = nil
	}
}

func (u *upload) readFailure(err error) failure {
	switch {
	case u.task.Interrupted() != nil:
		return failure{}
	case err == loop.ErrTimeout:
		return failure{reason: BodyTimeout}
	case err == io.EOF:
		return failure{reason: ClientGone}
	}
	return failure{reason: ClientGone}
}
