package config

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

const docsFile = "../docs/config.md"

// row is the line of a key in docs/config.md.
func row(k Key) string {
	def := "must be given"
	if k.Default != "" {
		def = "`" + k.Default + "`"
	}
	if k.Else != "" {
		def = k.Else
	}
	typ := k.Type()
	if r := k.Range(); r != "" {
		typ += ", " + r
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |", k.Name, typ, def, k.Doc)
}

// TestDocs holds docs/config.md against the keys: between "<!-- keys TABLE -->" and "<!-- end -->" stands a line for
// each key of that table, and nothing else.
func TestDocs(t *testing.T) {
	data, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	seen := map[string]bool{}
	for _, k := range Keys() {
		if seen[k.Table] {
			continue
		}
		seen[k.Table] = true
		start, end := "<!-- keys "+k.Table+" -->\n", "<!-- end -->"
		before, rest, ok := strings.Cut(doc, start)
		section, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Errorf("%s has no section %s", docsFile, strings.TrimSpace(start))
			continue
		}
		var want strings.Builder
		want.WriteString("| key | type | default | meaning |\n|---|---|---|---|\n")
		for _, k := range keysOf(k.Table) {
			want.WriteString(row(*k) + "\n")
			if !strings.Contains(section, row(*k)+"\n") && !*update {
				t.Errorf("%s is not, or not as the code has it, in %s; it should say\n%s", k.Path(), docsFile, row(*k))
			}
		}
		if section != want.String() && !*update && !t.Failed() {
			t.Errorf("%s: the table of %s has lines that are no keys:\n%s", docsFile, k.Table, section)
		}
		doc = before + start + want.String() + end + after
	}
	for _, s := range Strategies() {
		if !strings.Contains(doc, "| `"+s+"` |") {
			t.Errorf("%s does not explain the strategy %s", docsFile, s)
		}
	}
	if *update {
		if err := os.WriteFile(docsFile, []byte(doc), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDocsExamples reads each example of a file, and each message, of docs/config.md as lb would.
func TestDocsExamples(t *testing.T) {
	data, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(string(data), -1)
	if len(examples) < 5 {
		t.Errorf("only %d examples", len(examples))
	}
	for _, e := range examples {
		text := e[1]
		if !strings.Contains(text, "[pool.") {
			text += "\n[pool.app]\nbackends = [3000]\n"
		}
		if _, err := parse("f", []byte(text), testEnv); err != nil {
			t.Errorf("%v:\n%s", err, text)
		}
	}
	faulty := regexp.MustCompile("(?s)```toml-with-faults\n(.*?)```.*?```text\n(.*?)```").FindStringSubmatch(string(data))
	if faulty == nil {
		t.Fatal("no example of faults")
	}
	if _, err := parse("config.toml", []byte(faulty[1]), testEnv); err == nil || err.Error()+"\n" != faulty[2] {
		t.Errorf("the messages are now:\n%v", err)
	}
}

// TestKeys holds the list of keys to itself: each has a field, a meaning, and a default that can be read.
func TestKeys(t *testing.T) {
	fields := map[string]map[string]any{
		"server": new(Server).fields(), "admin": new(Admin).fields(), "access_log": new(AccessLog).fields(),
		"listen.NAME": new(Listen).fields(), "pool.NAME": new(Pool).fields(), "route.NAME": new(Route).fields(),
		"pool.NAME.health": new(Health).fields(), "pool.NAME.ejection": new(Ejection).fields(), "pool.NAME.affinity": new(Affinity).fields(),
		"pool.NAME.rollout": new(Rollout).fields(),
	}
	for _, k := range Keys() {
		if k.Doc == "" || !strings.HasSuffix(k.Doc, ".") || strings.Contains(k.Doc, "|") {
			t.Errorf("%s has no meaning, or one that breaks the table", k.Path())
		}
		f, ok := fields[k.Table]
		if !ok {
			continue
		}
		if f[k.Name] == nil {
			t.Errorf("%s has no field", k.Path())
		}
		delete(f, k.Name)
	}
	for table, rest := range fields {
		for name := range rest {
			t.Errorf("%s.%s has a field and is no key", table, name)
		}
	}
	for word, meant := range aliases {
		for _, m := range strings.Fields(meant) {
			known := false
			for _, k := range Keys() {
				for _, w := range append(append(strings.Split(k.Table, "."), k.Name), k.words...) {
					known = known || w == m
				}
			}
			if !known {
				t.Errorf("%s stands for %s, which is nothing", word, m)
			}
		}
	}
}

// TestExample loads the config.toml at the top, as it is and with what is commented out put in.
func TestExample(t *testing.T) {
	data, err := os.ReadFile("../config.toml")
	if err != nil {
		t.Fatal(err)
	}
	read := func(lines []string) *Config {
		t.Helper()
		c, err := Parse("config.toml", []byte(strings.Join(lines, "\n")))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	lines := strings.Split(string(data), "\n")
	plain := read(lines)
	const want = "config.toml: ok: listens on :8080, sends everything to pool app (4 backends, adaptive), metrics on 127.0.0.1:9901"
	if got := plain.Summary(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if len(plain.Pools[0].Backends) != 4 || plain.Pools[0].Backends[3].Address != "127.0.0.1:3003" {
		t.Errorf("backends: %+v", plain.Pools[0].Backends)
	}
	all := append([]string(nil), lines...)
	keys, blocks := 0, 0
	for i := 0; i < len(lines); i++ {
		n := i // past the last line of what starts here
		for n < len(lines) && len(lines[n]) > 1 && lines[n][0] == '#' && (lines[n][1] != ' ' || n > i && strings.HasPrefix(lines[n], "#  ")) {
			n++
			if !strings.HasPrefix(lines[i], "#[") {
				break // a key stands alone; a table has its keys with it
			}
		}
		if n == i {
			continue
		}
		one := append([]string(nil), lines...)
		for j := i; j < n; j++ {
			one[j], all[j] = one[j][1:], all[j][1:]
		}
		c := read(one)
		if n-i == 1 {
			keys++
			if !Equal(plain, c) {
				t.Errorf("config.toml:%d: %s is not the default", i+1, lines[i])
			}
		} else if blocks++; Equal(plain, c) {
			t.Errorf("config.toml:%d: changes nothing", i+1)
		}
		i = n - 1
	}
	if keys < 20 || blocks != 1 {
		t.Errorf("found %d commented keys and %d tables", keys, blocks)
	}
	if c := read(all); len(c.Pools) != 2 || len(c.Routes) != 2 {
		t.Errorf("with all put in: %s", c.Summary())
	}
	for _, k := range Keys() {
		if !strings.Contains(string(data), k.Name+" = ") && !(k.Table == "route.NAME" && k.Name == "host") {
			t.Errorf("%s is not shown", k.Path())
		}
	}
}
