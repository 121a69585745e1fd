package main

import (
	"bytes"
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
		"status --wach":      `lb status has no flag --wach, did you mean "watch"?`,
		"drain app a --now":  `lb drain has no flag --now; there is config, help, socket, wait`,
		"status --watch 5s":  `"5s" is taken for a pool: write --watch=5s`,
		"rollout a --max-un": `lb rollout has no flag --max-un`,
		"chek":               "unknown command \"chek\" for \"lb\"\n\nDid you mean this?\n\tcheck\n",
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
			if len(line) > 81 && !strings.Contains(c.Example+c.Long, strings.TrimRight(line, "\n")) { // what is set in stays as it is
				t.Errorf("lb help %s: %d columns: %s", c.Name(), len(line)-1, line)
			}
		}
	}
	if n < 17 {
		t.Errorf("%d commands", n)
	}
	var out bytes.Buffer
	execute([]string{"--help"}, world{stdout: &out, stderr: &out})
	if !strings.Contains(out.String(), "\n  lb help exit-codes  What") {
		t.Errorf("how the topic is called: %s", out.String())
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
