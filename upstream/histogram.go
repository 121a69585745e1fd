package upstream

import (
	"math"
	"math/bits"
	"slices"
)

// A Histogram counts durations on a grid that is the union of two: the bounds of a Prometheus native histogram of
// schema 3 (powers of 2^(1/8), buckets 9 % wide) and the bounds of the classic one. Both are exported from one
// increment, and exactly: each classic or native bucket is a sum of whole cells.
const (
	NativeSchema = 3
	nativeLo     = -115 // index of the zero bucket's upper bound: 2^(-115/8) s = 47 µs
	nativeHi     = 56   // index of the last bucket: up to 2^(56/8) s = 128 s
	cells        = nativeHi - nativeLo + 1 + 12 + 1
)

// NativeZeroThreshold is the width of the native zero bucket in seconds: what is faster is counted there.
var NativeZeroThreshold = math.Exp2(nativeLo / 8.)

// ClassicBounds are the upper bounds of the classic buckets, in seconds.
var ClassicBounds = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// grid is laid out once, at start.
var grid = layGrid()

type gridTable struct {
	upper   [cells]int64          // ns, inclusive; the last is math.MaxInt64
	native  [cells]int16          // native index of each cell
	classic [cells]uint8          // classic bucket of each cell
	start   [64 * subcells]uint16 // by leading bits of the duration: the first cell that it may be in
}

const (
	subbits  = 4
	subcells = 1 << subbits
)

func layGrid() *gridTable {
	g := new(gridTable)
	bounds := slices.Clone(ClassicBounds)
	for i := nativeLo; i <= nativeHi; i++ {
		bounds = append(bounds, math.Exp2(float64(i)/8))
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	if len(bounds) != cells-1 {
		panic("upstream: grid size")
	}
	// An integer is at most b exactly when it is at most b rounded down. The classic bounds are whole ns, but their
	// products as float64 need not be.
	for i, b := range bounds {
		ns := b * 1e9
		if r := math.Round(ns); math.Abs(ns-r) < 1e-6 {
			ns = r
		}
		g.upper[i] = int64(math.Floor(ns))
	}
	g.upper[cells-1] = math.MaxInt64
	for i := range g.upper {
		b := math.Inf(1)
		if i < len(bounds) {
			b = bounds[i]
		}
		g.classic[i] = uint8(len(ClassicBounds))
		if j, _ := slices.BinarySearch(ClassicBounds, b); j < len(ClassicBounds) {
			g.classic[i] = uint8(j)
		}
		g.native[i] = nativeHi + 1
		for n := nativeLo; n <= nativeHi; n++ {
			if b <= math.Exp2(float64(n)/8) {
				g.native[i] = int16(n)
				break
			}
		}
	}
	for k := range g.start {
		exp, sub := k/subcells, k%subcells
		if exp < subbits || exp > 62 {
			continue // below the first bound, or not a duration
		}
		least := int64(1)<<exp + int64(sub)<<(exp-subbits)
		for g.upper[g.start[k]] < least {
			g.start[k]++
		}
	}
	return g
}

// Histogram counts durations. One goroutine at a time observes; any may read, by HistogramSnapshot.Add.
type Histogram struct {
	cell [cells]Counter
	sum  Counter // ns
}

// Observe counts a duration of ns nanoseconds.
func (h *Histogram) Observe(ns int64) {
	ns = max(ns, 0)
	h.cell[cellOf(ns)].Inc()
	h.sum.Add(uint64(ns))
}

// cellOf finds the cell of ns: the leading bits give the first candidate, of which there are at most a few.
func cellOf(ns int64) int {
	if ns <= grid.upper[0] {
		return 0
	}
	exp := bits.Len64(uint64(ns)) - 1 // >= 15 here
	k := exp<<subbits | int(ns>>(exp-subbits))&(subcells-1)
	i := int(grid.start[k&(64*subcells-1)])
	for ns > grid.upper[i] {
		i++
	}
	return i
}

// HistogramSnapshot is a sum of histograms, to be read at leisure.
type HistogramSnapshot struct {
	cell [cells]uint64
	sum  uint64
}

// Add adds what h holds now. An observation made meanwhile may be in the sum of durations and not yet in a cell.
func (s *HistogramSnapshot) Add(h *Histogram) {
	for i := range h.cell {
		s.cell[i] += h.cell[i].Load()
	}
	s.sum += h.sum.Load()
}

// AddDifference adds the observations by which h is more than was, an earlier snapshot of the same.
func (s *HistogramSnapshot) AddDifference(h, was *HistogramSnapshot) {
	for i := range s.cell {
		s.cell[i] += h.cell[i] - was.cell[i]
	}
	s.sum += h.sum - was.sum
}

// Count is the number of observations.
func (s *HistogramSnapshot) Count() (n uint64) {
	for _, c := range s.cell {
		n += c
	}
	return n
}

// Sum is the sum of all observed durations, in seconds.
func (s *HistogramSnapshot) Sum() float64 { return float64(s.sum) / 1e9 }

// Classic calls f with each of ClassicBounds and the number of observations up to it, cumulative as Prometheus wants
// it. The +Inf bucket is Count.
func (s *HistogramSnapshot) Classic(f func(bound float64, cumulative uint64)) {
	i, n := 0, uint64(0)
	for j, b := range ClassicBounds {
		for ; i < cells && int(grid.classic[i]) <= j; i++ {
			n += s.cell[i]
		}
		f(b, n)
	}
}

// Zero is the count of the native zero bucket: observations up to NativeZeroThreshold.
func (s *HistogramSnapshot) Zero() uint64 { return s.cell[0] }

// Native calls f with each native bucket that is not empty, in rising order: index i is (2^((i-1)/8), 2^(i/8)]
// seconds. What took more than 128 s is counted in the bucket after that bound.
func (s *HistogramSnapshot) Native(f func(index int, count uint64)) {
	for i := 1; i < cells; {
		index, n := grid.native[i], uint64(0)
		for ; i < cells && grid.native[i] == index; i++ {
			n += s.cell[i]
		}
		if n > 0 {
			f(int(index), n)
		}
	}
}

// Quantile estimates the duration in seconds that a share q of the observations does not exceed: the upper bound of
// its cell, so at most 9 % too much. It is 0 without observations.
func (s *HistogramSnapshot) Quantile(q float64) float64 {
	rank := uint64(math.Ceil(q * float64(s.Count())))
	var n uint64
	for i, c := range s.cell {
		if n += c; c > 0 && n >= rank {
			return float64(grid.upper[min(i, cells-2)]) / 1e9
		}
	}
	return 0
}

// Cells calls f with the upper bound in nanoseconds of each cell that is not empty, and with what is in it, in rising
// order. Cells are at most 9 % wide; the last has no bound, math.MaxInt64.
func (s *HistogramSnapshot) Cells(f func(upper int64, count uint64)) {
	for i, n := range s.cell {
		if n > 0 {
			f(grid.upper[i], n)
		}
	}
}
