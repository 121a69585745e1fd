package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// origin is the app behind the proxies: one thread, one epoll set, answers made in advance. It serves /64 and /1m,
// takes POST /upload, echoes WebSocket frames at /ws and its request's head at /head. It must cost little, for it
// shares a core with the load generator where there are only two.
type origin struct {
	*poller
	listener int
	conns    []*originConn // by fd
	buf      [64 << 10]byte

	small, large []byte
}

type originConn struct {
	websocket bool
	stuck     bool   // waits for room to write
	body      int64  // of an upload, still to come
	partial   []byte // start of a head or frame, the rest of which is still to come
	out       []byte // of a response, still to go
}

const (
	largeBody    = 1 << 20
	smallBody    = 64
	listenerID   = -1
	wsGUID       = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	maxPartial   = 64 << 10
	maxFrameBody = 125
)

// runOrigin serves until the process is killed. It prints its address first.
func runOrigin(head string) error {
	o := &origin{
		small: response(head, bytes.Repeat([]byte("x"), smallBody)),
		large: response(head, bytes.Repeat([]byte("x"), largeBody)),
	}
	var err error
	if o.poller, err = newPoller(); err != nil {
		return err
	}
	addr, err := o.listen()
	if err != nil {
		return err
	}
	fmt.Println(addr)
	for {
		for _, ev := range o.wait(-1) {
			if ev.Fd == listenerID {
				o.accept()
			} else {
				o.serve(int(ev.Fd), ev.Events)
			}
		}
	}
}

func response(head string, body []byte) []byte {
	return append([]byte("HTTP/1.1 200 OK\r\n"+responseFields[head]+
		"Content-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"), body...)
}

func (o *origin) listen() (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("socket: %w", err)
	}
	o.listener = fd
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), // accepted sockets inherit it
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
		unix.Listen(fd, 4096),
		o.add(fd, rawIn, listenerID))
	if err != nil {
		return "", fmt.Errorf("listen: %w", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return "", fmt.Errorf("getsockname: %w", err)
	}
	return fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port), nil
}

func (o *origin) accept() {
	for {
		fd, _, err := unix.Accept4(o.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			if err != unix.EAGAIN {
				fmt.Fprintln(os.Stderr, "bench: origin: accept:", err)
			}
			return
		}
		for fd >= len(o.conns) {
			o.conns = append(o.conns, nil)
		}
		if o.conns[fd] == nil {
			o.conns[fd] = new(originConn)
		}
		*o.conns[fd] = originConn{}
		if err := o.add(fd, rawIn, int32(fd)); err != nil {
			fmt.Fprintln(os.Stderr, "bench: origin:", err)
			unix.Close(fd)
		}
	}
}

func (o *origin) serve(fd int, events uint32) {
	c := o.conns[fd]
	ok := true
	switch {
	case c.stuck:
		ok = o.flush(fd, c)
	case c.body > 0:
		n, errno := rawRecv(fd, o.buf[:], int(c.body), unix.MSG_TRUNC)
		if errno == unix.EAGAIN {
			return
		}
		ok = errno == 0 && n > 0 && o.upload(fd, c, n)
	default:
		n, errno := rawRecv(fd, o.buf[:], len(o.buf), 0)
		if errno == unix.EAGAIN {
			return
		}
		ok = errno == 0 && n > 0 && o.feed(fd, c, o.buf[:n])
	}
	if !ok {
		unix.Close(fd)
	}
}

// upload counts n bytes of the body and answers after the last.
func (o *origin) upload(fd int, c *originConn, n int) bool {
	c.body -= int64(n)
	return c.body > 0 || o.send(fd, c, o.small)
}

// feed takes what came on a connection. It is false, as are all below, when the connection cannot go on.
func (o *origin) feed(fd int, c *originConn, b []byte) bool {
	if len(c.partial) > 0 {
		b = append(c.partial, b...)
		c.partial = nil
	}
	for len(b) > 0 {
		var used int
		switch {
		case c.websocket:
			used = o.frame(fd, c, b)
		case c.body > 0:
			used = int(min(c.body, int64(len(b))))
			if !o.upload(fd, c, used) {
				return false
			}
		default:
			used = o.request(fd, c, b)
		}
		if used < 0 || len(b)-used > maxPartial {
			return false
		}
		if used == 0 {
			c.partial = bytes.Clone(b)
			return true
		}
		b = b[used:]
	}
	return true
}

// request answers the request at the start of b and returns how much of b it used: 0 when its head is not whole, -1
// when the connection cannot go on.
func (o *origin) request(fd int, c *originConn, b []byte) int {
	end := headEnd(b)
	if end == 0 {
		return 0
	}
	head := b[:end]
	sent := true
	switch {
	case bytes.HasPrefix(head, []byte("GET /64 ")):
		sent = o.send(fd, c, o.small)
	case bytes.HasPrefix(head, []byte("GET /1m ")):
		sent = o.send(fd, c, o.large)
	case bytes.HasPrefix(head, []byte("POST /upload ")):
		// Peers are to pass the length on: one that switched to chunks would do other work than the rest.
		if c.body = contentLength(head); c.body < 0 {
			return -1
		}
		if c.body == 0 {
			sent = o.send(fd, c, o.small)
		}
	case bytes.HasPrefix(head, []byte("GET /ws ")):
		key := field(head, "sec-websocket-key")
		if key == nil {
			return -1
		}
		c.websocket = true
		sent = o.send(fd, c, []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Accept: "+websocketAccept(key)+"\r\n\r\n"))
	case bytes.HasPrefix(head, []byte("GET /head ")):
		sent = o.send(fd, c, response(headSmall, head))
	default:
		sent = o.send(fd, c, []byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
	}
	if !sent {
		return -1
	}
	return end
}

func websocketAccept(key []byte) string {
	sum := sha1.Sum(append(bytes.Clone(key), wsGUID...))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// frame echoes the small masked frame at the start of b, unmasked; its results are as request's.
func (o *origin) frame(fd int, c *originConn, b []byte) int {
	if len(b) < 6 {
		return 0
	}
	size := int(b[1] & 0x7f)
	if b[1]&0x80 == 0 || size > maxFrameBody {
		return -1
	}
	if len(b) < 6+size {
		return 0
	}
	out := append(make([]byte, 0, 2+maxFrameBody), b[0], byte(size))
	for i, x := range b[6 : 6+size] {
		out = append(out, x^b[2+i%4])
	}
	if b[0]&0x0f == 8 || !o.send(fd, c, out) { // 8: close
		return -1
	}
	return 6 + size
}

// send writes b and keeps what does not fit.
func (o *origin) send(fd int, c *originConn, b []byte) bool {
	if c.stuck {
		return false // a pipelined request behind a full socket: no proxy here sends one
	}
	c.out = b
	return o.flush(fd, c)
}

// flush writes what is still to go. While there is some, nothing is read, as from an app that writes first.
func (o *origin) flush(fd int, c *originConn) bool {
	for len(c.out) > 0 {
		n, errno := rawSend(fd, c.out)
		if errno == unix.EAGAIN {
			if c.stuck {
				return true
			}
			c.stuck = true
			return o.change(fd, rawOut, int32(fd)) == nil
		}
		if errno != 0 {
			return false
		}
		c.out = c.out[n:]
	}
	if !c.stuck {
		return true
	}
	c.stuck = false
	return o.change(fd, rawIn, int32(fd)) == nil
}
