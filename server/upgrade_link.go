package server

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// link is the wire between an lb and the one that takes over from it: a pair of unix sockets, over which messages go
// with descriptors.
type link struct {
	c *net.UnixConn

	writing sync.Mutex
	reading sync.Mutex
	data    []byte // guarded by reading; came and was not yet looked at
	fds     []int  // guarded by reading; the same
}

// message is what goes over a link. Its JSON goes from one version of lb to another: kinds and fields may be added, none
// changes its meaning.
type message struct {
	Kind  string          `json:"kind"`
	Files int             `json:"files,omitempty"` // descriptors that come with it
	Body  json.RawMessage `json:"body,omitempty"`

	fds []int
}

const (
	maxMessage = 256 << 20
	// maxFiles is how many descriptors go with one message: the kernel takes 253.
	maxFiles = 200
	// linkWait bounds the writing of one message: nothing of lb waits for longer for a process that does not read.
	linkWait = 20 * time.Second
)

// newLink takes f over.
func newLink(f *os.File) (*link, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("a %T is no wire to another lb", c)
	}
	return &link{c: u}, nil
}

// send sends a message; body may be nil, and files stay the caller's.
func (l *link) send(kind string, body any, files ...*os.File) error {
	m := message{Kind: kind, Files: len(files)}
	if body != nil {
		var err error
		if m.Body, err = json.Marshal(body); err != nil {
			return err
		}
	}
	var rights []int
	for _, f := range files {
		raw, err := f.SyscallConn() // not Fd, which would make the socket a blocking one for everybody who has it
		if err != nil {
			return err
		}
		raw.Control(func(fd uintptr) { rights = append(rights, int(fd)) })
	}
	return l.sendRights(&m, rights)
}

// sendFDs is send for bare descriptors.
func (l *link) sendFDs(kind string, body any, fds []int) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return l.sendRights(&message{Kind: kind, Files: len(fds), Body: text}, fds)
}

func (l *link) sendRights(m *message, rights []int) error {
	if len(rights) > maxFiles {
		return fmt.Errorf("%d descriptors in one message", len(rights))
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	packet := append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
	var oob []byte
	if len(rights) > 0 {
		oob = syscall.UnixRights(rights...)
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	l.c.SetWriteDeadline(time.Now().Add(linkWait))
	n, _, err := l.c.WriteMsgUnix(packet, oob, nil)
	for end := time.Now().Add(linkWait); errors.Is(err, syscall.ETOOMANYREFS) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond) // the other side has yet to take those that are on their way
		n, _, err = l.c.WriteMsgUnix(packet, oob, nil)
	}
	if err == nil && n < len(packet) {
		_, err = l.c.Write(packet[n:])
	}
	return err
}

// receive waits for a message. The descriptors that came with it are the caller's.
func (l *link) receive() (*message, error) {
	l.reading.Lock()
	defer l.reading.Unlock()
	for {
		if len(l.data) >= 4 {
			size := int64(binary.BigEndian.Uint32(l.data))
			if size > maxMessage {
				return nil, fmt.Errorf("a message of %d bytes", size)
			}
			if int64(len(l.data)) >= 4+size {
				m := new(message)
				err := json.Unmarshal(l.data[4:4+size], m)
				l.data = l.data[4+size:]
				if err != nil {
					return nil, err
				}
				if m.Files > len(l.fds) {
					return nil, fmt.Errorf("%d descriptors came with a message of %d", len(l.fds), m.Files)
				}
				m.fds, l.fds = l.fds[:m.Files:m.Files], l.fds[m.Files:]
				return m, nil
			}
		}
		b := make([]byte, 64<<10)
		oob := make([]byte, syscall.CmsgSpace(4*253))
		n, oobn, flags, _, err := l.c.ReadMsgUnix(b, oob)
		if err != nil {
			return nil, err
		}
		if oobn > 0 {
			if err := l.keep(oob[:oobn]); err != nil {
				return nil, err
			}
		}
		if flags&syscall.MSG_CTRUNC != 0 {
			return nil, errors.New("descriptors were lost: more than this process may have")
		}
		if n == 0 {
			return nil, io.EOF
		}
		l.data = append(l.data, b[:n]...)
	}
}

// keep notes descriptors that came; package net has them closed in programs that are started.
func (l *link) keep(oob []byte) error {
	all, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for _, m := range all {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			return err
		}
		l.fds = append(l.fds, fds...)
	}
	return nil
}

// close ends the link for both sides.
func (l *link) close() {
	l.c.Close() // which ends a receive
	l.reading.Lock()
	defer l.reading.Unlock()
	closeAll(l.fds)
	l.fds = nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		syscall.Close(fd)
	}
}
