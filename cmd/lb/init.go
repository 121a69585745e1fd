package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lb/config"
)

func initCommand(w world) *cobra.Command {
	var a choices
	i := wizard{in: os.Stdin, out: w.stdout, prompt: w.stderr, listening: listening, status: httpStatus}
	if f, ok := w.stderr.(*os.File); ok {
		i.terminal = isTerminal(os.Stdin) && isTerminal(f)
	}
	c := &cobra.Command{
		Use:   "init [--ports 3000-3003]",
		Short: "Write a configuration, by questions or by flags",
		Long: `Writes a configuration for one app in one or several instances. On a terminal it looks which programs listen on this
machine and asks what flags have not said; the answer in brackets is taken by pressing Enter. Without a terminal, or with
--yes, nothing is asked: --ports says where the app listens, and everything else has a default.

A file that is there is never overwritten, unless --force says so. The new one has passed "lb check".`,
		Example: `  lb init
  lb init --ports 3000-3003 --listen :80 --health /health
  lb init --ports 3000-3003 --output /etc/lb/config.toml --force`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			i.given = func(flag string) bool { return c.Flags().Changed(flag) }
			return i.run(a)
		},
	}
	f := c.Flags()
	f.StringVar(&a.ports, "ports", "", "where the app listens: a port, a range, an `address`, or several with commas")
	f.StringVar(&a.listen, "listen", "", "the `address` that clients connect to; by default :8080 or the next port that is free, for /etc/lb/config.toml :80")
	f.StringVar(&a.health, "health", "", "a `path` of the app that answers 200 when an instance is well; by default lb only connects")
	f.StringVar(&a.strategy, "strategy", config.Strategies()[0], "who gets the next request, a `name`: "+strings.Join(config.Strategies(), ", "))
	f.BoolVar(&a.sticky, "sticky", false, "the app keeps state of clients in memory: each comes back to its instance, by a cookie")
	f.BoolVar(&a.socketio, "socketio", false, "the app uses Socket.IO: writes what there is to choose; it works without, too")
	f.StringVar(&a.proxies, "trusted-proxies", "", "proxies before lb whose X-Forwarded-For is believed, such as an ALB's `networks`, with commas")
	f.StringVar(&a.output, "output", "config.toml", "the `file` to write; - is standard output")
	f.BoolVar(&a.yes, "yes", false, "ask nothing")
	f.BoolVar(&a.force, "force", false, "write over the file if it is there")
	c.RegisterFlagCompletionFunc("strategy", cobra.FixedCompletions(config.Strategies(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

// isTerminal says whether f is one, or at least a device that is not /dev/null.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// choices are what a configuration is made of.
type choices struct {
	ports, listen, health, strategy, proxies, output string
	sticky, socketio, yes, force                     bool
}

// wizard asks, and writes the file.
type wizard struct {
	in       io.Reader
	out      io.Writer
	prompt   io.Writer              // where questions go, so that out may be a file
	terminal bool                   // there is somebody to ask
	given    func(flag string) bool // whether the command line has it

	// The machine.
	listening func() []listener
	status    func(url string) int // of a GET, 0 when there is no answer

	lines *bufio.Scanner
}

// servicePath is the file that lb.service runs with.
const servicePath = "/etc/lb/config.toml"

func (i *wizard) run(a choices) error {
	if a.output != "-" && !a.force {
		switch _, err := os.Lstat(a.output); {
		case err == nil:
			return fmt.Errorf("%s is there already: --output names another file, --force writes over it", a.output)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	for _, f := range []struct {
		flag, value string
		known       choices
	}{
		{flag: "ports", value: a.ports}, {"listen", a.listen, choices{ports: a.ports}}, {flag: "health", value: a.health},
		{flag: "strategy", value: a.strategy}, {flag: "trusted-proxies", value: a.proxies},
	} {
		if err := wrong(&f.known, f.flag, f.value); i.given(f.flag) && err != nil {
			return misused("--%s %s: %w", f.flag, f.value, err)
		}
	}
	if i.terminal && !a.yes {
		if err := i.ask(&a); err != nil {
			return err
		}
	} else if a.ports == "" {
		if a.yes {
			a.ports = strings.Join(appPorts(i.listening()), ",")
		}
		switch {
		case a.ports != "": // which is said, as nobody chose it
			fmt.Fprintf(i.prompt, "lb: the app is Node.js on %s\n", a.ports)
		case a.yes:
			return misused("no Node.js process is seen to listen on this machine: say where the app does, as in --ports 3000-3003")
		default:
			return misused("there is no terminal to ask on: say where the app listens, as in \"lb init --ports 3000-3003\"; \"lb init --help\" lists what else can be said")
		}
	}
	if a.listen == "" {
		a.listen = free(&a, nil)
	}
	text := a.text()
	cfg, err := config.Parse(a.output, []byte(text))
	if err != nil {
		return fmt.Errorf("what was asked for is no good configuration:\n%w", err)
	}
	if a.output == "-" {
		_, err := io.WriteString(i.out, text)
		return err
	}
	if err := writeFile(a.output, []byte(text), a.force); err != nil {
		return err
	}
	fmt.Fprintf(i.out, "%s\n\nNext:\n%s", cfg.Summary(), next(a))
	return nil
}

// next is what to do with the file.
func next(a choices) string {
	host, port, _ := strings.Cut(a.listen, ":")
	if host == "" || host == "0.0.0.0" {
		host = "127.0.0.1"
	}
	url := "http://" + host + ":" + port + "/"
	if strings.HasPrefix(a.listen, "[") {
		url = "http://" + a.listen + "/"
	}
	steps := [][2]string{
		{"lb run " + a.output, "go; Ctrl-C stops it without losing a request"},
		{"curl " + url, "through lb to the app"},
		{"lb reload " + a.output, "after every change of the file"},
	}
	if a.output == servicePath {
		steps = [][2]string{
			{"systemctl enable --now lb", "go, and at every start of the machine"},
			{"systemctl reload lb", "if it runs already, and after every change of the file"},
			{"curl " + url, "through lb to the app"},
		}
	}
	width := 0
	for _, s := range steps {
		width = max(width, len(s[0]))
	}
	var b strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&b, "  %-*s   # %s\n", width, s[0], s[1])
	}
	return b.String()
}

// ask asks for what no flag has said.
func (i *wizard) ask(a *choices) error {
	i.lines = bufio.NewScanner(i.in)
	all := i.listening()
	if !i.given("ports") {
		if len(all) > 0 {
			fmt.Fprintf(i.prompt, "What listens on this machine:\n%s\n", listenersTable(all))
		}
		guess := strings.Join(appPorts(all), ",")
		if guess == "" {
			guess = "3000-3003"
		}
		if err := i.question(a, &a.ports, "ports", "Where does the app listen? A port, a range, or several with commas", guess); err != nil {
			return err
		}
	}
	if !i.given("listen") {
		if err := i.question(a, &a.listen, "listen", "Where shall clients connect? \":80\" is port 80 on all addresses of this machine", free(a, all)); err != nil {
			return err
		}
	}
	if !i.given("health") {
		if err := i.question(a, &a.health, "health", "A path that the app answers with 200 when it is well; \"none\": lb only connects", i.healthPath(a.ports)); err != nil {
			return err
		}
	}
	if !i.given("strategy") {
		if err := i.question(a, &a.strategy, "strategy", "Who gets the next request? adaptive is right for most apps; docs/balancing.md says when another is", a.strategy); err != nil {
			return err
		}
	}
	if !i.given("sticky") && !i.given("socketio") {
		word := "no"
		if err := i.question(a, &word, "sticky", "Does a client have to come back to its instance, for what that keeps in memory? Not needed for Socket.IO. yes or no", word); err != nil {
			return err
		}
		a.sticky = strings.HasPrefix(strings.ToLower(word), "y")
	}
	if !i.given("trusted-proxies") {
		if err := i.question(a, &a.proxies, "trusted-proxies", "Is there a load balancer before lb, such as an ALB? Its networks, such as 10.0.0.0/16", "none"); err != nil {
			return err
		}
	}
	fmt.Fprintln(i.prompt)
	return nil
}

// free is where clients connect to when nobody says: a port that is not the app's, and that none of all listens on.
func free(a *choices, all []listener) string {
	if a.output == servicePath {
		return ":80" // which the service may
	}
	for port := 8080; port <= 65535; port++ {
		address := ":" + strconv.Itoa(port)
		if wrong(a, "listen", address) == nil && !slices.ContainsFunc(all, func(l listener) bool { return l.port == port }) {
			return address
		}
	}
	return ":8080"
}

// promptWidth is that of questions: a terminal has at least so many columns.
const promptWidth = 78

// question asks until the answer is a good one.
func (i *wizard) question(a *choices, to *string, flag, text, otherwise string) error {
	for {
		fmt.Fprintf(i.prompt, "%s\n  [%s]: ", fold(text, promptWidth), otherwise)
		if !i.lines.Scan() {
			if err := i.lines.Err(); err != nil {
				return err
			}
			fmt.Fprintln(i.prompt)
			return errors.New("the answers ended before the questions: nothing was written")
		}
		answer := strings.TrimSpace(i.lines.Text())
		if answer == "" {
			answer = otherwise
		}
		if answer == "none" {
			answer = ""
		}
		err := wrong(a, flag, answer)
		if err == nil {
			*to = answer
			return nil
		}
		fmt.Fprintf(i.prompt, "  %v\n", err)
	}
}

// wrong says what is wrong with one answer, as lb check would. What is known already counts where it matters: lb cannot listen
// where the app does.
func wrong(known *choices, flag, value string) error {
	one := choices{ports: "unix:/app.sock", listen: ":0", strategy: config.Strategies()[0]}
	switch flag {
	case "ports":
		one.ports, one.listen = value, cmp.Or(known.listen, one.listen)
	case "listen":
		one.listen, one.ports = value, cmp.Or(known.ports, one.ports)
	case "health":
		one.health = value
	case "strategy":
		one.strategy = value
	case "trusted-proxies":
		one.proxies = value
	case "sticky":
		if !slices.Contains([]string{"y", "yes", "n", "no"}, strings.ToLower(value)) {
			return errors.New("yes or no?")
		}
	}
	_, err := config.Parse("", []byte(one.text()))
	var faults config.Errors
	if errors.As(err, &faults) {
		return errors.New(faults[0].Msg)
	}
	return err
}

// healthPath is a path that looks like it were for checks: the app answers it, and not everything, with 200.
func (i *wizard) healthPath(ports string) string {
	cfg, err := config.Parse("", []byte((&choices{ports: ports, listen: ":0", strategy: config.Strategies()[0]}).text()))
	if err != nil || len(cfg.Pools) == 0 || strings.HasPrefix(cfg.Pools[0].Backends[0].Address, "unix:") {
		return "none"
	}
	base := "http://" + cfg.Pools[0].Backends[0].Address
	if s := i.status(base + "/lb-asks-for-nothing"); s < 400 {
		return "none" // it is not there, or says yes to all
	}
	for _, path := range []string{"/health", "/healthz", "/api/health", "/ready"} {
		if i.status(base+path) == http.StatusOK {
			return path
		}
	}
	return "none"
}

// httpStatus asks an app of this machine or network.
func httpStatus(url string) int {
	c := http.Client{
		Timeout:       time.Second,
		Transport:     &http.Transport{DisableKeepAlives: true}, // and no proxy
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := c.Get(url)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}
