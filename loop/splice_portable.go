//go:build !linux || lb_portable

package loop

// Splice moves what src has, up to most bytes, to dst. It does not wait for src: it returns 0 and nil when there is
// nothing, and io.EOF at the end of the stream. It does wait for dst to take it, as Write does, and says whether it
// had to. After an error dst may miss bytes that src has given; if it was dst's, dst.Flush returns it.
func (l *Loop) Splice(dst, src *Conn, most int) (n int, waited bool, err error) {
	if err := dst.Flush(); err != nil {
		return 0, false, err
	}
	return l.copySome(dst, src, most)
}
