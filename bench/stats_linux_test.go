package main

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{
		{nil, 0},
		{[]float64{3}, 3},
		{[]float64{3, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		before := slices.Clone(c.in)
		if got := median(c.in); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.in, got, c.want)
		}
		if !slices.Equal(before, c.in) {
			t.Errorf("median changed its input to %v", c.in)
		}
	}
}

func TestRatiosArePerRound(t *testing.T) {
	got := ratios([]float64{2, 9, 0, 4, 5}, []float64{1, 3, 1, 0})
	if d := cmp.Diff([]float64{2, 3}, got); d != "" {
		t.Error(d)
	}
}

func TestHistogramBucketsTile(t *testing.T) {
	for i := range 40 * subBuckets {
		top := bucketTop(i)
		if bucketOf(top) != i || bucketOf(top+1) != i+1 {
			t.Fatalf("bucket %d ends at %d, but %d falls in %d and %d in %d",
				i, top, top, bucketOf(top), top+1, bucketOf(top+1))
		}
	}
}

func TestHistogramQuantile(t *testing.T) {
	var h histogram
	if got := h.quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing = %d", got)
	}
	r := rand.New(rand.NewPCG(1, 2))
	v := make([]int64, 20000)
	for i := range v {
		v[i] = int64(r.ExpFloat64() * 1e5)
		h.record(v[i])
	}
	slices.Sort(v)
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 1} {
		want := v[min(int(q*float64(len(v))), len(v)-1)]
		got := h.quantile(q)
		if got < want || float64(got) > float64(want)*1.04+1 {
			t.Errorf("quantile(%v) = %d, want %d or at most 4 %% above", q, got, want)
		}
	}
}
