//go:build !linux || lb_portable

package loop

// Splice moves n bytes (n < 0: all up to the end of the stream) from src to dst and returns how many dst's socket
// has taken. It waits as Read and Write do, and ends with io.ErrUnexpectedEOF if src ends before n bytes.
// After an error dst may miss bytes that src has given.
func (l *Loop) Splice(dst, src *Conn, n int64) (moved int64, err error) {
	if err := dst.Flush(); err != nil {
		return 0, err
	}
	return copyN(dst, src, n)
}
