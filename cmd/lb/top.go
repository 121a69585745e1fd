package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"lb/admin"
)

func topCommand(w world) *cobra.Command {
	var to target
	every := time.Second
	c := &cobra.Command{
		Use:   "top [POOL]",
		Short: "Watch pools and backends in a terminal, sorted as you like",
		Long: `Shows what "lb status" does over the whole terminal, every second, with the course of requests a second and the last
events. It outlives restarts of lb.

  q, Ctrl-C      end
  left, right    sort by another column; r turns the order round
  n t b s e w    sort by name, state, busy, req/s, errors, WebSockets
  5 9            sort by p50, by p99
  f              the order of the file again
  up, down       scroll, as do k, j, PageUp, PageDown
  + -            more often, less often
  space          hold still

Exit code: 0 when it was ended, 1 where there is no terminal, 4 when no lb runs, 7 when there is no such pool.`,
		Example: "  lb top\n  lb top app --every 500ms",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if every < leastEvery || every > mostEvery {
				return misused("--every %v: it is %v to %v", every, leastEvery, mostEvery)
			}
			t := &top{view: view{w: w, to: &to, term: terminalOf(w.stdout)}, every: every}
			if len(args) > 0 {
				t.pool = args[0]
			}
			if !t.term.is || !term.IsTerminal(int(os.Stdin.Fd())) {
				return errors.New("lb top needs a terminal; \"lb status --watch\" does without")
			}
			return t.run()
		},
	}
	c.Flags().DurationVar(&every, "every", every, "how often to look")
	to.flags(c)
	return c
}

const (
	leastEvery = 200 * time.Millisecond
	mostEvery  = time.Minute
)

// glance is what lb said at one moment.
type glance struct {
	st     *admin.Status
	events []admin.Event
	err    error
}

// run shows until somebody ends it. However it ends, by a key, a signal or a panic, the terminal is as it was.
func (t *top) run() error {
	first := t.look()
	if first.err != nil {
		return first.err // while people still see it
	}
	t.take(first)
	signals := make(chan os.Signal, 8)
	t.w.notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGWINCH, syscall.SIGCONT)
	s := &stage{in: int(os.Stdin.Fd()), out: t.w.stdout}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()

	keys := make(chan string, 16)
	go readKeys(os.Stdin, keys)
	glances := make(chan glance, 1)
	looking := false
	clock := time.NewTimer(t.every)
	defer clock.Stop()
	for {
		width, height := t.term.size()
		if err := s.show(t.lines(width, height, time.Now())); err != nil {
			return nil // the terminal has gone
		}
		select {
		case key, ok := <-keys:
			switch {
			case !ok:
				return nil
			case key == "\x1a": // Ctrl-Z, which in raw mode is but a byte
				s.leave()
				syscall.Kill(syscall.Getpid(), syscall.SIGSTOP)
				if err := s.enter(); err != nil {
					return err
				}
			case t.key(key):
				return nil
			}
			clock.Reset(t.every)
		case sig := <-signals:
			switch sig {
			case syscall.SIGWINCH:
			case syscall.SIGCONT: // somebody else stopped us, and the shell has had the terminal
				if err := s.enter(); err != nil {
					return err
				}
			default:
				return nil
			}
		case <-clock.C:
			if !looking && !t.held {
				looking = true
				go func() { glances <- t.look() }()
			}
			clock.Reset(t.every)
		case g := <-glances:
			looking = false
			t.take(g)
		}
	}
}

// look asks lb.
func (t *top) look() (g glance) {
	if g.st, _, g.err = t.ask(); g.err == nil {
		g.err = t.to.get("/events", &g.events)
	}
	return g
}

// stage is a terminal that a program has to itself.
type stage struct {
	in  int
	out io.Writer
	was *term.State // nil: the terminal is as it was
}

// enter takes the whole screen, in its other buffer, without a cursor, and has each key sent at once.
func (s *stage) enter() error {
	if s.was == nil {
		was, err := term.MakeRaw(s.in)
		if err != nil {
			return fmt.Errorf("the terminal cannot be used: %w", err)
		}
		s.was = was
	} else if _, err := term.MakeRaw(s.in); err != nil {
		return err
	}
	_, err := io.WriteString(s.out, "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J")
	return err
}

func (s *stage) leave() {
	if s.was == nil {
		return
	}
	io.WriteString(s.out, "\x1b[?7h\x1b[?25h\x1b[?1049l")
	term.Restore(s.in, s.was)
	s.was = nil
}

// show draws lines from the top left corner. In raw mode a line break does not lead to the beginning of a line.
func (s *stage) show(lines []string) error {
	_, err := io.WriteString(s.out, "\x1b[H"+strings.Join(lines, "\x1b[K\r\n")+"\x1b[K\x1b[J")
	return err
}

// readKeys sends each key that is pressed: a character, or the sequence of a key such as an arrow.
func readKeys(in io.Reader, keys chan<- string) {
	defer close(keys)
	buf := make([]byte, 256)
	for {
		n, err := in.Read(buf)
		for rest := string(buf[:n]); rest != ""; {
			key := rest[:1]
			if strings.HasPrefix(rest, "\x1b[") || strings.HasPrefix(rest, "\x1bO") {
				end := 2
				for end < len(rest) && (rest[end] < '@' || rest[end] > '~') {
					end++
				}
				key = rest[:min(end+1, len(rest))]
			}
			keys <- key
			rest = rest[len(key):]
		}
		if err != nil {
			return
		}
	}
}
