package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// parseHash reads "ip", "header:NAME", "cookie:NAME", "query:NAME", "path", "path:2".
func parseHash(s string) (HashKey, error) {
	source, name, named := strings.Cut(s, ":")
	switch source {
	case "ip":
		if named {
			return HashKey{}, fmt.Errorf(`%s: the client's address has no name: write "ip"`, quote(s))
		}
		return HashKey{Source: "ip"}, nil
	case "header", "cookie", "query":
		if !named || name == "" {
			return HashKey{}, fmt.Errorf("%s names no %s: write its name after a colon, as in %q", quote(s), source,
				source+":"+map[string]string{"header": "X-User-Id", "cookie": "session", "query": "room"}[source])
		}
		if source == "query" && !strings.ContainsAny(name, " \t\r\n&=#") || source != "query" && isToken(name) {
			return HashKey{source, name}, nil
		}
		return HashKey{}, fmt.Errorf("%s: %s cannot be the name of a %s", quote(s), quote(name), source)
	}
	if source == "path" {
		if n, err := strconv.Atoi(name); named && (err != nil || n < 1 || n > 100) {
			return HashKey{}, fmt.Errorf(`%s: the number of a part of the path goes from 1 to 100: "path:2" of /rooms/7/chat is 7`, quote(s))
		}
		return HashKey{source, name}, nil
	}
	all := `; there is "ip", "header:NAME", "cookie:NAME", "query:NAME", "path", "path:N"`
	if m := Suggest(source, []string{"ip", "header", "cookie", "query", "path"}); m != "" {
		if m != "ip" && m != "path" {
			m += ":" + name
		}
		all = fmt.Sprintf(", did you mean %s?", quote(m))
	}
	return HashKey{}, fmt.Errorf("%s is nothing to hash by%s", quote(s), all)
}

// isToken says whether s is a token of RFC 9110, 5.6.2, as names of header fields and cookies are.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !isDigit(c) && !(c|0x20 >= 'a' && c|0x20 <= 'z') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// parseHost reads the host of a route and puts it into small letters.
func parseHost(s string) (string, error) {
	switch _, rest, scheme := strings.Cut(s, "://"); {
	case s == "":
		return "", nil
	case s == "*":
		return "", errors.New(`"*" is not needed: leave the key out for any host`)
	case scheme:
		rest, _, _ = strings.Cut(rest, "/")
		return "", fmt.Errorf("%s is an address of a page: write the host alone, as in %s", quote(s), quote(rest))
	case strings.Contains(s, "/"):
		return "", fmt.Errorf(`%s: write the host alone, and what comes after it as path`, quote(s))
	}
	if s[0] == '[' {
		return checkHost(s, s)
	}
	if _, err := netip.ParseAddr(s); err == nil && strings.Contains(s, ":") {
		return "", fmt.Errorf("%s: an IPv6 address stands in brackets: write %s", quote(s), quote("["+s+"]"))
	}
	if host, _, ok := strings.Cut(s, ":"); ok {
		return "", fmt.Errorf("%s: write the host without the port: %s", quote(s), quote(host))
	}
	name, wild := strings.CutPrefix(s, "*.")
	if strings.Contains(name, "*") {
		return "", fmt.Errorf(`%s: "*" stands at the beginning only, for whole names, as in "*.example.com"`, quote(s))
	}
	name, err := checkHost(name, s)
	if err == nil && wild {
		if name == "" {
			return "", fmt.Errorf("%s is not a host name", quote(s))
		}
		name = "*." + name
	}
	return name, err
}

// parsePath reads the path of a route.
func parsePath(s string) (string, error) {
	switch {
	case s == "":
		return "/", nil
	case s[0] != '/':
		if s[0] == '~' || s[0] == '^' {
			return "", fmt.Errorf("%s: a path is a prefix such as \"/api\", not a pattern", quote(s))
		}
		return "", fmt.Errorf("%s: a path begins with \"/\": write %s", quote(s), quote("/"+s))
	case strings.HasSuffix(s, "*"):
		return "", fmt.Errorf("%s: a path is a prefix by itself: write %s", quote(s), quote(strings.TrimRight(s, "*")))
	case strings.Contains(s, "*"):
		return "", fmt.Errorf("%s: a path is a prefix such as \"/api\", not a pattern", quote(s))
	case strings.ContainsAny(s, "?#"):
		return "", fmt.Errorf("%s: only paths are matched: write %s", quote(s), quote(s[:strings.IndexAny(s, "?#")]))
	case strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f }):
		return "", fmt.Errorf("%s: spaces and letters beyond a-z are written as in a request, for example %%20", quote(s))
	case len(s) > 1024:
		return "", errors.New("a path has at most 1024 characters")
	}
	return s, nil
}

// checkBackendName keeps names to what is safe in metrics, logs and cookies.
func checkBackendName(s string) error {
	if len(s) > 64 {
		return fmt.Errorf("a name has at most 64 characters, this one has %d", len(s))
	}
	for i := range len(s) {
		if !isBare(s[i]) && s[i] != '.' && s[i] != ':' {
			return fmt.Errorf(`%s: a name is made of letters a-z, digits, "_", "-", "." and ":"`, quote(s))
		}
	}
	return nil
}
