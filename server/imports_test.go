package server

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport says which of our packages each of our packages may import. Arrows point one way, so that a package can be
// read, tested and changed with nothing above it in mind. A new room gets a line here.
var mayImport = map[string][]string{
	"loop":      {},
	"http1":     {},
	"config":    {},
	"accesslog": {},
	"upstream":  {},

	"strategy": {"upstream"},
	"affinity": {"upstream"},
	"route":    {"affinity", "upstream"},
	"metrics":  {"upstream"},
	"admin":    {"history", "upstream"},
	"health":   {"upstream"},
	"history":  {"upstream"},
	"rollout":  {"admin"},
	"proxy":    {"loop", "http1", "affinity", "route", "upstream", "accesslog"},

	"server": {"accesslog", "admin", "affinity", "config", "health", "history", "loop", "metrics", "proxy", "route", "strategy", "upstream"},
	"cmd/lb": {"", "admin", "config", "rollout", "server"}, // "" is the root, which embeds config.toml
	"":       {},
}

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "lb/cmd/lb").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	ours := func(path string) (string, bool) {
		if path == "lb" {
			return "", true
		}
		return strings.CutPrefix(path, "lb/")
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		from, ok := ours(fields[0])
		if !ok {
			continue
		}
		seen++
		may, known := mayImport[from]
		if !known {
			t.Errorf("package %s is new: give it a line in mayImport", from)
			continue
		}
		for _, path := range fields[1:] {
			if to, ok := ours(path); ok && !slices.Contains(may, to) {
				t.Errorf("%s imports %s, which is an arrow the wrong way: it may import %q", from, to, may)
			}
			// It keeps the linker from leaving out methods that nobody calls: megabytes, with some libraries.
			if path == "html/template" {
				t.Errorf("%s imports html/template", from)
			}
		}
	}
	if seen != len(mayImport) {
		t.Errorf("%d packages of ours are in the binary, %d have a line in mayImport", seen, len(mayImport))
	}
}
