package accesslog

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"time"
	"unicode/utf8"
	"unsafe"
)

// fixedRoom is what a line needs beside its fields' values: the keys, the numbers at their longest, the address.
const fixedRoom = 1 << 10

// room is an upper bound of r's line in any format. A byte becomes six at most, as in \u0000.
func (r *Record) room() int {
	n := min(len(r.Method), maxField) + min(len(r.Host), maxField) + min(len(r.Target), maxField) +
		min(len(r.Proto), maxField) + min(len(r.RequestID), maxField) + min(len(r.UserAgent), maxField) +
		min(len(r.Referer), maxField) + min(len(r.Listener), maxField) + min(len(r.Route), maxField) +
		min(len(r.Pool), maxField) + min(len(r.Backend), maxField) + min(len(r.Affinity), maxField) + min(len(r.Reason), maxField)
	return fixedRoom + 6*n
}

// stamp keeps the formatted second that the last line began with; a busy loop formats one a second, not one a line.
type stamp struct {
	sec  int64
	loc  *time.Location
	text []byte
}

// appendJSON adds r as a JSON object and a newline. Keys keep their order; what is unknown is left out.
func appendJSON(dst []byte, r *Record, s *stamp) []byte {
	if sec := r.Time.Unix(); sec != s.sec || s.text == nil {
		s.sec = sec
		s.text = r.Time.UTC().AppendFormat(s.text[:0], `{"time":"2006-01-02T15:04:05.`)
	}
	dst = append(dst, s.text...)
	dst = appendDigits6(dst, r.Time.Nanosecond()/1000)
	dst = append(dst, `Z"`...)
	if r.Client.IsValid() {
		dst = append(dst, `,"client":"`...)
		dst = appendClient(dst, r)
		dst = append(dst, '"')
	}
	dst = appendField(dst, `,"method":"`, r.Method)
	dst = appendField(dst, `,"host":"`, r.Host)
	dst = appendField(dst, `,"path":"`, r.Target)
	dst = appendField(dst, `,"proto":"`, r.Proto)
	dst = append(dst, `,"status":`...)
	dst = appendInt(dst, int64(r.Status))
	dst = append(dst, `,"bytes_out":`...)
	dst = appendInt(dst, r.BytesOut)
	dst = append(dst, `,"bytes_in":`...)
	dst = appendInt(dst, r.BytesIn)
	dst = appendSeconds(dst, `,"total":`, r.Total)
	dst = appendSeconds(dst, `,"connect":`, r.Connect)
	dst = appendSeconds(dst, `,"first_byte":`, r.FirstByte)
	dst = appendField(dst, `,"listener":"`, view(r.Listener))
	dst = appendField(dst, `,"route":"`, view(r.Route))
	dst = appendField(dst, `,"pool":"`, view(r.Pool))
	dst = appendField(dst, `,"backend":"`, view(r.Backend))
	if r.Tries != 0 {
		dst = append(dst, `,"tries":`...)
		dst = appendInt(dst, int64(r.Tries))
	}
	dst = appendField(dst, `,"affinity":"`, view(r.Affinity))
	dst = appendField(dst, `,"reason":"`, view(r.Reason))
	dst = appendField(dst, `,"request_id":"`, r.RequestID)
	dst = appendField(dst, `,"user_agent":"`, r.UserAgent)
	dst = appendField(dst, `,"referer":"`, r.Referer)
	return append(dst, '}', '\n')
}

// appendCombined adds r as nginx's predefined format "combined" does:
//
//	$remote_addr - - [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"
func appendCombined(dst []byte, r *Record, s *stamp) []byte {
	if r.Client.IsValid() {
		dst = appendClient(dst, r)
	} else {
		dst = append(dst, '-')
	}
	if sec, loc := r.Time.Unix(), r.Time.Location(); sec != s.sec || loc != s.loc || s.text == nil {
		s.sec, s.loc = sec, loc
		s.text = r.Time.AppendFormat(s.text[:0], ` - - [02/Jan/2006:15:04:05 -0700] "`)
	}
	dst = append(dst, s.text...)
	if len(r.Method) == 0 && len(r.Target) == 0 {
		dst = append(dst, '-') // what came was no request line
	} else {
		dst = appendHex(dst, r.Method)
		dst = append(dst, ' ')
		dst = appendHex(dst, r.Target)
		dst = append(dst, ' ')
		dst = appendHex(dst, r.Proto)
	}
	dst = append(dst, '"', ' ')
	if r.Status < 100 {
		dst = append(dst, "000"...)
	} else {
		dst = appendInt(dst, int64(r.Status))
	}
	dst = append(dst, ' ')
	dst = appendInt(dst, r.BytesOut)
	dst = appendQuoted(dst, r.Referer)
	dst = appendQuoted(dst, r.UserAgent)
	return append(dst, '\n')
}

func appendQuoted(dst, v []byte) []byte {
	dst = append(dst, ' ', '"')
	if len(v) == 0 {
		dst = append(dst, '-')
	} else {
		dst = appendHex(dst, v)
	}
	return append(dst, '"')
}

// appendClient leaves the zone out: it is a word of the client's own when the address comes from a header field, and
// says nothing outside the host when it does not.
func appendClient(dst []byte, r *Record) []byte {
	return r.Client.Unmap().WithZone("").AppendTo(dst)
}

// appendField adds a key (with its comma, colon and opening quote) and a value, unless the value is empty.
func appendField(dst []byte, key string, v []byte) []byte {
	if len(v) == 0 {
		return dst
	}
	v = v[:min(len(v), maxField)]
	dst = append(dst, key...)
	n := plain(v)
	dst = append(dst, v[:n]...)
	if n < len(v) {
		dst = appendEscaped(dst, v[n:])
	}
	return append(dst, '"')
}

// view gives a string's bytes for reading, without a copy.
func view(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plain is the length of v's beginning that needs no escape in either format: printable ASCII without " and \.
// Eight bytes at a time, by the well-known test for a zero byte (Mycroft, 1987).
func plain(v []byte) int {
	i := 0
	for ; i+8 <= len(v); i += 8 {
		x := binary.LittleEndian.Uint64(v[i:])
		quote, slash := x^(ones*'"'), x^(ones*'\\')
		bad := x | // above 0x7f
			(x + ones) | // 0x7f
			(x-ones*' ')&^x | // below a space
			(quote-ones)&^quote |
			(slash-ones)&^slash
		if bad &= highs; bad != 0 {
			// Carries and borrows go upwards only, so the lowest mark is a true one.
			return i + bits.TrailingZeros64(bad)/8
		}
	}
	for ; i < len(v); i++ {
		if c := v[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			break
		}
	}
	return i
}

const hexDigits = "0123456789abcdef"

// appendEscaped adds v as the inside of a JSON string. Bytes that are no UTF-8 become U+FFFD each, as encoding/json
// has it. Whatever has no visible form (control characters, line separators, marks that turn the direction of text)
// is escaped, so that a line can be shown on a terminal.
func appendEscaped(dst, v []byte) []byte {
	for i := 0; i < len(v); {
		c := v[i]
		if c < utf8.RuneSelf {
			i++
			switch {
			case c == '"' || c == '\\':
				dst = append(dst, '\\', c)
			case c >= ' ' && c != 0x7f:
				dst = append(dst, c)
			case c == '\n':
				dst = append(dst, '\\', 'n')
			case c == '\r':
				dst = append(dst, '\\', 'r')
			case c == '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			continue
		}
		x, n := utf8.DecodeRune(v[i:])
		switch {
		case x == utf8.RuneError && n == 1:
			dst = append(dst, `\ufffd`...)
		case strconv.IsPrint(x):
			dst = append(dst, v[i:i+n]...)
		case x > 0xffff: // twelve bytes for four
			x -= 0x10000
			dst = appendUnit(dst, 0xd800+x>>10)
			dst = appendUnit(dst, 0xdc00+x&0x3ff)
		default:
			dst = appendUnit(dst, x)
		}
		i += n
	}
	return dst
}

func appendUnit(dst []byte, x rune) []byte {
	return append(dst, '\\', 'u', hexDigits[x>>12&15], hexDigits[x>>8&15], hexDigits[x>>4&15], hexDigits[x&15])
}

// appendHex adds v as nginx writes a variable into a log: what is not plain becomes \xHH.
func appendHex(dst, v []byte) []byte {
	const digits = "0123456789ABCDEF"
	v = v[:min(len(v), maxField)]
	for {
		n := plain(v)
		dst = append(dst, v[:n]...)
		if n == len(v) {
			return dst
		}
		dst = append(dst, '\\', 'x', digits[v[n]>>4], digits[v[n]&15])
		v = v[n+1:]
	}
}

// appendSeconds adds a duration in seconds with six decimals, rounded, unless it is negative.
func appendSeconds(dst []byte, key string, d time.Duration) []byte {
	if d < 0 {
		return dst
	}
	dst = append(dst, key...)
	us := (int64(d)/100 + 5) / 10 // halves go up; cannot overflow
	dst = appendInt(dst, us/1e6)
	dst = append(dst, '.')
	return appendDigits6(dst, int(us%1e6))
}

const pairs = "00010203040506070809" + "10111213141516171819" + "20212223242526272829" + "30313233343536373839" +
	"40414243444546474849" + "50515253545556575859" + "60616263646566676869" + "70717273747576777879" +
	"80818283848586878889" + "90919293949596979899"

// appendDigits6 adds 0 <= n < 1e6 with leading zeros.
func appendDigits6(dst []byte, n int) []byte {
	a, b, c := 2*(n/10000), 2*(n/100%100), 2*(n%100)
	return append(dst, pairs[a], pairs[a+1], pairs[b], pairs[b+1], pairs[c], pairs[c+1])
}

func appendInt(dst []byte, n int64) []byte {
	if n >= 0 && n < 10 {
		return append(dst, byte('0'+n))
	}
	return strconv.AppendInt(dst, n, 10)
}
