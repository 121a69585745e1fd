package metrics

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lb/upstream"
)

// docs/metrics.md must have a row for each metric, with its type, its labels and its help text, and no other rows.
func TestDocs(t *testing.T) {
	data, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	families, err := registry(world(pool("app", 1, 1))).Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "lb_") {
			continue
		}
		names = append(names, f.GetName())
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		row := fmt.Sprintf("| `%s` | %s | %s | %s |", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp())
		row = strings.ReplaceAll(row, "|  |", "| |")
		if !strings.Contains(doc, row+"\n") {
			t.Errorf("docs/metrics.md lacks the row\n%s", row)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)`").FindAllStringSubmatch(doc, -1) {
		if !slices.Contains(names, m[1]) {
			t.Errorf("docs/metrics.md has %s, which does not exist", m[1])
		}
	}
	for i, c := range codes {
		if i != 1 && i != 2 && i != 3 && i != 4 && !strings.Contains(doc, "`"+c.GetValue()+"`") {
			t.Errorf("docs/metrics.md does not explain code %s", c.GetValue())
		}
	}
	for _, f := range faults[upstream.FaultNone+1:] {
		if !strings.Contains(doc, "`"+f.GetValue()+"` (") {
			t.Errorf("docs/metrics.md does not explain fault %s", f.GetValue())
		}
	}
}
