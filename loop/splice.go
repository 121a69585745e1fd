package loop

// SlowSplice is how much to move at a time to a peer that has to be waited for.
const SlowSplice = 64 << 10

// copySome is Splice by way of a buffer.
func (l *Loop) copySome(dst, src *Conn, most int) (n int, waited bool, err error) {
	b := make([]byte, min(most, SlowSplice))
	if n, err = src.TryRead(b); n == 0 || err != nil {
		return 0, false, err
	}
	round := l.round
	_, err = dst.Write(b[:n])
	return n, l.round != round, err
}
