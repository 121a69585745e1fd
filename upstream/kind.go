package upstream

import (
	"bytes"
	"sync/atomic"
)

// Kind is the sort of a request: all of one method and path are of a kind, where what stands for something, such as a
// number or a UUID, may be anything. Two sorts may have the same Kind. 0 is none.
type Kind uint16

// KindOf is the kind of a request. A part of the path that has a digit in it stands for something.
func KindOf(method, path []byte) Kind {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	for _, c := range method {
		h = (h ^ uint64(c)) * prime
	}
	part := h
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case c == '/':
			h = (h ^ '/') * prime
			part = h
			continue
		case c >= '0' && c <= '9':
			h = (part ^ '0') * prime
			n := bytes.IndexByte(path[i:], '/')
			if n < 0 {
				n = len(path) - i
			}
			i += n - 1
			continue
		}
		h = (h ^ uint64(c)) * prime
	}
	h = (h ^ h>>32) * 0xd6e8feb86659fd93 // FNV's last bytes reach few bits
	return Kind(h>>48 | 1)
}

// waits is what a pool knows of kinds of requests: whether they wait for something else than the attention of the
// backend, as long polls and streams do. Such a request is parked from the start: it takes no place from those that compute, and
// a thousand of them that come at once, as after a restart, hold up nobody. So are those of a kind of which nothing is known
// yet: if they do compute, the first answer tells.
//
// A kind counts up with each request that was old enough to be parked and was overtaken, or whose answer is a stream, and
// down by more with each that was answered otherwise: at least two in three must wait. To take long is not enough: what
// computes for a second does, too.
type waits [kindPlaces]atomic.Int32

// The counts of a kind.
const (
	kindNew   = 0
	kindQuick = 1 // the least that is known
	kindWaits = 4 // from here on it is one that waits
	kindMost  = 9 // more is not remembered, so that a kind that changes is seen soon

	kindLoss   = 2
	kindPlaces = 1 << 10
)

func (w *waits) place(k Kind) *atomic.Int32 { return &w[k/2%kindPlaces] }

// has reports whether requests of kind k wait, as far as is known.
func (w *waits) has(k Kind) bool {
	n := w.place(k).Load()
	return n == kindNew || n >= kindWaits
}

// learn notes whether a request of kind k waited. If another loop is quicker, no harm is done.
func (w *waits) learn(k Kind, waited bool) {
	p := w.place(k)
	switch n := p.Load(); {
	case n == kindNew && waited:
		p.CompareAndSwap(n, kindWaits)
	case waited && n < kindMost:
		p.CompareAndSwap(n, n+1)
	case !waited && n != kindQuick:
		p.CompareAndSwap(n, max(kindQuick, n-kindLoss))
	}
}

// learnWaits notes that l is of a kind that waits. More is not to be learned of it.
func (l *Lease) learnWaits() {
	if l.kind != 0 {
		l.b.pool.waits.learn(l.kind, true)
		l.kind = 0
	}
}

// learnEnd notes what the end of l says of its kind, unless that is known since it was parked.
func (l *Lease) learnEnd(o Outcome) {
	waited := o.Now-l.start >= ParkAfter && l.Overtaken()
	if o.Latency > 0 || waited && !o.Fault.Blames() { // else it might have taken longer
		l.b.pool.waits.learn(l.kind, waited)
	}
}
