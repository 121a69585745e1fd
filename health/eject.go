package health

import (
	"math"
	"time"
)

// window counts the faults of a backend in the last while, and its requests since the first of them. Requests before
// that do not matter: a backend that has served a million and then answers nobody has failed.
//
// Nothing is counted while all goes well. How many requests there were is the difference of a count that exists anyway.
type window struct {
	slots [windowSlots]windowSlot
}

const windowSlots = 10

type windowSlot struct {
	number int64  // of the slot's time since the clock's beginning
	before uint64 // requests before its first fault
	faults int    // 0: unused
}

// fault books one at time now, ns, total being the requests that ended so far, this one included. It returns the faults
// in the window of the given length, and the requests since the first of them.
func (w *window) fault(now, length int64, total uint64) (faults, requests int) {
	width := max(1, length/windowSlots)
	number := now / width
	s := &w.slots[number%windowSlots]
	if s.faults == 0 || s.number != number {
		*s = windowSlot{number: number, before: total - 1}
	}
	s.faults++
	first := total
	for i := range w.slots {
		if s := &w.slots[i]; s.faults > 0 && s.number > number-windowSlots && s.number <= number {
			faults += s.faults
			first = min(first, s.before)
		}
	}
	return faults, max(faults, int(total-first))
}

// tooMany reports whether so many faults of so many requests are reason to eject.
func (p *Passive) tooMany(faults, requests int) bool {
	return faults >= p.Faults && float64(faults) >= p.Ratio*float64(requests)
}

// mayEject is how many of n backends that are not known to be dead may be out on suspicion at a time: never half of them,
// but one of two.
func mayEject(n int) int {
	if n < 2 {
		return 0
	}
	return max(1, (n-1)/2)
}

// out is for how long a backend is ejected that was n times before; chance is in [0, 1) and spreads it by a fifth in
// both directions, so that backends that failed together do not come back together.
func (p *Passive) out(n int, chance float64) time.Duration {
	d := math.Min(float64(p.Out)*math.Pow(2, float64(n)), float64(p.MaxOut))
	return time.Duration(d * (.8 + .4*chance))
}

// forgive is after how long in service one ejection is forgotten.
const forgive = time.Minute

// remembered is what is left of n ejections after so long in service, which is negative when the clock was set back between
// two processes of which one took over from the other.
func remembered(n int, inService time.Duration) int {
	return max(0, n-int(max(0, inService)/forgive))
}

// trusted is up to how many ejections in a short time probes alone bring a backend back early. One that flaps has
// passed probes each time.
const trusted = 3

// ejection is what holds a backend out.
type ejection struct {
	until   time.Time
	dead    bool // it refused a connection
	connect bool // it could not be connected to: a probe that connects says that this is over
	failed  bool // a probe failed since
	good    int  // probes that passed, in a row
	nth     int  // which one this is within a short time, from 1
}

// probed books a probe and reports whether the ejection is over by it. Where all probes pass while requests fail, they
// look at something else than what is wrong, and only time counts.
func (e *ejection) probed(ok bool, now time.Time, rise int, hungry bool) bool {
	if !ok {
		e.failed = true
		e.good = 0
		return false
	}
	e.good++
	switch {
	case hungry:
		return true
	case e.good < rise:
		return false
	case e.dead && !now.Before(e.until):
		return true
	}
	return e.nth <= trusted && (e.dead || e.connect || e.failed)
}

// over reports whether the ejection has ended by time. Whoever refused connections has to accept one first.
func (e *ejection) over(now time.Time) bool { return !e.dead && !now.Before(e.until) }
