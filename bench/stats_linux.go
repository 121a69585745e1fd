package main

import (
	"math/bits"
	"slices"
)

// median of v, the mean of the middle two when their number is even; 0 for none. v is left as it is.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Clone(v)
	slices.Sort(s)
	m := len(s) / 2
	if len(s)%2 == 1 {
		return s[m]
	}
	return (s[m-1] + s[m]) / 2
}

// ratios divides v by base, element by element: a round by its own round, so that what slowed the machine for a while
// slowed both sides. Rounds in which either side has no figure are left out.
func ratios(v, base []float64) []float64 {
	var r []float64
	for i := range min(len(v), len(base)) {
		if v[i] > 0 && base[i] > 0 {
			r = append(r, v[i]/base[i])
		}
	}
	return r
}

// histogram counts durations in ns in log-linear buckets: 32 to each power of two, so a quantile is at most 3 % above
// the true one. Its size is fixed and recording allocates nothing.
type histogram struct {
	count   uint64
	buckets [64 * subBuckets]uint64
}

const (
	subBits    = 5
	subBuckets = 1 << subBits
)

func bucketOf(ns int64) int {
	u := uint64(max(ns, 0))
	if u < subBuckets {
		return int(u)
	}
	shift := bits.Len64(u) - 1 - subBits
	return (shift+1)*subBuckets + int(u>>shift) - subBuckets
}

// bucketTop is the largest duration that bucket i counts.
func bucketTop(i int) int64 {
	if i < subBuckets {
		return int64(i)
	}
	shift := i/subBuckets - 1
	return (int64(subBuckets+i%subBuckets)+1)<<shift - 1
}

func (h *histogram) record(ns int64) {
	h.count++
	h.buckets[bucketOf(ns)]++
}

// quantile is the smallest bucket bound, in ns, that at least the share q of the durations does not exceed; 0 for none.
func (h *histogram) quantile(q float64) int64 {
	if h.count == 0 {
		return 0
	}
	rank := min(uint64(q*float64(h.count))+1, h.count)
	var seen uint64
	for i, n := range h.buckets {
		seen += n
		if seen >= rank {
			return bucketTop(i)
		}
	}
	return 0
}
