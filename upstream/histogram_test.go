package upstream

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// TestHistogramIsPrometheus puts the same durations into client_golang's histogram and into ours.
func TestHistogramIsPrometheus(t *testing.T) {
	theirs := prometheus.NewHistogram(prometheus.HistogramOpts{
		Buckets:                      ClassicBounds,
		NativeHistogramBucketFactor:  1.1, // schema 3
		NativeHistogramZeroThreshold: NativeZeroThreshold,
	})
	ours := new(Histogram)
	observe := func(ns int64) {
		theirs.Observe(float64(ns) / 1e9)
		ours.Observe(ns)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		observe(int64(math.Exp(rng.Float64()*math.Log(128e9/1000)) * 1000)) // 1 µs to 128 s
	}
	for _, b := range grid.upper[:cells-1] { // and around every bound
		observe(b - 1)
		observe(b)
		observe(min(b+1, 128e9))
	}
	observe(0)

	var m dto.Metric
	if err := theirs.Write(&m); err != nil {
		t.Fatal(err)
	}
	want := m.GetHistogram()
	if want.GetSchema() != NativeSchema {
		t.Fatalf("schema %d", want.GetSchema())
	}
	got := new(HistogramSnapshot)
	got.Add(ours)

	if got.Count() != want.GetSampleCount() {
		t.Errorf("count %d, want %d", got.Count(), want.GetSampleCount())
	}
	if e := got.Sum()/want.GetSampleSum() - 1; math.Abs(e) > 1e-9 {
		t.Errorf("sum is off by %g of it", e)
	}
	if got.Zero() != want.GetZeroCount() {
		t.Errorf("zero bucket %d, want %d", got.Zero(), want.GetZeroCount())
	}
	var i int
	got.Classic(func(bound float64, n uint64) {
		if b := want.Bucket[i]; b.GetUpperBound() != bound || b.GetCumulativeCount() != n {
			t.Errorf("le %g: %d, want le %g: %d", bound, n, b.GetUpperBound(), b.GetCumulativeCount())
		}
		i++
	})
	if i != len(want.Bucket) {
		t.Errorf("%d classic buckets, want %d", i, len(want.Bucket))
	}
	native := map[int]uint64{}
	got.Native(func(index int, n uint64) { native[index] = n })
	if d := cmp.Diff(nativeOf(want), native); d != "" {
		t.Errorf("native buckets (-want +got):\n%s", d)
	}
}

// nativeOf unpacks the spans and deltas of the wire format.
func nativeOf(h *dto.Histogram) map[int]uint64 {
	m := map[int]uint64{}
	index, n, d := 0, int64(0), 0
	for _, span := range h.PositiveSpan {
		index += int(span.GetOffset())
		for range span.GetLength() {
			n += h.PositiveDelta[d]
			d++
			if n > 0 {
				m[index] = uint64(n)
			}
			index++
		}
	}
	return m
}

func TestHistogramBounds(t *testing.T) {
	h, s := new(Histogram), new(HistogramSnapshot)
	for _, ns := range []int64{-5, 0, math.MaxInt64 / 4, 200e9} {
		h.Observe(ns)
	}
	s.Add(h)
	s.Add(h)
	if s.Count() != 8 || s.Zero() != 4 {
		t.Errorf("count %d, zero %d; want 8, 4", s.Count(), s.Zero())
	}
	s.Native(func(index int, n uint64) {
		if index != nativeHi+1 || n != 4 {
			t.Errorf("bucket %d has %d, want %d to have 4", index, n, nativeHi+1)
		}
	})
	s.Classic(func(bound float64, n uint64) {
		if n != 4 {
			t.Errorf("le %g: %d, want 4", bound, n)
		}
	})
}

func TestHistogramQuantile(t *testing.T) {
	h, s := new(Histogram), new(HistogramSnapshot)
	if q := s.Quantile(.5); q != 0 {
		t.Errorf("of nothing: %g", q)
	}
	for ms := range int64(1000) {
		h.Observe((ms + 1) * 1e6)
	}
	s.Add(h)
	for _, q := range []float64{.01, .5, .9, .99, 1} {
		if got := s.Quantile(q); got < q-1e-6 || got > q*1.1 {
			t.Errorf("quantile %g of 1 to 1000 ms: %g", q, got)
		}
	}
}

// TestHistogramDifference is what the last ten seconds are made of.
func TestHistogramDifference(t *testing.T) {
	h, before, after, got, want := new(Histogram), new(HistogramSnapshot), new(HistogramSnapshot), new(HistogramSnapshot), new(Histogram)
	for range 5 {
		h.Observe(1e6)
	}
	before.Add(h)
	for _, ns := range []int64{1e6, 40e6, 40e6, 3e9} {
		h.Observe(ns)
		want.Observe(ns)
	}
	after.Add(h)
	sum := new(HistogramSnapshot)
	sum.Add(want)
	got.AddDifference(after, before)
	if *got != *sum || got.Count() != 4 {
		t.Errorf("%d observations, median %g; want 4, median %g", got.Count(), got.Quantile(.5), sum.Quantile(.5))
	}
	got.AddDifference(after, before)
	if got.Count() != 8 {
		t.Errorf("%d observations of twice as many", got.Count())
	}
}

func BenchmarkHistogramObserve(b *testing.B) {
	h := new(Histogram)
	var ns [1024]int64
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range ns {
		ns[i] = int64(math.Exp(rng.Float64()*8) * 100e3)
	}
	i := 0
	for b.Loop() {
		h.Observe(ns[i&1023])
		i++
	}
}
