package http1

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// targetEnd is the offset of the first byte from i on that no request target holds: white space, control bytes, '#' (fragments stay
// with the client) and bytes from 0x80 on, which must be percent-encoded and which Node refuses too.
func targetEnd(b []byte, i int) int {
	for i+8 <= len(b) {
		x := binary.LittleEndian.Uint64(b[i:])
		del, hash := x^0x7f*ones, x^'#'*ones
		// A borrow spoils only bytes above the first that is found.
		if bad := (x - '!'*ones) | x | (del - ones) | (hash - ones); bad&highs != 0 {
			return i + bits.TrailingZeros64(bad&highs)>>3
		}
		i += 8
	}
	for i < len(b) {
		if c := b[i]; c <= ' ' || c >= 0x7f || c == '#' {
			break
		}
		i++
	}
	return i
}

// splitTarget finds the parts of the target b[start:end]. Origin-form is the rule; '*' goes with OPTIONS only; the absolute form must
// be http or https, with an authority, and a path or nothing behind it.
func (r *Request) splitTarget(b []byte, start, end int) fault {
	if start == end {
		return badTarget
	}
	switch c := b[start]; {
	case c == '/':
	case c == '*' && end-start == 1 && r.MethodID == MethodOptions:
	default:
		authority := start + len("http://")
		if end >= start+len("https://") && b[start+4]|0x20 == 's' {
			authority++
		}
		if end <= authority || !isHTTP(b[start:authority]) {
			return badTarget
		}
		start = authority
		if i := bytes.IndexByte(b[authority:end], '/'); i >= 0 {
			start += i
		} else {
			start = end
		}
		if !ValidHost(b[authority:start]) {
			return badTarget
		}
		r.authority, r.authorityEnd = authority, start
	}
	r.target, r.targetEnd, r.pathEnd = start, end, end
	if end-start <= 1 {
		return none
	}
	if i := bytes.IndexByte(b[start:end], '?'); i >= 0 {
		r.pathEnd = start + i
	}
	return percents(b[start:r.pathEnd])
}

func isHTTP(b []byte) bool {
	n := len(b)
	return string(b[n-3:]) == "://" && (equalFold(b[:n-3], "http") || equalFold(b[:n-3], "https"))
}

// percents refuses a '%' without two hex digits in a path: decoders disagree on what it is. Queries are the application's own, and
// a lone '%' is common in them.
func percents(path []byte) fault {
	for {
		i := bytes.IndexByte(path, '%')
		if i < 0 {
			return none
		}
		if i+2 >= len(path) || unhex[path[i+1]] < 0 || unhex[path[i+2]] < 0 {
			return badTarget
		}
		path = path[i+3:]
	}
}

var unhex = func() (t [256]int8) {
	for c := range t {
		t[c] = -1
	}
	for i, c := range "0123456789abcdef" {
		t[c] = int8(i)
	}
	for i, c := range "ABCDEF" {
		t[c] = int8(10 + i)
	}
	return t
}()

// ValidHost reports whether b is what a Host field or an authority may hold: a name of letters, digits, "-", ".", "_" and "~" without
// empty labels (but for one dot at the end), or an IPv6 address in brackets, and then perhaps a port from 0 to 65535. It is stricter
// than RFC 3986, which lets a name hold percent-encoded bytes and sub-delims: no DNS name has them, and they are how a Host
// becomes two to the next reader. Empty is not valid: an http URI must have a host (RFC 9110 4.2.1).
func ValidHost(b []byte) bool {
	if len(b) == 0 || len(b) > 261 { // 255 of a name and a port
		return false
	}
	i := 0
	if b[0] == '[' {
		end := bytes.IndexByte(b, ']')
		if end < 0 || !validIPv6(b[1:end]) {
			return false
		}
		i = end + 1
	} else {
		dot := true
		for i < len(b) && hostByte[b[i]] != 0 {
			if hostByte[b[i]] == 2 && dot {
				return false
			}
			dot = hostByte[b[i]] == 2
			i++
		}
		if i == 0 {
			return false
		}
	}
	return i == len(b) || b[i] == ':' && validPort(b[i+1:])
}

// hostByte is 1 for bytes of a label, 2 for the dot.
var hostByte = func() (t [256]uint8) {
	for c := range t {
		if c < 0x80 && isToken[c] {
			t[c] = 1
		}
	}
	for _, c := range "!#$%&'*+^`|" {
		t[c] = 0
	}
	t['.'] = 2
	return t
}()

func validPort(p []byte) bool {
	if len(p) == 0 || len(p) > 5 {
		return false
	}
	n, ok := parseLength(p)
	return ok && n <= 65535
}

// validIPv6 reads RFC 4291 text without a zone.
func validIPv6(b []byte) bool {
	groups, double := 0, false
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		double, b = true, b[2:]
	} else if len(b) == 0 || b[0] == ':' {
		return false
	}
	for len(b) > 0 {
		n := 0
		for n < len(b) && n < 5 && unhex[b[n]] >= 0 {
			n++
		}
		if n < len(b) && b[n] == '.' {
			if !validIPv4(b) {
				return false
			}
			groups += 2
			break
		}
		if n == 0 || n > 4 {
			return false
		}
		groups++
		if b = b[n:]; len(b) == 0 {
			break
		}
		if b[0] != ':' || len(b) == 1 {
			return false
		}
		if b = b[1:]; b[0] == ':' {
			if double {
				return false
			}
			double, b = true, b[1:]
		}
	}
	return groups == 8 || double && groups < 8
}

func validIPv4(b []byte) bool {
	for part := 0; part < 4; part++ {
		n, v := 0, 0
		for n < len(b) && b[n] >= '0' && b[n] <= '9' {
			v = v*10 + int(b[n]-'0')
			if n++; n > 3 || v > 255 || n > 1 && b[0] == '0' {
				return false
			}
		}
		if n == 0 {
			return false
		}
		if b = b[n:]; part < 3 {
			if len(b) == 0 || b[0] != '.' {
				return false
			}
			b = b[1:]
		}
	}
	return len(b) == 0
}
