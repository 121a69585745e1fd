package loop

import "io"

// copyBuffer is what copying holds for as long as it lasts.
const copyBuffer = 64 << 10

// copyN is Splice by way of a buffer.
func copyN(dst, src *Conn, n int64) (moved int64, err error) {
	b := make([]byte, copyBuffer)
	for moved != n {
		if n >= 0 && n-moved < int64(len(b)) {
			b = b[:n-moved]
		}
		k, err := src.Read(b)
		if err == io.EOF && n < 0 {
			return moved, nil
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return moved, err
		}
		if _, err := dst.Write(b[:k]); err != nil {
			return moved, err
		}
		moved += int64(k)
	}
	return moved, nil
}
