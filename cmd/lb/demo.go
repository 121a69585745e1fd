package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"lb"
	"lb/config"
	"lb/server"
)

// demoOptions is what can be chosen about a demo.
type demoOptions struct {
	rate int           // requests a second
	stop time.Duration // ends by itself after so long; 0: runs until told
}

func demoCommand(w world) *cobra.Command {
	o := demoOptions{rate: 50}
	c := &cobra.Command{
		Use:   "demo [--rate N] [--for TIME]",
		Short: "See it work, with instances and load of its own",
		Long: `Runs the example configuration (config.toml at the top of the source) with the instances of its pool in the
same process, one of them slow, and sends a gentle load through lb. Every two seconds it shows who got how
many requests. Nothing is installed. Ctrl-C ends it.

Ports are those of the configuration where they are free, and others where they are not. It listens at a socket of
its own as well, so that other commands can be tried on it in another terminal: it prints some.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return demo(w, o) },
	}
	c.Flags().IntVar(&o.rate, "rate", o.rate, "requests a second; 0 for none")
	c.Flags().DurationVar(&o.stop, "for", 0, "end by itself after so long, as in 10s")
	return c
}

// demo runs until a signal or its time ends it.
func demo(w world, o demoOptions) error {
	if o.rate < 0 || o.rate > 5000 {
		return misused("--rate %d: this is a demo, 0 to 5000 is what it does", o.rate)
	}
	signals := make(chan os.Signal, 4)
	w.notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE)

	cfg, err := config.Parse("config.toml", lb.Config)
	if err != nil {
		return err
	}
	cfg.AccessLog = config.AccessLog{Format: "off"} // it would stand between the tables
	cfg.Server.Grace = min(cfg.Server.Grace, 5*time.Second)

	fleet, err := startFleet(cfg)
	if err != nil {
		return err
	}
	defer fleet.stop()
	var ports portFinder
	screen := newScreen(w.stdout)
	log := slog.New(slog.NewTextHandler(screen.beside(w.stderr), &slog.HandlerOptions{Level: slog.LevelWarn}))
	// Not that of a config.toml here: it is the user's own lb that goes by that.
	socket, err := inRuntimeDir(fmt.Sprintf("lb-demo-%d.sock", os.Getpid()))
	if err != nil {
		log.Warn("no socket for `lb top`, `lb drain` and the like", "err", err)
	}
	s, err := server.New(cfg, server.Options{Version: thisVersion(), Log: log, Listen: ports.listen, Socket: socket})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()

	screen.print(introduction(s, fleet, append(fleet.moved, ports.moved...)))
	load := startLoad(appURL(s), o.rate)
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	var over <-chan time.Time
	if o.stop > 0 {
		t := time.NewTimer(o.stop)
		defer t.Stop()
		over = t.C
	}
	begin := time.Now()
	show := func() { screen.draw(table(s.Status(), fleet, load.count(), time.Since(begin), screen.pretty)) }
	stopping := false
	end := func() {
		if stopping {
			s.Cut()
			return
		}
		stopping = true
		show()
		screen.print("\nstopping; Ctrl-C again cuts\n")
		go func() {
			load.stop()
			stop()
		}()
	}
	for {
		select {
		case err := <-done:
			n := load.count()
			screen.print(fmt.Sprintf("stopped: %d requests sent, %d failed\n", n.sent, n.failed))
			return ended(err)
		case <-signals:
			end()
		case <-over:
			end()
		case <-tick.C:
			if !stopping {
				show()
			}
		}
	}
}

// introduction says what runs where, and what to try.
func introduction(s *server.Server, f *fleet, moved []string) string {
	var b strings.Builder
	line := func(what, where string) { fmt.Fprintf(&b, "  %-22s %s\n", what, where) }
	fmt.Fprintf(&b, "lb runs config.toml. The %d instances of the app live in this process, one of them is slow on purpose.\n\n", len(f.instances))
	for _, a := range s.Addrs() {
		line("your app, through lb", webURL(a.Addr)+"/")
	}
	socket := ""
	for _, a := range s.AdminAddrs() {
		if a.Network() == "unix" {
			socket = a.String()
			continue
		}
		line("the live page", webURL(a)+"/")
		line("metrics, status", webURL(a)+"/metrics, /status")
	}
	if len(moved) > 0 {
		fmt.Fprintf(&b, "\nPorts that were not free:\n\n  %s\n", strings.Join(moved, "\n  "))
	}
	if pool := s.Status().Pools[0]; socket != "" && len(pool.Backends) > 0 {
		b.WriteString("\nIn another terminal:\n\n")
		backend := shellWord(pool.Name) + " " + shellWord(pool.Backends[0].Name)
		for _, c := range []string{"top", "drain " + backend, "ready " + backend} {
			fmt.Fprintf(&b, "  %s %s --socket %s\n", shellWord(os.Args[0]), c, shellWord(socket))
		}
	}
	b.WriteString("\nCtrl-C ends it.\n\n")
	return b.String()
}

func appURL(s *server.Server) string { return webURL(s.Addrs()[0].Addr) }

// webURL is how a browser on this machine gets to addr.
func webURL(addr net.Addr) string {
	t, ok := addr.(*net.TCPAddr)
	if !ok {
		return addr.String()
	}
	host := "localhost"
	if !t.IP.IsUnspecified() {
		host = t.IP.String()
	}
	return "http://" + net.JoinHostPort(host, fmt.Sprint(t.Port))
}

// portFinder listens on another port where one cannot be had.
type portFinder struct{ moved []string }

func (p *portFinder) listen(network, address string) (net.Listener, error) {
	ln, err := net.Listen(network, address)
	if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EACCES) {
		return ln, err
	}
	host, _, splitErr := net.SplitHostPort(address)
	if splitErr != nil {
		return nil, err
	}
	if ln, err = net.Listen(network, net.JoinHostPort(host, "0")); err != nil {
		return nil, err
	}
	p.moved = append(p.moved, fmt.Sprintf("%-22s %s", address, "is now "+ln.Addr().String()))
	return ln, nil
}

// shellWord is a word as a shell takes it.
func shellWord(word string) string {
	if strings.ContainsAny(word, " \t\n\"'\\$`&;|<>()*?[]#~!") {
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return word
}

// screen shows a table that is drawn over in a terminal, and one below the other elsewhere.
type screen struct {
	out    io.Writer
	pretty bool // a terminal

	mu    sync.Mutex // held while somebody writes
	lines int        // guarded by mu; of the table that the cursor stands below
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out}
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		s.pretty = err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	}
	return s
}

func (s *screen) print(text string) { io.WriteString(s.beside(s.out), text) }

// beside is w, which may be the same terminal: after what is written there, the next table is drawn below it.
func (s *screen) beside(w io.Writer) io.Writer { return besides{s, w} }

type besides struct {
	screen *screen
	w      io.Writer
}

func (b besides) Write(text []byte) (int, error) {
	b.screen.mu.Lock()
	defer b.screen.mu.Unlock()
	b.screen.lines = 0
	return b.w.Write(text)
}

func (s *screen) draw(table string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.pretty {
		io.WriteString(s.out, table+"\n")
		return
	}
	up := ""
	if s.lines > 0 {
		up = fmt.Sprintf("\x1b[%dA\x1b[J", s.lines)
	}
	// Without automatic margins meanwhile: in a narrow window a line is cut, where one that wraps would make it two.
	io.WriteString(s.out, up+"\x1b[?7l"+table+"\x1b[?7h")
	s.lines = strings.Count(table, "\n")
}
