package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"lb/admin"
	"lb/config"
	"lb/server"
)

func runCommand(w world) *cobra.Command {
	return &cobra.Command{
		Use:   "run [FILE]",
		Short: "Take requests, as a configuration says",
		Long: `Runs lb as FILE says. Without FILE it reads ./config.toml, or if there is none /etc/lb/config.toml.

Events go to standard error as key=value text; the access log goes to standard output, unless the
configuration says otherwise.

Signals:
  SIGTERM, SIGINT   stop: take no new connections, let requests finish for as
                    long as server.grace says, then cut them. A second one
                    cuts at once. Ctrl-C is SIGINT.
  SIGHUP            read FILE again and change to it without losing a request.
                    A file with mistakes changes nothing. "lb reload" does the
                    same and waits for the verdict.
  SIGUSR1           open the access log again, after it was renamed
  SIGUSR2           have the program that is at lb's path by now take over, as
                    "lb upgrade" does

Exit code: 0 after a stop that cut nothing, 1 when lb could not start or go on or was told twice to stop,
5 when the grace was over and something was cut.`,
		Example: "  lb run\n  lb run /etc/lb/config.toml",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := configFile(args)
			if err != nil {
				return err
			}
			return run(w, path)
		},
	}
}

// configPlaces are where a configuration is looked for that the command line does not name.
var configPlaces = []string{"config.toml", "/etc/lb/config.toml"}

func configFile(args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	for _, path := range configPlaces {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is neither a %s in this directory nor a %s: name a file, or have one written by \"lb init\"", configPlaces[0], configPlaces[1])
}

// run serves until a signal ends it.
func run(w world, path string) error {
	// Before all else: a signal that comes during the start must neither be lost nor end the process half-way.
	signals := make(chan os.Signal, 8)
	w.notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	// A Go process dies of writing to a standard output or error whose reader has gone. Requests outlive that.
	signal.Ignore(syscall.SIGPIPE)

	before, err := server.Inherit(os.Getenv)
	if err != nil {
		return &exit{1, err}
	}
	fail := func(err error) error {
		before.Fail(err)
		return &exit{1, err}
	}
	sockets := before.Sockets()
	if before == nil {
		if sockets, err = server.Activated(os.Getenv); err != nil {
			return fail(err)
		}
	}
	load := func() (*config.Config, error) { return config.Load(path) }
	cfg, err := load()
	if err != nil {
		return fail(err)
	}
	log := slog.New(slog.NewTextHandler(w.stderr, nil))
	socket, err := ownSocket(path)
	if err != nil {
		log.Warn("no socket for `lb status`, `lb reload` and the like; SIGHUP reloads", "err", err)
	}
	s, err := server.New(cfg, server.Options{
		Version: thisVersion(), Log: log, Load: load, Socket: socket,
		Before: before, Sockets: sockets, Binary: ownBinary(), Args: os.Args[1:],
	})
	if err != nil {
		if before == nil && socket != "" && answers(socket) == nil {
			err = fmt.Errorf("%w\nlb: an lb runs with this file already%s: \"lb reload %s\" has it change to what the file says by now", err, pidAt(socket), path)
		}
		return fail(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for {
		select {
		case err := <-done:
			return ended(err)
		case sig := <-signals:
			switch sig {
			case syscall.SIGHUP:
				go s.Reload(ctx) // which says in the log what came of it
			case syscall.SIGUSR1:
				go reopen(s, log)
			case syscall.SIGUSR2:
				go s.Upgrade(ctx, admin.UpgradeOrder{}) // the same
			default:
				if ctx.Err() != nil {
					log.Warn("second signal: cutting what is left", "signal", sig.String())
					s.Cut()
					continue
				}
				log.Info("signal: stopping; a second one cuts", "signal", sig.String())
				stop()
			}
		}
	}
}

// pidAt says which process is behind the socket of an lb.
func pidAt(socket string) string {
	if pid := statusAt(socket).PID; pid > 0 {
		return fmt.Sprintf(", process %d", pid)
	}
	return ""
}

// ended turns the end of a Server into the end of the process. What was cut is in the log already.
func ended(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, server.ErrGraceOver):
		return &exit{code: exitLeft}
	case errors.Is(err, server.ErrCut):
		return &exit{code: exitFailed}
	}
	return err
}

// reopen, and reloads, run beside the loop of run: a name server or a disk that does not answer must not keep it from
// hearing a SIGTERM.
func reopen(s *server.Server, log *slog.Logger) {
	if err := s.ReopenLog(); err != nil {
		log.Error("access log not reopened", "err", err)
		return
	}
	log.Info("access log reopened")
}
