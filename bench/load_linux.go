package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// job is what a load generator is to do. It crosses to that process as JSON.
type job struct {
	Addr       string
	Head       string // headSmall or headBrowser
	Path       string
	Upload     int   // bytes of a POST's body; 0: GET
	Answer     int64 // bytes of body that each answer must have
	Conns      int
	Rate       float64 // requests per second, evenly spaced, whether answered or not; 0: each connection as fast as it can
	PerRequest bool    // a new connection for each request
	WebSocket  bool
	Hold       bool // a request on each connection, then all stay open until standard input ends
	Duration   time.Duration
}

// result is what came of a job.
type result struct {
	Requests int
	Errors   int
	First    string // error
	Elapsed  time.Duration
	P50, P99 time.Duration // from the moment a request was due
}

func (r result) perSecond() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Requests) / r.Elapsed.Seconds()
}

type state uint8

const (
	idle    state = iota // connected, or with fd < 0 not yet
	sending              // a request
	waiting              // for the rest of a head
	reading              // the rest of a body
	closing              // for the server's end of the connection
	echoing              // for the echo of a WebSocket frame
	held
	dead
)

type client struct {
	fd      int
	state   state
	last    bool // the answer said Connection: close
	off     int  // of the request
	left    int64
	due     int64 // when the request was to start
	partial []byte
}

// load is a load generator: one thread, one edge-triggered epoll set. Bodies are dropped in the kernel, not copied:
// it shares a core with the origin where there are only two.
type load struct {
	*poller
	job
	to      *unix.SockaddrInet4
	request []byte
	clients []client
	buf     [4096]byte
	hist    histogram
	base    time.Time

	began, ended int64 // ns since base
	busy         int   // clients with a request under way
	stopping     bool
	errors       int
	first        error

	timer   int     // open loop: a timerfd
	spare   []int32 // idle clients, the longest idle first
	nextDue int64
	started int // hold: clients so far
}

const (
	timerID = -2
	stdinID = -3

	// A run with more errors than this tells nothing more by going on.
	maxErrors = 100
	// Connections that the ramp of a hold has under way at a time: gentle, so that no peer's memory shows a burst that
	// idle clients would not make.
	rampWidth = 16
	// What is unanswered so long after the end counts as an error.
	grace = 3 * time.Second
)

var (
	websocketKey = []byte("dGhlIHNhbXBsZSBub25jZQ==")
	maskedFrame  = []byte("\x82\x90\x01\x02\x03\x04\x01\x02\x03\x04\x01\x02\x03\x04\x01\x02\x03\x04\x01\x02\x03\x04") // 16 zeros
	echoFrame    = append([]byte{0x82, 16}, make([]byte, 16)...)
)

// runLoad does the job and prints its result as a line of JSON; a hold prints another when standard input ends.
func runLoad(spec string) error {
	l := &load{base: time.Now()}
	if err := json.Unmarshal([]byte(spec), &l.job); err != nil {
		return err
	}
	var err error
	if l.to, err = sockaddr(l.Addr); err != nil {
		return err
	}
	if l.poller, err = newPoller(); err != nil {
		return err
	}
	l.request = l.makeRequest()
	l.clients = make([]client, l.Conns)
	for i := range l.clients {
		l.clients[i].fd = -1
	}
	if err := l.start(); err != nil {
		return err
	}
	l.run()
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(l.result()); err != nil || !l.Hold {
		return err
	}
	l.holdUntilStdinEnds()
	return out.Encode(l.result())
}

func (l *load) makeRequest() []byte {
	method, extra := "GET", ""
	if l.Upload > 0 {
		method = "POST"
		extra = "Content-Type: application/octet-stream\r\nContent-Length: " + strconv.Itoa(l.Upload) + "\r\n"
	}
	if l.PerRequest {
		extra += "Connection: close\r\n"
	}
	if l.WebSocket {
		extra += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Key: " + string(websocketKey) + "\r\n"
	}
	head := method + " " + l.Path + " HTTP/1.1\r\n" + requestFields[l.Head] + extra + "\r\n"
	return append([]byte(head), bytes.Repeat([]byte("u"), l.Upload)...)
}

func (l *load) now() int64 { return int64(time.Since(l.base)) }

func (l *load) start() error {
	l.began = l.now()
	switch {
	case l.Hold:
		for range min(rampWidth, l.Conns) {
			l.startNext()
		}
	case l.Rate > 0:
		for i := range l.clients {
			l.connect(int32(i))
			l.spare = append(l.spare, int32(i))
		}
		return l.startTimer()
	default:
		for i := range l.clients {
			l.issue(int32(i), l.began)
		}
	}
	return nil
}

// startTimer makes the open loop's clock. A timerfd ticks to the microsecond, which epoll_wait's timeout does not.
func (l *load) startTimer() error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("timerfd_create: %w", err)
	}
	tick := unix.NsecToTimespec(l.interval())
	l.timer = fd
	l.began = l.now()
	l.nextDue = l.began + l.interval()
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: tick, Value: tick}, nil); err != nil {
		return fmt.Errorf("timerfd_settime: %w", err)
	}
	return l.add(fd, rawIn, timerID)
}

func (l *load) interval() int64 { return int64(1e9 / l.Rate) }

func (l *load) run() {
	end := l.began + int64(l.Duration)
	for !l.finished() {
		now := l.now()
		if now >= end && !l.Hold {
			l.stopping = true
			if l.busy == 0 {
				break
			}
		}
		if now >= end+int64(grace) {
			l.errors += l.busy
			l.note(fmt.Errorf("%d requests not answered %v after the end", l.busy, grace))
			break
		}
		for _, ev := range l.wait(50) {
			l.handle(ev)
		}
	}
	l.ended = max(l.ended, min(l.now(), end))
}

func (l *load) finished() bool {
	if l.errors > maxErrors {
		l.note(errors.New("too many errors"))
		return true
	}
	return l.Hold && l.busy == 0
}

func (l *load) handle(ev unix.EpollEvent) {
	switch ev.Fd {
	case timerID:
		rawDrain(l.timer)
		l.pump()
	default:
		c := &l.clients[ev.Fd]
		if c.state == sending {
			l.send(ev.Fd)
			if c.state == sending && ev.Events&(rawIn|rawGone) != 0 {
				l.fail(ev.Fd, errors.New("answered or closed before the request was sent"))
				return
			}
		}
		if ev.Events&(rawIn|rawGone) != 0 && c.fd >= 0 {
			l.read(ev.Fd, ev.Events&rawGone != 0)
		}
	}
}

// pump starts the requests of an open loop that are due. One that finds every client busy waits, and the wait counts
// as its latency.
func (l *load) pump() {
	now := l.now()
	for l.nextDue <= now && len(l.spare) > 0 && !l.stopping {
		i := l.spare[0]
		l.spare = append(l.spare[:0], l.spare[1:]...)
		due := l.nextDue
		l.nextDue += l.interval()
		l.issue(i, due)
	}
}

func (l *load) startNext() {
	if l.started < l.Conns {
		i := l.started
		l.started++
		l.issue(int32(i), l.now())
	}
}

func (l *load) connect(i int32) bool {
	fd, err := dial(l.to)
	if err == nil {
		if err = l.add(fd, rawIn|rawOut|unix.EPOLLRDHUP|rawEdge, i); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		l.note(err)
		return false
	}
	l.clients[i].fd = fd
	return true
}

func (l *load) issue(i int32, due int64) {
	c := &l.clients[i]
	c.due, c.off, c.state, c.last = due, 0, sending, false
	c.partial = c.partial[:0]
	l.busy++
	if c.fd < 0 && !l.connect(i) {
		l.fail(i, nil)
		return
	}
	l.send(i)
}

func (l *load) send(i int32) {
	c := &l.clients[i]
	for c.off < len(l.request) {
		n, errno := rawSend(c.fd, l.request[c.off:])
		if errno == unix.EAGAIN {
			return // or not connected yet; the event comes
		}
		if errno != 0 {
			l.fail(i, fmt.Errorf("send: %w", errno))
			return
		}
		c.off += n
	}
	c.state = waiting
}

// read takes what is there. Events come on edges, so it goes on until a read comes back short; gone says that the end
// of the connection is there too, to be read behind the data.
func (l *load) read(i int32, gone bool) {
	c := &l.clients[i]
	for c.fd >= 0 {
		size, flags := len(l.buf), 0
		if c.state == reading {
			size, flags = int(c.left), unix.MSG_TRUNC
		}
		n, errno := rawRecv(c.fd, l.buf[:], size, flags)
		switch {
		case errno == unix.EAGAIN:
			return
		case errno != 0:
			l.fail(i, fmt.Errorf("receive: %w", errno))
			return
		case n == 0:
			l.eof(i)
			return
		}
		l.take(i, l.buf[:min(n, len(l.buf))], n)
		if n < size && !gone {
			return
		}
	}
}

func (l *load) eof(i int32) {
	c := &l.clients[i]
	switch c.state {
	case closing:
		l.close(i)
		c.state = idle
		l.busy--
		l.again(i)
	case idle: // nothing was asked of it: a server may do that
		l.close(i)
	case held:
		l.fail(i, errors.New("an idle connection was closed"))
	default:
		l.fail(i, errors.New("closed before the end of the answer"))
	}
}

// take takes n bytes that came; b holds them unless they are of a body.
func (l *load) take(i int32, b []byte, n int) {
	c := &l.clients[i]
	switch c.state {
	case waiting:
		if len(c.partial) > 0 {
			c.partial = append(c.partial, b...)
			b = c.partial
		}
		end := headEnd(b)
		if end == 0 {
			if len(c.partial) == 0 {
				c.partial = append(c.partial, b...)
			}
			return
		}
		l.answer(i, b[:end], b[end:])
	case reading:
		if c.left -= int64(n); c.left == 0 {
			l.done(i)
		}
	case echoing:
		c.partial = append(c.partial, b...)
		if len(c.partial) < len(echoFrame) {
			return
		}
		if !bytes.Equal(c.partial, echoFrame) {
			l.fail(i, errors.New("wrong echo"))
			return
		}
		l.done(i)
	default:
		l.fail(i, errors.New("bytes that nobody asked for"))
	}
}

func (l *load) answer(i int32, head, rest []byte) {
	c := &l.clients[i]
	if l.WebSocket {
		if statusOf(head) != 101 || string(field(head, "sec-websocket-accept")) != websocketAccept(websocketKey) {
			l.fail(i, fmt.Errorf("not upgraded: %.40q", head))
			return
		}
		c.state, c.partial = echoing, c.partial[:0]
		if n, errno := rawSend(c.fd, maskedFrame); errno != 0 || n != len(maskedFrame) {
			l.fail(i, fmt.Errorf("send frame: %w", errno))
		}
		return
	}
	if s := statusOf(head); s != 200 {
		l.fail(i, fmt.Errorf("status %d", s))
		return
	}
	c.left = contentLength(head) - int64(len(rest))
	if c.left+int64(len(rest)) != l.Answer || c.left < 0 {
		l.fail(i, fmt.Errorf("a body of %d bytes instead of %d, or %d too many",
			contentLength(head), l.Answer, -c.left))
		return
	}
	c.last = string(field(head, "connection")) == "close"
	if c.state = reading; c.left == 0 {
		l.done(i)
	}
}

func (l *load) done(i int32) {
	c := &l.clients[i]
	now := l.now()
	l.hist.record(now - c.due)
	l.ended = now
	switch {
	case l.Hold && c.last:
		l.fail(i, errors.New("answered with Connection: close"))
		return
	case l.Hold:
		c.state, c.partial = held, nil
	case l.PerRequest:
		c.state = closing // counts as busy until the server has closed
		return
	case c.last:
		l.close(i)
		c.state = idle
	default:
		c.state = idle
	}
	l.busy--
	l.again(i)
}

// again gives client i, idle or dead, its next work.
func (l *load) again(i int32) {
	switch {
	case l.stopping || l.errors > maxErrors:
	case l.Hold:
		l.startNext()
	case l.Rate > 0:
		l.spare = append(l.spare, i)
		l.pump()
	default:
		l.issue(i, l.now())
	}
}

func (l *load) fail(i int32, err error) {
	c := &l.clients[i]
	l.errors++
	l.note(err)
	l.close(i)
	if c.state != idle && c.state != held {
		l.busy--
	}
	c.state = dead
	l.again(i)
}

func (l *load) note(err error) {
	if l.first == nil {
		l.first = err
	}
}

func (l *load) close(i int32) {
	if c := &l.clients[i]; c.fd >= 0 {
		unix.Close(c.fd)
		c.fd = -1
	}
}

func (l *load) holdUntilStdinEnds() {
	l.stopping = true
	if err := l.add(0, rawIn, stdinID); err != nil {
		l.fail(0, err)
		return
	}
	for {
		ended := false
		for _, ev := range l.wait(-1) {
			if ev.Fd == stdinID {
				ended = true
			} else {
				l.handle(ev)
			}
		}
		if ended {
			return
		}
	}
}

func (l *load) result() result {
	r := result{
		Requests: int(l.hist.count),
		Errors:   l.errors,
		Elapsed:  time.Duration(l.ended - l.began),
		P50:      time.Duration(l.hist.quantile(0.50)),
		P99:      time.Duration(l.hist.quantile(0.99)),
	}
	if l.first != nil {
		r.First = l.first.Error()
	}
	return r
}
