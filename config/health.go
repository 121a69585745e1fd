package config

import (
	"errors"
	"fmt"
	"net/textproto"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Health is how the backends of a pool are asked whether they are well.
type Health struct {
	Kind    string // "tcp", "http" or "off"
	Path    string // with a query, if any; "" unless Kind is "http"
	Method  string
	Host    string // "": the address that is asked
	Port    int    // 0: the backend's own
	Headers map[string]string
	Status  []StatusRange // at least one
	Body    string        // "": any

	Interval time.Duration
	Changing time.Duration
	Down     time.Duration
	Timeout  time.Duration
	Fall     int
	Rise     int
	Jitter   int // percent
}

// StatusRange is the statuses of answers from From to To, both included.
type StatusRange struct{ From, To int }

// Ejection is when a backend is left out for what became of its requests.
type Ejection struct {
	Faults int // 0: it never is
	Share  int // percent
	Window time.Duration
	Out    time.Duration
	MaxOut time.Duration // at least Out
}

func (h *Health) fields() map[string]any {
	return map[string]any{
		"kind": &h.Kind, "path": &h.Path, "method": &h.Method, "host": &h.Host, "port": &h.Port, "headers": &h.Headers,
		"status": &h.Status, "body": &h.Body, "interval": &h.Interval, "changing": &h.Changing, "down": &h.Down,
		"timeout": &h.Timeout, "fall": &h.Fall, "rise": &h.Rise, "jitter": &h.Jitter,
	}
}

func (e *Ejection) fields() map[string]any {
	return map[string]any{"faults": &e.Faults, "share": &e.Share, "window": &e.Window, "out": &e.Out, "max_out": &e.MaxOut}
}

// checkHealth fills in what kind of check it is and finds keys that have no use for it.
func (r *reader) checkHealth(path string, p *Pool) {
	h := &p.Health
	kind := path + ".kind"
	if !r.given(kind) && (h.Path != "" || r.bad[path+".path"]) {
		h.Kind = "http"
	}
	if r.bad[kind] {
		return
	}
	if h.Kind == "http" && h.Path == "" && !r.bad[path+".path"] {
		r.faultKey(kind, `wants a path to ask for, as in path = "/health"`)
	}
	if h.Kind != "http" {
		r.unused(path, h.fields(), []string{"path", "method", "host", "headers", "status", "body"}, func(key string) string {
			if r.given(kind) {
				return fmt.Sprintf(`is only for kind = "http", and the kind here is %q: change that or leave this out`, h.Kind)
			}
			return `has no use without a path: add one, as in path = "/health", or leave this out`
		})
	}
	if h.Kind == "off" {
		r.unused(path, h.fields(), []string{"interval", "down", "fall"}, func(string) string {
			return `has no use with kind = "off": leave one of them out`
		})
	}
	if h.Method == "HEAD" && h.Body != "" && !r.bad[path+".body"] {
		r.faultKey(path+".body", `an answer to HEAD has no body: leave this or the method out`)
	}
	if h.Port != 0 && slices.ContainsFunc(p.Backends, func(b Backend) bool { return strings.HasPrefix(b.Address, "unix:") }) {
		r.faultKey(path+".port", "a unix socket among the backends has no ports: leave this out, or put that backend into a pool of its own")
	}
}

func (r *reader) checkEjection(path string, e *Ejection) {
	if e.Faults == 0 {
		r.unused(path, e.fields(), []string{"share", "window", "out", "max_out"}, func(string) string {
			return `has no use with faults = "off": leave one of them out`
		})
	}
	if e.Out <= e.MaxOut || r.bad[path+".out"] || r.bad[path+".max_out"] {
		return
	}
	if key := path + ".out"; r.given(key) {
		r.fault(key, "%s is more than max_out, which is %s", quote(showDuration(e.Out)), showDuration(e.MaxOut))
	} else {
		r.fault(path+".max_out", "%s is less than out, which is %s", quote(showDuration(e.MaxOut)), showDuration(e.Out))
	}
}

// unused faults those of keys that say something else than what they would without being written.
func (r *reader) unused(path string, fields map[string]any, keys []string, why func(key string) string) {
	p := DefaultPool("")
	defaults := p.Health.fields()
	switch {
	case strings.HasSuffix(path, ".ejection"):
		defaults = p.Ejection.fields()
	case strings.HasSuffix(path, ".affinity"):
		defaults = p.Affinity.fields()
	}
	for _, key := range keys {
		if at := path + "." + key; r.given(at) && !r.bad[at] && !reflect.DeepEqual(fields[key], defaults[key]) {
			r.faultKey(at, "%s", why(key))
		}
	}
}

// checkCheckPath says what is wrong with the target of a check's request.
func checkCheckPath(s string) error {
	switch {
	case s == "":
		return nil
	case strings.Contains(s, "://"):
		return fmt.Errorf(`%s is an address of a page: write what comes after the host, as in "/health"`, quote(s))
	case s[0] != '/':
		return fmt.Errorf("%s: a path begins with \"/\": write %s", quote(s), quote("/"+s))
	case strings.Contains(s, "#"):
		return fmt.Errorf("%s: what comes after \"#\" is not sent: write %s", quote(s), quote(s[:strings.Index(s, "#")]))
	case strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f }):
		return fmt.Errorf("%s: spaces and letters beyond a-z are written as in a request, for example %%20", quote(s))
	case len(s) > 1024:
		return errors.New("a path has at most 1024 characters")
	}
	for i := range len(s) {
		if s[i] == '%' && (i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2])) {
			return fmt.Errorf("%s: after \"%%\" come two hexadecimal digits, as in %%20", quote(s))
		}
	}
	return nil
}

func isHex(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

// checkCheckHost says what is wrong with the Host header of a check.
func checkCheckHost(s string) error {
	if s == "" {
		return nil
	}
	host := s
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		port, err := strconv.Atoi(s[i+1:])
		if err != nil || port < 1 || port > 65535 {
			return fmt.Errorf("%s is not a host: after the colon comes a port", quote(s))
		}
		host = s[:i]
	}
	_, err := checkHost(host, s)
	if err == nil && host == "" {
		err = fmt.Errorf("%s is not a host name", quote(s))
	}
	return err
}

// statuses reads 200, "200-399", [200, "300-399"].
func (k *Key) statuses(r *reader, path string, v any) (list []StatusRange) {
	items, ok := v.([]any)
	if !ok {
		items = []any{v}
	} else if len(items) == 0 {
		r.fault(path, `is empty, so no answer would do: write for example "200-399"`)
		return nil
	}
	for i, item := range items {
		at := path
		if ok {
			at = joinIndex(path, i)
		}
		switch item := item.(type) {
		case int64:
			if err := checkStatus(item, item); err != nil {
				r.fault(at, "%s", err)
				continue
			}
			list = append(list, StatusRange{int(item), int(item)})
		case string:
			s, err := item, error(nil)
			if ok { // else that has been done
				s, err = expand(item, r.lookup)
			}
			if err == nil {
				var one StatusRange
				if one, err = parseStatus(s); err == nil {
					list = append(list, one)
				}
			}
			if err != nil {
				r.fault(at, "%s", err)
			}
		default:
			r.fault(at, "wants %s, found %s", kinds[k.kind].wants, r.found(at, item))
		}
	}
	return list
}

func parseStatus(s string) (StatusRange, error) {
	if len(s) == 3 && isDigit(s[0]) && strings.EqualFold(s[1:], "xx") {
		return StatusRange{}, fmt.Errorf("%s: write %q", quote(s), s[:1]+"00-"+s[:1]+"99")
	}
	lo, hi, ranged := strings.Cut(s, "-")
	if !ranged {
		hi = lo
	}
	from, err := strconv.Atoi(strings.TrimSpace(lo))
	to, err2 := strconv.Atoi(strings.TrimSpace(hi))
	if err != nil || err2 != nil {
		return StatusRange{}, fmt.Errorf(`%s is not a status: write one such as 200, or a range such as "200-399"`, quote(s))
	}
	return StatusRange{from, to}, checkStatus(int64(from), int64(to))
}

func checkStatus(from, to int64) error {
	for _, n := range []int64{from, to} {
		if n < 200 || n > 599 {
			return fmt.Errorf("no answer ends with status %d; they go from 200 to 599", n)
		}
	}
	if from > to {
		return fmt.Errorf("the range %d-%d is empty: write %d-%d", from, to, to, from)
	}
	return nil
}

// headers reads a table of header fields.
func (k *Key) headers(r *reader, path string, v any) map[string]string {
	m, ok := v.(map[string]any)
	if !ok {
		k.mismatch(r, path, v)
		return nil
	}
	if len(m) == 0 {
		return nil
	}
	all := map[string]string{}
	for _, name := range r.inOrder(path, m) {
		at := joinKey(path, name)
		if r.bad[at] {
			continue
		}
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		written, ok := m[name].(string)
		value, err := written, error(nil)
		if ok {
			value, err = expand(written, r.lookup)
		}
		switch {
		case !isToken(name):
			r.faultKey(at, "%s cannot be the name of a header", quote(name))
		case canonical == "Host":
			r.faultKey(at, "write it as host, outside of headers")
		case slices.Contains(hopHeaders, canonical):
			r.faultKey(at, "this header is lb's own matter: leave it out")
		case !ok:
			r.fault(at, `wants text such as "lb", found %s`, r.found(at, m[name]))
		case err != nil:
			r.fault(at, "%s", err)
		case strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }):
			r.fault(at, "%s has control characters", quote(value))
		case len(value) > 4096:
			r.fault(at, "has %d bytes, 4096 is the most", len(value))
		default:
			if _, twice := all[canonical]; twice {
				r.faultKey(at, "this header is there twice: capital letters make no difference")
			}
			all[canonical] = value
		}
	}
	return all
}

// hopHeaders say how a message is sent rather than what it is.
var hopHeaders = []string{"Connection", "Content-Length", "Expect", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}
