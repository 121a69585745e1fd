package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Rollout is how `lb rollout` restarts the instances of a pool. It is for that command, which reads it from the file:
// what runs commands shall not take them from a socket.
type Rollout struct {
	Exec           string        // "": none
	Wait           time.Duration // for an instance to be empty
	Timeout        time.Duration // of the command
	StartTimeout   time.Duration // from there to passed checks
	Warmup         time.Duration // 0: the pool's slow start; below 0: none
	MaxUnavailable string        // for ParseAmount
	Canary         int           // 0: none
	Watch          time.Duration
	CanaryErrors   int // percentage points
	CanarySlower   int // percent
	InPlace        bool
}

func (o *Rollout) fields() map[string]any {
	return map[string]any{
		"exec": &o.Exec, "wait": &o.Wait, "timeout": &o.Timeout, "start_timeout": &o.StartTimeout, "warmup": &o.Warmup,
		"max_unavailable": &o.MaxUnavailable, "canary": &o.Canary, "watch": &o.Watch, "canary_errors": &o.CanaryErrors,
		"canary_slower": &o.CanarySlower, "in_place": &o.InPlace,
	}
}

// ParseAmount reads a number such as "2", or a share such as "25%", which it gives as percent.
func ParseAmount(s string) (n, percent int, err error) {
	digits, share := strings.CutSuffix(s, "%")
	v, err := strconv.Atoi(digits)
	switch {
	case err != nil || digits == "" || digits[0] == '+':
		return 0, 0, fmt.Errorf(`%s is neither a whole number such as 1 nor a share such as "25%%"`, quote(s))
	case v < 1:
		return 0, 0, fmt.Errorf("%s is too little: one instance at least is restarted at a time", s)
	case share && v > 100:
		return 0, 0, fmt.Errorf("%s is too much, the most is 100%%", s)
	case !share && v > 10_000:
		return 0, 0, fmt.Errorf("%s is too much, the most is 10000", s)
	case share:
		return 0, v, nil
	}
	return v, 0, nil
}

// inCommand are the words that a command has filled in, and commandGuesses what people try for them.
var (
	inCommand      = []string{"port", "host", "address", "name", "index", "pool"}
	commandGuesses = map[string]string{"backend": "name", "instance": "name", "addr": "address", "ip": "host", "id": "index", "i": "index"}
)

var braced = regexp.MustCompile(`\$?\{[A-Za-z_]+\}`)

// CheckCommand finds what was probably meant to be a word that is filled in, such as {prt}. Other words in braces, and those
// behind a dollar sign, are the shell's.
func CheckCommand(line string) error {
	if len(line) > 4096 {
		return fmt.Errorf("the command has %d bytes, 4096 is the most: write a script, and its path here", len(line))
	}
	for _, found := range braced.FindAllString(line, -1) {
		word, shell := strings.Trim(found, "{}"), found[0] == '$'
		if shell || slices.Contains(inCommand, word) {
			continue
		}
		lower := strings.ToLower(word)
		guess := commandGuesses[lower]
		for _, w := range inCommand {
			if distance(lower, w) <= 1 {
				guess = w
			}
		}
		if guess != "" {
			return fmt.Errorf("%s is not filled in: did you mean {%s}?", found, guess)
		}
	}
	return nil
}
