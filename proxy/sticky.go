package proxy

import (
	"lb/affinity"
	"lb/http1"
	"lb/upstream"
)

// beginVisit says who should have the request. Most pools have an affinity for Socket.IO alone, and most requests are none of
// its business: they must not pay for it.
func (x *exchange) beginVisit() {
	a := x.route.Affinity
	if a == nil || !a.Concerns(x.req.Query) {
		x.forgetVisit()
		return
	}
	ask := &x.ask
	*ask = affinity.Request{
		Now: x.start, Client: x.client, Path: x.req.Path, Query: x.req.Query, Cookies: ask.Cookies[:0],
		Preflight: x.req.MethodID == http1.MethodOptions,
	}
	header := a.NeedsHeader()
	if cookies := a.NeedsCookies(); cookies || header != "" {
		for i := range x.req.Fields {
			switch f := &x.req.Fields[i]; {
			case cookies && f.Kind == http1.FieldCookie:
				ask.Cookies = append(ask.Cookies, f.Value(x.in))
			case header != "" && ask.Header == nil && equalName(f.Name(x.in), header):
				ask.Header = f.Value(x.in)
			}
		}
	}
	x.visit.Begin(a, ask)
	x.sel.Prefer, _ = x.visit.Prefer()
	x.sel.Bound = x.visit.Bound()
	x.sel.Session = x.visit.Begins()
	x.sel.Key, x.sel.HasKey = x.visit.HashKey()
}

// forgetVisit makes the visit that of a pool without affinity.
func (x *exchange) forgetVisit() {
	if x.visit.Affinity() != nil {
		x.visit.Begin(nil, nil)
	}
}

// visited lets the affinity learn from the head of the final answer, and appends the fields that it adds to it.
func (x *exchange) visited(dst []byte) []byte {
	if x.visit.Affinity() == nil {
		return dst
	}
	back := x.back
	ans := affinity.Answer{
		Now: x.w.loop.Now(), Loop: x.w.index, Backend: x.lease.Backend(), Status: x.resp.Status, TLS: x.secure(),
		GaveWay: x.lease.Note() != 0,
	}
	if x.visit.Handshake() {
		for i := range x.resp.Fields {
			if f := &x.resp.Fields[i]; f.Kind == http1.FieldContentEncoding {
				ans.Encoding = f.Value(back)
			}
		}
	}
	dst = x.visit.Answer(dst, &ans)
	if x.visit.Learns() {
		for i := range x.resp.Fields {
			if f := &x.resp.Fields[i]; f.Kind == http1.FieldSetCookie {
				x.visit.SetCookie(f.Value(back))
			}
		}
	}
	return dst
}

// secure reports whether the client came by TLS, as a trusted proxy says.
func (x *exchange) secure() bool {
	if !x.trust {
		return false
	}
	for i := range x.req.Fields {
		if f := &x.req.Fields[i]; f.Kind == http1.FieldXForwardedProto {
			v := f.Value(x.in)
			return len(v) >= 5 && equalName(v[:5], "https") // the first of a list is the client's own
		}
	}
	return false
}

// feedVisit shows the affinity the next bytes of the answer's body before the client gets them: a client may use its
// session ID the instant it has it.
func (p *pump) feedVisit(data []byte) {
	x := p.x
	if p.left != http1.LengthChunked {
		whole := p.left >= 0 && int64(len(data)) >= p.left
		if whole {
			data = data[:p.left]
		}
		x.visit.Feed(data, whole)
		return
	}
	chunks := p.chunks // a copy: the reading that counts comes after
	for {
		run, n, done, err := chunks.Next(data)
		if err != nil {
			x.visit.Feed(nil, true)
			return
		}
		data = data[n:]
		x.visit.Feed(run, done)
		if done || len(data) == 0 {
			return
		}
	}
}

// unknownMax is how long the answer may be that says that a session is not known.
const unknownMax = 512

// elsewhere reports whether the backend does not know the request's session of Socket.IO, while another may: then nothing
// has been done with the request, and it is tried there. It is so after a start of lb, and behind several lb. A
// budget bounds what clients with made-up sessions can cause. wait is when the answer has not come far enough.
func (x *exchange) elsewhere(head, have int) (yes, wait bool) {
	if x.resp.Status != 400 || !x.visit.Unknown() || x.body.lost || x.sel.Tried() >= len(x.route.Pool.Snapshot().Ready) {
		return false, false
	}
	data, n := x.back[head:have], x.resp.Length
	switch {
	case n > unknownMax:
		return false, false
	case n >= 0:
		wait = int64(len(data)) < n
	case n == http1.LengthChunked:
		var chunks http1.Chunked
		run, _, _, err := chunks.Next(data)
		if wait = len(run) == 0 && err == nil && len(data) < unknownMax; !wait {
			data = run
		}
	}
	if wait {
		return false, have < len(x.back) // a head may leave no room for more
	}
	return x.visit.MayBeElsewhere(x.resp.Status, data) && x.route.Pool.AllowSearch(x.w.loop.Now()), false
}

// moveOn takes care that a tunnel to a backend that is going away does not stay: those that were there when it began to go
// have been told.
func (t *tunnel) moveOn(b *upstream.Backend) {
	if b.Draining() || b.Life().Wanted != upstream.In {
		t.w.loop.AfterFunc(&t.close, t.w.loop.Now()+int64(goodbyeFor), t.leave)
	}
}
