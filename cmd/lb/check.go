package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"lb/config"
)

func checkCommand(w world) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Find every mistake in a configuration",
		Long: `Reads a configuration and prints a line for each mistake: where it is, what is wrong, and what would be
right. A file without mistakes is summed up in one line. Nothing is started, and no host name is looked up.

Without FILE it reads the one that "lb run" would: ./config.toml, else /etc/lb/config.toml.

Exit code: 0 when the file is good, 1 when it is not or cannot be read.`,
		Example: "  lb check config.toml",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := configFile(args)
			if err != nil {
				return err
			}
			cfg, err := config.Load(path)
			var faults config.Errors
			switch {
			case errors.As(err, &faults):
				fmt.Fprintln(w.stdout, faults) // what was asked for, so not on standard error
				return &exit{code: exitFailed}
			case err != nil:
				return err
			}
			_, err = fmt.Fprintln(w.stdout, cfg.Summary())
			return err
		},
	}
}
