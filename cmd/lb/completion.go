package main

import (
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lb/admin"
)

func completionCommand(w world) *cobra.Command {
	c := &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print what makes bash, zsh or fish complete lb's commands",
		Long: `Prints a script by which a shell completes commands, flags, files, and the names of pools and backends of the lb
that runs. SHELL is bash, zsh or fish. Packages of lb have the scripts installed already; without them, add the line
for your shell to the file that it reads when it starts. In bash, the package bash-completion has to be there.`,
		Example: `  source <(lb completion bash)    # ~/.bashrc
  source <(lb completion zsh)     # ~/.zshrc, after compinit
  lb completion fish | source     # ~/.config/fish/config.fish`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(c *cobra.Command, args []string) error {
			switch root := c.Root(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(w.stdout, true)
			case "zsh":
				return root.GenZshCompletion(w.stdout)
			default:
				return root.GenFishCompletion(w.stdout, true)
			}
		},
	}
	return c
}

// completions is what a shell is offered, and what it is to make of that.
type completions func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective)

// placeholder is a word of a command's usage that stands for a value.
var placeholder = regexp.MustCompile(`^\[?([A-Z]+)\]?(\.\.\.)?$`)

// complete has every command below c complete its arguments by what its usage line calls them (POOL, BACKEND, FILE ...),
// and its flags by their names. A command that says for itself what may stand there is left alone.
func complete(c *cobra.Command) {
	for _, c := range c.Commands() {
		complete(c)
		if c.ValidArgsFunction == nil && len(c.ValidArgs) == 0 {
			var places []completions
			for _, word := range strings.Fields(c.Use)[1:] {
				if m := placeholder.FindStringSubmatch(word); m != nil {
					places = append(places, argument(m[1]))
				}
			}
			c.ValidArgsFunction = func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
				if len(args) >= len(places) {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
				return places[len(args)](c, args, typed)
			}
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if _, ok := c.GetFlagCompletionFunc(f.Name); !ok {
				c.RegisterFlagCompletionFunc(f.Name, flagValue(f)) // which fails only when there is one
			}
		})
	}
}

// argument completes what a usage line calls by that word.
func argument(word string) completions {
	switch word {
	case "FILE":
		return tomlFiles
	case "POOL":
		return poolNames
	case "BACKEND":
		return backendNames
	}
	return nothing
}

// flagValue completes the value of a flag.
func flagValue(f *pflag.Flag) completions {
	switch f.Name {
	case "config", "output":
		return tomlFiles
	case "socket", "file":
		return anyFile
	case "pool":
		return poolNames
	}
	return nothing
}

func nothing(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func anyFile(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

func tomlFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"toml"}, cobra.ShellCompDirectiveFilterFileExt
}

func poolNames(c *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	for _, p := range askPools(c) {
		names = append(names, p.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// backendNames are those of the pool that was named before, but for the ones named before.
func backendNames(c *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	for _, p := range askPools(c) {
		if len(args) == 0 || p.Name != args[0] {
			continue
		}
		for _, b := range p.Backends {
			if !slices.Contains(args[1:], b.Name) {
				names = append(names, cobra.CompletionWithDesc(b.Name, string(b.State)))
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// askPools are the pools of the lb that the flags of c name, or of the one that would be found without them. There is no
// fault: who completes a line has not asked anything yet.
func askPools(c *cobra.Command) []admin.Pool {
	flag := func(name string) string {
		if f := c.Flags().Lookup(name); f != nil {
			return f.Value.String()
		}
		return ""
	}
	to := target{config: flag("config"), socket: flag("socket")}
	socket, err := to.find()
	if err != nil {
		return nil
	}
	return statusAt(socket).Pools
}
