package affinity

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// CookieOptions say what the cookie that lb sets looks like.
type CookieOptions struct {
	Keys     *Keys
	Name     string        // a token; DefaultName where nothing is configured
	Path     string        // empty: "/"
	Domain   string        // empty: the host that was asked, and none below it
	MaxAge   time.Duration // empty: as long as the browser runs. It counts from when the cookie was set, not from its last use
	Secure   Secure
	SameSite SameSite
}

// DefaultName is the name of a pool's cookie. Pools on one host must not share a cookie: each would take it from the
// other with every answer.
func DefaultName(pool string) string {
	b := []byte("lb_" + pool)
	for i, c := range b {
		if !tokenByte[c] {
			b[i] = '_'
		}
	}
	return string(b)
}

// Secure is when a cookie has the attribute Secure.
type Secure uint8

// The choices.
const (
	SecureAuto Secure = iota // when the client came by TLS
	SecureAlways
	SecureNever
)

// SameSite is the attribute SameSite.
type SameSite uint8

// The choices. None is refused by browsers without Secure.
const (
	SameSiteLax SameSite = iota
	SameSiteStrict
	SameSiteNone
)

// cookieFields are the parts of a Set-Cookie line around the value.
type cookieFields struct {
	name   string
	before string
	plain  string // behind it
	secure string // behind it, for a client that came by TLS
}

func (o *CookieOptions) fields() (f cookieFields, err error) {
	path := o.Path
	if path == "" {
		path = "/"
	}
	secure := o.Secure == SecureAlways
	switch {
	case o.Keys == nil:
		return f, errors.New("affinity: a cookie needs keys")
	case !isToken(o.Name):
		return f, fmt.Errorf("affinity: %q is no name of a cookie", o.Name)
	case path[0] != '/' || !isAttribute(path):
		return f, fmt.Errorf("affinity: cookie path %q: want one that begins with / and has no ; in it", path)
	case !isDomain(o.Domain):
		return f, fmt.Errorf("affinity: cookie domain %q: want a name such as example.com", o.Domain)
	case o.MaxAge < 0 || o.MaxAge > 0 && o.MaxAge < time.Second:
		return f, fmt.Errorf("affinity: cookie max-age %v: want a second or more", o.MaxAge)
	case o.SameSite == SameSiteNone && !secure:
		return f, errors.New("affinity: browsers drop a cookie with SameSite=None that is not always Secure")
	case hasPrefix(o.Name, "__Host-") && (!secure || path != "/" || o.Domain != ""):
		return f, fmt.Errorf("affinity: cookie %s: the prefix __Host- asks for Secure, the path / and no domain", o.Name)
	case hasPrefix(o.Name, "__Secure-") && !secure:
		return f, fmt.Errorf("affinity: cookie %s: the prefix __Secure- asks for Secure", o.Name)
	}
	var rest strings.Builder
	rest.WriteString("; Path=" + path)
	if o.Domain != "" {
		rest.WriteString("; Domain=" + o.Domain)
	}
	if o.MaxAge > 0 {
		rest.WriteString("; Max-Age=" + strconv.FormatInt(int64(o.MaxAge/time.Second), 10))
	}
	rest.WriteString("; HttpOnly; SameSite=" + [...]string{"Lax", "Strict", "None"}[o.SameSite])
	f.name = o.Name
	f.before = "Set-Cookie: " + o.Name + "="
	f.plain = rest.String() + "\r\n"
	f.secure = rest.String() + "; Secure\r\n"
	if secure {
		f.plain = f.secure
	}
	if o.Secure == SecureNever {
		f.secure = f.plain
	}
	return f, nil
}

// append appends the whole field line.
func (f *cookieFields) append(dst []byte, value []byte, tls bool) []byte {
	dst = append(dst, f.before...)
	dst = append(dst, value...)
	if tls {
		return append(dst, f.secure...)
	}
	return append(dst, f.plain...)
}

// hasPrefix compares as browsers do, in any case.
func hasPrefix(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// cookies goes through the cookies of one Cookie field. Next is as forgiving as servers are: white space around names and
// values and quotes around values do not count, and what has no "=" is passed over.
type cookies []byte

func (c *cookies) next(name string) (value []byte, ok bool) {
	for len(*c) > 0 {
		var item []byte
		if i := bytes.IndexByte(*c, ';'); i >= 0 {
			item, *c = (*c)[:i], (*c)[i+1:]
		} else {
			item, *c = *c, nil
		}
		if value, ok := named(item, name); ok {
			return value, true
		}
	}
	return nil, false
}

// named is the value of a cookie if that is its name. Names are case-sensitive.
func named(item []byte, name string) ([]byte, bool) {
	for len(item) > 0 && isSpace(item[0]) {
		item = item[1:]
	}
	if len(item) <= len(name) || string(item[:len(name)]) != name {
		return nil, false
	}
	item = item[len(name):]
	for len(item) > 0 && isSpace(item[0]) {
		item = item[1:]
	}
	if len(item) == 0 || item[0] != '=' {
		return nil, false
	}
	return unquote(trim(item[1:])), true
}

func unquote(v []byte) []byte {
	if n := len(v); n >= 2 && v[0] == '"' && v[n-1] == '"' {
		return v[1 : n-1]
	}
	return v
}

func trim(v []byte) []byte {
	for len(v) > 0 && isSpace(v[0]) {
		v = v[1:]
	}
	for len(v) > 0 && isSpace(v[len(v)-1]) {
		v = v[:len(v)-1]
	}
	return v
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// setCookie reads the value of a Set-Cookie field: what the cookie of that name is set to, if it is. A cookie that is
// deleted is not set: its value is empty, or its Max-Age not positive. (Some delete by Expires alone, with a value; of
// them, one is remembered that never comes.)
func setCookie(field []byte, name string) ([]byte, bool) {
	item, rest, _ := bytes.Cut(field, []byte{';'})
	value, ok := named(item, name)
	if !ok || len(value) == 0 {
		return nil, false
	}
	const maxAge = "max-age"
	for len(rest) > 0 {
		item, rest, _ = bytes.Cut(rest, []byte{';'})
		item = trim(item)
		if len(item) <= len(maxAge) || !bytes.EqualFold(item[:len(maxAge)], []byte(maxAge)) {
			continue
		}
		age := trim(item[len(maxAge):])
		if age[0] != '=' {
			continue
		}
		if age = trim(age[1:]); len(age) > 0 && (age[0] == '-' || string(age) == "0") {
			return nil, false
		}
	}
	return value, true
}

var tokenByte = func() (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = true, true
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	return t
}()

func isToken(s string) bool {
	for i := range len(s) {
		if !tokenByte[s[i]] {
			return false
		}
	}
	return s != ""
}

func isAttribute(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == ';' {
			return false
		}
	}
	return true
}

func isDomain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != '-' && c != '_' && c != '.' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}
