package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// offered is what a shell is offered for a command line whose last word is being typed, a line each.
func offered(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	execute(append([]string{"__complete"}, args...), world{stdout: &stdout, stderr: &stderr})
	out := "\n" + stdout.String()
	i := strings.LastIndex(out, "\n:") // the last line is for the shell: what to make of the others
	if i < 0 {
		t.Fatalf("%q: %s%s", args, out, stderr.String())
	}
	return strings.TrimSpace(out[:i])
}

// runApp runs lb with two pools, in a directory of its own that becomes the working directory.
func runApp(t *testing.T) *command {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("RUNTIME_DIRECTORY", dir)
	text := "[pool.app]\nbackends = [1, { address = 2, name = \"blue\" }]\nhold = \"off\"\n[pool.api]\nbackends = [3]\n[route.api]\npath = \"/api\"\npool = \"api\"\n" +
		"[route.app]\npool = \"app\"\n[listen.web]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"off\"\n"
	if err := os.WriteFile("config.toml", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c := start(t, "run", "config.toml")
	c.event("msg=ready")
	t.Cleanup(func() {
		c.signal(os.Interrupt)
		c.wait()
	})
	return c
}

func TestCompletion(t *testing.T) {
	runApp(t)
	states := strings.NewReplacer("\tdown", "", "\tready", "", "\tunchecked", "", "\tejected", "")
	for _, c := range []struct{ line, want string }{
		{"drain ", "app\napi"},
		{"drain app ", "127.0.0.1:1\nblue"},
		{"drain api ", "127.0.0.1:3"},
		{"drain nosuch ", ""},
		{"drain app blue ", ""},
		{"ready --config config.toml app ", "127.0.0.1:1\nblue"},
		{"ready --config nosuch.toml ", ""},
		{"drain --wait ", ""},
		{"check ", "toml"},
		{"run ", "toml"},
		{"run config.toml ", ""},
		{"drain --config ", "toml"},
		{"completion ", "bash\nzsh\nfish"},
		{"completion bash ", ""},
	} {
		if got := states.Replace(offered(t, strings.Split(c.line, " ")...)); got != c.want {
			t.Errorf("lb %s: offered %q, want %q", c.line, got, c.want)
		}
	}
}

// TestCompletionQuiet holds that nobody who presses the tab key gets a fault, or waits for long.
func TestCompletionQuiet(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("RUNTIME_DIRECTORY", dir)
	defer func(was []string) { configPlaces = was }(configPlaces)
	configPlaces = []string{"config.toml", "/nosuch/config.toml"}
	quiet := func(what string, args ...string) {
		t.Helper()
		if got := offered(t, args...); got != "" {
			t.Errorf("%s: offered %q", what, got)
		}
	}
	quiet("no file", "drain", "")
	os.WriteFile("config.toml", []byte("nonsense"), 0o644)
	quiet("no lb", "drain", "")

	stuck := make(chan struct{})
	defer close(stuck)
	for what, h := range map[string]http.HandlerFunc{
		"another server": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello")) },
		"a stuck server": func(http.ResponseWriter, *http.Request) { <-stuck },
	} {
		quiet(what, "drain", "--socket", serveSocket(t, h), "")
	}
}

// TestShells has real shells complete, by the scripts that lb prints.
func TestShells(t *testing.T) {
	if testing.Short() {
		t.Skip("links a binary")
	}
	bin := filepath.Join(t.TempDir(), "lb")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	runApp(t)
	t.Setenv("PATH", filepath.Dir(bin)+":"+os.Getenv("PATH"))
	shell := func(t *testing.T, name, script string) string {
		t.Helper()
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("there is no %s: install it", name)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, "-c", script)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || stderr.Len() > 0 {
			t.Errorf("%s: %v\n%s%s", name, err, out, stderr.String())
		}
		return strings.Join(strings.Fields(string(out)), " ")
	}
	t.Run("bash", func(t *testing.T) {
		const helper = "/usr/share/bash-completion/bash_completion"
		if _, err := os.Stat(helper); err != nil {
			t.Skip("there is no bash-completion: install it")
		}
		// What readline does: words are broken at colons, and what is offered replaces the last piece.
		got := shell(t, "bash", `source `+helper+`; source <(lb completion bash)
try() { COMP_LINE="$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; COMPREPLY=(); compopt() { :; }; __start_lb; echo "${COMPREPLY[@]}" '|'; }
try "lb drain " lb drain ""
try "lb drain app 127.0.0.1:" lb drain app 127.0.0.1 : ""
try "lb relo" lb relo
try "lb check conf" lb check conf`)
		if want := "app api | 1 | reload | config.toml |"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("fish", func(t *testing.T) {
		got := shell(t, "fish", `lb completion fish | source; complete -C "lb drain "; echo '|'; complete -C "lb drain app b"; echo '|'; complete -C "lb relo"; echo '|'; complete -C "lb check conf"`)
		if want := `api app | blue`; !strings.HasPrefix(got, want) || !strings.Contains(got, "| reload Have a running lb") || !strings.HasSuffix(got, "| config.toml") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("zsh", func(t *testing.T) {
		// In a terminal of its own, as completion is at home only there; ^I is the tab key.
		got := shell(t, "zsh", `zmodload zsh/zpty
zpty sh 'zsh -f -i'
zpty -w sh 'PS1= RPS1=; unsetopt zle_bracketed_paste; autoload -U compinit; compinit -u -D; source <(lb completion zsh); bindkey "^I" complete-word; zstyle ":completion:*" list-colors ""; print STARTED'
while zpty -r sh line; do [[ $line == STARTED* ]] && break; done
zpty -w sh $'lb drain app bl\tX; print DONE'
while zpty -r sh line; do print -r -- $line; [[ $line == DONE* ]] && break; done`)
		if !strings.Contains(got, "lb drain app blue") {
			t.Errorf("got %q", got)
		}
	})
}

func TestCompletionScripts(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := execute([]string{"completion", "tcsh"}, world{stdout: &stdout, stderr: &stderr}); code != exitUsage {
		t.Errorf("tcsh: exit code %d", code)
	}
	if diff := cmp.Diff("lb: invalid argument \"tcsh\" for \"lb completion\"\n", stderr.String()); diff != "" {
		t.Error(diff)
	}
}
