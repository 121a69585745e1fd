package http1

import "encoding/binary"

// A Method is a request method that lb knows by name.
type Method uint8

// The methods. Names are case-sensitive: "get" is MethodOther.
const (
	MethodOther Method = iota
	MethodGet
	MethodHead
	MethodPost
	MethodPut
	MethodDelete
	MethodOptions
	MethodPatch
	MethodTrace
	MethodConnect
)

func methodOf(m []byte) Method {
	switch string(m) {
	case "GET":
		return MethodGet
	case "HEAD":
		return MethodHead
	case "POST":
		return MethodPost
	case "PUT":
		return MethodPut
	case "DELETE":
		return MethodDelete
	case "OPTIONS":
		return MethodOptions
	case "PATCH":
		return MethodPatch
	case "TRACE":
		return MethodTrace
	case "CONNECT":
		return MethodConnect
	}
	return MethodOther
}

// longestMethod is the most bytes of a method; the longest registered one, UPDATEREDIRECTREF, has 17.
const longestMethod = 32

// A Request is the head of a request. Its slices point into the buffer of the call of Parse that completed it, and so live as long as
// that stays as it is; Fields holds offsets. The zero value is ready, and Reset makes it ready again.
type Request struct {
	Fields []Field // in order; kept between requests

	Method   []byte
	Target   []byte // in origin-form, to send on as it is: of an absolute-form target, what follows the authority, or "/"
	Path     []byte // Target without the query; "*" for OPTIONS *
	Query    []byte // what follows the '?'
	Host     []byte // with its port, as sent; empty only if an HTTP/1.0 client names none
	MethodID Method
	Minor    int   // 1 of HTTP/1.1
	Length   int64 // of the body in bytes, or LengthChunked

	KeepAlive bool // the client expects to send another request
	Upgrade   bool // a WebSocket handshake: GET, HTTP/1.1, no body, Connection: upgrade, and one Upgrade: websocket; others are ignored
	Expect    bool // the client waits for 100 Continue; never in HTTP/1.0, where RFC 9110 10.1.1 says to ignore it
	Nominated bool // Connection names fields besides close, keep-alive, upgrade, te and http2-settings: ask Nominates
	Absolute  bool // the target came in absolute-form; Host is its authority, and a Host field, if any, says the same

	progress
	method, methodEnd          int
	target, targetEnd, pathEnd int
	authority, authorityEnd    int
}

// Reset makes r ready for the next request.
func (r *Request) Reset() {
	fields := r.Fields[:0]
	*r = Request{}
	r.Fields = fields
}

// Has reports whether the head, once parsed, has a field of kind k.
func (r *Request) Has(k Kind) bool { return r.seen&k.bit() != 0 }

// Idempotent reports whether a request that was sent once may be sent again without asking the client: by its method
// (RFC 9110 9.2.2), or because an Idempotency-Key lets the application recognise it.
func (r *Request) Idempotent() bool {
	switch r.MethodID {
	case MethodGet, MethodHead, MethodOptions, MethodTrace, MethodPut, MethodDelete:
		return true
	}
	return r.Has(FieldIdempotencyKey)
}

// Nominates reports whether a Connection field names f, one of r.Fields; it is then for this connection only.
func (r *Request) Nominates(buf []byte, f *Field) bool {
	return r.Nominated && nominates(buf, r.Fields, f)
}

// Parse reads one request head at the start of buf. With n > 0 the head is buf[:n]. With n == 0 and no error it is not all there:
// call again with the same bytes and more behind them, in this buffer or another. An error is an *Error; the connection is then of
// no further use, and r must be Reset. One empty line before the request line is tolerated (RFC 9112 2.2) and counts as part of the
// head.
//
// CONNECT is refused with 501: lb is no forward proxy, for any target.
func (r *Request) Parse(buf []byte, lim *Limits) (n int, err error) {
	if r.phase == inDone {
		r.Reset()
	}
	maxBytes, maxFields := lim.MaxBytes, lim.MaxFields
	if maxBytes <= 0 {
		maxBytes = DefaultMaxBytes
	}
	if maxFields <= 0 {
		maxFields = DefaultMaxFields
	}
	b := buf
	if len(b) > maxBytes {
		b = b[:maxBytes]
	}
	var f fault
	if r.phase == inStart {
		maxTarget := lim.MaxTarget
		if maxTarget <= 0 {
			maxTarget = maxBytes
		}
		f = r.start(b, maxTarget)
	}
	if f == none && r.phase == inFields {
		if r.Fields, n, f = r.fields(b, r.Fields, maxFields); n > 0 {
			if f = r.finish(b); f == none {
				return n, nil
			}
		}
	}
	if f == none && len(b) == maxBytes {
		if f = headTooLarge; r.phase == inStart {
			f = targetTooLong
		}
	}
	if f != none {
		return 0, &requestErrors[f]
	}
	return 0, nil
}

// start reads the request line, and moves on to the fields when it is all there.
func (r *Request) start(b []byte, maxTarget int) fault {
	i := 0
	if len(b) > 0 && b[0] == '\r' {
		if len(b) == 1 {
			return none
		}
		if b[1] != '\n' {
			return bareCR
		}
		i = 2
	}
	r.method = i
	for i < len(b) && isToken[b[i]] {
		if i++; i-r.method > longestMethod {
			return longMethod
		}
	}
	if i == len(b) {
		return none
	}
	if c := b[i]; c != ' ' || i == r.method {
		if c == '\n' {
			return bareLF
		}
		return badMethod
	}
	r.methodEnd = i
	if r.MethodID = methodOf(b[r.method:i]); r.MethodID == MethodConnect {
		return connectMethod
	}
	target := i + 1
	end := targetEnd(b, max(target, r.text))
	if end-target > maxTarget {
		return targetTooLong
	}
	if end == len(b) {
		r.text = end
		return none
	}
	if b[end] != ' ' {
		switch b[end] {
		case '\r':
			return badStartLine
		case '\n', 0:
			return faultOf(b[end])
		}
		return badTarget
	}
	line, minor, f := version(b, end+1)
	if line == 0 || f != none {
		return f
	}
	r.Minor = minor
	r.line, r.phase = line, inFields
	return r.splitTarget(b, target, end)
}

const (
	http11 = 'H' | 'T'<<8 | 'T'<<16 | 'P'<<24 | '/'<<32 | '1'<<40 | '.'<<48 | '1'<<56
	crlf   = '\r' | '\n'<<8
)

// version reads "HTTP/1.x" CRLF at i; next is the offset after it, 0 if it has not all come.
func version(b []byte, i int) (next, minor int, _ fault) {
	if i+10 <= len(b) && binary.LittleEndian.Uint64(b[i:]) == http11 && binary.LittleEndian.Uint16(b[i+8:]) == crlf {
		return i + 10, 1, none
	}
	const form = "HTTP/0.0\r\n"
	for k := 0; k < len(form); k++ {
		if i+k == len(b) {
			return 0, 0, none
		}
		c := b[i+k]
		if form[k] == '0' && c >= '0' && c <= '9' || c == form[k] {
			continue
		}
		if k == 8 && c == '\n' {
			return 0, 0, bareLF
		}
		if k == 9 {
			return 0, 0, bareCR
		}
		return 0, 0, badVersion
	}
	if b[i+5] != '1' || b[i+7] > '1' {
		return 0, 0, versionUnknown
	}
	return i + 10, int(b[i+7] - '0'), none
}

// once are the kinds of which a request may have one.
const once = 1<<FieldHost | 1<<FieldContentLength | 1<<FieldTransferEncoding

// weighed are the kinds that finish looks at.
const weighed = once | 1<<FieldConnection | 1<<FieldExpect | 1<<FieldUpgrade | 1<<FieldTrailer

// finish draws from the fields what they mean.
func (r *Request) finish(b []byte) fault {
	if r.twice&once != 0 {
		return r.doubled()
	}
	var (
		o         options
		websocket bool
		rest      = r.seen & weighed
	)
	for i := 0; rest != 0 && i < len(r.Fields); i++ {
		fd := &r.Fields[i]
		bit := fd.Kind.bit()
		if weighed&bit == 0 {
			continue
		}
		if r.twice&bit == 0 {
			rest &^= bit
		}
		v := fd.Value(b)
		f := none
		switch fd.Kind {
		case FieldHost:
			if r.Host = v; !ValidHost(v) {
				return badHost
			}
		case FieldConnection:
			f = o.add(v)
		case FieldContentLength:
			ok := false
			if r.Length, ok = parseLength(v); !ok || tabbed(b, fd) {
				return badLength
			}
		case FieldTransferEncoding:
			if r.Minor == 0 {
				return codingIn10
			}
			if r.Has(FieldContentLength) {
				return lengthAndCoding
			}
			if f, r.Length = coding(v), LengthChunked; f == none && tabbed(b, fd) {
				return badCoding
			}
		case FieldExpect:
			if r.Minor == 1 {
				if r.Expect = true; !equalFold(v, "100-continue") {
					return badExpect
				}
			}
		case FieldUpgrade:
			websocket = equalFold(v, "websocket")
		case FieldTrailer:
			f = announced(v)
		}
		if f != none {
			return f
		}
	}
	if f := r.host(b); f != none {
		return f
	}
	r.KeepAlive = !o.close && (r.Minor == 1 || o.keepAlive)
	r.Nominated = o.nominated
	r.Upgrade = websocket && o.upgrade && r.twice&FieldUpgrade.bit() == 0 && r.MethodID == MethodGet && r.Minor == 1 && r.Length == 0
	r.Method = b[r.method:r.methodEnd]
	r.Target = b[r.target:r.targetEnd]
	r.Path = b[r.target:r.pathEnd]
	if r.pathEnd < r.targetEnd {
		r.Query = b[r.pathEnd+1 : r.targetEnd]
	}
	if r.target == r.targetEnd {
		r.Target, r.Path = slash, slash
	}
	r.phase = inDone
	return none
}

var slash = []byte("/")

func (r *Request) doubled() fault {
	switch {
	case r.seen&FieldTransferEncoding.bit() != 0 && r.seen&FieldContentLength.bit() != 0:
		return lengthAndCoding
	case r.twice&FieldContentLength.bit() != 0:
		return twoLengths
	case r.twice&FieldTransferEncoding.bit() != 0:
		return badCoding
	}
	return twoHosts
}

// host settles which host is meant. RFC 9112 3.2.2 lets an authority in the target win over the Host field, but the two must be the same
// (3.2), and servers differ in which they read: so a request in which they differ is refused.
func (r *Request) host(b []byte) fault {
	if r.authorityEnd > 0 {
		authority := b[r.authority:r.authorityEnd]
		if r.Has(FieldHost) && !sameFold(r.Host, authority) {
			return hostMismatch
		}
		if r.Minor == 1 && !r.Has(FieldHost) {
			return noHost
		}
		r.Host, r.Absolute = authority, true
		return none
	}
	if r.Minor == 1 && !r.Has(FieldHost) {
		return noHost
	}
	return none
}
