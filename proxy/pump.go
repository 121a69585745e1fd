package proxy

import (
	"io"
	"time"

	"lb/http1"
	"lb/loop"
)

const (
	// spliceFrom is how much of a body must be left for it to be moved inside the kernel: below, the extra system
	// calls cost more than copying.
	spliceFrom = 128 << 10
	// spliceStep is how much of it is moved at a time, in memory of the kernel's, as long as the peer takes it at once.
	spliceStep = 256 << 10
)

// pump passes a response body from the backend to the client.
type pump struct {
	x        *exchange
	how      coding
	left     int64 // of a body of known length, or http1.LengthChunked or LengthUntilClose
	chunks   http1.Chunked
	done     bool
	step     int  // how much splice moves at a time
	poisoned bool // bytes came after the answer: nobody knows what the connection says next
}

// run sends the head and then the body, of which data has come already. Writes wait for the client, and
// nothing is read meanwhile: this is the back-pressure.
func (p *pump) run(head, data []byte) failure {
	x := p.x
	conn := x.bc.conn
	f := p.take(head, data)
	for !p.done && !f.failed() {
		if !conn.Readable() {
			// A stream may be silent for long: without a buffer.
			x.freeBack()
			by := x.w.loop.Now() + int64(x.snap.Settings.ReadTimeout)
			if err := x.await(&by); err != nil {
				return p.cut(err)
			}
		}
		if p.left >= spliceFrom && !x.visit.Reading() {
			f = p.splice()
			continue
		}
		if x.back == nil {
			x.back = x.w.takeBuffer()
		}
		b := x.back
		if p.left >= 0 {
			b = b[:min(int64(len(b)), p.left)]
		}
		n, err := conn.TryRead(b) // Read would wait until a deadline that is long past
		if err == io.EOF && p.left == http1.LengthUntilClose {
			return p.end()
		}
		if err != nil {
			return p.cut(err)
		}
		if n == 0 {
			continue
		}
		x.bc.stats.BytesReceived.Add(uint64(n))
		x.lease.Park(x.w.loop.Now())
		f = p.take(nil, b[:n])
	}
	return f
}

// splice moves what there is without taking it into the process.
func (p *pump) splice() failure {
	x := p.x
	conn := x.bc.conn
	x.freeBack()
	if p.step == 0 {
		p.step = spliceStep
	}
	n, waited, err := x.w.loop.Splice(x.c.conn, conn, int(min(p.left, int64(p.step))))
	p.left -= int64(n)
	p.done = p.left == 0
	x.bytesOut += int64(n)
	x.bc.stats.BytesReceived.Add(uint64(n))
	x.lease.Park(x.w.loop.Now())
	switch {
	case err == nil:
	case x.c.conn.Flush() != nil:
		return x.clientFailure(err)
	default:
		return p.cut(err)
	}
	if waited {
		p.step = loop.SlowSplice
	}
	if !p.done && x.w.loop.Yield() != nil {
		return x.interruption()
	}
	return failure{}
}

// take sends what belongs to the body of data, behind head.
func (p *pump) take(head, data []byte) failure {
	x := p.x
	if x.visit.Reading() {
		p.feedVisit(data)
	}
	switch {
	case p.left >= 0:
		if int64(len(data)) > p.left {
			data = data[:p.left]
			p.poisoned = true
		}
		p.left -= int64(len(data))
		p.done = p.left == 0
	case p.left == http1.LengthUntilClose:
		if p.how == encoded && len(data) > 0 {
			// The chunk's header goes behind the head, its end before the next header: see end.
			head = p.chunkHeader(head, len(data))
		}
	case p.how == decoded:
		return p.decode(head, data)
	default:
		before := p.chunks.Size()
		n, done, err := p.chunks.Feed(data)
		x.bytesOut += p.chunks.Size() - before
		if err != nil {
			if x.answered {
				// What came before is good; a chunk that never ends tells the client that the rest is not.
				if f := p.write(nil, data[:n]); f.failed() {
					return f
				}
			}
			return failure{reason: BadResponse, detail: err.(*http1.Error).Reason}
		}
		p.poisoned = n < len(data)
		data, p.done = data[:n], done
	}
	if p.left != http1.LengthChunked {
		x.bytesOut += int64(len(data))
	}
	return p.write(head, data)
}

// chunkHeader appends a chunk's header to head, after the end of the chunk before.
func (p *pump) chunkHeader(head []byte, size int) []byte {
	if head == nil {
		head = p.x.out[:0]
	}
	if p.x.bytesOut > 0 {
		head = http1.AppendChunkEnd(head)
	}
	p.x.out = http1.AppendChunk(head, size)
	return p.x.out
}

// end ends a body that ended with the backend's connection.
func (p *pump) end() failure {
	p.done = true
	p.x.visit.Feed(nil, true)
	p.x.resp.KeepAlive = false
	if p.how != encoded {
		return failure{}
	}
	tail := p.x.out[:0]
	if p.x.bytesOut > 0 {
		tail = http1.AppendChunkEnd(tail)
	}
	p.x.out = http1.AppendLastChunk(tail)
	return p.write(p.x.out, nil)
}

// decode sends the data of chunks without their framing.
func (p *pump) decode(head, data []byte) failure {
	for {
		run, n, done, err := p.chunks.Next(data)
		if err != nil {
			return failure{reason: BadResponse, detail: err.(*http1.Error).Reason}
		}
		data = data[n:]
		p.x.bytesOut += int64(len(run))
		if f := p.write(head, run); f.failed() {
			return f
		}
		head = nil
		if done {
			p.done, p.poisoned = true, len(data) > 0
			return failure{}
		}
		if len(data) == 0 {
			return failure{}
		}
	}
}

func (p *pump) write(head, data []byte) failure {
	x := p.x
	if len(head)+len(data) == 0 {
		return failure{}
	}
	x.answered = true
	if len(head) > 0 && len(data) > 0 && len(data) <= smallBody {
		x.out = append(head, data...)
		head, data = x.out, nil
	}
	if err := x.c.conn.Writev(head, data); err != nil {
		return x.clientFailure(err)
	}
	return failure{}
}

// cut is what an error of the backend's connection means in the middle of the body.
func (p *pump) cut(err error) failure {
	x := p.x
	switch {
	case x.task.Interrupted() != nil:
		return x.interruption()
	case err == loop.ErrTimeout:
		return failure{reason: BackendStalled}
	}
	return failure{reason: BackendCut}
}

// idleTimeout is how long the connection may be kept idle: what the pool says, or a second less than the
// backend said, so that it is always lb that closes it.
func (x *exchange) idleTimeout() time.Duration {
	d := x.snap.Settings.IdleTimeout
	if n := x.resp.KeepAliveTimeout; n > 0 {
		d = min(max(time.Duration(n)*time.Second-time.Second, 100*time.Millisecond), time.Minute)
	}
	return d
}
