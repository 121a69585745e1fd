package proxy

// Mover takes clients' connections to another process. Its funcs are called on loops, and must not wait.
type Mover struct {
	Takes  func(*Listener) bool // whether connections of that listener can go
	Move   func(l *Listener, fd int)
	Tunnel func(l *Listener, t *Moved, client, backend int)
}

// Move has every client's connection go to another process as soon as it is at rest: those that are at once, others after
// their answers, which do not say that the connection ends. Tunnels go when nothing of them is on its way. Of such a
// connection, nothing but what is known about it is in this process, so neither side of it notices.
func (p *Proxy) Move(m *Mover) {
	p.mover.Store(m)
	for _, w := range p.workers {
		w.loop.Post(func() {
			for c := w.clients.next; c != &w.clients; {
				next := c.next
				switch {
				case c.resting:
					c.move()
				case c.tunnel != nil:
					c.tunnel.move()
				}
				c = next
			}
		})
	}
}

// moves reports whether the connection goes to another process once it is at rest.
func (c *client) moves() bool {
	m := c.w.proxy.mover.Load()
	return m != nil && m.Takes(c.ln)
}

// move takes a connection at rest to another process, if there is one. What the client has sent by now waits in the
// socket.
func (c *client) move() bool {
	if !c.moves() {
		return false
	}
	fd, ok := c.conn.Detach()
	if !ok {
		return false
	}
	c.resting = false
	c.w.proxy.mover.Load().Move(c.ln, fd)
	c.forget()
	return true
}

// closing reports whether the client is to be told that its connection ends with the next answer.
func (c *client) closing() bool { return c.w.proxy.stopping.Load() && !c.moves() }
