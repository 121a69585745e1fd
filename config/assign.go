package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// assign reads v into the field at dst. Of a default, path is "".
func (k *Key) assign(r *reader, path string, v any, dst any) {
	if a, ok := dst.(*backendAddress); ok {
		*a = backendAddress{path, v}
		return
	}
	if written, ok := v.(string); ok && k.kind != kindCommand {
		s, err := expand(written, r.lookup)
		if err != nil {
			r.fault(path, "%s", err)
			return
		}
		if v = s; s != written {
			v = k.fromEnv(s)
		}
	}
	switch dst := dst.(type) {
	case *int:
		var n int64
		if k.number(r, path, v, &n) {
			*dst = int(n)
		}
	case *int64:
		k.number(r, path, v, dst)
	case *time.Duration:
		k.number(r, path, v, (*int64)(dst))
	case *bool:
		b, ok := v.(bool)
		if !ok {
			k.mismatch(r, path, v)
			return
		}
		*dst = b
	case *string:
		k.text(r, path, v, dst)
	case *HashKey:
		s, ok := v.(string)
		if !ok {
			k.mismatch(r, path, v)
			return
		}
		h, err := parseHash(s)
		if err != nil {
			r.fault(path, "%s", err)
			return
		}
		*dst = h
	case *Secrets:
		*dst = k.secrets(r, path, v)
	case *[]netip.Prefix:
		*dst = k.proxies(r, path, v)
	case *[]Backend:
		*dst = r.backends(path, v)
	case *[]StatusRange:
		*dst = k.statuses(r, path, v)
	case *map[string]string:
		*dst = k.headers(r, path, v)
	default:
		panic(k.Path() + " has no field")
	}
}

// fromEnv gives what came out of the environment the type that the key wants: the quotes around ${WORKERS} had to be.
func (k *Key) fromEnv(s string) any {
	switch k.kind {
	case kindInt:
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return n
		}
	case kindBool:
		if b := s == "true"; b || s == "false" {
			return b
		}
	}
	return s
}

// mismatch notes a value of the wrong type, with an example that is near to what was meant.
func (k *Key) mismatch(r *reader, path string, v any) {
	wants := kinds[k.kind].wants
	hint := ""
	switch v := v.(type) {
	case int64:
		switch {
		case k.kind == kindDuration && v > 0:
			wants = fmt.Sprintf(`a duration such as "%ds"`, v)
		case k.kind == kindAddress && v >= 0 && v < 65536:
			wants = fmt.Sprintf(`an address such as ":%d"`, v)
		case k.kind == kindBool && (v == 0 || v == 1):
			hint = fmt.Sprintf(": write %t", v == 1)
		}
	case string:
		_, err := strconv.ParseInt(v, 10, 64)
		if k.kind == kindInt && err == nil || k.kind == kindBool && (v == "true" || v == "false") {
			hint = ": leave out the quotes"
		}
		if k.kind == kindProxies {
			hint = fmt.Sprintf(": write [%s]", quote(v))
		}
	}
	if k.kind == kindChoice {
		wants = fmt.Sprintf(wants, quoteList(k.words, ", "))
	} else if len(k.words) > 0 {
		wants += " or " + quoteList(k.words, " or ")
	}
	r.fault(path, "wants %s, found %s%s", wants, r.found(path, v), hint)
}

// number reads integers, sizes and durations and holds them to their bounds.
func (k *Key) number(r *reader, path string, v any, dst *int64) bool {
	var n int64
	var err error
	switch v := v.(type) {
	case int64:
		if n = v; k.kind == kindDuration {
			k.mismatch(r, path, v)
			return false
		}
	case string:
		switch {
		case slices.Contains(k.words, v):
			if *dst = 0; v == "off" {
				*dst = k.off
			}
			return true
		case k.kind == kindSize:
			n, err = parseSize(v)
		case k.kind == kindDuration:
			var d time.Duration
			d, err = parseDuration(v)
			n = int64(d)
		default:
			k.mismatch(r, path, v)
			return false
		}
	default:
		k.mismatch(r, path, v)
		return false
	}
	least, most := "little", "much"
	if k.kind == kindDuration {
		least, most = "short", "long"
	}
	written := k.show(n)
	if s, ok := v.(string); ok {
		written = quote(s)
	}
	switch {
	case err != nil:
		r.fault(path, "%s", err)
	case n == 0 && k.Table+k.Name == "pool.NAMEmax_idle":
		r.fault(path, "0 would keep no connections: write reuse = false for that")
	case n == 0 && k.min > 0 && slices.Contains(k.words, "off"):
		r.fault(path, "%s: write \"off\" for none", written)
	case n < k.min:
		r.fault(path, "%s is too %s, the least is %s", written, least, k.show(k.min))
	case n > k.max:
		r.fault(path, "%s is too %s, the most is %s", written, most, k.show(k.max))
	default:
		*dst = n
		return true
	}
	return false
}

// text reads the kinds that stay text.
func (k *Key) text(r *reader, path string, v any, dst *string) {
	if n, ok := v.(int64); ok && k.kind == kindAmount {
		v = strconv.FormatInt(n, 10)
	}
	s, ok := v.(string)
	if !ok {
		k.mismatch(r, path, v)
		return
	}
	var err error
	switch k.kind {
	case kindChoice:
		if !slices.Contains(k.words, s) {
			r.fault(path, "unknown %s %s%s", k.Name, quote(s), didYouMean(s, k.words, "; there is "+quoteList(k.words, ", ")))
			return
		}
	case kindAddress:
		if slices.Contains(k.words, s) {
			s = ""
		} else if guess := Suggest(s, k.words); guess != "" {
			err = fmt.Errorf("%s is not an address, did you mean %q?", quote(s), guess)
		} else {
			s, err = parseListen(s)
		}
	case kindFile:
		s, err = k.file(s)
	case kindName:
		err = checkBackendName(s)
	case kindHost:
		s, err = parseHost(s)
	case kindPath:
		s, err = parsePath(s)
	case kindCookieName:
		err = checkCookieName(s)
	case kindCookiePath:
		err = checkCookiePath(s)
	case kindCookieDomain:
		err = checkCookieDomain(s)
	case kindCheckPath:
		err = checkCheckPath(s)
	case kindCheckHost:
		err = checkCheckHost(s)
	case kindMode:
		s, err = parseMode(s)
	case kindUser:
		err = checkUser(s)
	case kindCommand:
		err = CheckCommand(s)
	case kindAmount:
		_, _, err = ParseAmount(s)
	case kindText:
		if len(s) > 1024 {
			err = fmt.Errorf("%s has %d bytes, 1024 is the most", quote(s), len(s))
		}
	}
	if err != nil {
		r.fault(path, "%s", err)
		return
	}
	*dst = s
}

func (k *Key) file(s string) (string, error) {
	switch {
	case k.Table == "admin" && s != "":
		if path, ok := strings.CutPrefix(s, "unix:"); ok {
			return "", fmt.Errorf("%s: write the path alone, as in %s", quote(s), quote(path))
		}
		return s, checkSocket(s)
	case s == "-" || s == "":
		return "", nil
	case strings.HasSuffix(s, "/"):
		return "", fmt.Errorf("%s is a directory: name a file in it, as in %s", quote(s), quote(s+"access.log"))
	case strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return "", fmt.Errorf("%s has control characters in a path", quote(s))
	}
	return filepath.Clean(s), nil
}

func (k *Key) proxies(r *reader, path string, v any) (list []netip.Prefix) {
	items, ok := v.([]any)
	if !ok {
		k.mismatch(r, path, v)
		return nil
	}
	for i, item := range items {
		at := joinIndex(path, i)
		s, ok := item.(string)
		switch {
		case r.bad[at]:
			continue
		case !ok:
			r.fault(at, `wants an address or network such as "10.0.0.0/8", found %s`, r.found(at, item))
			continue
		}
		s, err := expand(s, r.lookup)
		if err == nil {
			var p netip.Prefix
			if p, err = parseProxy(s); err == nil {
				list = append(list, p)
			}
		}
		if err != nil {
			r.fault(at, "%s", err)
		}
	}
	return list
}
