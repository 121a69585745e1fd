package config

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Affinity is how a pool's clients are kept with the backend that they began with.
type Affinity struct {
	Kind string // "off", "cookie", "app_cookie" or "hash"

	Name     string        // of the cookie; "" with kind "cookie": lb_ and the pool's name
	Path     string        // at least "/"
	Domain   string        // "": the host that was asked
	MaxAge   time.Duration // 0: as long as the browser runs
	Secure   string        // "auto", "always" or "never"
	SameSite string        // "lax", "strict" or "none"
	Keys     Secrets       // the first signs; none: those of KeyFile
	KeyFile  string        // "": a file in the state directory

	Hash HashKey

	SocketIO  bool
	Sessions  int           // the most that is remembered
	TTL       time.Duration // of a session that nobody uses
	Drain     time.Duration // how long a draining backend keeps its sessions; 0: it does not
	Rebalance int           // percent of a backend's WebSockets above the mean that are closed in a minute; 0: none
}

// Secrets are texts that are shown to nobody.
type Secrets []string

// String says how many there are.
func (s Secrets) String() string {
	if len(s) == 1 {
		return "1 key"
	}
	return fmt.Sprintf("%d keys", len(s))
}

func (a *Affinity) fields() map[string]any {
	return map[string]any{
		"kind": &a.Kind, "name": &a.Name, "path": &a.Path, "domain": &a.Domain, "max_age": &a.MaxAge, "secure": &a.Secure,
		"same_site": &a.SameSite, "keys": &a.Keys, "key_file": &a.KeyFile, "hash": &a.Hash, "socketio": &a.SocketIO,
		"sessions": &a.Sessions, "ttl": &a.TTL, "drain": &a.Drain, "rebalance": &a.Rebalance,
	}
}

// Keys of affinity cookies.
const (
	minKey  = 32 // characters: what "openssl rand -hex 16" prints
	maxKeys = 8
)

// checkAffinity finds keys that have no use for the kind, and cookies that browsers drop.
func (r *reader) checkAffinity(path string, c *Config, p *Pool) {
	a := &p.Affinity
	kind := path + ".kind"
	if r.bad[kind] {
		return
	}
	for _, only := range []struct {
		kinds string
		keys  []string
	}{
		{`"cookie"`, []string{"path", "domain", "max_age", "secure", "same_site", "keys", "key_file"}},
		{`"cookie" or "app_cookie"`, []string{"name"}},
		{`"hash"`, []string{"hash"}},
	} {
		if !strings.Contains(only.kinds, `"`+a.Kind+`"`) {
			r.unused(path, a.fields(), only.keys, func(string) string {
				return fmt.Sprintf(`is only for kind = %s, and the kind here is %q: change that or leave this out`, only.kinds, a.Kind)
			})
		}
	}
	if !a.SocketIO && a.Kind != "app_cookie" {
		r.unused(path, a.fields(), []string{"sessions", "ttl"}, func(string) string {
			return `has no use where nothing is remembered, as with socketio = false: leave it out`
		})
	}
	switch a.Kind {
	case "cookie":
		r.checkCookie(path, a)
		r.sameCookie(path, c, p)
	case "app_cookie":
		if a.Name == "" && !r.bad[path+".name"] {
			r.faultKey(kind, `wants the name of the cookie that your app sets, as in name = "connect.sid"`)
		}
	case "hash":
		pool := joinKey("pool", p.Name)
		if p.Strategy != "hash" && p.Strategy != "least_conn" && r.given(pool+".strategy") && !r.bad[pool+".strategy"] {
			r.faultKey(kind, `takes the place of a strategy, and there is strategy = %q: leave one of them out`, p.Strategy)
		}
		if r.given(pool + ".hash") {
			r.faultKey(pool+".hash", "what is hashed is said twice, also by %s: leave this one out", path)
		}
		return
	}
	if (a.Kind == "cookie" || a.Kind == "app_cookie") && p.Strategy == "hash" {
		r.faultKey(kind, `two ways to keep clients: leave out this one or strategy = "hash"`)
	}
}

func (r *reader) checkCookie(path string, a *Affinity) {
	name, always := path+".name", a.Secure == "always"
	prefixed := func(prefix string) bool {
		return len(a.Name) >= len(prefix) && strings.EqualFold(a.Name[:len(prefix)], prefix)
	}
	switch {
	case r.bad[name]:
	case prefixed("__Host-") && (!always || a.Path != "/" || a.Domain != ""):
		r.fault(name, `browsers take a cookie whose name begins with __Host- only with secure = "always", path = "/" and no domain`)
	case prefixed("__Secure-") && !always:
		r.fault(name, `browsers take a cookie whose name begins with __Secure- only with secure = "always"`)
	}
	if a.SameSite == "none" && !always && !r.bad[path+".secure"] {
		r.fault(path+".same_site", `browsers drop a cookie with same_site = "none" unless secure = "always"`)
	}
	if len(a.Keys) > 0 && a.KeyFile != "" {
		r.faultKey(path+".key_file", "the keys are in keys already: leave one of them out")
	}
}

// sameCookie finds pools that would take a cookie from each other with every answer.
func (r *reader) sameCookie(path string, c *Config, p *Pool) {
	a := &p.Affinity
	for i := range c.Pools {
		o := &c.Pools[i]
		if o == p {
			return
		}
		if b := &o.Affinity; b.Kind == "cookie" && o.cookieName() == p.cookieName() && b.Path == a.Path && b.Domain == a.Domain {
			at := path + ".name"
			if a.Name == "" { // it is the other one's that is written down
				at = joinKey("pool", o.Name) + ".affinity.name"
				o = p
			}
			r.fault(at, "pool %s has a cookie of that name, too, and each would replace the other's: give one of them another name, or leave both out", o.Name)
			return
		}
	}
}

// cookieName is the name of the cookie that lb sets for the pool.
func (p *Pool) cookieName() string {
	if p.Affinity.Name != "" {
		return p.Affinity.Name
	}
	return "lb_" + p.Name
}

func checkCookieName(s string) error {
	if s != "" && !isToken(s) {
		return fmt.Errorf("%s cannot be the name of a cookie", quote(s))
	}
	return nil
}

func checkCookiePath(s string) error {
	switch {
	case s == "" || s[0] != '/':
		return fmt.Errorf(`%s: a path begins with "/": write %s`, quote(s), quote("/"+s))
	case strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == ';' }):
		return fmt.Errorf("%s: spaces, semicolons and letters beyond a-z are written as in a request, for example %%20", quote(s))
	case len(s) > 1024:
		return errors.New("a path has at most 1024 characters")
	}
	return nil
}

func checkCookieDomain(s string) error {
	if s == "" {
		return nil
	}
	host, err := checkHost(strings.TrimPrefix(s, "."), s)
	if err == nil && (host == "" || strings.ContainsAny(s, ":[]")) {
		err = fmt.Errorf("%s is not the name of a domain such as \"example.com\"", quote(s))
	}
	return err
}

// secrets reads a list of keys. What is wrong is said without them.
func (k *Key) secrets(r *reader, path string, v any) (list Secrets) {
	items, ok := v.([]any)
	if !ok {
		if s, isText := v.(string); isText {
			r.fault(path, "wants a list of keys, found text of %d characters: write it in brackets, as in [\"...\"]", len(s))
			return nil
		}
		k.mismatch(r, path, v)
		return nil
	}
	seen := map[string]bool{}
	for i, item := range items {
		at := joinIndex(path, i)
		s, ok := item.(string)
		if r.bad[at] {
			continue
		}
		if !ok {
			r.fault(at, "wants text, found %s", r.found(at, item))
			continue
		}
		s, err := expand(s, r.lookup)
		switch {
		case err != nil:
			r.fault(at, "%s", err)
		case len(s) < minKey:
			r.fault(at, "a key has %d characters or more, this one has %d: take what \"openssl rand -base64 32\" prints", minKey, len(s))
		case len(s) > 4096:
			r.fault(at, "a key has at most 4096 characters, this one has %d", len(s))
		case seen[s]:
			r.fault(at, "this key is there twice")
		default:
			seen[s] = true
			list = append(list, s)
		}
	}
	if len(items) > maxKeys {
		r.fault(path, "has %d keys, %d are the most: leave out those whose cookies have expired", len(items), maxKeys)
	}
	return list
}
