package http1

import (
	"encoding/binary"
	"math/bits"
)

// A Field is one field line of a head as offsets in the buffer: the name is buf[Start:NameEnd], the value without the white space
// around it buf[ValueStart:ValueEnd], and the whole line with its CRLF buf[Start:End].
type Field struct {
	Start, NameEnd, ValueStart, ValueEnd, End int32
	Kind                                      Kind
}

// Name is the field's name as it was sent.
func (f *Field) Name(buf []byte) []byte { return buf[f.Start:f.NameEnd] }

// Value is the field's value without the white space around it.
func (f *Field) Value(buf []byte) []byte { return buf[f.ValueStart:f.ValueEnd] }

// progress is where a head is to be read on when it came in part.
type progress struct {
	line  int    // start of the first line that is not read yet
	name  int    // up to where its name has been read, if it has come in part
	text  int    // and its value, or the target or reason of a start line
	phase uint8  // what that line is
	seen  uint64 // kinds met, a bit each
	twice uint64 // kinds met more than once
}

const (
	inStart uint8 = iota
	inFields
	inDone
)

// waits reports whether the line that came in part is still not all there, and nothing is wrong with what came since. It looks at those
// bytes only: else a sender of single bytes would make us read a line of n bytes n times.
func (p *progress) waits(b []byte) bool {
	if p.name == 0 {
		return false
	}
	name := token(b, p.name)
	if name == len(b) {
		p.name = name
		return true
	}
	if b[name] != ':' || name == p.line {
		return false
	}
	i := text(b, max(name+1, p.text))
	if i == len(b) || b[i] == '\r' && i+1 == len(b) {
		p.name, p.text = name, i
		return true
	}
	return false
}

// fields reads field lines up to and with the empty line, adding to fs. end is the offset after the empty line, 0 if it has not come.
func (p *progress) fields(b []byte, fs []Field, most int) (_ []Field, end int, _ fault) {
	if p.waits(b) {
		return fs, 0, none
	}
	pos := p.line
	p.name, p.text = 0, 0
	for {
		name := token(b, pos)
		if name == len(b) {
			p.name = name
			break
		}
		if c := b[name]; c != ':' || name == pos {
			if name == pos && c == '\r' {
				if pos+1 == len(b) {
					break
				}
				if b[pos+1] != '\n' {
					return fs, 0, bareCR
				}
				p.line = pos
				return fs, pos + 2, none
			}
			return fs, 0, nameFault(b, pos, name)
		}
		value := name + 1
		for value < len(b) && (b[value] == ' ' || b[value] == '\t') {
			value++
		}
		i := text(b, value)
		if i+1 >= len(b) {
			if i < len(b) && b[i] != '\r' {
				return fs, 0, faultOf(b[i])
			}
			p.name, p.text = name, i
			break
		}
		if b[i] != '\r' || b[i+1] != '\n' {
			return fs, 0, faultOf(b[i])
		}
		if len(fs) >= most {
			return fs, 0, tooManyFields
		}
		last := i
		for last > value && (b[last-1] == ' ' || b[last-1] == '\t') {
			last--
		}
		k := kindOf(b[pos:name])
		p.twice |= p.seen & k.bit()
		p.seen |= k.bit()
		fs = append(fs, Field{int32(pos), int32(name), int32(value), int32(last), int32(i + 2), k})
		pos = i + 2
	}
	p.line = pos
	return fs, 0, none
}

// nameFault names what is wrong with the line at pos, whose byte at i is neither of a name nor the colon after one.
func nameFault(b []byte, pos, i int) fault {
	switch c := b[i]; {
	case c == ' ' || c == '\t':
		if i == pos {
			return obsFold
		}
		return spaceBeforeColon
	case c != '\r' && c < ' ', c == 0x7f:
		return faultOf(c)
	}
	return badName // also a line without a colon: whether LF follows its CR does not matter
}

const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
	lows  = 0x7f * ones
)

// token is the offset of the first byte from i on that no token holds, len(b) if there is none. Eight bytes at a time it knows
// letters and '-' only, which most names are made of; a table knows the others.
func token(b []byte, i int) int {
	for {
		for i+8 <= len(b) {
			x := binary.LittleEndian.Uint64(b[i:])
			l := (x | lower) & lows
			letter := (l + (0x80-'a')*ones) &^ (l + (0x7f-'z')*ones)
			dash := ^((x&lows ^ '-'*ones) + lows)
			if bad := ^(letter | dash) | x; bad&highs != 0 {
				i += bits.TrailingZeros64(bad&highs) >> 3
				break
			}
			i += 8
		}
		for {
			if i >= len(b) || b[i] == ':' || !isToken[b[i]] {
				return i
			}
			i++
			if i+8 <= len(b) {
				break
			}
		}
	}
}

// text is the offset of the first control byte other than HTAB from i on, len(b) if there is none.
func text(b []byte, i int) int {
	for i+8 <= len(b) {
		x := binary.LittleEndian.Uint64(b[i:])
		// High bits where a byte is below ' ' or is 0x7f. A carry or borrow may set one more, which the look at the byte sorts out, but
		// hides none.
		bad := ((x - ' '*ones) | (x + ones)) &^ x & highs
		if bad == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(bad) >> 3
		if isControl(b[i]) {
			return i
		}
		i++
	}
	for i < len(b) && !isControl(b[i]) {
		i++
	}
	return i
}

func isControl(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }

var isToken = func() (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = true, true
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	return t
}()

// equalFold reports whether b is s, which is in lower case and of letters, digits and '-', in any case.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if c != s[i] && (c|0x20 != s[i] || c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}
