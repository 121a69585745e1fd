package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"lb/admin"
)

func explainCommand(w world) *cobra.Command {
	var to target
	last, wait, gap := 3, 10*time.Second, time.Duration(0)
	var follow, asJSON bool
	c := &cobra.Command{
		Use:   "explain [POOL]",
		Short: "Show why requests go to the backends that they go to",
		Long: `Shows the next decisions of a running lb: the request, the backend that it was sent to and why, and for every backend of
the pool how the strategy saw it, or why it could not be chosen; and what became of it, if that is known within a second. What
is tried again elsewhere is another decision, "attempt 2". lb notes decisions only while somebody asks, so these are
not of the past. When no request comes within --wait it shows how the backends stand.

With --follow it goes on until Ctrl-C, with at most ten decisions a second unless --gap says otherwise; also over upgrades and
restarts of lb: it waits a minute for the next one.

Exit code: 0 when there is something to show, 7 when there is no such pool, 4 when no lb runs.`,
		Example: "  lb explain app\n  lb explain --last 20\n  lb explain app --follow --json | jq -r .chosen",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if last < 1 || last > 10_000 {
				return misused("--last %d: it is 1 to 10000", last)
			}
			if wait < 0 || wait > admin.MaxWait {
				return misused("--wait %v: it is 0s to 24h", wait)
			}
			if gap < 0 || gap > time.Hour {
				return misused("--gap %v: it is 0s to 1h", gap)
			}
			if follow {
				last = 0
				if !c.Flags().Changed("gap") {
					gap = 100 * time.Millisecond
				}
			}
			q := url.Values{"last": {fmt.Sprint(last)}, "wait": {wait.String()}, "gap": {gap.String()}}
			if len(args) > 0 {
				q.Set("pool", args[0])
			}
			return explain(w, &to, "/explain?"+q.Encode(), asJSON, follow)
		},
	}
	c.Flags().IntVarP(&last, "last", "n", last, "so many decisions")
	c.Flags().DurationVar(&wait, "wait", wait, "how long to wait for a request")
	c.Flags().DurationVar(&gap, "gap", 0, "the least time between two decisions of a pool that are shown")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until Ctrl-C")
	c.Flags().BoolVar(&asJSON, "json", false, "print an object a line")
	to.flags(c)
	return c
}

// How long after the end of an lb the next one is looked for, how often then, and for how long: systemd restarts lb within
// seconds, a person within a minute.
const (
	againAfter = 200 * time.Millisecond
	againFor   = time.Minute
)

func explain(w world, to *target, path string, asJSON, follow bool) error {
	show := decisionPrinter(w, asJSON)
	if !follow {
		_, err := decisions(to, path, show)
		return err
	}
	signals := make(chan os.Signal, 1)
	w.notify(signals, syscall.SIGINT, syscall.SIGTERM)
	over := make(chan error, 1)
	go func() {
		var ended time.Time // when the last lb did; zero: there was none
		for missed := false; ; time.Sleep(againAfter) {
			switch more, err := decisions(to, path, show); {
			case more: // lb was upgraded, or has ended
				ended, missed = time.Now(), false
			case ended.IsZero() || !nobodyThere(err) || time.Since(ended) > againFor:
				over <- err
				return
			case !missed:
				missed = true
				fmt.Fprintf(w.stderr, "lb: it has ended; waiting %s for the next one\n", againFor)
			}
		}
	}()
	select {
	case <-signals:
		return nil
	case err := <-over:
		return err
	}
}

// nobodyThere reports whether err says that no lb runs, or one that began and ended.
func nobodyThere(err error) bool {
	var e *exit
	return errors.Is(err, errEnded) || errors.As(err, &e) && e.code == exitNoLB
}

// decisions reads what lb tells, to its end; more is whether there may be more from the next lb.
func decisions(to *target, path string, show func(line []byte) (more bool, err error)) (more bool, err error) {
	res, err := to.open("GET", path, nil)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	for in := bufio.NewReader(res.Body); ; {
		line, err := in.ReadBytes('\n')
		switch {
		case errors.Is(err, io.EOF):
			return true, nil
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
			return true, errors.New("lb has ended")
		case err != nil:
			return false, err
		}
		if more, err := show(line); err != nil || !more {
			return more, err
		}
	}
}

// decisionPrinter shows decisions, and reports whether there is somebody who reads them.
func decisionPrinter(w world, asJSON bool) func(line []byte) (more bool, err error) {
	t := terminalOf(w.stdout)
	between := ""
	return func(line []byte) (bool, error) {
		text := string(line)
		if !asJSON {
			var d admin.Decision
			if err := json.Unmarshal(line, &d); err != nil {
				return false, fmt.Errorf("lb's answer makes no sense: %w", err)
			}
			text = between + decisionText(&d, t)
			between = "\n"
		}
		_, err := io.WriteString(w.stdout, text)
		return err == nil, nil
	}
}

// decisionText is a decision for people.
func decisionText(d *admin.Decision, t terminal) string {
	var b strings.Builder
	at := d.Time.Local().Format("15:04:05.000")
	switch {
	case d.Attempt == 0:
		fmt.Fprintf(&b, "%s  pool %s, %s: no request came; this is how its backends stand\n", at, d.Pool, d.Strategy)
	case d.Chosen == "":
		fmt.Fprintf(&b, "%s  %s -> %s\n", at, printable(d.Request), t.paint(red, "nobody: "+d.Why))
	default:
		fmt.Fprintf(&b, "%s  %s -> %s: %s\n", at, printable(d.Request), t.paint(bold, d.Chosen), endedText(d.Ended, t))
	}
	if d.Attempt > 0 {
		var notes []string
		if d.Chosen != "" {
			notes = append(notes, d.Why)
		}
		if d.Attempt > 1 {
			notes = append(notes, fmt.Sprintf("attempt %d", d.Attempt))
		}
		if d.Held > 0 {
			notes = append(notes, fmt.Sprintf("held in the queue for %s", span(d.Held)))
		}
		if d.Waiting > 0 {
			notes = append(notes, fmt.Sprintf("%d waiting", d.Waiting))
		}
		if d.Refused > 0 {
			notes = append(notes, fmt.Sprintf("%d chosen before had no place any more", d.Refused))
		}
		if d.Again > 0 {
			notes = append(notes, "chosen again because the load changed meanwhile")
		}
		if d.FailOpen {
			notes = append(notes, "nobody is ready, so all are tried that are not known to be dead")
		}
		fmt.Fprintf(&b, "  pool %s, %s: %s\n", d.Pool, d.Strategy, strings.Join(notes, "; "))
	}
	width := 0
	for _, c := range d.Candidates {
		width = max(width, utf8.RuneCountInString(c.Name))
	}
	for _, c := range d.Candidates {
		mark := "  "
		if c.Name == d.Chosen {
			mark = "> "
		}
		text := c.Score
		if c.Out != "" {
			if text = "not: " + c.Out; c.Score != "" && c.Out != "tried before" {
				text += ", " + c.Score
			}
		}
		line := fmt.Sprintf("  %s%-*s  %s", mark, width, c.Name, text)
		switch {
		case c.Name == d.Chosen:
			line = t.paint(green, line)
		case c.Out != "":
			line = t.paint(dim, line)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

// faultWords say what went wrong with an attempt.
var faultWords = map[string]string{
	"connect": "no connection", "refused": "connection refused", "timeout": "it was silent for too long", "reset": "the connection broke",
	"malformed": "its answer broke a rule of HTTP", "client": "the client went away",
}

// endedText is what became of a request.
func endedText(e *admin.Ended, t terminal) string {
	if e == nil {
		return "not answered yet"
	}
	text := ""
	if e.Status > 0 {
		text = fmt.Sprint(e.Status)
	}
	if words := faultWords[e.Fault]; words != "" {
		if text != "" {
			text += ", then "
		}
		text += words
	} else if text == "" {
		text = "no answer"
	}
	text += " after " + span(e.Took)
	if e.Fault != "" && e.Fault != "client" || e.Status >= 500 {
		return t.paint(red, text)
	}
	return text
}

// printable is what a client sent, without what could move the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
