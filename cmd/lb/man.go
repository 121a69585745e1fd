package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lb/config"
)

// The manual pages are made of the commands and of the keys of the configuration, so they say what --help and
// docs/config.md say. cobra/doc would do the first half, at five modules and half a megabyte.

func manCommand(w world) *cobra.Command {
	var date string
	c := &cobra.Command{
		Use:   "man [PAGE]",
		Short: "Print a manual page: lb.1, or lb-config.5",
		Long: `Prints the source of a manual page: lb.1, about the commands, unless PAGE is lb-config.5, about the configuration.
Packages of lb have both installed already; without them:`,
		Example:   "  lb man > /usr/local/share/man/man1/lb.1\n  lb man lb-config.5 > /usr/local/share/man/man5/lb-config.5",
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: []string{"lb.1", "lb-config.5"},
		Hidden:    true,
		RunE: func(c *cobra.Command, args []string) error {
			day, err := pageDay(date)
			if err != nil {
				return err
			}
			var p page
			switch page := append(args, "lb.1")[0]; page {
			case "lb.1":
				p.commands(c.Root())
			case "lb-config.5":
				p.config()
			default:
				return misused("there is no page %q, but lb.1 and lb-config.5", page)
			}
			_, err = io.WriteString(w.stdout, ".Dd "+day.Format("January 2, 2006")+"\n"+p.String())
			return err
		},
	}
	c.Flags().StringVar(&date, "date", "", "the date on the page, such as 2026-01-31; by default $SOURCE_DATE_EPOCH, else today")
	return c
}

// pageDay is the date on a page. Packages that are built twice from the same source shall be the same.
func pageDay(date string) (time.Time, error) {
	if date != "" {
		day, err := time.Parse(time.DateOnly, date)
		if err != nil {
			return day, misused("--date %s: wants a date such as 2026-01-31", date)
		}
		return day, nil
	}
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		s, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q: wants seconds since 1970", epoch)
		}
		return time.Unix(s, 0).UTC(), nil
	}
	return time.Now().UTC(), nil
}

// page is a manual page in mdoc, the language of mandoc and groff.
type page struct{ strings.Builder }

// macro writes a line of mdoc's own; its arguments are not escaped.
func (p *page) macro(words ...string) { p.WriteString("." + strings.Join(words, " ") + "\n") }

// heading begins a subsection. A bracket at the end of it would be taken for punctuation, were it not for the \&.
func (p *page) heading(s string) {
	s = escape(s, true)
	if strings.HasSuffix(s, "]") {
		s += `\&`
	}
	p.macro("Ss " + s)
}

func (p *page) commands(root *cobra.Command) {
	p.macro("Dt LB 1")
	p.macro("Os")
	p.macro("Sh NAME")
	p.macro("Nm lb")
	p.macro("Nd HTTP load balancer")
	p.macro("Sh SYNOPSIS")
	p.macro("Nm lb")
	p.macro("Ar command")
	p.macro("Op Ar argument ...")
	p.macro("Op Fl -flag Ar ...")
	p.macro("Sh DESCRIPTION")
	p.prose(root.Long)
	p.macro("Sh COMMANDS")
	p.prose("Each command explains itself with --help, too.")
	p.command(root)
	p.macro("Sh FILES")
	p.macro("Bl -tag -width Ds")
	for _, f := range [][2]string{
		{"config.toml", "In the working directory: the configuration of commands that are given no other."},
		{"/etc/lb/config.toml", "The configuration where there is none in the working directory, and that of the service."},
		{"/run/lb/", "The sockets by which commands find the lb that runs as a service. For others they are below $XDG_RUNTIME_DIR, or in the directory for temporary files."},
		{"/var/log/lb/", "The service may write its access log here."},
	} {
		p.macro("It Pa " + f[0])
		p.text(f[1])
	}
	p.macro("El")
	p.macro("Sh EXIT STATUS")
	p.macro("Bl -tag -width Ds")
	for _, c := range exitCodes {
		p.macro(fmt.Sprintf("It %d", c.code))
		p.text(c.says + ".")
	}
	p.macro("El")
	p.macro("Sh EXAMPLES")
	p.literal(root.Example)
	p.macro("Sh SEE ALSO")
	p.macro("Xr lb-config 5")
}

// command writes about the commands below c.
func (p *page) command(c *cobra.Command) {
	for _, c := range c.Commands() {
		if c.Hidden || !c.Runnable() || c.Name() == "help" {
			continue
		}
		p.heading(c.UseLine())
		if c.Long != "" {
			p.prose(c.Long)
		} else {
			p.prose(c.Short + ".")
		}
		var flags []*pflag.Flag
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && f.Name != "help" {
				flags = append(flags, f)
			}
		})
		if len(flags) > 0 {
			p.macro("Bl -tag -width Ds")
			for _, f := range flags {
				p.flag(f)
			}
			p.macro("El")
		}
		if c.Example != "" {
			p.macro("Pp")
			p.WriteString("Examples:\n")
			p.literal(c.Example)
		}
		p.command(c)
	}
}

func (p *page) flag(f *pflag.Flag) {
	kind, usage := pflag.UnquoteUsage(f)
	item := "It"
	if f.Shorthand != "" {
		item += " Fl " + f.Shorthand + " ,"
	}
	item += " Fl -" + f.Name
	if kind != "" {
		item += " Ar " + kind
	}
	p.macro(item)
	usage = strings.ToUpper(usage[:1]) + usage[1:] + "."
	if d := f.DefValue; d != "" && d != "false" && d != "0" && d != "0s" && d != "[]" {
		usage += " By default " + d + "."
	}
	p.text(usage)
}

func (p *page) config() {
	p.macro("Dt LB-CONFIG 5")
	p.macro("Os")
	p.macro("Sh NAME")
	p.macro("Nm lb-config")
	p.macro("Nd configuration of the load balancer lb")
	p.macro("Sh DESCRIPTION")
	p.macro("Xr lb 1")
	p.prose(`reads one file, in the format TOML. The smallest one that works:

    [pool.app]
    backends = ["127.0.0.1:3000-3003"]

It listens on port 8080 and spreads requests over the app on ports 3000 to 3003. Everything else has a default.

"lb check FILE" says in one line what lb would do, or names every mistake with its line and column. Nothing is ignored: a misspelt key is an error.

What follows a "#" is a comment. A line such as "[pool.app]" opens a table, and the keys below belong to it. Where this page says NAME, any name of letters, digits, "_" and "-" may stand: it is what metrics and logs call the thing. Text stands in double quotes; numbers, true and false do not.

A duration is a number and ms, s, m or h, in quotes: "500ms", "1m30s". A size is a number of bytes, or text: "16KiB", "10MB". An address is "127.0.0.1:8080", "[::1]:8080", or ":8080" for all addresses of the machine.

Inside of text, ${NAME} is replaced by the environment variable NAME, and ${NAME:-default} by the default when it is not set or empty. A plain dollar sign is written "$$".`)
	p.macro("Sh TABLES AND KEYS")
	table := ""
	for _, k := range config.Keys() {
		if k.Table != table {
			if table != "" {
				p.macro("El")
			}
			table = k.Table
			p.heading("[" + table + "]")
			p.prose(config.TableDoc(table))
			p.macro("Bl -tag -width Ds")
		}
		p.macro("It Ic " + k.Name + " = " + strings.ReplaceAll(escape(k.Type(), true), `"`, `\(dq`))
		text := k.Doc
		if r := k.Range(); r != "" {
			text += " From " + r + "."
		}
		switch {
		case k.Else != "":
			text += " By default: " + k.Else + "."
		case k.Default != "":
			text += " By default " + k.Default + "."
		default:
			text += " Must be given."
		}
		p.text(text)
	}
	p.macro("El")
	p.macro("Sh FILES")
	p.macro("Bl -tag -width Ds")
	p.macro("It Pa /etc/lb/config.toml")
	p.text("The configuration of the service.")
	p.macro("El")
	p.macro("Sh EXAMPLES")
	p.prose(`Two pools; who serves a client of the second one depends on its cookie:

    [listen.web]
    address = ":80"

    [pool.app]
    backends = ["127.0.0.1:3000-3003"]
    [pool.app.health]
    path = "/health"

    [pool.chat]
    backends = ["127.0.0.1:4000-4001"]
    strategy = "hash"
    hash = "cookie:session"

    [route.chat]
    path = "/chat"
    pool = "chat"
    [route.rest]
    pool = "app"`)
	p.macro("Sh SEE ALSO")
	p.macro("Xr lb 1")
}

// prose writes paragraphs as --help has them: text, and indented lines, which stay as they are.
func (p *page) prose(s string) {
	indented := func(l string) bool { return strings.HasPrefix(l, "  ") }
	for i, para := range strings.Split(strings.Trim(s, "\n"), "\n\n") {
		lines := strings.Split(para, "\n")
		for j := 0; j < len(lines); {
			n := j
			for n < len(lines) && indented(lines[n]) == indented(lines[j]) {
				n++
			}
			block := lines[j:n]
			if indented(block[0]) {
				p.literal(strings.Join(block, "\n"))
			} else {
				if i > 0 && j == 0 {
					p.macro("Pp")
				}
				p.text(strings.Join(block, " "))
			}
			j = n
		}
	}
}

// sentence is the end of one and the beginning of the next, which mdoc wants on another line.
var sentence = regexp.MustCompile(`[.!?:][")]* +["([]?[A-Z$]`)

// text writes running text, a line for each sentence and none of them long.
func (p *page) text(s string) {
	const most = 76
	s = strings.ReplaceAll(s, "`", "")
	for s != "" {
		var line string
		if m := sentence.FindStringIndex(s); m != nil {
			cut := m[0] + strings.IndexByte(s[m[0]:], ' ')
			line, s = s[:cut], strings.TrimLeft(s[cut:], " ")
		} else {
			line, s = s, ""
		}
		out := ""
		for _, word := range strings.Fields(line) {
			word = escape(word, strings.HasPrefix(strings.TrimLeft(word, `"([`), "-"))
			if out != "" && len(out)+1+len(word) > most {
				p.WriteString(out + "\n")
				out = ""
			}
			if out == "" {
				out = guard(word)
			} else {
				out += " " + word
			}
		}
		p.WriteString(out + "\n")
	}
}

// literal writes lines as they are, but for what all of them are indented by.
func (p *page) literal(s string) {
	lines := strings.Split(strings.Trim(s, "\n"), "\n")
	indent := slices.Min(slices.Collect(func(yield func(int) bool) {
		for _, l := range lines {
			if strings.TrimSpace(l) != "" && !yield(len(l)-len(strings.TrimLeft(l, " "))) {
				return
			}
		}
	}))
	p.macro("Bd -literal -offset indent")
	for _, l := range lines {
		p.WriteString(guard(escape(l[min(indent, len(l)):], true)) + "\n")
	}
	p.macro("Ed")
}

// escape keeps characters that roff would read as its own, or print as others: with literal, the hyphens of options and
// the quotes of shells, too, so that they can be copied from the page.
func escape(s string, literal bool) string {
	s = strings.ReplaceAll(s, `\`, `\e`)
	if literal {
		s = strings.NewReplacer("-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(s)
	}
	return s
}

// guard keeps the beginning of a line of text from being read as a macro.
func guard(line string) string {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		return `\&` + line
	}
	return line
}
