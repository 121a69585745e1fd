package affinity

import (
	"net/netip"

	"lb/upstream"
)

// Request is what a Visit looks at. The slices need to last as long as Begin runs.
type Request struct {
	Now     int64      // ns on the process's monotonic clock
	Client  netip.Addr // for Hash
	Path    []byte     // for Hash
	Query   []byte     // without the '?'
	Cookies [][]byte   // the values of the Cookie fields, in order; only where NeedsCookies
	Header  []byte     // the value of the first field of the name that NeedsHeader gives

	Preflight bool // the method is OPTIONS: the answer says nothing about sessions
}

// NeedsCookies reports whether Request.Cookies is looked at.
func (a *Affinity) NeedsCookies() bool {
	switch a.opt.Kind {
	case Cookie, AppCookie:
		return true
	case Hash:
		return a.opt.Hash.Source == FromCookie
	}
	return false
}

// NeedsHeader is the name of the field that Request.Header is to hold, empty for none.
func (a *Affinity) NeedsHeader() string {
	if a.opt.Kind == Hash && a.opt.Hash.Source == FromHeader {
		return a.opt.Hash.Name
	}
	return ""
}

// Answer is the head of the answer that goes to the client.
type Answer struct {
	Now      int64
	Loop     int // who asks: one loop is one goroutine at a time
	Backend  *upstream.Backend
	Status   int
	TLS      bool   // the client came by TLS, to lb or to a trusted proxy
	Encoding []byte // the answer's Content-Encoding
	GaveWay  bool   // with a hash: another backend than that of the key has answered
}

// Visit is one request of a client that may have been here before. It belongs to one loop. The zero Visit is one of a pool
// without affinity, and everything may be called on it.
type Visit struct {
	a      *Affinity
	by     By
	result Result
	asked  bool // the request brought something to know its client by

	ref  *ref              // who served it before, nil when nobody knows
	want *upstream.Backend // that one, if it may serve it now
	only bool              // it takes nothing else

	sid      uint64 // what a Socket.IO session is remembered under; 0: there is none
	stranger uint64 // what a Socket.IO session that nobody knows will be remembered under; 0: there is none

	known   uint64 // what the application's cookie is remembered under; 0: there is none
	current bool   // lb's cookie is as it would be set for ref

	key    uint64
	hasKey bool

	server *ref // who answers
	now    int64
	loop   int
	hs     handshake
}

// Begin reads a request to a pool of affinity a, which may be nil.
func (v *Visit) Begin(a *Affinity, r *Request) {
	v.End()
	*v = Visit{a: a}
	if a == nil {
		return
	}
	w := a.look(r.Now)
	if a.sids != nil && len(r.Query) > 0 {
		if sid, ok := engineIO(r.Query); ok {
			if v.by = BySID; v.session(sid, r) {
				return
			}
		}
	}
	switch a.opt.Kind {
	case Cookie:
		v.ownCookie(w, r)
	case AppCookie:
		v.appCookie(r)
	case Hash:
		if v.key, v.hasKey = a.opt.Hash.Key(r); v.hasKey && v.by == ByNothing {
			v.by = ByHash
		}
	}
}

// session looks for the session of Socket.IO that a query names.
func (v *Visit) session(sid []byte, r *Request) bool {
	if len(sid) == 0 {
		v.hs.asked = !r.Preflight
		return false
	}
	v.asked = true
	if len(sid) > 3*maxSID {
		return false
	}
	key := v.a.sids.keyOfQuery(sid)
	v.sid = key
	if v.remembered(v.a.sids, key, r.Now) {
		return true
	}
	if !r.Preflight {
		v.stranger = key
	}
	return false
}

// remembered looks a session up.
func (v *Visit) remembered(t *table, key uint64, now int64) bool {
	if v.ref = t.get(key, now); v.ref == nil {
		return false
	}
	v.want, v.only = able(v.ref)
	return true
}

// ownCookie looks for lb's cookie. There may be several, of different paths or of somebody who tries: the first that we
// made counts.
func (v *Visit) ownCookie(w *view, r *Request) {
	if v.by == ByNothing {
		v.by = ByCookie
	}
	for _, field := range r.Cookies {
		for c := cookies(field); ; {
			value, ok := c.next(v.a.fields.name)
			if !ok {
				break
			}
			v.asked = true
			if s := w.tokens.find(value); s != nil {
				v.by, v.ref, v.current = ByCookie, s.ref, s.current
				s.ref.see(r.Now)
				v.want, v.only = able(s.ref)
				return
			}
		}
	}
}

// maxRemembered is how long an application's cookie may be: it is hashed with every request.
const maxRemembered = 4096

func (v *Visit) appCookie(r *Request) {
	if v.by == ByNothing {
		v.by = ByAppCookie
	}
	t := v.a.learned
	for _, field := range r.Cookies {
		for c := cookies(field); ; {
			value, ok := c.next(v.a.opt.AppCookie)
			if !ok {
				break
			}
			if len(value) == 0 || len(value) > maxRemembered {
				continue
			}
			v.asked = true
			v.known = t.key(value)
			if v.remembered(t, v.known, r.Now) {
				v.by = ByAppCookie
				return
			}
		}
	}
}

// Prefer is the backend that should have the request, nil when any will do. With only, it takes nothing new any more,
// but this belongs to what it has.
func (v *Visit) Prefer() (b *upstream.Backend, only bool) { return v.want, v.only }

// Bound reports whether nobody but whom Prefer names can serve the request: its session is in that process.
func (v *Visit) Bound() bool { return v.by == BySID && v.want != nil }

// Session is what the session of Socket.IO is remembered under that the request names, 0 for none.
func (v *Visit) Session() uint64 { return v.sid }

// Begins reports whether the request begins a session that lasts.
func (v *Visit) Begins() bool { return v.hs.asked }

// Affinity is what the visit is to, nil for none.
func (v *Visit) Affinity() *Affinity { return v.a }

// HashKey is for upstream.Selection, where the pool's strategy goes by it.
func (v *Visit) HashKey() (key uint64, ok bool) { return v.key, v.hasKey }

// Handshake reports whether the request begins a session of Socket.IO. Its answer is to be read, so it should be asked for
// without compression: with "Accept-Encoding: identity" in place of what the client sent. It is some hundred bytes.
func (v *Visit) Handshake() bool { return v.hs.asked }

// By is what the client was known by, or would have been.
func (v *Visit) By() By { return v.by }

// Result is what became of the preference, once there was an answer.
func (v *Visit) Result() Result { return v.result }

// Answer takes the final answer's head, before it is sent, and appends to dst the field lines that are to go with it. An
// answer of lb's own is none.
//
// A cookie is set when there is none, when it is not as it would be made now, and when its backend can serve it no more. It
// is not set by a gateway's errors (502, 503, 504), whose backend is no place to stay; nor when another backend only stood
// in this once; nor on requests that a Socket.IO session ID decided.
func (v *Visit) Answer(dst []byte, ans *Answer) []byte {
	a := v.a
	if a == nil || v.result != NoResult || v.by == ByNothing {
		return dst
	}
	v.now, v.loop = ans.Now, ans.Loop
	v.server = a.refOf(ans.Backend, ans.Now)
	st := &a.shards[v.loop].Stats
	if v.result = v.judge(); v.by == ByHash && ans.GaveWay {
		v.result = Strayed
	}
	st.Visits[v.by][v.result].Inc()
	if v.server == nil {
		return dst // it left the pool while it answered
	}
	if ans.Status == 200 || ans.Status == 101 {
		switch {
		case v.stranger != 0:
			// Where a session is not known it is refused: so here it is. lb learns what it forgot, or another lb knows.
			v.learn(a.sids, v.stranger)
		case v.hs.asked && ans.Status == 200:
			v.hs.begin(ans.Encoding)
			v.settled()
		}
	}
	if ans.Status == 101 && v.sid != 0 {
		// It is a tunnel now, and counted as that; nobody asks for it by its ID any more, unless the upgrade fails yet.
		a.sids.rest(v.sid, v.now)
	}
	if ans.Status >= 502 && ans.Status <= 504 || v.by == BySID && v.ref != nil {
		return dst
	}
	switch a.opt.Kind {
	case Cookie:
		if v.result == Strayed || v.result == Hit && v.current {
			break
		}
		if b, only := able(v.server); v.result != Hit && (b == nil || only) {
			break // it takes nothing new, or not any more: this was one of the last
		}
		if t := a.view.Load().tokens.set[v.server.name]; t != nil {
			v.server.see(v.now)
			return a.fields.append(dst, t[:], ans.TLS)
		}
	case AppCookie:
		if v.result == Moved {
			v.learn(a.learned, v.known)
		}
	}
	return dst
}

func (v *Visit) judge() Result {
	switch {
	case v.by == ByHash:
		return Hit // see Answer
	case !v.asked:
		return Newcomer
	case v.ref == nil:
		return Miss
	case v.ref == v.server:
		return Hit
	}
	// Asked again: that it was ejected may be why the request ended elsewhere.
	if b, _ := able(v.ref); b == nil {
		return Moved
	}
	return Strayed
}

// learnsFrom is the name of the application's cookie: who takes part in it calls SetCookie.
func (v *Visit) learnsFrom() string {
	if v.a == nil || v.server == nil || v.a.opt.Kind != AppCookie {
		return ""
	}
	return v.a.opt.AppCookie
}

// Learns reports, after Answer, whether SetCookie is to be called.
func (v *Visit) Learns() bool { return v.learnsFrom() != "" }

// SetCookie takes the value of a Set-Cookie field of the answer, before it is sent.
func (v *Visit) SetCookie(field []byte) {
	name := v.learnsFrom()
	if name == "" {
		return
	}
	if value, ok := setCookie(field, name); ok && len(value) <= maxRemembered {
		t := v.a.learned
		v.learn(t, t.key(value))
	}
}

func (v *Visit) learn(t *table, key uint64) {
	if t.put(key, v.server, v.now) {
		v.a.shards[v.loop].Learned.Inc()
	}
}

// Unknown reports whether the request is of a Socket.IO session that nobody here knows.
func (v *Visit) Unknown() bool { return v.stranger != 0 }

// Word says in the access log what the client was known by, and what became of it; "" of a request that has nothing to
// do with affinity, or was not answered by a backend.
func (v *Visit) Word() string { return words[v.by][v.result] }

var words = func() (w [bys][results]string) {
	for by := ByNothing + 1; by < bys; by++ {
		for r := NoResult + 1; r < results; r++ {
			w[by][r] = by.String() + " " + r.String()
		}
	}
	return w
}()

// MayBeElsewhere reports whether an answer, of which body is at least the beginning, says that its backend does not know the
// Socket.IO session, while lb does not know who does. Then nothing has been done with the request, whatever its method,
// and another backend may have the session: as often as there are others, the request can be repeated. It is so after a
// start of lb, and where several lb take turns with one client. To be called in place of Answer.
func (v *Visit) MayBeElsewhere(status int, body []byte) bool {
	return v.stranger != 0 && status == 400 && unknownSID(body)
}

// Reading reports whether the answer's body is to be given to Feed.
func (v *Visit) Reading() bool { return v.hs.reading }

// Feed takes the next bytes of the answer's body, without chunked framing, before they are sent: when the client has the
// session ID, every loop knows it. last says that no more come.
func (v *Visit) Feed(data []byte, last bool) {
	if !v.hs.reading {
		return
	}
	if sid := v.hs.feed(data, last); sid != nil {
		t := v.a.sids
		v.learn(t, t.key(sid))
	}
	v.settled()
}

// settled counts an answer that is not read on.
func (v *Visit) settled() {
	if !v.hs.reading && !v.hs.found {
		v.a.shards[v.loop].Unread.Inc()
	}
}

// End gives back what the visit holds. By and Result can be asked for afterwards.
func (v *Visit) End() {
	v.hs.end()
}
