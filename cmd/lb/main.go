// Command lb is a load balancer for HTTP: `lb --help` says what it does.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
)

// world is what commands see of the outside.
type world struct {
	stdout io.Writer
	stderr io.Writer
	notify func(c chan<- os.Signal, sig ...os.Signal)
}

func main() {
	os.Exit(execute(os.Args[1:], world{os.Stdout, os.Stderr, signal.Notify}))
}

// execute runs one command line and returns the exit code.
func execute(args []string, w world) int {
	root := commands(w)
	if len(args) == 1 && (args[0] == "--version" || args[0] == "-v" || args[0] == "-V") {
		args = []string{"version"}
	}
	root.SetArgs(args)
	// Arguments and flags are looked at before: what fails by then is the command line.
	begun := false
	root.PersistentPreRun = func(*cobra.Command, []string) { begun = true }
	err := root.Execute()
	if name := ""; err != nil && !begun {
		if _, scan := fmt.Sscanf(err.Error(), "unknown command %q", &name); scan == nil {
			err = noCommand(root, name)
		}
	}
	return exitCode(w, err, begun)
}

// commands is the tree of commands. Nothing of it is kept in package variables, so that each test has its own.
func commands(w world) *cobra.Command {
	root := &cobra.Command{
		Use:   "lb",
		Short: "Spread HTTP requests over several instances of an app",
		Long: `lb stands before several instances of your app, such as Node.js processes on ports 3000 to 3003, and
spreads HTTP requests over them. Instances that are slow get fewer; when one fails, another is asked.

The smallest configuration is two lines:

    [pool.app]
    backends = ["127.0.0.1:3000-3003"]

With these in config.toml, "lb run" takes requests on port 8080.`,
		Example: `  lb demo       see it work, without an app
  lb init       have a config.toml written, by what runs on this machine
  lb run        go
  lb status     from another terminal: how it goes
  lb rollout app --exec 'pm2 restart app-{port}'    deploy`,
		SilenceErrors:      true,
		DisableSuggestions: true, // there are better ones, see noCommand
		SilenceUsage:       true,
	}
	root.SetOut(w.stdout)
	root.SetErr(w.stderr)
	root.AddCommand(runCommand(w), checkCommand(w), reloadCommand(w), upgradeCommand(w), drainCommand(w), readyCommand(w), rolloutCommand(w), demoCommand(w), versionCommand(w), exitCodesTopic())
	root.AddCommand(statusCommand(w), topCommand(w), explainCommand(w), weightCommand(w), addCommand(w), removeCommand(w))
	root.AddCommand(initCommand(w), completionCommand(w), manCommand(w))
	for _, c := range root.Commands() {
		c.DisableFlagsInUseLine = true // there is little but --help
	}
	complete(root)
	guide(root, w)
	return root
}
