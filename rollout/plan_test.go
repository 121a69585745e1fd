package rollout

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lb/admin"
)

// pool makes a view: a letter for each backend's state. r ready, d down, e ejected, w drained by somebody, b left out as
// bad, 0 weight 0.
func pool(states string) *admin.RolloutView {
	v := &admin.RolloutView{Rollout: admin.Rollout{ID: "1", Pool: "app"}, SlowStart: 10 * time.Second, Rise: 2}
	for i, s := range states {
		x := admin.RolloutBackend{Name: fmt.Sprint("n", i), Address: fmt.Sprintf("127.0.0.1:%d", 3000+i), Weight: 1, State: admin.Ready}
		switch s {
		case 'd':
			x.State, x.Why = admin.Down, "connection refused"
		case 'e':
			x.State = admin.Ejected
		case 'w':
			x.State, x.Out = admin.Draining, admin.OutOther
		case 'b':
			x.State, x.Out, x.Why = admin.Draining, admin.OutBad, "its command failed"
		case '0':
			x.Weight, x.State = 0, admin.Resting
		}
		v.Backends = append(v.Backends, x)
	}
	return v
}

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		pool  string
		set   func(*Options)
		want  string // the order of steps, or what the refusal says
		notes string
	}{
		{pool: "rrr", want: "n0 n1 n2"},
		{pool: "r", want: "n0 is the only backend of pool app that is ready"},
		{pool: "r", set: func(o *Options) { o.Force = true }, want: "n0 is the only backend of pool app that is ready"},
		{pool: "d", want: "n0"},
		{pool: "dd", want: "n0 n1"},
		{pool: "rr", want: "n0 n1"},
		{pool: "rd", want: "n1 is down (connection refused): with at most 1 out at a time, none may be taken out; --force"},
		{pool: "rd", set: func(o *Options) { o.Force = true }, want: "n1 n0"},
		{pool: "rd", set: func(o *Options) { o.Force, o.Only = true, []string{"n0"} }, want: "n0 is the only backend"},
		{pool: "rd", set: func(o *Options) { o.Only = []string{"n1"} }, want: "n1"},
		{pool: "rrde", want: "n2 is down (connection refused), n3 is ejected: with at most 1"},
		{pool: "rrdr", set: func(o *Options) { o.AtOnce = Amount{N: 2} }, want: "n2 n0 n1 n3"},
		{pool: "rrde", set: func(o *Options) { o.AtOnce = Amount{N: 2} }, want: "n2 is down (connection refused), n3 is ejected: with at most 2"},
		{pool: "rrde", set: func(o *Options) { o.AtOnce = Amount{N: 3} }, want: "n2 n3 n0 n1"},
		{pool: "rbr", want: "n1 n0 n2", notes: "n1 was left out by an earlier rollout (its command failed): it comes first"},
		{pool: "rb", want: "n1 n0", notes: "n1 was left out"},
		{pool: "rb", set: func(o *Options) { o.Only = []string{"n0"} }, want: "n0 is the only backend"},
		{pool: "rrw", want: `n2 is draining, told so by somebody else: "lb ready app n2" first, or --force to leave it alone`},
		{pool: "rrw", set: func(o *Options) { o.Force = true }, want: "n0 n1", notes: "n2 is draining, told so by somebody else: it is left alone"},
		{pool: "rw", set: func(o *Options) { o.Force = true }, want: "n0 is the only backend"},
		{pool: "ww", set: func(o *Options) { o.Force = true }, want: "there is nothing to restart"},
		{pool: "r0r", want: "n1 n0 n2"},
		{pool: "rrr", set: func(o *Options) { o.Only = []string{"127.0.0.1:3002", "n0", "n2"} }, want: "n2 n0"},
		{pool: "rrr", set: func(o *Options) { o.Only = []string{"x"} }, want: "--only x: pool app has no such backend; there is n0, n1, n2"},
		{pool: "rrr", set: func(o *Options) { o.Exec = " " }, want: "there is no command: give one by --exec"},
		{pool: "rrr", set: func(o *Options) { o.Canary = 2 }, want: "n0 n1 n2"},
		{pool: "rrr", set: func(o *Options) { o.Canary = 3 }, want: "--canary 3: pool app has 3 backends, and canaries are compared with the others: at most 2"},
		{pool: "rrr", set: func(o *Options) { o.Canary, o.Only = 3, []string{"n0"} }, want: "n0", notes: "all of them are canaries"},
		{pool: "rrr", set: func(o *Options) { o.Exec = "pm2 restart app" }, want: "n0 n1 n2", notes: "the command names no instance"},
		{pool: "rrr", set: func(o *Options) { o.Exec = "restart.sh $LB_PORT" }, want: "n0 n1 n2"},
		{pool: "rrr", set: func(o *Options) { o.AtOnce = Amount{N: 3} }, want: "n0 n1 n2", notes: "at most 2 at a time: one is always left in use"},
	} {
		o := options()
		if c.set != nil {
			c.set(&o)
		}
		p, err := NewPlan(pool(c.pool), o)
		var no *Refusal
		got, notes := "", ""
		switch {
		case errors.As(err, &no):
			got = strings.Join(no.Lines, "\n")
		case err != nil:
			t.Fatal(err)
		default:
			var names []string
			for i, s := range p.Steps {
				names = append(names, s.Name)
				if s.Step != i+1 || s.Index != int(s.Name[1]-'0') || s.Port != fmt.Sprint(3000+s.Index) || s.Host != "127.0.0.1" || s.Pool != "app" {
					t.Errorf("%s: %+v", c.pool, s)
				}
			}
			got, notes = strings.Join(names, " "), strings.Join(p.Notes, "\n")
		}
		if got != c.want && (no == nil || !strings.HasPrefix(got, c.want)) {
			t.Errorf("%s %+v:\n got %s\nwant %s", c.pool, o, got, c.want)
		}
		if !strings.HasPrefix(notes, c.notes) || c.notes == "" && notes != "" {
			t.Errorf("%s: notes\n got %s\nwant %s", c.pool, notes, c.notes)
		}
	}
}

// TestRefusalsTogether holds that all that is in the way is said at once.
func TestRefusalsTogether(t *testing.T) {
	o := options()
	o.Exec, o.Only, o.Canary = "", []string{"x", "n0"}, 9
	_, err := NewPlan(pool("rrw"), o)
	var no *Refusal
	if !errors.As(err, &no) || len(no.Lines) != 3 {
		t.Errorf("%v", err)
	}
}

func TestWarmup(t *testing.T) {
	for _, c := range []struct{ said, want time.Duration }{{0, 10 * time.Second}, {-1, 0}, {3 * time.Second, 3 * time.Second}} {
		o := options()
		o.Warmup = c.said
		p, err := NewPlan(pool("rr"), o)
		if err != nil || p.Warmup != c.want {
			t.Errorf("%v: %v %v", c.said, p.Warmup, err)
		}
	}
}

func TestUnixTarget(t *testing.T) {
	v := pool("rr")
	v.Backends[0].Address = "unix:/run/app.sock"
	p, err := NewPlan(v, options())
	if err != nil || p.Steps[0].Port != "" || p.Steps[0].Host != "" || p.Steps[0].Address != "unix:/run/app.sock" {
		t.Errorf("%+v %v", p, err)
	}
}

// TestJudge tries the rule at, below and above what it allows.
func TestJudge(t *testing.T) {
	ms := time.Millisecond
	side := func(requests, errors uint64, p95 time.Duration) Sample { return Sample{requests, errors, p95 / 2, p95} }
	for _, c := range []struct {
		name           string
		canary, others Sample
		rule           Rule
		worse          string // what the verdict begins with; "": it is fine
		few            bool
	}{
		{"alike", side(1000, 5, 20*ms), side(3000, 15, 20*ms), Rule{1, 50}, "", false},
		{"errors at the rule", side(1000, 15, 20*ms), side(1000, 5, 20*ms), Rule{1, 50}, "", false},
		{"errors above the rule", side(1000, 16, 20*ms), side(1000, 5, 20*ms), Rule{1, 50}, "1.6 % errors (16 of 1,000 requests), the others 0.5 % (5 of 1,000): 1.1 points more, and the rule allows 1", false},
		{"errors below the rule", side(1000, 14, 20*ms), side(1000, 5, 20*ms), Rule{1, 50}, "", false},
		{"few errors say nothing", side(100, 2, 20*ms), side(1000, 0, 20*ms), Rule{1, 50}, "", false},
		{"three do", side(100, 3, 20*ms), side(1000, 0, 20*ms), Rule{1, 50}, "3.0 % errors", false},
		{"also of few requests", side(3, 3, 0), side(3, 0, 0), Rule{1, 50}, "100.0 % errors", true},
		{"the others are as bad", side(1000, 500, 20*ms), side(1000, 500, 20*ms), Rule{1, 50}, "", false},
		{"no point more", side(1000, 3, 20*ms), side(1000, 2, 20*ms), Rule{0, 50}, "0.3 % errors", false},
		{"p95 at the rule", side(1000, 0, 150*ms), side(1000, 0, 100*ms), Rule{1, 50}, "", false},
		{"p95 above the rule", side(1000, 0, 151*ms), side(1000, 0, 100*ms), Rule{1, 50}, "p95 151ms, the others 100ms: 51 % more, and the rule allows 50 % (and 10ms in any case)", false},
		{"p95 below the rule", side(1000, 0, 149*ms), side(1000, 0, 100*ms), Rule{1, 50}, "", false},
		{"10ms are nothing", side(1000, 0, 12*ms), side(1000, 0, 2*ms), Rule{1, 50}, "", false},
		{"11ms are", side(1000, 0, 13*ms), side(1000, 0, 2*ms), Rule{1, 50}, "p95 13ms, the others 2ms: 550 % more", false},
		{"too few of the canary", Sample{99, 0, 12 * ms, 900 * ms}, side(1000, 0, 2*ms), Rule{1, 50}, "", true},
		{"too few, but half are slow", Sample{99, 0, 13 * ms, 900 * ms}, side(1000, 0, 2*ms), Rule{1, 50}, "half of its 99 requests took 13ms or more, and the p95 of the others is 2ms: the rule allows 50 % more (and 10ms in any case)", true},
		{"eight will do for that", Sample{8, 0, 13 * ms, 900 * ms}, side(100, 0, 2*ms), Rule{1, 50}, "half of its 8 requests", true},
		{"seven will not", Sample{7, 0, 13 * ms, 900 * ms}, side(100, 0, 2*ms), Rule{1, 50}, "", true},
		{"nor 99 of the others", Sample{8, 0, 13 * ms, 900 * ms}, side(99, 0, 2*ms), Rule{1, 50}, "", true},
		{"enough of the canary", side(100, 0, 900*ms), side(1000, 0, 2*ms), Rule{1, 50}, "p95 900ms", false},
		{"too few of the others", side(1000, 0, 900*ms), side(99, 0, 2*ms), Rule{1, 50}, "", true},
		{"nothing at all", Sample{}, Sample{}, Rule{1, 50}, "", true},
		{"faster", side(1000, 0, ms), side(1000, 90, 800*ms), Rule{0, 0}, "", false},
	} {
		v := c.rule.Judge(c.canary, c.others)
		if (v.Worse == "") != (c.worse == "") || !strings.HasPrefix(v.Worse, c.worse) || v.TooFew != c.few {
			t.Errorf("%s: %+v", c.name, v)
		}
		if s := v.String(); strings.Contains(s, "too few requests") != (c.few && c.worse == "") {
			t.Errorf("%s: %s", c.name, s)
		}
	}
}

func TestCompare(t *testing.T) {
	view := func(backends ...admin.RolloutBackend) *admin.RolloutView {
		return &admin.RolloutView{Backends: backends}
	}
	one := func(name string, requests, errors uint64, cells ...[2]int64) admin.RolloutBackend {
		return admin.RolloutBackend{Name: name, Requests: requests, Errors: errors, Latency: cells}
	}
	base := view(one("a", 100, 1, [2]int64{1000, 100}), one("b", 50, 0, [2]int64{1000, 50}), one("c", 900, 9, [2]int64{1000, 900}))
	now := view(
		one("a", 200, 4, [2]int64{1000, 190}, [2]int64{5000, 10}),
		one("b", 150, 0, [2]int64{1000, 144}, [2]int64{5000, 6}),
		one("c", 10, 2, [2]int64{9000, 10}), // it left and joined again, and counts anew
		one("d", 5, 0, [2]int64{1000, 5}),   // it joined
	)
	canary, others := compare(base, now, []Target{{Name: "b"}})
	if want := (Sample{100, 0, 1000, 5000}); canary != want {
		t.Errorf("%+v", canary)
	}
	if want := (Sample{115, 5, 1000, 9000}); others != want {
		t.Errorf("%+v", others)
	}
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		cells map[int64]int64
		want  time.Duration
	}{
		{nil, 0}, {map[int64]int64{10: 0}, 0}, {map[int64]int64{10: 1}, 10}, {map[int64]int64{10: 95, 20: 5}, 10}, {map[int64]int64{10: 94, 20: 6}, 20},
		{map[int64]int64{10: 94, 20: 2, 30: 4, 5: -3}, 20},
	} {
		if got := quantile(c.cells, .95); got != c.want {
			t.Errorf("%v: %v", c.cells, got)
		}
	}
}

func TestExpand(t *testing.T) {
	web := Target{Index: 2, Pool: "app", Name: "blue-1", Address: "127.0.0.1:3002", Host: "127.0.0.1", Port: "3002"}
	unix := Target{Pool: "app", Name: "unix:/run/a b.sock", Address: "unix:/run/a b.sock"}
	for _, c := range []struct {
		line string
		t    Target
		want string
		err  string
	}{
		{"pm2 restart app-{port}", web, "pm2 restart app-3002", ""},
		{"{pool} {name} {index} {host} {address} {port}{port}", web, "app blue-1 2 127.0.0.1 127.0.0.1:3002 30023002", ""},
		{"echo ${port} {a,b} {} { {x {port}", web, "echo ${port} {a,b} {} { {x 3002", ""},
		{"awk '{print $1}' {port}", web, "awk '{print $1}' 3002", ""},
		{"f() { kill {port}; }", web, "f() { kill 3002; }", ""},
		{"restart {port}", unix, "", "{port}: unix:/run/a b.sock has none, it is a unix socket"},
		{"restart {name}", unix, "", "{name} would put"},
		{"no words", unix, "no words", ""},
	} {
		got, err := Expand(c.line, c.t)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%s: %q %v", c.line, got, err)
		}
	}
	if !slices.Contains(naming, "{port}") {
		t.Error("a command that says {port} is warned of")
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 48211: "48,211", 1234567: "1,234,567"} {
		if got := Thousands(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}
