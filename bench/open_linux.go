package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"
)

// reply is what became of a shot.
type reply struct {
	took time.Duration // from when it was due to the end of the answer
	work time.Duration // that the instance says it did
	by   byte          // the instance's name; 0: no good answer
	err  error
}

// opener sends open loads to one address: each request when it is due, on an idle connection, the one that was used last,
// or on a new one. So no request waits for another on this side.
type opener struct {
	addr   string
	header string // in which instances say how long they worked

	mu   sync.Mutex
	idle []*line // guarded by mu
}

type line struct {
	net.Conn
	r *bufio.Reader
}

// patience is how long after the last request was due an answer is waited for. What takes longer is as bad as anything.
const patience = 4 * time.Second

// fire sends shots, which are due from start on, and waits for the answers.
func (o *opener) fire(ctx context.Context, start time.Time, s []shot) []reply {
	out := make([]reply, len(s))
	if len(s) == 0 {
		return out
	}
	o.close() // proxies close what has been idle for long, and there is no telling when
	deadline := start.Add(s[len(s)-1].at + patience)
	var all sync.WaitGroup
	for i, x := range s {
		due := start.Add(x.at)
		if d := time.Until(due); d > 0 {
			time.Sleep(d)
		}
		if ctx.Err() != nil {
			break
		}
		all.Go(func() {
			out[i] = o.ask(x.work, deadline)
			out[i].took = time.Since(due)
		})
	}
	all.Wait()
	return out
}

// flood keeps conns requests of the same work under way for a time, and returns how many were answered a second.
func (o *opener) flood(ctx context.Context, conns int, work, length time.Duration) (perSecond float64, err error) {
	var mu sync.Mutex
	var all sync.WaitGroup
	n, start := 0, time.Now()
	for range conns {
		all.Go(func() {
			for time.Since(start) < length && ctx.Err() == nil {
				r := o.ask(work, time.Now().Add(patience))
				mu.Lock()
				if err == nil {
					err = r.err
				}
				if time.Since(start) < length {
					n++
				}
				mu.Unlock()
				if r.err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return float64(n) / length.Seconds(), err
}

func (o *opener) ask(work time.Duration, deadline time.Time) (r reply) {
	o.mu.Lock()
	var l *line
	if n := len(o.idle); n > 0 {
		l, o.idle = o.idle[n-1], o.idle[:n-1]
	}
	o.mu.Unlock()
	if l == nil {
		c, err := net.DialTimeout("tcp", o.addr, patience)
		if err != nil {
			return reply{err: err}
		}
		l = &line{c, bufio.NewReaderSize(c, 1024)}
	}
	r, last := l.ask(work, deadline, o.header)
	if r.err != nil || last {
		l.Close()
		return r
	}
	o.mu.Lock()
	o.idle = append(o.idle, l)
	o.mu.Unlock()
	return r
}

func (l *line) ask(work time.Duration, deadline time.Time, header string) (r reply, last bool) {
	l.SetDeadline(deadline)
	var buf [128]byte
	b := append(buf[:0], "GET /"...)
	b = strconv.AppendInt(b, int64(work), 10)
	b = append(b, " HTTP/1.1\r\nHost: bench.test\r\n\r\n"...)
	if _, r.err = l.Write(b); r.err != nil {
		return r, true
	}
	var head []byte
	for {
		part, err := l.r.ReadSlice('\n')
		if err != nil {
			r.err = err
			return r, true
		}
		head = append(head, part...)
		if len(part) <= 2 {
			break
		}
	}
	n := contentLength(head)
	if n < 0 {
		r.err = fmt.Errorf("answer of unknown length: %.60q", head)
		return r, true
	}
	if _, r.err = l.r.Discard(int(n)); r.err != nil {
		return r, true
	}
	if s := statusOf(head); s != 200 {
		r.err = fmt.Errorf("status %d", s)
		return r, true
	}
	ns, err := strconv.ParseInt(string(field(head, header)), 10, 64)
	by := field(head, "x-instance")
	if err != nil || len(by) != 1 {
		r.err = fmt.Errorf("not an instance's answer: %.200q", head)
		return r, true
	}
	r.work, r.by = time.Duration(ns), by[0]
	return r, string(field(head, "connection")) == "close"
}

// close ends the idle connections.
func (o *opener) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.idle {
		l.Close()
	}
	o.idle = nil
}
