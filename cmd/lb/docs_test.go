package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"lb/config"
)

// documents are the Markdown files of the repository, by their path from its top.
func documents(t *testing.T) map[string]string {
	t.Helper()
	docs := map[string]string{}
	top := os.DirFS("../..")
	err := fs.WalkDir(top, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "dist" || path != "." && strings.HasPrefix(d.Name(), ".")) {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, ".md") {
			text, err := fs.ReadFile(top, path)
			docs[path] = string(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

// TestDocsCommands holds that every command line of lb in the documentation is one that lb takes.
func TestDocsCommands(t *testing.T) {
	n := 0
	for path, text := range documents(t) {
		for _, line := range shellLines(text) {
			for _, words := range calls(line) {
				n++
				if err := takes(words); err != nil {
					t.Errorf("%s: lb %s: %v", path, strings.Join(words, " "), err)
				}
			}
		}
	}
	if n < 25 {
		t.Errorf("only %d calls of lb were found", n)
	}
}

// takes says whether lb would go on with these arguments, as far as their form goes.
func takes(args []string) error {
	root := commands(world{stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)})
	c, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	c.InitDefaultHelpFlag()
	switch err := c.ParseFlags(rest); {
	case errors.Is(err, pflag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	if help, _ := c.Flags().GetBool("help"); help || c == root {
		return nil
	}
	return c.ValidateArgs(c.Flags().Args())
}

// block is a fenced block of Markdown that shows a shell.
var block = regexp.MustCompile("(?ms)^```(console|bash|sh)\n(.*?)^```")

// shellLines are the lines that a reader would type. In a console they stand behind a prompt.
func shellLines(text string) (lines []string) {
	for _, m := range block.FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(strings.ReplaceAll(m[2], "\\\n", " ")) {
			line = strings.TrimSpace(line)
			if m[1] == "console" {
				if len(line) < 2 || line[:2] != "$ " && line[:2] != "# " {
					continue
				}
				line = line[2:]
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// before are words that may stand before a command.
var before = []string{"sudo", "exec", "if", "then", "else", "do", "while", "until", "!"}

// calls are the arguments of each call of lb in a line of shell.
func calls(line string) (all [][]string) {
	for _, words := range shellWords(line) {
		for len(words) > 0 && (slices.Contains(before, words[0]) || strings.Contains(words[0], "=")) {
			words = words[1:]
		}
		if len(words) > 0 && slices.Contains([]string{"lb", "bin/lb", "./lb", "/usr/bin/lb"}, words[0]) {
			all = append(all, words[1:])
		}
	}
	return all
}

// shellWords splits a line into commands and these into words, as far as documentation needs it: quotes, comments,
// redirections, and what stands between commands.
func shellWords(line string) (all [][]string) {
	var words []string
	word, some, skip := "", false, false
	endWord := func() {
		if some && !skip {
			words = append(words, word)
		}
		if some {
			skip = false
		}
		word, some = "", false
	}
	endCommand := func() {
		endWord()
		if len(words) > 0 {
			all = append(all, words)
		}
		words, skip = nil, false
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\'' || c == '"':
			end := strings.IndexByte(line[i+1:], c)
			if end < 0 {
				end = len(line) - i - 1
			}
			word, some = word+line[i+1:i+1+end], true
			i += end + 1
		case c == '#' && !some:
			i = len(line)
		case c == ' ' || c == '\t':
			endWord()
		case c == '>' || c == '<':
			if some && strings.Trim(word, "0123456789") == "" { // 2>file
				word, some = "", false
			}
			endWord()
			skip = true // where to
		case c == '&' && i > 0 && line[i-1] == '>': // 2>&1
		case strings.IndexByte("|&;()", c) >= 0:
			endCommand()
		case c == '$' && i+1 < len(line) && line[i+1] == '(':
			endWord()
		default:
			word, some = word+string(c), true
		}
	}
	endCommand()
	return all
}

func TestShellWords(t *testing.T) {
	for line, want := range map[string]string{
		`lb drain app 127.0.0.1:3000 && pm2 restart app-0; lb ready app b # back`: `[[drain app 127.0.0.1:3000] [ready app b]]`,
		`lb status --json | jq '.pools[] | lb nonsense' >x 2>&1`:                  `[[status --json]]`,
		`FOO=1 sudo lb rollout app --exec 'pm2 restart app-{port}' > log`:         `[[rollout app --exec pm2 restart app-{port}]]`,
		`source <(lb completion bash)`:                                            `[[completion bash]]`,
		`if lb check "a file.toml"; then echo lb drain; fi`:                       `[[check a file.toml]]`,
		`journalctl -u lb`: `[]`,
	} {
		if got := fmt.Sprint(calls(line)); got != want {
			t.Errorf("%s: got %s, want %s", line, got, want)
		}
	}
	text := "```console\n$ lb a\nlb b\n# lb c \\\n  d\n```\n```bash\nlb e\n```\n```toml\nlb f\n```\n"
	if diff := cmp.Diff([]string{"lb a", "lb c    d", "lb e"}, shellLines(text)); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"nosuch", "check --nosuch", "check a b", "drain app", "drain app b --wait soon"} {
		if takes(strings.Fields(bad)) == nil {
			t.Errorf("lb %s was taken", bad)
		}
	}
}

// TestDocsConfigs reads each configuration of the documentation as lb would.
func TestDocsConfigs(t *testing.T) {
	n := 0
	for path, text := range documents(t) {
		for _, m := range regexp.MustCompile("(?ms)^```toml\n(.*?)^```").FindAllStringSubmatch(text, -1) {
			n++
			text := m[1]
			if !strings.Contains(text, "[pool.") {
				text += "\n[pool.app]\nbackends = [3000]\n"
			}
			if _, err := config.Parse(path, []byte(text)); err != nil {
				t.Errorf("%v in\n%s", err, m[1])
			}
		}
	}
	if n < 15 {
		t.Errorf("only %d configurations were found", n)
	}
}

// TestDocsLinks holds that links between documents lead somewhere.
func TestDocsLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:\s]+)(#[^)]*)?\)`)
	n := 0
	for path, text := range documents(t) {
		text = regexp.MustCompile("(?ms)^```.*?^```").ReplaceAllString(text, "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			n++
			if _, err := os.Stat(filepath.Join("../..", filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s: there is no %s", path, m[1])
			}
		}
	}
	if n < 40 {
		t.Errorf("only %d links were found", n)
	}
}
