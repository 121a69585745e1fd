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
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		var unknown *pflag.NotExistError
		if !errors.As(err, &unknown) || len(unknown.GetSpecifiedName()) < 2 {
			return err
		}
		var names []string
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		name := unknown.GetSpecifiedName()
		return fmt.Errorf("%s has no flag --%s%s", c.CommandPath(), name, config.DidYouMean(name, names))
	})
	for _, c := range root.Commands() {
		if c.Args != nil {
			c.Args = spoken(c.Args)
		}
	}
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
		fmt.Fprintf(&b, "\n  %s [command]", c.CommandPath())
	}
	if c.HasExample() {
		fmt.Fprintf(&b, "\n\nExamples:\n%s", c.Example)
	}
	var commands, topics []string
	for _, s := range c.Commands() {
		switch {
		case s.IsAvailableCommand() || s.Name() == "help":
			commands = append(commands, fmt.Sprintf("\n  %-*s %s", s.NamePadding(), s.Name(), s.Short))
		case s.IsAdditionalHelpTopicCommand():
			topics = append(topics, fmt.Sprintf("\n  lb help %s  %s", s.Name(), s.Short))
		}
	}
	list := func(title string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(&b, "\n\n%s:%s", title, strings.Join(lines, ""))
		}
	}
	list("Available Commands", commands)
	if c.HasAvailableLocalFlags() {
		fmt.Fprintf(&b, "\n\nFlags:\n%s", strings.TrimRight(c.LocalFlags().FlagUsagesWrapped(width), " \n"))
	}
	if c.HasAvailableInheritedFlags() {
		fmt.Fprintf(&b, "\n\nGlobal Flags:\n%s", strings.TrimRight(c.InheritedFlags().FlagUsagesWrapped(width), " \n"))
	}
	list("Additional help topics", topics)
	if len(commands) > 0 {
		fmt.Fprintf(&b, "\n\nUse \"%s [command] --help\" for more information about a command.", c.CommandPath())
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
