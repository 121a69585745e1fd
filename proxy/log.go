package proxy

import (
	"time"

	"lb/accesslog"
	"lb/http1"
	"lb/loop"
)

var protos = [2][]byte{[]byte("HTTP/1.0"), []byte("HTTP/1.1")}

// log writes the access log's line for the exchange.
func (x *exchange) log() {
	if x.set.Log == nil || !x.set.Log.On() {
		return
	}
	var r accesslog.Record
	x.fill(&r)
	x.set.Log.Append(x.w.index, &r)
}

// fill says in r what is known of the exchange.
func (x *exchange) fill(r *accesslog.Record) {
	now := x.w.loop.Now()
	r.Time = loop.WallTime(x.start)
	r.Client = x.client
	r.Listener = x.c.ln.Name()
	r.Status = x.status
	r.Tries = x.tries
	r.Reason = ""
	if x.why.failed() {
		r.Reason = x.why.code()
	}
	r.Connect, r.FirstByte, r.Total = -1, -1, time.Duration(now-x.start)
	r.BytesIn, r.BytesOut = x.bytesIn, x.bytesOut
	if x.head == 0 { // no request that could be read
		r.Client = x.peer
		return
	}
	r.Method, r.Host, r.Target = x.req.Method, x.req.Host, x.req.Target
	r.Proto = protos[x.req.Minor]
	r.RequestID = x.reqID
	for i := range x.req.Fields {
		switch f := &x.req.Fields[i]; f.Kind {
		case http1.FieldUserAgent:
			r.UserAgent = f.Value(x.in)
		case http1.FieldReferer:
			r.Referer = f.Value(x.in)
		}
	}
	if x.route != nil {
		r.Route, r.Pool = x.route.Name, x.route.Pool.Name
	}
	if x.tries > 0 {
		r.Backend = x.lease.Backend().Name
		r.Affinity = x.visit.Word()
		r.Connect = time.Duration(x.connect)
		if x.first != 0 {
			r.FirstByte = time.Duration(x.first - x.start)
		}
	}
}

// entry is what an access log's line needs to know of a tunnel that is long past its request.
type entry struct {
	log    *accesslog.Log
	start  int64
	text   []byte
	record accesslog.Record
}

// entry keeps what the log will say; nil when there is no log.
func (x *exchange) entry() *entry {
	if x.set.Log == nil || !x.set.Log.On() {
		return nil
	}
	e := &entry{log: x.set.Log, start: x.start}
	r := &e.record
	x.fill(r)
	for _, b := range []*[]byte{&r.Method, &r.Host, &r.Target, &r.RequestID, &r.UserAgent, &r.Referer} {
		e.text = append(e.text, *b...)
	}
	rest := e.text
	for _, b := range []*[]byte{&r.Method, &r.Host, &r.Target, &r.RequestID, &r.UserAgent, &r.Referer} {
		n := len(*b)
		*b, rest = rest[:n:n], rest[n:]
	}
	return e
}

// write writes the line of a tunnel that has ended.
func (e *entry) write(w *worker, in, out int64, why failure) {
	if e == nil {
		return
	}
	r := &e.record
	r.Total = time.Duration(w.loop.Now() - e.start)
	r.BytesIn, r.BytesOut = in, out
	if why.failed() {
		r.Reason = why.code()
	}
	e.log.Append(w.index, r)
}
