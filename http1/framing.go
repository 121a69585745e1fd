package http1

import (
	"bytes"
	"math"
)

// Body lengths that are no number of bytes.
const (
	LengthChunked    = -1
	LengthUntilClose = -2
)

// parseLength reads 1*DIGIT up to 2^63-1.
func parseLength(v []byte) (n int64, ok bool) {
	if len(v) == 0 {
		return 0, false
	}
	for _, c := range v {
		d := int64(c) - '0'
		if d < 0 || d > 9 || n > (math.MaxInt64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// coding judges a Transfer-Encoding of a request. RFC 9112 has two rules for what is not exactly "chunked": where chunked does not
// come last, or comes twice, the length is unknown and the request must be refused with 400 (6.3); other codings below a final
// chunked are merely not implemented, 501 (6.1). An element that is no plain token is malformed.
func coding(v []byte) fault {
	if equalFold(v, "chunked") {
		return none
	}
	chunked := false
	for rest := v; ; {
		var e []byte
		var more bool
		e, rest, more = element(rest)
		if chunked || !allToken(e) {
			return badCoding
		}
		chunked = equalFold(e, "chunked")
		if !more {
			break
		}
	}
	if !chunked {
		return badCoding
	}
	return unknownCoding
}

// tabbed reports whether a tab stands behind the value of a field that frames. It is white space like the other (RFC 9110 5.6.3), but not
// to every reader: Node takes "chunked" with a tab for another coding. The line goes on as it came, so it must be refused.
func tabbed(b []byte, f *Field) bool { return bytes.IndexByte(b[f.ValueEnd:f.End], '\t') >= 0 }

// element cuts the first of a comma separated list, without the white space around it.
func element(v []byte) (e, rest []byte, more bool) {
	i := 0
	for i < len(v) && v[i] != ',' {
		i++
	}
	e = v[:i]
	if more = i < len(v); more {
		rest = v[i+1:]
	}
	for len(e) > 0 && (e[0] == ' ' || e[0] == '\t') {
		e = e[1:]
	}
	for len(e) > 0 && (e[len(e)-1] == ' ' || e[len(e)-1] == '\t') {
		e = e[:len(e)-1]
	}
	return e, rest, more
}

func allToken(v []byte) bool { return len(v) > 0 && token(v, 0) == len(v) }

// options is what the Connection fields of a message say.
type options struct {
	close, keepAlive, upgrade, nominated bool
	size                                 int
}

// maxConnection bounds the bytes of all Connection fields of a message. Whoever drops what they name compares each field with each
// option: 16 KiB of options would make that milliseconds for one request. Honest ones have a few dozen bytes.
const maxConnection = 256

// critical fields decide framing and routing: a Connection that has them removed on the way changes the message's meaning.
const critical = 1<<FieldHost | 1<<FieldContentLength | 1<<FieldTransferEncoding | 1<<FieldConnection

func (o *options) add(v []byte) fault {
	if equalFold(v, "keep-alive") { // most that come
		o.keepAlive = true
		return none
	}
	if o.size += len(v); o.size > maxConnection {
		return badConnection
	}
	for more := true; more; {
		var e []byte
		e, v, more = element(v)
		switch {
		case len(e) == 0: // empty elements are no error in a list, RFC 9110 5.6.1.2
		case equalFold(e, "close"):
			o.close = true
		case equalFold(e, "keep-alive"):
			o.keepAlive = true
		case equalFold(e, "upgrade"):
			o.upgrade = true
		case equalFold(e, "te"), equalFold(e, "http2-settings"):
		case !allToken(e), critical&kindOf(e).bit() != 0:
			return badConnection
		default:
			o.nominated = true
		}
	}
	return none
}

// nominates reports whether a Connection field among fs names the field f.
func nominates(buf []byte, fs []Field, f *Field) bool {
	name := buf[f.Start:f.NameEnd]
	for i := range fs {
		if fs[i].Kind != FieldConnection {
			continue
		}
		v := fs[i].Value(buf)
		for more := true; more; {
			var e []byte
			if e, v, more = element(v); sameFold(e, name) {
				return true
			}
		}
	}
	return false
}

func lowerByte(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c |= 0x20
	}
	return c
}

// sameFold reports whether a and b are the same but for the case of ASCII letters.
func sameFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] && lowerByte(a[i]) != lowerByte(b[i]) {
			return false
		}
	}
	return true
}

// announced checks a Trailer field. One that announces framing is a message made to confuse; net/http refuses it too.
func announced(v []byte) fault {
	const framing = 1<<FieldContentLength | 1<<FieldTransferEncoding | 1<<FieldTrailer
	for more := true; more; {
		var e []byte
		if e, v, more = element(v); framing&kindOf(e).bit() != 0 {
			return badTrailer
		}
	}
	return none
}
