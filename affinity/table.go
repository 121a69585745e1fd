package affinity

import (
	"sync"
	"sync/atomic"
)

// ways is how many sessions a set holds: their keys fill a cache line.
const ways = 8

// table remembers who served a session. Any loop may call get and put at any time: there is no lock, and reading writes
// nothing but, now and then, when a session was last used.
//
// It is a cache of fixed size. A key has two sets that it may be in, of ways places each, and pushes out the longest
// unused of both when no place is free or has expired. With two sets to choose from, places that are free are found
// until the table is about three quarters full.
//
// An entry never changes but for its time: to send a session elsewhere is to put another entry in its place. keys only
// spare the look at entries; entry.key decides, so a reader that comes between the two writes finds nothing, as if it had
// come a little earlier.
type table struct {
	secret secret
	ttl    atomic.Int64 // ns since the last use

	make sync.Once
	mask uint64
	sets atomic.Pointer[[]set] // nil until the first put: most pools never learn anything

	evicted atomic.Uint64 // sessions that were pushed out before their time
}

type set struct {
	keys    [ways]atomic.Uint64
	entries [ways]atomic.Pointer[entry]
}

type entry struct {
	key  uint64
	ref  *ref
	used atomic.Int64 // ns
}

// newTable makes a table of the least power of two that is not less than size, and not less than 64.
func newTable(size int, ttl int64, s secret) *table {
	n := uint64(64)
	for n < uint64(size) {
		n *= 2
	}
	t := &table{secret: s, mask: n/ways - 1}
	t.ttl.Store(ttl)
	return t
}

// capacity is the most sessions that t remembers.
func (t *table) capacity() int { return int(t.mask+1) * ways }

// key is what a session is remembered under; 0 stands for a free place.
func (t *table) key(id []byte) uint64 { return max(t.secret.sum(id), 1) }

func (t *table) pair(sets []set, key uint64) [2]*set {
	return [2]*set{&sets[key&t.mask], &sets[key>>32&t.mask]}
}

// get is who serves the session, nil when nobody knows. It counts as use.
func (t *table) get(key uint64, now int64) *ref {
	sets := t.sets.Load()
	if sets == nil {
		return nil
	}
	for _, s := range t.pair(*sets, key) {
		for i := range s.keys {
			if s.keys[i].Load() != key {
				continue
			}
			e := s.entries[i].Load()
			if e == nil || e.key != key {
				continue
			}
			if now-e.used.Load() > t.ttl.Load() {
				return nil
			}
			t.touch(e, now)
			return e.ref
		}
	}
	return nil
}

// touch renews e. Times are rounded to a sixteenth of the TTL, and of inUse, so that the polls of a session that come in on several
// loops do not pass a cache line back and forth.
func (t *table) touch(e *entry, now int64) {
	if now-e.used.Load() > min(t.ttl.Load(), int64(inUse))/16 {
		e.used.Store(now)
	}
}

// rest makes a session one that is not in use, but remembered.
func (t *table) rest(key uint64, now int64) {
	sets := t.sets.Load()
	if sets == nil {
		return
	}
	for _, s := range t.pair(*sets, key) {
		for i := range s.entries {
			if e := s.entries[i].Load(); e != nil && e.key == key && now-e.used.Load() < int64(inUse) {
				e.used.Store(now - int64(inUse))
				e.ref.bound.Add(-1)
			}
		}
	}
}

// put remembers that r serves the session, and reports whether that is news.
func (t *table) put(key uint64, r *ref, now int64) bool { return t.putUsed(key, r, now, now) }

func (t *table) putUsed(key uint64, r *ref, used, now int64) bool {
	t.make.Do(func() {
		s := make([]set, t.mask+1)
		t.sets.Store(&s)
	})
	var fresh *entry
	for {
		s, i, old := t.place(key, now)
		if old != nil && old.key == key && old.ref == r {
			t.touch(old, now)
			return false
		}
		if fresh == nil {
			fresh = &entry{key: key, ref: r}
			fresh.used.Store(used)
		}
		// Whoever was faster in this place has made it another's: look again.
		if !s.entries[i].CompareAndSwap(old, fresh) {
			continue
		}
		s.label(i)
		r.bound.Add(1)
		if old != nil {
			old.ref.bound.Add(-1)
			if old.key != key && now-old.used.Load() <= t.ttl.Load() {
				t.evicted.Add(1)
			}
		}
		return true
	}
}

// place is where key is or best goes, and who is there.
func (t *table) place(key uint64, now int64) (at *set, way int, there *entry) {
	pair := t.pair(*t.sets.Load(), key)
	most := -1
	var idle *entry
	for _, s := range pair {
		free, vacant := 0, -1
		for i := range s.entries {
			e := s.entries[i].Load()
			switch {
			case e == nil:
				free++
				vacant = i
			case e.key == key:
				return s, i, e
			case most < 0 && (idle == nil || e.used.Load() < idle.used.Load()):
				at, way, idle = s, i, e
			}
		}
		if free > max(most, 0) {
			at, way, most = s, vacant, free
		}
	}
	if most > 0 {
		return at, way, nil
	}
	return at, way, idle
}

// label makes the key of a place that of its entry. Several may be at it at once: the one who writes last looks last, and
// goes on until both agree.
func (s *set) label(i int) {
	for {
		e := s.entries[i].Load()
		key := uint64(0)
		if e != nil {
			key = e.key
		}
		s.keys[i].Store(key)
		if s.entries[i].Load() == e {
			return
		}
	}
}

// sweep forgets what has expired, and adds up who has what is in use.
func (t *table) sweep(now int64, left map[*ref]int64) {
	sets := t.sets.Load()
	if sets == nil {
		return
	}
	for n := range *sets {
		s := &(*sets)[n]
		for i := range s.entries {
			e := s.entries[i].Load()
			if e == nil {
				continue
			}
			if idle := now - e.used.Load(); idle <= t.ttl.Load() {
				if idle < int64(inUse) {
					left[e.ref]++
				}
				continue
			}
			if s.entries[i].CompareAndSwap(e, nil) {
				s.label(i)
			}
		}
	}
}

// each calls f for all that has not expired.
func (t *table) each(now int64, f func(*entry)) {
	sets := t.sets.Load()
	if sets == nil {
		return
	}
	for n := range *sets {
		for i := range (*sets)[n].entries {
			if e := (*sets)[n].entries[i].Load(); e != nil && now-e.used.Load() <= t.ttl.Load() {
				f(e)
			}
		}
	}
}
