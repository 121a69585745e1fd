package affinity

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"io"
	"sync"
)

const (
	// maxAnswer is how much of an answer is looked at, as it came and again decoded. The open packet comes first and has some
	// 120 bytes; what may follow in the same answer is the application's.
	maxAnswer = 4096
	// maxInflates is how often the beginning of a compressed answer is decoded before all of it has come.
	maxInflates = 32
)

// handshake reads the answer to a request that begins a session. Most come in one piece and are read where they are.
type handshake struct {
	asked   bool
	reading bool
	found   bool
	coding  coding
	tries   uint8
	buf     *answer // nil until it is needed
}

type coding uint8

const (
	identity coding = iota
	gzipped
	deflated
	unreadable // the standard library has no Brotli and no Zstandard; nobody compresses so who was asked for identity
)

// answer is the beginning of an answer that came in pieces, or has to be decoded.
type answer struct {
	in    [maxAnswer]byte
	n     int
	plain [maxAnswer]byte
	esc   [maxAnswer]byte
	src   bytes.Reader
	gzip  gzip.Reader
	flate io.ReadCloser
}

var answers = sync.Pool{New: func() any { return new(answer) }}

func (h *handshake) begin(encoding []byte) {
	h.end()
	h.found, h.tries = false, 0
	h.coding = codingOf(encoding)
	h.reading = h.coding != unreadable
}

func codingOf(encoding []byte) coding {
	e := trim(encoding)
	switch {
	case len(e) == 0 || bytes.EqualFold(e, []byte("identity")):
		return identity
	case bytes.EqualFold(e, []byte("gzip")) || bytes.EqualFold(e, []byte("x-gzip")):
		return gzipped
	case bytes.EqualFold(e, []byte("deflate")):
		return deflated
	}
	return unreadable
}

// feed takes the next bytes and returns the session ID once it is there; it lasts until the next call. reading tells
// whether there is a point in more.
func (h *handshake) feed(data []byte, last bool) []byte {
	if len(data) == 0 && !last {
		return nil
	}
	if h.buf == nil && h.coding == identity && (len(data) == 0 || data[0] != '_' && data[0] != '/') {
		sid, v := openPacket(data[:min(len(data), maxAnswer)], nil)
		if h.judge(v, last || len(data) >= maxAnswer) {
			return sid
		}
	}
	if h.buf == nil {
		h.buf = answers.Get().(*answer)
		h.buf.n = 0
	}
	b := h.buf
	b.n += copy(b.in[b.n:], data)
	last = last || b.n == len(b.in)
	plain := b.in[:b.n]
	if h.coding != identity {
		if h.tries++; h.tries >= maxInflates && !last {
			h.tries--
			return nil
		}
		ok := false
		if plain, ok = b.inflate(h.coding); !ok {
			last = true
		}
	}
	sid, v := openPacket(plain, b.esc[:0])
	if !h.judge(v, last || len(plain) == maxAnswer) {
		return nil
	}
	return sid
}

// judge reports whether the reading has ended, by having found something or for good.
func (h *handshake) judge(v verdict, last bool) bool {
	switch {
	case v == found:
		h.found = true
	case v == more && !last:
		return false
	}
	h.reading = false
	return true
}

func (h *handshake) end() {
	h.reading = false
	if h.buf != nil {
		answers.Put(h.buf)
		h.buf = nil
	}
}

// inflate decodes what has come. It is not ok when that is no beginning of anything; what could be decoded before is
// returned all the same.
func (b *answer) inflate(c coding) (plain []byte, ok bool) {
	in := b.in[:b.n]
	b.src.Reset(in)
	var r io.Reader
	if c == gzipped {
		if err := b.gzip.Reset(&b.src); err != nil {
			return nil, err == io.EOF || err == io.ErrUnexpectedEOF
		}
		r = &b.gzip
	} else {
		// "deflate" is the zlib format (RFC 9110 8.4.1.2), but some send what is inside of it. The two bytes of zlib's
		// header give it away: method 8, and a multiple of 31.
		if len(in) < 2 {
			return nil, true
		}
		if in[0]&0x0f == 8 && (int(in[0])<<8|int(in[1]))%31 == 0 {
			b.src.Reset(in[2:])
		}
		if b.flate == nil {
			b.flate = flate.NewReader(&b.src)
		} else if err := b.flate.(flate.Resetter).Reset(&b.src, nil); err != nil {
			return nil, false
		}
		r = b.flate
	}
	n, err := io.ReadFull(r, b.plain[:])
	return b.plain[:n], err == nil || err == io.EOF || err == io.ErrUnexpectedEOF
}
