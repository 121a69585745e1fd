package proxy

import "encoding/binary"

// frames follows the WebSocket frames (RFC 6455 5.2) of a stream, just as far as to know where one ends and the next
// begins: only there may lb say something of its own.
type frames struct {
	head [10]byte // of the frame under way, as far as it has come; a mask does not matter here
	n    uint8
	left uint64 // of the frame's payload and mask

	closed bool // a close frame has begun: nothing may follow it
}

// between reports whether the stream stands between two frames.
func (f *frames) between() bool { return f.n == 0 && f.left == 0 }

// feed takes the next bytes and returns how many of them, from the front, make up whole frames together with what
// came before: 0 if none ends here.
func (f *frames) feed(b []byte) (whole int) {
	for i := 0; i < len(b); {
		if f.left > 0 {
			k := min(f.left, uint64(len(b)-i))
			f.left -= k
			i += int(k)
			if f.left == 0 {
				whole = i
			}
			continue
		}
		f.head[f.n] = b[i]
		f.n++
		i++
		if f.n < 2 || int(f.n) < frameHead(f.head[1]) {
			continue
		}
		switch size := f.head[1] & 0x7f; size {
		case 126:
			f.left = uint64(binary.BigEndian.Uint16(f.head[2:]))
		case 127:
			f.left = binary.BigEndian.Uint64(f.head[2:])
		default:
			f.left = uint64(size)
		}
		if f.head[1]&0x80 != 0 {
			f.left += 4
		}
		f.n = 0
		f.closed = f.closed || f.head[0]&0x0f == 8
		if f.left == 0 {
			whole = i
		}
	}
	return whole
}

// frameHead is the length of a frame's head without its mask, by its second byte.
func frameHead(second byte) int {
	switch second & 0x7f {
	case 126:
		return 4
	case 127:
		return 10
	}
	return 2
}

// restart is the close frame of a server that says 1012, Service Restart: clients connect again, and libraries such as
// Socket.IO's do so by themselves.
var restart = []byte{0x88, 2, 1012 >> 8, 1012 & 0xff}
