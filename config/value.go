package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// parseDuration reads "500ms", "5s", "1m30s", "1h".
func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil {
		return d, nil
	}
	const units = `the units are ms, s, m and h, as in "500ms" or "1m30s"`
	n := 0
	for n < len(s) && (isDigit(s[n]) || s[n] == '.') {
		n++
	}
	number, unit := s[:n], strings.ToLower(strings.TrimSpace(s[n:]))
	if number == "" {
		return 0, fmt.Errorf("%q is not a duration: %s", s, units)
	}
	for _, u := range []struct{ name, words string }{
		{"ms", " ms msec msecs millis milliseconds millisecond "}, {"s", " s sec secs second seconds "},
		{"m", " m min mins minute minutes "}, {"h", " h hr hrs hour hours "},
	} {
		if strings.Contains(u.words, " "+unit+" ") {
			if _, err := time.ParseDuration(number + u.name); err == nil {
				return 0, fmt.Errorf("%q is not a duration: write %q", s, number+u.name)
			}
		}
	}
	if unit == "" {
		return 0, fmt.Errorf("%q has no unit: write %q for seconds, %q for milliseconds", s, number+"s", number+"ms")
	}
	if days, err := strconv.Atoi(number); err == nil && (unit == "d" || unit == "day" || unit == "days") && days < 10000 {
		return 0, fmt.Errorf("%q is not a duration: write %q", s, strconv.Itoa(24*days)+"h")
	}
	return 0, fmt.Errorf("%q is not a duration: %s", s, units)
}

// showDuration leaves out the zeros of Duration.String: "1h", not "1h0m0s".
func showDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var sizeUnits = []struct {
	name string
	n    int64
}{
	{"B", 1}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
}

// parseSize reads "16384", "16KiB", "10MB"; capitals do not matter.
func parseSize(s string) (int64, error) {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	number, unit := s[:n], strings.TrimSpace(s[n:])
	v, err := strconv.ParseInt(number, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%q is more than there is", s)
	}
	if err == nil {
		for _, u := range sizeUnits {
			if !strings.EqualFold(unit, u.name) && unit != "" {
				continue
			}
			if v > 1<<62/u.n {
				return 0, fmt.Errorf("%q is more than there is", s)
			}
			return v * u.n, nil
		}
		for _, u := range sizeUnits[5:] {
			if strings.EqualFold(unit, u.name[:1]) {
				return 0, fmt.Errorf("%q is not a size: write %q", s, number+u.name)
			}
		}
	}
	return 0, fmt.Errorf(`%q is not a size: the units are KB, MB, GB (thousands) and KiB, MiB, GiB (1024s), as in "16KiB" or "10MB"`, s)
}

func showSize(n int64) string {
	for i := len(sizeUnits) - 1; i > 4; i-- {
		if u := sizeUnits[i]; n >= u.n && n%u.n == 0 {
			return strconv.FormatInt(n/u.n, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// expand puts the environment into s: ${VAR}, ${VAR:-default} where VAR is not set or empty, and $$ for a dollar.
func expand(s string, lookup func(string) (string, bool)) (string, error) {
	if !strings.Contains(s, "$") {
		return s, nil
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "$")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		switch {
		case strings.HasPrefix(rest, "$"):
			b.WriteByte('$')
			s = rest[1:]
			continue
		case !strings.HasPrefix(rest, "{"):
			if n := nameLen(rest); n > 0 {
				return "", fmt.Errorf(`"$%s": write ${%s} for the environment variable, or $$%s for a plain dollar sign`, rest[:n], rest[:n], rest[:n])
			}
			return "", errors.New(`a dollar sign is written "$$"; one alone begins a variable, as in ${NAME}`)
		}
		inner, after, closed := strings.Cut(rest[1:], "}")
		if !closed {
			return "", fmt.Errorf(`"${%s" has no closing "}"`, short(inner))
		}
		name, fallback, hasFallback := strings.Cut(inner, ":-")
		if n := nameLen(name); n == 0 || n != len(name) {
			return "", fmt.Errorf(`"${%s}" is not the name of an environment variable: write ${NAME} or ${NAME:-default}`, short(inner))
		}
		v, ok := lookup(name)
		switch {
		case hasFallback && v == "":
			v = fallback
		case !ok:
			return "", fmt.Errorf(`the environment variable %s is not set: set it, or give a default as in ${%s:-default}`, name, name)
		}
		b.WriteString(v)
		s = after
	}
}

// nameLen is how much of s is the name of an environment variable.
func nameLen(s string) int {
	n := 0
	for n < len(s) && isBare(s[n]) && s[n] != '-' && (n > 0 || !isDigit(s[n])) {
		n++
	}
	return n
}

// short keeps what a message quotes of a value within bounds.
func short(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:57]) + "..."
	}
	return s
}

func quote(s string) string { return strconv.Quote(short(s)) }

// quoteList gives "a", "b", "c" with the given separator.
func quoteList(list []string, sep string) string {
	q := make([]string, len(list))
	for i, s := range list {
		q[i] = strconv.Quote(s)
	}
	return strings.Join(q, sep)
}
