package affinity

import (
	"bytes"
	"encoding/json"
)

// maxSID is how long a session ID may be, in bytes as it is sent. Engine.IO's own have 20; an application may make others.
const maxSID = 512

// engineIO reads the query of a request to Engine.IO, the transport of Socket.IO: one that has EIO= and the number of the
// protocol, under whatever path. The sid, as it was sent, is empty where a session begins.
func engineIO(query []byte) (sid []byte, ok bool) {
	const mark = "EIO="
	for from := 0; ; {
		i := bytes.Index(query[from:], []byte(mark))
		if i < 0 {
			return nil, false
		}
		i += from
		from = i + len(mark)
		if (i == 0 || query[i-1] == '&') && from < len(query) && query[from] >= '0' && query[from] <= '9' {
			break
		}
	}
	sid, _ = param(query, "sid")
	return sid, true
}

// keyOfQuery is key for a session ID as it stands in a query. It decodes as Node's querystring does: what is no good
// encoding stands for itself.
func (t *table) keyOfQuery(sid []byte) uint64 {
	if bytes.IndexByte(sid, '%') < 0 && bytes.IndexByte(sid, '+') < 0 {
		return t.key(sid)
	}
	var buf [maxSID]byte
	b := buf[:0]
	for i := 0; i < len(sid) && len(b) < maxSID; i++ {
		c := sid[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(sid) && unhex(sid[i+1]) >= 0 && unhex(sid[i+2]) >= 0:
			c = byte(unhex(sid[i+1])<<4 | unhex(sid[i+2]))
			i += 2
		}
		b = append(b, c)
	}
	return t.key(b)
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// unknownSID reports whether a body of an answer of status 400 says that its session is not known: as JSON, or, to an
// upgrade, in words.
func unknownSID(body []byte) bool {
	return bytes.HasPrefix(body, []byte(`{"code":1,`)) || bytes.Equal(body, []byte("Session ID unknown"))
}

// verdict is what reading the beginning of something came to.
type verdict uint8

const (
	more    verdict = iota // it may be what we look for, but has not all come
	found                  // it is
	nothing                // it is not
)

// openPacket finds the session ID in the beginning of the answer to a handshake of the polling transport. What comes first
// in it is the packet "open", of type 0, with JSON whose sid is a string:
//
//	0{"sid":"lv_VI97HAXpY6yYWAAAC",...}                 protocol 4; further packets follow after 0x1e
//	97:0{"sid":"ek8RBJe_Tm0_UXSXAAAA",...}2:40          protocol 3, the length before each packet
//	00 01 01 08 ff 0{"sid":...}                         protocol 3 with binary packets, the length in decimal digits as bytes
//	___eio[7]("97:0{\"sid\":\"_LEk_-3wiFX...\"...}");    JSONP, either protocol: as a string literal of JavaScript
//
// (engine.io-protocol, and engine.io 3.6 and 6.6 as they answer: see testdata.) esc is room for the decoded literal.
func openPacket(b, esc []byte) ([]byte, verdict) {
	b, v := unwrap(b, esc)
	if v != found {
		return nil, v
	}
	if len(b) == 0 {
		return nil, more
	}
	if b[0] == 0 {
		b, v = prefixed(b[1:], 0, 9, 0xff)
	} else if len(b) < 2 || b[1] != '{' {
		b, v = prefixed(b, '0', '9', ':')
	}
	switch {
	case v != found:
		return nil, v
	case len(b) == 0 || len(b) == 1 && b[0] == '0':
		return nil, more
	case b[0] != '0' || b[1] != '{':
		return nil, nothing
	}
	return stringMember(b[1:], "sid")
}

// prefixed cuts a length off: digits from zero to nine and an end.
func prefixed(b []byte, zero, nine, end byte) ([]byte, verdict) {
	const most = 10 // digits
	for i, c := range b {
		switch {
		case c == end && i > 0:
			return b[i+1:], found
		case c < zero || c > nine || i == most:
			return nil, nothing
		}
	}
	return nil, more
}

// unwrap decodes the string literal of JSONP into esc, as far as it is there and finds room. Anything else is as it is.
func unwrap(b, esc []byte) ([]byte, verdict) {
	const comment, open = "/**/", "___eio["
	rest := b
	if len(rest) > 0 && rest[0] == '/' { // some put it first, against content sniffing
		if v := begins(rest, comment); v != found {
			return nil, v
		}
		rest = rest[len(comment):]
		if len(rest) == 0 {
			return nil, more
		}
	}
	if len(rest) == 0 || rest[0] != '_' {
		return b, found
	}
	if v := begins(rest, open); v != found {
		return nil, v
	}
	rest = rest[len(open):]
	for len(rest) > 0 && rest[0] >= '0' && rest[0] <= '9' {
		rest = rest[1:]
	}
	const call = `]("`
	if v := begins(rest, call); v != found {
		return nil, v
	}
	rest = rest[len(call):]
	out := esc[:0]
	for i := 0; i < len(rest) && rest[i] != '"' && len(out) < cap(esc); i++ {
		c := rest[i]
		if c == '\\' {
			if i++; i == len(rest) {
				break
			}
			switch c = rest[i]; c {
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case 't':
				c = '\t'
			case 'b':
				c = '\b'
			case 'f':
				c = '\f'
			case 'u':
				// Only what JSON.stringify escapes so: control bytes, and others that an open packet has inside of strings
				// of JSON at most, where they are not the sid's.
				if i+4 >= len(rest) {
					return out, found
				}
				if c = '?'; rest[i+1] == '0' && rest[i+2] == '0' && unhex(rest[i+3]) >= 0 && unhex(rest[i+4]) >= 0 {
					c = byte(unhex(rest[i+3])<<4 | unhex(rest[i+4]))
				}
				i += 4
			}
		}
		out = append(out, c)
	}
	return out, found
}

// begins reports whether b begins with s, as far as it is there.
func begins(b []byte, s string) verdict {
	n := min(len(b), len(s))
	switch {
	case string(b[:n]) != s[:n]:
		return nothing
	case n < len(s):
		return more
	}
	return found
}

// stringMember finds the string under a name in the object of JSON that b begins with. It reads as much as it needs to
// know where it is: what it accepts need not be good JSON.
func stringMember(b []byte, name string) ([]byte, verdict) {
	i := 1
	for {
		if i = space(b, i); i == len(b) {
			return nil, more
		}
		if b[i] != '"' {
			return nil, nothing // also the end of an empty object
		}
		end := stringEnd(b, i)
		if end < 0 {
			return nil, more
		}
		member := b[i+1 : end-1]
		if i = space(b, end); i == len(b) {
			return nil, more
		}
		if b[i] != ':' {
			return nil, nothing
		}
		if i = space(b, i+1); i == len(b) {
			return nil, more
		}
		if string(member) == name {
			return stringValue(b[i:])
		}
		if i = valueEnd(b, i); i < 0 {
			return nil, more
		}
		if i = space(b, i); i == len(b) {
			return nil, more
		}
		if b[i] != ',' {
			return nil, nothing
		}
		i++
	}
}

// stringValue decodes the string at the beginning of b.
func stringValue(b []byte) ([]byte, verdict) {
	if b[0] != '"' {
		return nil, nothing
	}
	end := stringEnd(b, 0)
	switch {
	case end < 0 && len(b) > maxSID+2:
		return nil, nothing
	case end < 0:
		return nil, more
	case end == 2 || end > maxSID+2:
		return nil, nothing
	}
	v := b[1 : end-1]
	if bytes.IndexByte(v, '\\') >= 0 {
		var s string
		if json.Unmarshal(b[:end], &s) != nil {
			return nil, nothing
		}
		v = []byte(s)
	}
	return v, found
}

func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// stringEnd is the offset behind the string at i, -1 if it has not all come.
func stringEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// valueEnd is the offset behind the value at i, -1 if it has not all come.
func valueEnd(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			if i = stringEnd(b, i); i < 0 {
				return -1
			}
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return -1
}
