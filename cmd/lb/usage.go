package main

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lb/config"
)

// The widths between which help is folded. Longer lines are hard to read, shorter ones have no room for flags.
const (
	narrowest = 60
	widest    = 100
)

// guide has root and all below it say what they take: folded to the width of the terminal, 80 where there is none, and
// with words for what was meant when the command line is wrong.
func guide(root *cobra.Command, w world) {
	out := terminalOf(w.stdout)
	width, _ := out.size()
	width = min(max(width, narrowest), widest)
	root.SetUsageFunc(func(c *cobra.Command) error {
		_, err := fmt.Fprint(c.OutOrStderr(), usage(c, width))
		return err
	})
	root.SetHelpFunc(func(c *cobra.Command, _ []string) {
		if text := c.Long; text != "" {
			fmt.Fprint(w.stdout, fold(text, width), "\n\n")
		} else if c.Short != "" {
			fmt.Fprint(w.stdout, c.Short, "\n\n")
		}
		if c.Runnable() || c.HasSubCommands() {
			fmt.Fprint(w.stdout, usage(c, width))
		}
	})
	root.SetFlagErrorFunc(flagError)
	for _, c := range root.Commands() {
		if c.Args != nil {
			c.Args = spoken(c.Args)
		}
	}
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Args = func(_ *cobra.Command, args []string) error {
			if _, _, err := root.Find(args); err != nil {
				return noCommand(root, args[0])
			}
			return nil
		}
	}
}

// groups are the commands by what people want to do, the first things first.
var groups = []struct{ title, commands string }{
	{"Setting up", "demo init check"},
	{"Running", "run reload upgrade"},
	{"Looking", "status top explain"},
	{"Changing backends", "rollout drain ready weight add remove"},
	{"And", "version completion help"},
}

// meant are words that people try for our commands; a guess by spelling alone would send them elsewhere.
var meant = map[string]string{
	"start": "run", "serve": "run", "server": "run", "up": "run", "test": "check", "configtest": "check", "validate": "check", "verify": "check", "lint": "check",
	"ps": "status", "ls": "status", "list": "status", "show": "status", "info": "status", "stats": "status", "health": "status", "watch": "top", "monitor": "top", "dashboard": "top",
	"why": "explain", "trace": "explain", "debug": "explain", "deploy": "rollout", "restart": "rollout", "rolling": "rollout", "undrain": "ready", "enable": "ready", "resume": "ready",
	"disable": "drain", "down": "drain", "pause": "drain", "scale": "add", "rm": "remove", "delete": "remove", "del": "remove", "new": "init", "setup": "init", "configure": "init", "update": "upgrade", "hup": "reload",
}

// noCommand says that there is no command of that name, and which one was probably meant.
func noCommand(root *cobra.Command, name string) error {
	switch name {
	case "stop", "quit", "kill", "shutdown":
		return fmt.Errorf("there is no command %q: Ctrl-C or SIGTERM stops lb without losing a request, for the service \"systemctl stop lb\"", name)
	}
	var names []string
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	like := config.Suggest(name, names)
	if word, ok := meant[strings.ToLower(name)]; ok {
		like = word
	}
	if like == "" {
		return fmt.Errorf("there is no command %q; \"lb --help\" lists those there are", name)
	}
	return fmt.Errorf("there is no command %q, did you mean \"lb %s\"?", name, like)
}

// flagError says in words what is wrong with a flag of c.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var value *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	switch {
	case errors.As(err, &unknown):
		return noFlag(c, unknown.GetSpecifiedName(), unknown.GetSpecifiedShortnames())
	case errors.As(err, &value):
		f := value.GetFlag()
		wants := map[string]string{"duration": "a duration, such as 30s or 1m30s", "int": "a whole number", "int64": "a whole number", "bool": "true or false"}[f.Value.Type()]
		if wants != "" {
			return fmt.Errorf("--%s %s: wants %s", f.Name, value.GetValue(), wants)
		}
	case errors.As(err, &missing):
		return fmt.Errorf("--%s wants a value; see \"%s --help\"", missing.GetFlag().Name, c.CommandPath())
	}
	return err
}

// noFlag says that c has no flag of that name; short are the letters of -abc, of which name is the first unknown.
func noFlag(c *cobra.Command, name, short string) error {
	if short != "" && short[0] >= '0' && short[0] <= '9' {
		if f := c.Flags().Lookup("watch"); f != nil && f.Changed && f.NoOptDefVal != "" {
			return fmt.Errorf("-w takes no value like that: write --watch=%s", short)
		}
		if c.Name() == "weight" {
			return fmt.Errorf("-%s: a weight is 0 or more: lb %s", short, c.Use)
		}
		return fmt.Errorf("-%s: is no flag, and no number here is below 0: lb %s", short, c.Use)
	}
	if name == "config" && strings.Contains(c.Use, "[FILE]") {
		return fmt.Errorf("%s takes the file without --config: lb %s", c.CommandPath(), c.Use)
	}
	var names, all []string
	like := ""
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names, all = append(names, f.Name), append(all, "--"+f.Name)
			if short != "" && len(name) == 1 && len(short) > 1 && strings.HasSuffix(f.Name, short) {
				like = f.Name // of -watch, which is -w and then some
			}
		}
	})
	given := "--" + name
	if short != "" {
		given = "-" + short
		if like == "" && len(short) > 2 {
			like = config.Suggest(short, names)
		}
	} else {
		like = config.Suggest(name, names)
	}
	if like != "" {
		return fmt.Errorf("%s has no flag %s, did you mean \"--%s\"?", c.CommandPath(), given, like)
	}
	return fmt.Errorf("%s has no flag %s%s", c.CommandPath(), given, config.DidYouMean("", all))
}

// usage says how c is called. It does not use cobra's templates: with those, text/template is in the binary, and by that
// every method there is, 1.7 MB of them.
func usage(c *cobra.Command, width int) string {
	var b strings.Builder
	b.WriteString("Usage:")
	if c.Runnable() {
		fmt.Fprintf(&b, "\n  %s", c.UseLine())
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n  %s COMMAND", c.CommandPath())
	}
	if c.HasExample() {
		fmt.Fprintf(&b, "\n\nExamples:\n%s", c.Example)
	}
	for _, g := range groups {
		title := "\n\n" + g.title + ":\n"
		for _, name := range strings.Fields(g.commands) {
			s, _, err := c.Find([]string{name})
			if err != nil || s == c {
				continue // c is no root
			}
			b.WriteString(title + fmt.Sprintf("  %-*s ", s.NamePadding(), name))
			b.WriteString(strings.Join(wrap(s.Short, width-s.NamePadding()-3), "\n"+strings.Repeat(" ", s.NamePadding()+3)))
			title = "\n"
		}
	}
	if c.HasAvailableLocalFlags() {
		fmt.Fprintf(&b, "\n\nFlags:\n%s", strings.TrimRight(c.LocalFlags().FlagUsagesWrapped(width), " \n"))
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n\n\"%s COMMAND --help\" says more of each; \"lb help exit-codes\": what those say.", c.CommandPath())
	}
	b.WriteString("\n")
	return b.String()
}

// spoken is args, with words that name what a command takes when there are too few or too many.
func spoken(args cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		var places []string
		least := 0
		for _, word := range strings.Fields(c.Use)[1:] {
			if strings.HasPrefix(word, "[-") {
				break // flags
			}
			if places = append(places, word); word[0] != '[' {
				least++
			}
		}
		switch n := len(given); {
		case n < least:
			is := "is"
			if least-n > 1 {
				is = "are"
			}
			example := ""
			for line := range strings.SplitSeq(c.Example, "\n") {
				if line = strings.TrimSpace(line); strings.HasPrefix(line, "lb ") {
					example = ", as in: " + line
					break
				}
			}
			return fmt.Errorf("%s %s missing: lb %s%s", strings.Join(places[n:least], " and "), is, c.Use, example)
		case n > len(places) && len(places) == 0:
			return fmt.Errorf("%q is too much: %s takes flags only", given[0], c.CommandPath())
		case n > len(places):
			return fmt.Errorf("%q is too much: lb %s", given[len(places)], c.Use)
		}
		return args(c, given)
	}
}

// fold breaks the paragraphs of text anew, into lines of at most width. Lines that are set in stay as they are.
func fold(text string, width int) string {
	var lines, open []string
	end := func() {
		if len(open) > 0 {
			lines = append(lines, wrap(strings.Join(open, " "), width)...)
		}
		open = nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || unicode.IsSpace(rune(line[0])) {
			end()
			lines = append(lines, line)
		} else {
			open = append(open, line)
		}
	}
	end()
	return strings.Join(lines, "\n")
}
