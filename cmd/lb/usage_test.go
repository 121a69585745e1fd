package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// TestMisuse holds that a wrong command line is answered by what was meant, and by the code for it.
func TestMisuse(t *testing.T) {
	for args, want := range map[string]string{
		"drain":              `POOL and BACKEND are missing: lb drain POOL BACKEND, as in: lb drain app 127.0.0.1:3000`,
		"drain app":          `BACKEND is missing: lb drain POOL BACKEND, as in: lb drain app 127.0.0.1:3000`,
		"drain app a b":      `"b" is too much: lb drain POOL BACKEND`,
		"rollout":            `POOL is missing: lb rollout POOL [--exec COMMAND], as in: lb rollout app --exec 'pm2 restart app-{port}'`,
		"weight app a":       `N|N%|reset is missing: `,
		"demo x":             `"x" is too much: lb demo takes flags only`,
		"check a b":          `"b" is too much: lb check [FILE]`,
		"completion tcsh":    `invalid argument "tcsh"`,
		"status --wach":      `lb status has no flag --wach, did you mean "--watch"?`,
		"status -watch":      `lb status has no flag -atch, did you mean "--watch"?`,
		"drain app a -wat":   `lb drain has no flag -wat, did you mean "--wait"?`,
		"drain app a -x":     `lb drain has no flag -x; there is --config, --help, --socket, --wait`,
		"drain app a --wait": `--wait wants a value; see "lb drain --help"`,
		"ready a b --wait 5": `--wait 5: wants a duration, such as 30s or 1m30s`,
		"demo --rate x":      `--rate x: wants a whole number`,
		"weight app a -5":    `-5: a weight is 0 or more: lb weight POOL BACKEND N|N%|reset`,
		"weight app a -5%":   `-5%: a weight is 0 or more: `,
		"explain -5":         `-5: is no flag, and no number here is below 0: lb explain [POOL]`,
		"reload --config a":  `lb reload takes the file without --config: lb reload [FILE]`,
		"drain app a --now":  `lb drain has no flag --now; there is --config, --help, --socket, --wait`,
		"status -w 1":        `"1" is taken for a pool: write --watch=1s`,
		"status -w5s":        `-w takes no value like that: write --watch=5s`,
		"status -5":          `-5: is no flag, and no number here is below 0: lb status [POOL]`,
		"status --watch 5s":  `"5s" is taken for a pool: write --watch=5s`,
		"rollout a --max-un": `lb rollout has no flag --max-un`,
		"chek":               "there is no command \"chek\", did you mean \"lb check\"?\n",
		"undrain app a":      "there is no command \"undrain\", did you mean \"lb ready\"?\n",
		"help chek":          "there is no command \"chek\", did you mean \"lb check\"?\n",
		"foo":                "there is no command \"foo\"; \"lb --help\" lists those there are\n",
		"stop":               "there is no command \"stop\": Ctrl-C or SIGTERM stops lb without losing a request",
	} {
		var out, errs bytes.Buffer
		if code := execute(strings.Fields(args), world{stdout: &out, stderr: &errs}); code != exitUsage || out.Len() > 0 {
			t.Errorf("lb %s: exit code %d, %q", args, code, out.String())
		}
		if got := errs.String(); !strings.HasPrefix(got, "lb: "+want) {
			t.Errorf("lb %s: %q, want %q", args, got, want)
		}
	}
}

// TestHelpFits holds that help fits into 80 columns, and that all of its words are there.
func TestHelpFits(t *testing.T) {
	root := commands(world{stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)})
	n := 0
	for _, c := range root.Commands() {
		var out bytes.Buffer
		if code := execute([]string{"help", c.Name()}, world{stdout: &out, stderr: &out}); code != 0 {
			t.Errorf("lb help %s: exit code %d", c.Name(), code)
		}
		n++
		text := strings.Join(strings.Fields(out.String()), " ")
		if long := strings.Join(strings.Fields(c.Long), " "); !strings.HasPrefix(text, long) {
			t.Errorf("lb help %s: %q is not all there:\n%s", c.Name(), long, out.String())
		}
		for line := range strings.Lines(out.String()) {
			if len(line) > 81 {
				t.Errorf("lb help %s: %d columns: %s", c.Name(), len(line)-1, line)
			}
		}
	}
	if n < 17 {
		t.Errorf("%d commands", n)
	}
	var out bytes.Buffer
	execute([]string{"--help"}, world{stdout: &out, stderr: &out})
	if !strings.Contains(out.String(), `"lb help exit-codes"`) {
		t.Errorf("how the topic is called: %s", out.String())
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > 81 {
			t.Errorf("lb --help: %d columns: %s", len(line)-1, line)
		}
	}
}

// TestGroups holds that help lists each command once, and that words people try lead to one there is.
func TestGroups(t *testing.T) {
	root := commands(world{stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)})
	root.InitDefaultHelpCmd()
	var there, listed []string
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() || c.Name() == "help" {
			there = append(there, c.Name())
		}
	}
	for _, g := range groups {
		listed = append(listed, strings.Fields(g.commands)...)
	}
	slices.Sort(listed)
	if !slices.Equal(listed, there) {
		t.Errorf("help lists %v, and there are %v", listed, there)
	}
	for word, command := range meant {
		if !slices.Contains(there, command) || slices.Contains(there, word) {
			t.Errorf("%q is to mean %q", word, command)
		}
	}
}

func TestVersionFlag(t *testing.T) {
	for _, flag := range []string{"--version", "-v", "-V"} {
		var out, errs bytes.Buffer
		if code := execute([]string{flag}, world{stdout: &out, stderr: &errs}); code != 0 || !strings.HasPrefix(out.String(), "lb ") {
			t.Errorf("lb %s: exit code %d, %q, %q", flag, code, out.String(), errs.String())
		}
	}
}

func TestFold(t *testing.T) {
	const text = "one two three four\nfive\n\n  set in, and longer than the rest\nsix seven"
	for width, want := range map[int]string{
		9:  "one two\nthree\nfour five\n\n  set in, and longer than the rest\nsix seven",
		8:  "one two\nthree\nfour\nfive\n\n  set in, and longer than the rest\nsix\nseven",
		80: "one two three four five\n\n  set in, and longer than the rest\nsix seven",
	} {
		if got := fold(text, width); got != want {
			t.Errorf("%d: %q, want %q", width, got, want)
		}
	}
}
