package main

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestFire: an open load does not wait for answers. The first is withheld until all others have come.
func TestFire(t *testing.T) {
	var others atomic.Int32
	var held time.Duration // the first, by who held it; written before its answer, and read after it
	all := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ns, _ := strconv.Atoi(r.URL.Path[1:])
		switch {
		case ns == 1:
			began := time.Now()
			<-all
			held = time.Since(began)
		case others.Add(1) == 9:
			close(all)
		}
		if ns == 5 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("X-Wall", strconv.Itoa(2*ns))
		w.Header().Set("X-Instance", "b")
		io.WriteString(w, "ok")
	}))
	defer s.Close()
	o := &opener{addr: s.Listener.Addr().(*net.TCPAddr).String(), header: "x-wall"}
	defer o.close()
	var x []shot
	for i := range 10 {
		x = append(x, shot{time.Duration(i) * time.Millisecond, time.Duration(i + 1)})
	}
	got := o.fire(context.Background(), time.Now(), x)
	for i, r := range got {
		want := reply{work: 2 * x[i].work, by: 'b'}
		if i == 4 {
			want = reply{err: errors.New("status 503")}
		}
		if r.work != want.work || r.by != want.by || (r.err == nil) != (want.err == nil) || r.took <= 0 {
			t.Errorf("%d: %+v, want %+v", i, r, want)
		}
	}
	if got[0].took < held {
		t.Errorf("the first took %v, and was held for %v", got[0].took, held)
	}
	if len(o.idle) < 2 {
		t.Errorf("%d idle connections are kept", len(o.idle))
	}
}

// tableOf makes a table of p99 over a bound of 100 ms, by round.
func tableOf(p99 map[string][]time.Duration) *balanceTable {
	t := &balanceTable{scene: &scene{kind: lognormal, slow: []float64{2, 1}}, load: .85}
	for _, b := range balancers("lb") {
		e := &entry{stall: &stall{balancer: &b}}
		for _, took := range p99[b.name] {
			replies := make([]reply, 100)
			for i := range replies {
				replies[i] = reply{took: took, by: 'a'}
			}
			e.rounds = append(e.rounds, round{replies: replies, bound: bound{[]time.Duration{100 * msec}, []time.Duration{100 * msec}}})
		}
		if e.rounds != nil {
			t.entries = append(t.entries, e)
		}
	}
	return t
}

func TestBalanceVerdict(t *testing.T) {
	for _, c := range []struct {
		p99  map[string][]time.Duration
		fail bool
		want string
	}{
		{map[string][]time.Duration{subject: {110 * msec, 130 * msec}, "lb ewma": {200 * msec, 200 * msec}}, false,
			"pass: p99 1.20 × the bound, 0.60 × the best of the others (lb ewma)"},
		{map[string][]time.Duration{subject: {150 * msec}, "lb ewma": {200 * msec}, "nginx least_conn": {150 * msec}}, false,
			"FAIL: p99 1.50 × the bound, 1.00 × the best of the others (nginx least_conn)"},
		{map[string][]time.Duration{subject: {150 * msec}, "lb ewma": {200 * msec}, "haproxy, maxconn 1": {120 * msec}}, false,
			"pass: p99 1.50 × the bound, 0.75 × the best of the others (lb ewma)"},
		{map[string][]time.Duration{"lb ewma": {200 * msec}}, false, "not measured"},
		{map[string][]time.Duration{subject: {150 * msec}, "lb ewma": {200 * msec}}, true,
			"FAIL: 1 requests of lb adaptive without an answer, status 503"},
	} {
		table := tableOf(c.p99)
		if c.fail {
			table.entry(subject).rounds[0].replies[0] = reply{err: errors.New("status 503")}
		}
		if got := table.verdict(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// TestBalanceReport: the tables and the picture hold what was measured, and the picture is XML.
func TestBalanceReport(t *testing.T) {
	table := tableOf(map[string][]time.Duration{subject: {110 * msec}, "lb ewma": {200 * msec}, "haproxy, maxconn 1": {105 * msec}, "lb random": {90 * time.Second}})
	r := &balanceReport{machine: []string{"a machine"}, tables: []*balanceTable{table}, notes: []string{"a note"}}
	var b strings.Builder
	if err := r.write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a machine", "a note", "| lb adaptive | lb ewma | lb random | haproxy, maxconn 1 | verdict |", "| > 20 ", "| > 4 s", "110.0 ms", "100 %", "pass"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
	picture := string(r.picture())
	d := xml.NewDecoder(strings.NewReader(picture))
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(picture, "<circle"); n != 2*3 || strings.Contains(picture, "maxconn") {
		t.Errorf("%d dots in\n%s", n, picture)
	}
}
