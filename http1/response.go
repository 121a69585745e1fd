package http1

// A Response is the head of a response. Reason points into the buffer of the call of Parse that completed it; Fields holds
// offsets. The zero value is ready, and Reset makes it ready again.
type Response struct {
	Fields []Field // in order; kept between responses

	Reason []byte
	Status int   // 100 to 599
	Minor  int   // 1 of HTTP/1.1
	Length int64 // of the body that follows in bytes, LengthChunked or LengthUntilClose; 0 for HEAD, 1xx, 204 and 304

	KeepAlive        bool // the connection can be used again after the body, for more than Keep-Alive: timeout=0
	Upgrade          bool // 101 with Connection: upgrade and one Upgrade: websocket; whether that was asked for is the caller's to know
	Nominated        bool // Connection names fields besides close, keep-alive, upgrade, te and http2-settings: ask Nominates
	KeepAliveTimeout int  // seconds the server keeps an idle connection, from Keep-Alive: timeout=N; 0: it does not say

	progress
	reason, reasonEnd int
}

// Reset makes r ready for the next response, which may be the one after a 1xx.
func (r *Response) Reset() {
	fields := r.Fields[:0]
	*r = Response{}
	r.Fields = fields
}

// Has reports whether the head, once parsed, has a field of kind k.
func (r *Response) Has(k Kind) bool { return r.seen&k.bit() != 0 }

// Nominates reports whether a Connection field names f, one of r.Fields; it is then for this connection only.
func (r *Response) Nominates(buf []byte, f *Field) bool {
	return r.Nominated && nominates(buf, r.Fields, f)
}

// Parse reads one response head at the start of buf, as Request.Parse does a request's; method is the request's, on which the
// body depends. All errors have Status 502.
func (r *Response) Parse(buf []byte, lim *Limits, method Method) (n int, err error) {
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
		f = r.start(b)
	}
	if f == none && r.phase == inFields {
		if r.Fields, n, f = r.fields(b, r.Fields, maxFields); n > 0 {
			if f = r.finish(b, method); f == none {
				return n, nil
			}
		}
	}
	if f == none && len(b) == maxBytes {
		f = headTooLarge
	}
	if f != none {
		return 0, &responseErrors[f]
	}
	return 0, nil
}

// start reads the status line. Its reason, and the space before that, may be missing, as some servers have it and net/http and Node
// accept.
func (r *Response) start(b []byte) fault {
	const form = "HTTP/1.0 000"
	if len(b) < len(form) {
		return statusFault(b)
	}
	d0, d1, d2 := b[9]-'0', b[10]-'0', b[11]-'0'
	if string(b[:7]) != form[:7] || b[7]|1 != '1' || b[8] != ' ' || d0 < 1 || d0 > 5 || d1 > 9 || d2 > 9 {
		return statusFault(b)
	}
	i := len(form)
	if i == len(b) {
		return none
	}
	reason := i
	switch b[i] {
	case ' ':
		reason = i + 1
	case '\r':
	case '\n':
		return bareLF
	default:
		return badStatus
	}
	end := text(b, max(reason, r.text))
	if end+1 >= len(b) {
		if end < len(b) && b[end] != '\r' {
			return faultOf(b[end])
		}
		r.text = end
		return none
	}
	if b[end] != '\r' || b[end+1] != '\n' {
		return faultOf(b[end])
	}
	r.Minor = int(b[7] - '0')
	r.Status = int(d0)*100 + int(d1)*10 + int(d2)
	r.reason, r.reasonEnd = reason, end
	r.line, r.phase = end+2, inFields
	return none
}

// statusFault finds fault with the first bytes of a status line as they come.
func statusFault(b []byte) fault {
	const form = "HTTP/1.x nnn"
	for i := 0; i < len(form) && i < len(b); i++ {
		c := b[i]
		switch {
		case i >= 9:
			if c < '0' || c > '9' || i == 9 && (c < '1' || c > '5') {
				return badStatus
			}
		case i == 7:
			if c != '0' && c != '1' {
				return badVersion
			}
		case c != form[i]:
			return badVersion
		}
	}
	return none
}

// finish draws from the fields what they mean for a response to method.
func (r *Response) finish(b []byte, method Method) fault {
	const weighed = 1<<FieldContentLength | 1<<FieldTransferEncoding | 1<<FieldConnection | 1<<FieldKeepAlive |
		1<<FieldUpgrade | 1<<FieldTrailer
	if r.Has(FieldContentLength) && r.Has(FieldTransferEncoding) {
		return lengthAndCoding
	}
	if r.twice&FieldContentLength.bit() != 0 {
		return twoLengths
	}
	if r.twice&FieldTransferEncoding.bit() != 0 {
		return badCoding
	}
	var (
		o         options
		websocket bool
		brief     bool
		length    = int64(LengthUntilClose)
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
		switch fd.Kind {
		case FieldConnection:
			if f := o.add(v); f != none {
				return f
			}
		case FieldContentLength:
			ok := false
			if length, ok = parseLength(v); !ok || tabbed(b, fd) {
				return badLength
			}
		case FieldTransferEncoding:
			if r.Minor == 0 {
				return codingIn10
			}
			if !equalFold(v, "chunked") || tabbed(b, fd) {
				return badCoding
			}
			length = LengthChunked
		case FieldKeepAlive:
			r.KeepAliveTimeout = keepAliveTimeout(v)
			brief = r.KeepAliveTimeout == 0
			r.KeepAliveTimeout = max(r.KeepAliveTimeout, 0)
		case FieldUpgrade:
			websocket = equalFold(v, "websocket")
		case FieldTrailer:
			if f := announced(v); f != none {
				return f
			}
		}
	}
	switch {
	case r.Status < 200 || r.Status == 204:
		// Neither may have a length or a coding (RFC 9110 8.6, RFC 9112 6.1). Content-Length: 0 is common and says nothing else.
		if r.Has(FieldTransferEncoding) || r.Has(FieldContentLength) && length != 0 {
			return lengthForbidden
		}
		length = 0
	case r.Status == 304 || method == MethodHead:
		length = 0 // the fields tell what a GET would have had
	}
	r.Length = length
	r.KeepAlive = length != LengthUntilClose && r.Status != 101 && !o.close && !brief && (r.Minor == 1 || o.keepAlive)
	r.Nominated = o.nominated
	r.Upgrade = r.Status == 101 && r.Minor == 1 && websocket && o.upgrade && r.twice&FieldUpgrade.bit() == 0
	r.Reason = b[r.reason:r.reasonEnd]
	r.phase = inDone
	return none
}

// keepAliveTimeout finds timeout=N in the value of a Keep-Alive field, -1 when it does not say; what else it holds is ignored.
func keepAliveTimeout(v []byte) int {
	const name = "timeout="
	for more := true; more; {
		var e []byte
		e, v, more = element(v)
		if len(e) > len(name) && equalFold(e[:len(name)-1], name[:len(name)-1]) && e[len(name)-1] == '=' {
			if n, ok := parseLength(e[len(name):]); ok && n <= 1<<30 {
				return int(n)
			}
			return -1
		}
	}
	return -1
}
