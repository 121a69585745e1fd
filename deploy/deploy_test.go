// Package deploy tests the files that lb is run and watched with.
package deploy

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	rulesFile     = "prometheus/lb.rules.yml"
	rulesTestFile = "prometheus/lb.rules_test.yml"
	dashboardFile = "grafana/lb.json"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// documented is each metric of docs/metrics.md, which another test compares with what lb has, and its labels.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{
		"up": nil, // Prometheus's own
		// The library's; docs/metrics.md does not list them.
		"process_cpu_seconds_total": nil, "process_resident_memory_bytes": nil, "process_open_fds": nil, "process_max_fds": nil,
		"process_start_time_seconds": nil,
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(lb_\\w+)` \\| (\\w+) \\|([^|]*)\\|").FindAllStringSubmatch(read(t, "../docs/metrics.md"), -1) {
		var labels []string
		for _, l := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(m[3], -1) {
			labels = append(labels, l[1])
		}
		if m[2] == "histogram" {
			all[m[1]+"_bucket"] = append(slices.Clone(labels), "le")
			all[m[1]+"_sum"], all[m[1]+"_count"] = labels, labels
		}
		all[m[1]] = labels
	}
	if len(all) < 30 {
		t.Fatalf("docs/metrics.md has only %d metrics", len(all))
	}
	return all
}

var (
	selector = regexp.MustCompile(`\b((?:lb|process|go)_\w+)(\{[^}]*\})?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"`)
	recorded = regexp.MustCompile(`\b[a-z_]+:[a-z_]+:[a-z0-9_]+`)
)

// faults are the metrics and labels in text that do not exist. Names with colons have to be in records.
func faults(text string, metrics map[string][]string, records []string) (all []string) {
	for _, name := range recorded.FindAllString(text, -1) {
		if !slices.Contains(records, name) {
			all = append(all, "no rule records "+name)
		}
	}
	for _, m := range selector.FindAllStringSubmatch(recorded.ReplaceAllString(text, ""), -1) {
		labels, ok := metrics[m[1]]
		if !ok {
			all = append(all, "there is no metric "+m[1])
			continue
		}
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			if l[1] != "job" && l[1] != "instance" && !slices.Contains(labels, l[1]) {
				all = append(all, m[1]+" has no label "+l[1])
			}
		}
	}
	return all
}

func check(t *testing.T, where, text string, metrics map[string][]string, records []string) {
	t.Helper()
	for _, f := range faults(text, metrics, records) {
		t.Errorf("%s: %s", where, f)
	}
}

func TestFaults(t *testing.T) {
	metrics := documented(t)
	for expr, want := range map[string]int{
		`rate(lb_nothing_total[5m])`: 1, `lb_backend_up{colour="red", pool="a"}`: 1, `job:lb_nothing:rate5m`: 1,
		`lb_backend_up{pool!="a"} + job:lb_x:rate5m + lb_backend_request_duration_seconds_bucket{le="1"}`: 0,
	} {
		if got := faults(expr, metrics, []string{"job:lb_x:rate5m"}); len(got) != want {
			t.Errorf("%s: %q, want %d", expr, got, want)
		}
	}
}

func matches(text, expr string) (all []string) {
	for _, m := range regexp.MustCompile(expr).FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

func TestRules(t *testing.T) {
	text := regexp.MustCompile(`(?m)^\s*#.*$`).ReplaceAllString(read(t, rulesFile), "")
	records := matches(text, `(?m)^\s*- record: (\S+)$`)
	check(t, rulesFile, text, documented(t), records)

	tests := read(t, rulesTestFile)
	check(t, rulesTestFile, tests, documented(t), records)
	alerts := matches(text, `(?m)^\s*- alert: (\S+)$`)
	if len(alerts) < 10 {
		t.Errorf("only %d alerts", len(alerts))
	}
	for _, name := range alerts {
		if !regexp.MustCompile(`alertname: ` + name + `\n\s*exp_alerts:`).MatchString(tests) {
			t.Errorf("no test in %s has %s fire", rulesTestFile, name)
		}
		if !strings.Contains(tests, "alertname: "+name+" }") {
			t.Errorf("no test in %s has %s quiet", rulesTestFile, name)
		}
	}
	for _, name := range records {
		if strings.Count(text, name) == 1 && !strings.Contains(tests, name) {
			t.Errorf("neither an alert nor a test uses %s", name)
		}
	}
}

// missing skips the test for want of a program, unless LB_E2E_REQUIRE says that it has to be there.
func missing(t *testing.T, program string) {
	t.Helper()
	if strings.Contains(os.Getenv("LB_E2E_REQUIRE"), program) {
		t.Fatalf("there is no %s, and LB_E2E_REQUIRE asks for it", program)
	}
	t.Skipf("there is no %s: install Prometheus", program)
}

func TestPromtool(t *testing.T) {
	for _, args := range [][]string{
		{"check", "rules", rulesFile},
		{"check", "config", "prometheus/prometheus.yml"},
		{"test", "rules", rulesTestFile},
	} {
		out, err := exec.Command("promtool", args...).CombinedOutput()
		if errors.Is(err, exec.ErrNotFound) {
			missing(t, "promtool")
		}
		if err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// dashboard is what Grafana needs to find in the file, as of schema version 38 (Grafana 10).
type dashboard struct {
	UID           string
	Title         string
	SchemaVersion int
	ID            *int
	Panels        []panel
	Templating    struct {
		List []struct {
			Name, Type, Definition string
			Datasource             source
		}
	}
	Annotations struct {
		List []struct {
			Expr       string
			Datasource source
		}
	}
}

type source struct{ Type, UID string }

type panel struct {
	ID          int
	Type, Title string
	Datasource  source
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct {
		RefID, Expr, LegendFormat string
		Datasource                source
	}
	FieldConfig *struct{ Defaults *struct{ Unit string } }
	Options     json.RawMessage
}

func readDashboard(t *testing.T) *dashboard {
	t.Helper()
	d := new(dashboard)
	if err := json.Unmarshal([]byte(read(t, dashboardFile)), d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDashboard(t *testing.T) {
	d := readDashboard(t)
	// With an id, Grafana looks for a dashboard to overwrite instead of importing this one.
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 36 || d.ID != nil {
		t.Errorf("uid %q, title %q, schema %d, id %v", d.UID, d.Title, d.SchemaVersion, d.ID)
	}
	metrics := documented(t)
	query := func(where, expr string, s source) {
		check(t, where, expr, metrics, nil)
		if s != (source{"prometheus", "${datasource}"}) {
			t.Errorf("%s: data source %v, want the one that is chosen", where, s)
		}
		if strings.Count(expr, "(") != strings.Count(expr, ")") || expr == "" {
			t.Errorf("%s: %q is no query", where, expr)
		}
	}
	variables := []string{"__rate_interval"}
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
		if v.Type == "query" {
			query("variable "+v.Name, v.Definition, v.Datasource)
		}
	}
	ids := map[int]bool{}
	var taken [200][24]string
	used := map[string]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%s: id %d is taken", p.Title, p.ID)
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.W <= 0 || g.H <= 0 || g.X < 0 || g.X+g.W > 24 || g.Y < 0 || g.Y+g.H > len(taken) {
			t.Errorf("%s: lies outside, at %+v", p.Title, g)
			continue
		}
		for y := g.Y; y < g.Y+g.H; y++ {
			for x := g.X; x < g.X+g.W; x++ {
				if taken[y][x] != "" {
					t.Fatalf("%s lies on %s", p.Title, taken[y][x])
				}
				taken[y][x] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.FieldConfig == nil || p.FieldConfig.Defaults == nil || len(p.Options) == 0 || len(p.Targets) == 0 {
			t.Errorf("panel %d %q lacks something", p.ID, p.Title)
		}
		refs := map[string]bool{}
		for _, q := range p.Targets {
			if refs[q.RefID] || q.RefID == "" {
				t.Errorf("%s: refId %q is taken", p.Title, q.RefID)
			}
			refs[q.RefID] = true
			query(p.Title, q.Expr, q.Datasource)
			for _, v := range matches(q.Expr, `\$(\w+)`) {
				if !slices.Contains(variables, v) {
					t.Errorf("%s: there is no variable $%s", p.Title, v)
				}
			}
			for _, m := range selector.FindAllStringSubmatch(q.Expr, -1) {
				used[m[1]] = true
				if !strings.Contains(m[2], `job=~"$job", instance=~"$instance"`) {
					t.Errorf("%s: %s is not that of the chosen job and instance", p.Title, m[1])
				}
			}
		}
	}
	for _, a := range d.Annotations.List {
		query("annotation", a.Expr, a.Datasource)
	}
	if len(used) < 20 {
		t.Errorf("only %d metrics are shown", len(used))
	}
}
