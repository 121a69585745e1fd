//go:build !lb_portable

package loop

import (
	"bufio"
	"net"
	"testing"
	"time"
)

// relay passes each line back, and the connection on to the other listener after each.
type relay struct {
	t     *testing.T
	to    *Listener
	moved chan struct{}
}

func (r *relay) Ready(c *Conn, _ bool) {
	b := make([]byte, 100)
	n, err := c.TryRead(b)
	if n == 0 && err == nil {
		c.Await(r)
		return
	}
	if err != nil {
		c.Close()
		return
	}
	c.Queue(b[:n], nil)
	if _, ok := c.Detach(); ok {
		r.t.Error("a connection whose output waits was detached")
	}
	var again Timer
	c.loop.AfterFunc(&again, c.loop.now, func() { r.pass(c) })
}

func (r *relay) pass(c *Conn) {
	fd, ok := c.Detach()
	if !ok {
		r.t.Error("a connection at rest is not detached")
		c.Close()
		return
	}
	if _, again := c.Detach(); again || !c.Closed() {
		r.t.Error("a detached connection is detached again, or not closed")
	}
	r.to.Adopt(fd)
	r.moved <- struct{}{}
}

// A connection goes back and forth between two groups while its client talks on, and bytes that come in between are not
// lost.
func TestDetach(t *testing.T) {
	var sides [2]*relay
	var lns [2]*Listener
	moved := make(chan struct{}, 1000)
	var addr string
	for i := range sides {
		g, err := New(2, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		sides[i] = &relay{t: t, moved: moved}
		if lns[i], err = g.Take(ln); err != nil {
			t.Fatal(err)
		}
		ln.Close()
		addr = ln.Addr().String()
	}
	for i := range sides {
		sides[i].to = lns[1-i]
		lns[i].Start(func(c *Conn) {
			if !c.RemoteAddr().IsValid() {
				t.Error("nobody's connection")
			}
			c.Await(sides[i])
		})
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	const lines = 200
	for i := range lines {
		if _, err := c.Write([]byte{byte(i), '\n'}); err != nil {
			t.Fatal(err)
		}
		line, err := r.ReadBytes('\n')
		if byte(i) == '\n' {
			line, err = r.ReadBytes('\n')
			line = append([]byte{'\n'}, line...)
		}
		if err != nil || line[0] != byte(i) {
			t.Fatalf("line %d: %q, %v", i, line, err)
		}
		<-moved
	}
	for i, ln := range lns {
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		n := int64(0)
		for _, l := range ln.group.loops {
			n += l.accepted.Load()
		}
		if i == 0 && n > 1 || n < 0 {
			t.Errorf("group %d counts %d connections", i, n)
		}
	}
}
