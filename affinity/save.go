package affinity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
)

// A saved state is for the process that takes over, so a version only tells those apart that cannot read each other's.
//
//	magic, secret of 16 bytes, name of the application's cookie
//	number of backends, their names
//	for Socket.IO, then for the application's cookie: number of sessions; of each its key of 8 bytes, the number of its
//	backend, and the ns since its last use
//
// Numbers are uvarints, strings have their length before them.
const magic = "lb affinity 1\n"

// Save is what is remembered, for Load in another process; nil when that is nothing. It may be called while requests are served; now is the time of
// the loops.
func (a *Affinity) Save(now int64) []byte {
	type saved struct {
		key  uint64
		ref  *ref
		idle int64
	}
	var all [2][]saved
	refs := map[*ref]uint64{}
	var names []string
	for i, t := range []*table{a.sids, a.learned} {
		if t == nil {
			continue
		}
		t.each(now, func(e *entry) {
			if _, ok := refs[e.ref]; !ok {
				refs[e.ref] = uint64(len(names))
				names = append(names, e.ref.name)
			}
			all[i] = append(all[i], saved{e.key, e.ref, max(now-e.used.Load(), 0)})
		})
		// The longest unused first, so that a smaller table keeps the others.
		sort.Slice(all[i], func(x, y int) bool { return all[i][x].idle > all[i][y].idle })
	}
	if len(all[0])+len(all[1]) == 0 {
		return nil
	}
	b := []byte(magic)
	b = binary.LittleEndian.AppendUint64(b, a.memory.secret.k0)
	b = binary.LittleEndian.AppendUint64(b, a.memory.secret.k1)
	b = appendString(b, a.opt.AppCookie)
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, n := range names {
		b = appendString(b, n)
	}
	for _, list := range all {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, s := range list {
			b = binary.LittleEndian.AppendUint64(b, s.key)
			b = binary.AppendUvarint(b, refs[s.ref])
			b = binary.AppendUvarint(b, uint64(s.idle))
		}
	}
	return b
}

// Load makes a remember what another process has Saved, before a serves any request. What a is not configured for is
// passed over. After an error a is as it was, and good to use.
func (a *Affinity) Load(state []byte, now int64) error {
	r := reader{b: state}
	if string(r.next(len(magic))) != magic {
		return errors.New("affinity: this is no saved state, or of another version")
	}
	var s [16]byte
	copy(s[:], r.next(16))
	cookie := r.string()
	names := make([]string, 0, 16)
	for n := r.count(1); n > 0; n-- {
		names = append(names, r.string())
	}
	type saved struct {
		key, ref uint64
		idle     int64
	}
	var all [2][]saved
	for i := range all {
		for n := r.count(10); n > 0; n-- {
			e := saved{binary.LittleEndian.Uint64(r.next(8)), r.uvarint(), int64(r.uvarint() & (1<<63 - 1))}
			if e.ref >= uint64(len(names)) {
				r.bad = true
				e.ref = 0
			}
			all[i] = append(all[i], e)
		}
	}
	if r.bad || len(r.b) > 0 {
		return fmt.Errorf("affinity: a saved state of %d bytes makes no sense", len(state))
	}

	m := a.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	m.secret = secretOf(s)
	refs := make([]*ref, len(names))
	for i, name := range names {
		if refs[i] = m.refs[name]; refs[i] == nil {
			refs[i] = &ref{name: name}
			refs[i].seen.Store(now)
			m.refs[name] = refs[i]
		}
	}
	fill := func(t *table, list []saved) *table {
		if t == nil {
			return nil
		}
		t = newTable(t.capacity(), t.ttl.Load(), m.secret)
		for _, e := range list {
			if e.idle <= t.ttl.Load() {
				t.putUsed(max(e.key, 1), refs[e.ref], now-e.idle, now)
			}
		}
		return t
	}
	a.sids = fill(a.sids, all[0])
	if a.opt.AppCookie != cookie {
		all[1] = nil
	}
	a.learned = fill(a.learned, all[1])
	m.sids, m.learned = a.sids, a.learned
	return nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader reads a saved state; when it is too short, zeros and bad.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) next(n int) []byte {
	if n > len(r.b) {
		r.bad = true
		r.b = nil
		return make([]byte, min(n, 16))
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads how many things of at least size bytes follow.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) string() string { return string(r.next(r.count(1))) }
