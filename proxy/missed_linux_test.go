//go:build !lb_portable

package proxy

import (
	"strings"
	"sync/atomic"
	"testing"

	"lb/upstream"
)

// beforehand chooses the first backend that was not tried, and before that has something happen, once: on the loop, so that
// lb does not notice until the request is sent.
type beforehand struct {
	ready []*upstream.Backend
	do    *atomic.Pointer[func()]
}

func (b *beforehand) Pick(s *upstream.Selection) *upstream.Backend {
	if do := b.do.Swap(nil); do != nil {
		(*do)()
	}
	for _, r := range b.ready {
		if !s.Has(r.Live) {
			return r
		}
	}
	return nil
}

// A POST goes out just as the backend has closed the kept connection: it is sent again, since that backend cannot have got
// any of it. Where it can have, the POST is not sent again.
func TestMissedRequest(t *testing.T) {
	const head = "POST /2 HTTP/1.1\r\nHost: a.example\r\n"
	whole := []string{head + "Content-Length: 6\r\n\r\na body"}
	closes := func(b *peer, _ *origin) { b.close() }
	const same, other, nobody = 0, 1, -1
	for _, test := range []struct {
		name string
		end  func(b *peer, o *origin)
		send []string
		gets int // which of two backends
	}{
		{"closed", closes, whole, same},
		{"closed, the body comes later", closes, []string{head + "Content-Length: 6\r\n\r\n", "a body"}, same},
		{"closed, half of the body comes later", closes, []string{head + "Content-Length: 6\r\n\r\na b", "ody"}, same},
		{"closed, chunks", closes, []string{head + "Transfer-Encoding: chunked\r\n\r\n3\r\na b\r\n", "3\r\nody\r\n0\r\n\r\n"}, same},
		{"reset", func(b *peer, _ *origin) { b.reset() }, whole, same},
		{"gone", func(b *peer, o *origin) { o.ln.Close(); b.close() }, whole, other},
		{"half closed, and got", func(b *peer, _ *origin) { b.finish() }, whole, nobody},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := []*origin{newOrigin(t, nil), newOrigin(t, nil)}
			addrs := []string{all[0].addr, all[1].addr}
			l := newLab(t, addrs, single)
			var do atomic.Pointer[func()]
			l.pool.Update(specs(t, addrs), l.pool.Snapshot().Settings, func(ready []*upstream.Backend) upstream.Strategy {
				return &beforehand{ready, &do}
			})
			c := l.client()
			c.send(get("/1"))
			b := all[0].accept()
			b.head()
			b.send(ok("1"))
			c.status(200)
			l.idle(1)
			sent := make(chan bool)
			end := func() {
				test.end(b, all[0])
				close(sent)
			}
			do.Store(&end)
			c.send(test.send[0])
			<-sent
			for _, more := range test.send[1:] {
				c.trySend(more)
			}
			if test.gets == nobody {
				c.status(502)
				for i, o := range all {
					if n := o.count.Load(); n != int64(1-i) {
						t.Errorf("backend %d got %d connections", i, n)
					}
				}
				return
			}
			b = all[test.gets].accept()
			h := b.head()
			var body string
			if field(h, "Transfer-Encoding") == "chunked" {
				body, _ = b.chunked()
			} else {
				body = b.take(6)
			}
			if !strings.HasPrefix(h, "POST /2 ") || body != "a body" {
				t.Errorf("%q and %q", h, body)
			}
			b.send(ok("2"))
			c.status(200)
			l.idle(1)
		})
	}
}
