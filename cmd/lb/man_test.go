package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"lb/config"
)

// manual runs `lb man` and returns its page, as it is and as a reader sees it.
func manual(t *testing.T, name string) (source, seen string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := execute([]string{"man", name, "--date", "2026-11-21"}, world{stdout: &stdout, stderr: &stderr}); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, stdout.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("mandoc", "-Tlint", path).Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("there is no mandoc: install it")
	}
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "referenced manual not found: Xr lb") { // the other one, where it is not installed
			t.Errorf("mandoc: %s", line)
		}
	}
	text, err := exec.Command("mandoc", "-Tutf8", "-Owidth=200", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder // bold letters are struck twice: letter, backspace, letter
	for i, r := 0, []rune(string(text)); i < len(r); i++ {
		if i+1 < len(r) && r[i+1] == '\b' {
			i++
			continue
		}
		b.WriteRune(r[i])
	}
	return stdout.String(), b.String()
}

func TestManCommands(t *testing.T) {
	source, seen := manual(t, "lb.1")
	if !strings.HasPrefix(source, ".Dd November 21, 2026\n.Dt LB 1\n") {
		t.Errorf("begins with %.60q", source)
	}
	flat := strings.Join(strings.Fields(seen), " ")
	n := 0
	for _, c := range commands(world{}).Commands() {
		if c.Hidden || !c.Runnable() || c.Name() == "help" {
			continue
		}
		n++
		if !strings.Contains(seen, "\n   "+c.UseLine()+"\n") {
			t.Errorf("there is no %q", c.UseLine())
		}
		want := []string{strings.Split(c.Long, "\n\n")[0]}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) { want = append(want, "--"+f.Name) })
		for line := range strings.Lines(c.Example) {
			want = append(want, line) // with the hyphens and quotes that a shell wants
		}
		for _, w := range want {
			w = strings.Join(strings.Fields(w), " ")
			if !strings.Contains(flat, w) && w != "--help" {
				t.Errorf("lb %s: the page does not say %q", c.Name(), w)
			}
		}
	}
	if n < 7 {
		t.Errorf("%d commands", n)
	}
	if t.Failed() {
		t.Log(seen)
	}
}

func TestManConfig(t *testing.T) {
	_, seen := manual(t, "lb-config.5")
	flat := strings.Join(strings.Fields(seen), " ")
	for _, k := range config.Keys() {
		doc := strings.ReplaceAll(k.Doc, "`", "")
		if !strings.Contains(flat, "["+k.Table+"]") || !strings.Contains(flat, k.Name+" = "+k.Type()+" "+strings.Join(strings.Fields(doc), " ")) {
			t.Errorf("%s is not there, or not as its documentation has it", k.Path())
		}
	}
	if !strings.Contains(flat, "[admin] Metrics, status") {
		t.Error("the sentence of a table is missing")
	}
	// The example works.
	example := strings.Split(strings.Split(seen, "\nEXAMPLES\n")[1], "\nSEE ALSO\n")[0]
	if _, err := config.Parse("example", []byte(example[strings.Index(example, "[listen"):])); err != nil {
		t.Errorf("%v in\n%s", err, example)
	}
}

// TestManText holds that nothing of a text is taken for an order to the formatter.
func TestManText(t *testing.T) {
	var p page
	p.prose(".config is a file. 'tis so\n\n  printf '\\n' --wait=5m ~ ^ `x`\n")
	const want = "\\&.config is a file. 'tis so\n.Bd -literal -offset indent\n" +
		"printf \\(aq\\en\\(aq \\-\\-wait=5m \\(ti \\(ha \\(gax\\(ga\n.Ed\n"
	if p.String() != want {
		t.Errorf("got\n%s\nwant\n%s", p.String(), want)
	}
	p.Reset()
	p.text("One. Two (three). " + "Four" + strings.Repeat(" four", 20) + ".five")
	for i, line := range strings.Split(strings.TrimSpace(p.String()), "\n") {
		if len(line) > 80 || i == 0 && line != "One." || i == 1 && line != "Two (three)." || strings.HasPrefix(line, ".") {
			t.Errorf("line %d: %q", i, line)
		}
	}
}

func TestManFaults(t *testing.T) {
	for _, args := range [][]string{{"man", "lb.8"}, {"man", "--date", "today"}, {"man", "lb.1", "lb.1"}} {
		var stdout, stderr bytes.Buffer
		if code := execute(args, world{stdout: &stdout, stderr: &stderr}); code != exitUsage || stdout.Len() > 0 || stderr.Len() == 0 {
			t.Errorf("%q: exit code %d, %q, %q", args, code, stdout.String(), stderr.String())
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "86400")
	var stdout bytes.Buffer
	if execute([]string{"man"}, world{stdout: &stdout, stderr: &stdout}); !strings.HasPrefix(stdout.String(), ".Dd January 2, 1970\n") {
		t.Errorf("%.60q", stdout.String())
	}
}
