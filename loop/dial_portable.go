//go:build !linux || lb_portable

package loop

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Dial connects to addr, or to the unix socket at path if that is not empty, and waits for it until the
// given time of the loop's clock (0: as long as the system does).
func (l *Loop) Dial(addr netip.AddrPort, path string, until int64) (*Conn, error) {
	t := l.cur
	if t.intr != nil {
		return nil, t.intr
	}
	if l.stopping {
		return nil, ErrStopped
	}
	if addr.IsValid() {
		addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	}
	for {
		nc, err := l.dial(t, addr, path, until)
		if path != "" && errors.Is(err, syscall.EAGAIN) { // its queue is full
			const again = int64(5 * time.Millisecond)
			if until != 0 && l.now+again >= until {
				return nil, ErrTimeout
			}
			if err := l.Sleep(again); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		return l.register(nc, addr), nil
	}
}

func (l *Loop) dial(t *Task, addr netip.AddrPort, path string, until int64) (net.Conn, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	network, to := "tcp", addr.String()
	if path != "" {
		network, to = "unix", path
	}
	var (
		conn     net.Conn
		err      error
		done     bool
		gaveUp   bool
		dialer   = net.Dialer{KeepAlive: -1}
		finished = func(nc net.Conn) {
			if nc != nil {
				nc.Close()
			}
		}
	)
	l.helpers.Add(1)
	go func() {
		defer l.helpers.Done()
		nc, e := dialer.DialContext(ctx, network, to)
		l.postOrDrop(func() {
			if gaveUp {
				finished(nc)
				return
			}
			conn, err, done = nc, e, true
			t.Wake()
		}, func() { finished(nc) })
	}()
	for !done {
		if perr := t.Park(until); perr != nil && !done {
			gaveUp = true
			return nil, perr
		} else if perr == ErrTimeout {
			break // it came with the deadline
		} else if perr != nil {
			finished(conn)
			return nil, perr
		}
	}
	if err != nil {
		return nil, plain(err)
	}
	return conn, nil
}
