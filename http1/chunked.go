package http1

import "strconv"

// A Chunked follows a chunked body. Feed is for bytes that are passed on as they are, Next for those that are decoded; use one or the
// other. The zero value is ready, and Reset makes it ready again. It counts only framing, so that bodies of any size cost it the same.
//
// It reads what RFC 9112 7.1 says, without the white space that RFC calls bad: sizes of up to 16 hex digits and 2^63-1, extensions of
// plain tokens and quoted strings, trailers without the fields that frame, route or control a message.
type Chunked struct {
	left     int64 // of this chunk's data; while its size is read, that
	data     int64 // of all chunks so far
	excess   int64 // framing bytes beyond what the data excuses
	trailers int   // trailer bytes
	lines    int   // trailer lines
	ext      int   // bytes of this chunk's extensions
	state    uint8
	digits   uint8
	nameLen  uint8
	failed   fault
	name     [longestKind]byte // start of the trailer name being read
}

const (
	chunkSize uint8 = iota
	chunkExtName
	chunkExtNameMore
	chunkExtValue
	chunkExtToken
	chunkExtQuoted
	chunkExtEscaped
	chunkExtAfter
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	trailerStart
	trailerName
	trailerText
	trailerLF
	chunkedLF
	chunkedDone
)

const (
	// maxExcess bounds framing that carries no data, as net/http does: each chunk excuses 16 bytes and twice its data, so that
	// honest streams of one byte per chunk pass, and long extensions on small chunks do not.
	maxExcess        = 16 << 10
	maxExtension     = 1 << 10 // of one chunk
	maxTrailerBytes  = 8 << 10
	maxTrailerFields = 64
)

// notInTrailers are the fields that decide about framing, routing, the connection or who the client is (RFC 9110 6.5.1).
const notInTrailers = 1<<FieldHost | 1<<FieldConnection | 1<<FieldKeepAlive | 1<<FieldProxyConnection | 1<<FieldContentLength |
	1<<FieldTransferEncoding | 1<<FieldTE | 1<<FieldTrailer | 1<<FieldUpgrade | 1<<FieldHTTP2Settings | 1<<FieldExpect |
	1<<FieldXForwardedFor | 1<<FieldXForwardedProto | 1<<FieldXForwardedHost | 1<<FieldXForwardedPort | 1<<FieldXRealIP |
	1<<FieldForwarded | 1<<FieldXRequestID | 1<<FieldCookie | 1<<FieldSetCookie | 1<<FieldProxyAuthenticate |
	1<<FieldProxyAuthorization | 1<<FieldContentType | 1<<FieldContentEncoding | 1<<FieldXLBDrain | 1<<FieldLookalike

// Reset makes c ready for the next body.
func (c *Chunked) Reset() { *c = Chunked{} }

// Size is how much data there was so far, without framing and trailers.
func (c *Chunked) Size() int64 { return c.data }

// Feed takes the next bytes of the connection. The first n of them belong to the body, framing and trailers included; done says that
// the body ends there. An error is an *Error of Status 400 whoever sent the body, and n then stops before the byte at fault.
func (c *Chunked) Feed(b []byte) (n int, done bool, err error) {
	for n < len(b) {
		if c.state == chunkData {
			k := int64(len(b) - n)
			if k < c.left {
				c.left -= k
				c.data += k
				return len(b), false, nil
			}
			n += int(c.left)
			c.data += c.left
			c.state = chunkDataCR
			continue
		}
		if c.state == chunkedDone {
			break
		}
		if f := c.step(b[n]); f != none {
			return n, false, &requestErrors[f]
		}
		n++
	}
	return n, c.state == chunkedDone, nil
}

// Next takes the next bytes of the connection, up to and with the first run of body data in them, which is data, a part of b. It
// takes n bytes; the caller calls again with the rest. Otherwise as Feed.
func (c *Chunked) Next(b []byte) (data []byte, n int, done bool, err error) {
	for n < len(b) {
		if c.state == chunkData {
			k := int(min(int64(len(b)-n), c.left))
			c.data += int64(k)
			if c.left -= int64(k); c.left == 0 {
				c.state = chunkDataCR
			}
			return b[n : n+k], n + k, false, nil
		}
		if c.state == chunkedDone {
			break
		}
		if f := c.step(b[n]); f != none {
			return nil, n, false, &requestErrors[f]
		}
		n++
	}
	return nil, n, c.state == chunkedDone, nil
}

// step takes one byte of framing. A fault is final.
func (c *Chunked) step(x byte) fault {
	if c.failed == none {
		c.failed = c.take(x)
	}
	return c.failed
}

func (c *Chunked) take(x byte) fault {
	switch c.state {
	case chunkSize:
		return c.size(x)
	case chunkExtName, chunkExtNameMore, chunkExtValue, chunkExtToken, chunkExtQuoted, chunkExtEscaped, chunkExtAfter:
		if c.ext++; c.ext > maxExtension {
			return chunkOverhead
		}
		return c.extension(x)
	case chunkSizeLF:
		if x != '\n' {
			return bareCR
		}
		return c.sized()
	case chunkDataCR:
		c.state = chunkDataLF
		if x != '\r' {
			return badChunkEnd
		}
	case chunkDataLF:
		c.state = chunkSize
		if x != '\n' {
			return badChunkEnd
		}
	default:
		return c.trailer(x)
	}
	return none
}

func (c *Chunked) size(x byte) fault {
	if d := unhex[x]; d >= 0 {
		if c.digits == 0 {
			c.left = 0
		}
		if c.digits == 16 || c.left > 1<<59-1 {
			return badChunkSize
		}
		c.digits++
		c.left = c.left<<4 | int64(d)
		return none
	}
	if c.digits == 0 {
		return badChunkSize
	}
	return c.endSize(x, badChunkSize)
}

// endSize is for the bytes that may follow a size or a whole extension; other is the fault of all others.
func (c *Chunked) endSize(x byte, other fault) fault {
	switch x {
	case '\r':
		c.state = chunkSizeLF
	case ';':
		c.state = chunkExtName
	case '\n':
		return bareLF
	default:
		return other
	}
	return none
}

func (c *Chunked) extension(x byte) fault {
	switch c.state {
	case chunkExtName:
		if !isToken[x] {
			return badChunkExtension
		}
		c.state = chunkExtNameMore
	case chunkExtNameMore:
		if x == '=' {
			c.state = chunkExtValue
		} else if !isToken[x] {
			return c.endSize(x, badChunkExtension)
		}
	case chunkExtValue:
		if x == '"' {
			c.state = chunkExtQuoted
		} else if c.state = chunkExtToken; !isToken[x] {
			return badChunkExtension
		}
	case chunkExtToken:
		if !isToken[x] {
			return c.endSize(x, badChunkExtension)
		}
	case chunkExtQuoted:
		if x == '"' {
			c.state = chunkExtAfter
		} else if x == '\\' {
			c.state = chunkExtEscaped
		} else if isControl(x) {
			return badChunkExtension
		}
	case chunkExtEscaped:
		if c.state = chunkExtQuoted; isControl(x) {
			return badChunkExtension
		}
	case chunkExtAfter:
		return c.endSize(x, badChunkExtension)
	}
	return none
}

// sized is at the end of a chunk's first line.
func (c *Chunked) sized() fault {
	c.excess += int64(c.digits) + int64(c.ext) + 4 - 16
	c.digits, c.ext = 0, 0
	if c.left > maxExcess { // twice the data could overflow, and this is excuse enough
		c.excess = 0
	} else if c.excess = max(0, c.excess-2*c.left); c.excess > maxExcess {
		return chunkOverhead
	}
	if c.state = chunkData; c.left == 0 {
		c.state = trailerStart
	}
	return none
}

func (c *Chunked) trailer(x byte) fault {
	if c.trailers++; c.trailers > maxTrailerBytes {
		return trailerTooLarge
	}
	switch c.state {
	case trailerStart:
		if x == '\r' {
			c.state = chunkedLF
			return none
		}
		if x == ' ' || x == '\t' {
			return obsFold
		}
		if c.lines++; c.lines > maxTrailerFields {
			return trailerTooLarge
		}
		c.state, c.nameLen = trailerName, 0
		return c.trailerNameByte(x)
	case trailerName:
		return c.trailerNameByte(x)
	case trailerText:
		if x == '\r' {
			c.state = trailerLF
		} else if isControl(x) {
			return faultOf(x)
		}
	case trailerLF:
		if c.state = trailerStart; x != '\n' {
			return bareCR
		}
	case chunkedLF:
		if c.state = chunkedDone; x != '\n' {
			return bareCR
		}
	}
	return none
}

func (c *Chunked) trailerNameByte(x byte) fault {
	switch {
	case isToken[x]:
		if int(c.nameLen) < len(c.name) {
			c.name[c.nameLen] = x
		}
		if int(c.nameLen) <= len(c.name) { // one more than fits: a name that is no kind
			c.nameLen++
		}
		return none
	case x == ':' && c.nameLen > 0:
		c.state = trailerText
		if int(c.nameLen) <= len(c.name) && notInTrailers&kindOf(c.name[:c.nameLen]).bit() != 0 {
			return forbiddenTrailer
		}
		return none
	case x == ' ' || x == '\t':
		return spaceBeforeColon
	case x == '\n':
		return bareLF
	}
	return badName
}

// AppendChunk appends the line that announces a chunk of size bytes, which must not be 0; AppendChunkEnd must follow the data.
func AppendChunk(dst []byte, size int) []byte {
	return append(strconv.AppendUint(dst, uint64(size), 16), '\r', '\n')
}

// AppendChunkEnd appends what ends a chunk's data.
func AppendChunkEnd(dst []byte) []byte { return append(dst, '\r', '\n') }

// AppendLastChunk appends the end of a chunked body without trailers.
func AppendLastChunk(dst []byte) []byte { return append(dst, "0\r\n\r\n"...) }
