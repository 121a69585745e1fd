package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseCPUList(t *testing.T) {
	for in, want := range map[string][]int{
		"0\n":       {0},
		"0-3,8\n":   {0, 1, 2, 3, 8},
		"":          nil,
		"x,2,3-y,5": {2, 5},
	} {
		if d := cmp.Diff(want, parseCPUList(in)); d != "" {
			t.Errorf("%q: %s", in, d)
		}
	}
}

func TestLayout(t *testing.T) {
	alone := func(cpu int) []int { return []int{cpu} }
	pairs := func(cpu int) []int { return []int{cpu &^ 1, cpu | 1} }
	for _, c := range []struct {
		name     string
		cpus     []int
		want     int
		siblings func(int) []int
		result   cores
	}{
		{"one core", []int{0}, -1, alone, cores{0, 0, 0, []int{0}}},
		{"two cores", []int{0, 1}, -1, alone, cores{1, 0, 0, []int{0}}},
		{"four cores", []int{0, 1, 2, 3}, -1, alone, cores{3, 0, 2, []int{0, 1, 2}}},
		{"the asked one", []int{0, 1, 2, 3}, 1, alone, cores{1, 0, 3, []int{0, 2, 3}}},
		{"no sibling", []int{0, 1, 2, 3}, -1, pairs, cores{3, 0, 1, []int{0, 1}}},
		{"only a sibling", []int{0, 1}, -1, pairs, cores{1, 0, 0, []int{0}}},
		{"some are not allowed", []int{4, 6}, -1, alone, cores{6, 4, 4, []int{4}}},
	} {
		got, err := layout(c.cpus, c.want, c.siblings)
		if d := cmp.Diff(c.result, got, cmp.AllowUnexported(cores{})); d != "" || err != nil {
			t.Errorf("%s: %v %s", c.name, err, d)
		}
	}
	if _, err := layout([]int{0, 1}, 5, alone); err == nil {
		t.Error("a core that is not allowed has no error")
	}
}

func TestParseCPUModel(t *testing.T) {
	if got := parseCPUModel([]byte("processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\n")); got != "Fast CPU @ 3 GHz" {
		t.Error(got)
	}
}
