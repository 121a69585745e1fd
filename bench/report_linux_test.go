package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func cpuSamples(v ...float64) []sample {
	s := make([]sample, len(v))
	for i, x := range v {
		s[i] = sample{cpu: x, perConn: x, result: result{Requests: 10, Elapsed: time.Second}}
	}
	return s
}

func TestVerdict(t *testing.T) {
	broken := cpuSamples(5, 5, 5)
	broken[1].Errors = 1
	small := goal{haproxy: 0.9, nginx: true}
	for _, c := range []struct {
		name    string
		goal    goal
		samples map[string][]sample
		want    string
	}{
		{"both bounds", small, map[string][]sample{
			"lb": cpuSamples(9, 9, 9), "haproxy": cpuSamples(10, 10, 10), "nginx": cpuSamples(10, 10, 10)}, "met"},
		{"above HAProxy's share", small, map[string][]sample{
			"lb": cpuSamples(9.1), "haproxy": cpuSamples(10), "nginx": cpuSamples(10)}, "MISSED"},
		{"as nginx", small, map[string][]sample{
			"lb": cpuSamples(9), "haproxy": cpuSamples(20), "nginx": cpuSamples(9)}, "MISSED"},
		{"rounds are compared with their like", small, map[string][]sample{
			"lb": cpuSamples(8, 80, 8), "haproxy": cpuSamples(10, 100, 10), "nginx": cpuSamples(10, 90, 10)}, "met"},
		{"a peer with errors is no measure", small, map[string][]sample{
			"lb": cpuSamples(1, 1, 1), "haproxy": broken, "nginx": cpuSamples(2, 2, 2)}, "met, without haproxy"},
		{"errors of its own", small, map[string][]sample{"lb": broken, "haproxy": cpuSamples(9, 9, 9)}, "INVALID"},
		{"left out", small, map[string][]sample{"haproxy": cpuSamples(9)}, "not measured"},
		{"memory", goal{kb: 0.6}, map[string][]sample{"lb": cpuSamples(0.7, 0.5, 0.6)}, "met"},
		{"more memory", goal{kb: 0.6}, map[string][]sample{"lb": cpuSamples(0.7, 0.5, 0.61)}, "MISSED"},
	} {
		r := report{subject: "lb"}
		tb := table{row: row{goal: c.goal, held: c.goal.kb > 0}}
		for name, s := range c.samples {
			r.names = append(r.names, name)
			tb.samples = append(tb.samples, s)
		}
		if got := r.verdict(tb); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestReportText(t *testing.T) {
	failed := cpuSamples(30, 30)
	failed[0].Errors, failed[0].First = 3, "status 502"
	r := report{
		subject: "lb",
		names:   []string{"lb", "haproxy", "other"},
		tables: []table{
			{row: rows(5000)[0], samples: [][]sample{cpuSamples(8, 9), cpuSamples(10, 10), failed}},
			{row: rows(5000)[5], samples: [][]sample{cpuSamples(0.5, 0.5), cpuSamples(1, 1), cpuSamples(2, 2)}},
		},
		machine: []string{"a machine"},
		notes:   []string{"nginx is left out"},
	}
	var b strings.Builder
	if err := r.write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"- a machine\n",
		"| small | ≤ 0.95 × HAProxy, < nginx | 8.50 µs | 0.85 ",
		"| lb      | 8.50           | 0.85 [0.80-0.90] | -       | 10 ",
		"INVALID: 3, status 502",
		"| idle  | ≤ 0.6 KB each             | 0.50 KB | 0.50 ",
		"- nginx is left out\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestQuietRounds(t *testing.T) {
	foreign := func(v ...float64) []sample {
		s := cpuSamples(v...)
		for i := range s {
			s[i].foreign = v[i]
		}
		return s
	}
	tb := table{samples: [][]sample{foreign(0.01, 0.5, 0.02, 0.03, 0.04), foreign(0, 0, 0.9, 0, 0)}}
	q, dropped := tb.quiet()
	if dropped != 2 || len(q.samples[0]) != 3 || q.samples[0][1].foreign != 0.03 || len(q.samples[1]) != 3 {
		t.Errorf("%d dropped, left %+v", dropped, q.samples)
	}
	tb.samples[1][1].Errors = 1
	if q, dropped := tb.quiet(); dropped != 1 || q.samples[1][1].Errors != 1 {
		t.Errorf("%d dropped, with the errors, left %+v", dropped, q.samples)
	}
	tb.samples[0][3].foreign, tb.samples[0][4].foreign = 1, 1
	if q, dropped := tb.quiet(); dropped != 0 || len(q.samples[0]) != 5 {
		t.Errorf("%d dropped though too few are quiet, left %d", dropped, len(q.samples[0]))
	}
}

func TestChoose(t *testing.T) {
	all := rows(10)
	some, err := choose(all, "upload,small")
	if err != nil || rowNames(some) != "upload,small" {
		t.Errorf("choose = %s, %v", rowNames(some), err)
	}
	if same, err := choose(all, ""); err != nil || len(same) != len(all) {
		t.Errorf("choose without names = %s, %v", rowNames(same), err)
	}
	if _, err := choose(all, "small,big"); err == nil {
		t.Error("an unknown row has no error")
	}
}

func TestExtraPeer(t *testing.T) {
	p, err := extraPeer("mine=/bin/x -l {listen} {port} {origin} --d={dir}")
	if err != nil {
		t.Fatal(err)
	}
	got := p.args(site{dir: "/d", listen: "127.0.0.1:1", port: "1", origin: "127.0.0.1:2"})
	want := []string{"-l", "127.0.0.1:1", "1", "127.0.0.1:2", "--d=/d"}
	if d := cmp.Diff(want, got); d != "" || p.name != "mine" || p.program != "/bin/x" {
		t.Error(p.name, p.program, d)
	}
	for _, bad := range []string{"", "x", "=y", "x= "} {
		if _, err := extraPeer(bad); err == nil {
			t.Errorf("%q has no error", bad)
		}
	}
}
