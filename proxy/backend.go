package proxy

import (
	"errors"
	"syscall"
	"time"

	"lb/loop"
	"lb/upstream"
)

// backendConn is a connection to a backend. It serves one exchange or tunnel at a time, and waits in its
// worker's idleList in between.
type backendConn struct {
	w      *worker
	conn   *loop.Conn
	live   *upstream.Live
	stats  *upstream.Stats
	served uint32 // requests answered on it
}

// idleList is a worker's idle connections to one backend, the one used last at the end: reusing that one
// leaves the others to time out, and it is the least likely to be closed by the backend meanwhile.
type idleList struct {
	live  *upstream.Live // to tell the backend from one that had its ID before
	conns []*backendConn
}

func (l *idleList) clear(w *worker) {
	for _, bc := range l.conns {
		bc.stats.ConnsIdle.Dec()
		bc.close()
	}
	clear(l.conns)
	l.conns = l.conns[:0]
	l.live = nil
}

// takeIdle takes the backend's idle connection that was used last, nil when there is none.
func (w *worker) takeIdle(b *upstream.Backend) *backendConn {
	if b.ID >= len(w.idle) {
		return nil
	}
	l := &w.idle[b.ID]
	if l.live != b.Live {
		l.clear(w)
		return nil
	}
	for n := len(l.conns) - 1; n >= 0; n-- {
		bc := l.conns[n]
		l.conns[n] = nil
		l.conns = l.conns[:n]
		bc.stats.ConnsIdle.Dec()
		bc.conn.Await(nil)
		if !bc.quiet() {
			bc.close()
			b.HungUp()
			continue
		}
		return bc
	}
	return nil
}

// putIdle keeps a connection for the next request.
func (w *worker) putIdle(bc *backendConn, set *upstream.Settings, idleFor time.Duration) {
	id := bc.live.ID
	for id >= len(w.idle) {
		w.idle = append(w.idle, idleList{})
	}
	l := &w.idle[id]
	if l.live != bc.live {
		l.clear(w)
		l.live = bc.live
	}
	if len(l.conns) >= max(1, set.MaxIdle/w.proxy.group.Len()) {
		bc.close()
		return
	}
	l.conns = append(l.conns, bc)
	bc.stats.ConnsIdle.Inc()
	bc.conn.SetReadDeadline(w.loop.Now() + int64(idleFor))
	bc.conn.Await(bc)
}

// quiet reports whether there is neither an end of the connection nor bytes nobody asked for.
func (bc *backendConn) quiet() bool {
	if !bc.conn.Readable() {
		return true
	}
	var b [1]byte
	n, err := bc.conn.TryRead(b[:])
	return n == 0 && err == nil
}

// Ready is called when an idle connection has something to say: that it has been idle for long enough, that
// the backend closes it, or bytes that belong to no request. Whatever it is, it will not be used again.
func (bc *backendConn) Ready(_ *loop.Conn, timeout bool) {
	if !timeout && bc.quiet() {
		bc.conn.Await(bc)
		return
	}
	l := &bc.w.idle[bc.live.ID]
	for i, other := range l.conns {
		if other == bc {
			n := copy(l.conns[i:], l.conns[i+1:]) + i
			l.conns[n] = nil
			l.conns = l.conns[:n]
			bc.stats.ConnsIdle.Dec()
			break
		}
	}
	bc.close()
	if !timeout {
		bc.live.HungUp()
	}
}

func (bc *backendConn) close() {
	if bc.conn.Close() == nil {
		bc.stats.ConnsOpen.Dec()
	}
}

// isExhausted tells an error of this machine's, which no backend is to blame for.
func isExhausted(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// dial connects to the backend of the exchange's lease, within the connect timeout.
func (x *exchange) dial(b *upstream.Backend) (*backendConn, failure) {
	w := x.w
	stats := b.Stats(w.index)
	now := w.loop.Now()
	deadline := now + int64(x.snap.Settings.ConnectTimeoutFor(b.Addr))
	conn, err := w.loop.Dial(b.Addr.AddrPort, b.Addr.Path, deadline)
	if other, ok := b.Addr.Other(); ok && errors.Is(err, syscall.ECONNREFUSED) {
		if c, e := w.loop.Dial(other.AddrPort, "", deadline); !upstream.Absent(e) {
			conn, err = c, e
		}
	}
	x.connect = w.loop.Now() - now
	if err != nil {
		switch {
		case x.task.Interrupted() != nil:
			return nil, x.interruption()
		case err == loop.ErrTimeout:
			stats.ConnErrors.Inc()
			return nil, failure{reason: ConnectTimeout}
		case isExhausted(err):
			stats.ConnErrors.Inc()
			return nil, failure{reason: Exhausted}
		}
		stats.ConnErrors.Inc()
		fault := upstream.ConnectFault(err)
		if fault == upstream.FaultRefused {
			x.forgetRefused(b)
		}
		return nil, failure{reason: ConnectFailed, fault: fault}
	}
	stats.ConnsOpened.Inc()
	stats.ConnsOpen.Inc()
	conn.SetStallTimeout(int64(x.set.WriteTimeout))
	return &backendConn{w: w, conn: conn, live: b.Live, stats: stats}, failure{}
}
