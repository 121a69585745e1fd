package loop

import (
	"math/bits"
	"time"
)

// The wheel has four levels of 64 slots: ticks of 4 ms for 256 ms, then slots of 256 ms (16 s), 16 s
// (17 min) and 17 min (18 h). A timer sits in the coarsest level that its distance asks for and moves
// down as its time comes near, so that arming and stopping are a list insertion and removal, and one
// that is stopped or moved in time, as nearly all are, costs no more than that.
const (
	tick      = int64(4 * time.Millisecond)
	slotBits  = 6
	slots     = 1 << slotBits
	levels    = 4
	farthest  = int64(1) << (levels * slotBits) // ticks
	timerIdle = -1
)

// Timer is an entry of a loop's timer wheel. It belongs to one loop and is not safe for use elsewhere.
// The zero value is idle.
type Timer struct {
	next, prev *Timer // circular within its slot; nil when idle
	when       int64  // ns on the loop's clock
	slot       int16  // level*slots + index, to clear the level's bit when the slot empties
	target     timerTarget
}

type timerTarget interface{ fire(t *Timer, now int64) }

// Armed reports whether the timer waits to fire.
func (t *Timer) Armed() bool { return t.next != nil }

// wheel never fires early, and at most one tick and a round late.
type wheel struct {
	tick  int64 // all ticks up to this one have fired
	used  [levels]uint64
	heads [levels * slots]Timer
	n     int
}

func (w *wheel) init(now int64) {
	w.tick = now / tick
	for i := range w.heads {
		h := &w.heads[i]
		h.next, h.prev = h, h
	}
}

// arm sets t to fire at when, wherever it was before.
func (w *wheel) arm(t *Timer, when int64) {
	if t.next != nil {
		w.stop(t)
	}
	t.when = when
	w.insert(t, w.tick+1)
}

// insert puts t where it fires at the tick of its time, or at the earliest tick if that is later.
func (w *wheel) insert(t *Timer, earliest int64) {
	at := max((t.when-1)/tick+1, earliest) // rounded up: never early
	d := at - w.tick
	if d >= farthest {
		d = farthest - 1
		at = w.tick + d
	}
	level := 0
	for d >= slots {
		d >>= slotBits
		level++
	}
	i := level*slots + int(at>>(level*slotBits))&(slots-1)
	h := &w.heads[i]
	t.slot = int16(i)
	t.prev, t.next = h.prev, h
	h.prev.next, h.prev = t, t
	w.used[level] |= 1 << (i & (slots - 1))
	w.n++
}

func (w *wheel) stop(t *Timer) {
	if t.next == nil {
		return
	}
	t.prev.next, t.next.prev = t.next, t.prev
	t.next, t.prev = nil, nil
	w.n--
	if h := &w.heads[t.slot]; h.next == h {
		w.used[t.slot>>slotBits] &^= 1 << (t.slot & (slots - 1))
	}
}

// advance fires every timer whose time has come. A timer may arm or stop any timer, itself included.
func (w *wheel) advance(now int64) {
	end := now / tick
	if w.n == 0 {
		w.tick = max(w.tick, end)
		return
	}
	for w.tick < end {
		// Jump over ticks at which nothing can happen: no slot of the first level is used before the
		// next cascade.
		if w.used[0] == 0 {
			next := (w.tick | (slots - 1)) // the last tick before a cascade
			if next >= end {
				w.tick = end
				return
			}
			w.tick = max(w.tick, next)
		}
		w.tick++
		if w.tick&(slots-1) == 0 {
			w.cascade(1)
		}
		w.fire(int(w.tick&(slots-1)), now)
		if w.n == 0 {
			w.tick = end
			return
		}
	}
}

// refire goes on with the present tick, which a timer that panicked left half done.
func (w *wheel) refire(now int64) { w.fire(int(w.tick&(slots-1)), now) }

// cascade moves the timers of the level's present slot to finer ones.
func (w *wheel) cascade(level int) {
	if level == levels {
		return
	}
	i := int(w.tick>>(level*slotBits)) & (slots - 1)
	if i == 0 {
		w.cascade(level + 1)
	}
	h := &w.heads[level*slots+i]
	t := h.next
	h.next, h.prev = h, h
	w.used[level] &^= 1 << i
	for t != h {
		next := t.next
		w.n--
		w.insert(t, w.tick) // this tick's slot fires next, so it may still be used
		t = next
	}
}

func (w *wheel) fire(i int, now int64) {
	h := &w.heads[i]
	for h.next != h {
		t := h.next
		w.stop(t)
		t.target.fire(t, now)
	}
}

// wait is how long the loop may sleep, in ns; -1 for ever.
func (w *wheel) wait(now int64) int64 {
	if w.n == 0 {
		return -1
	}
	next := int64(-1)
	for level := range levels {
		u := w.used[level]
		if u == 0 {
			continue
		}
		shift := level * slotBits
		cur := w.tick >> shift
		// Slots are looked at in the order in which they come round, beginning after the present one.
		ahead := int64(bits.TrailingZeros64(bits.RotateLeft64(u, -int(cur+1)&(slots-1)))) + 1
		at := (cur + ahead) << shift
		if next < 0 || at < next {
			next = at
		}
	}
	return max(0, next*tick-now)
}
