package affinity

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestCookies(t *testing.T) {
	for _, c := range []struct{ field, want string }{
		{"lb=x", "x"},
		{"a=b; lb=x; c=d", "x"},
		{"a=b;lb=x;c=d", "x"},
		{"a=b;  lb=x  ; c=d", "x"},
		{"\tlb\t=\tx\t", "x"},
		{`lb="x"`, "x"},
		{`lb="x`, `"x`},
		{`lb="`, `"`},
		{`lb=""`, ""},
		{"lb=x; lb=y", "x y"},
		{"lb=; lb=y", " y"},
		{"lb=a=b", "a=b"},
		{"lb", ""},
		{"lb; lb=x", "x"},
		{"LB=x", ""},
		{"xlb=x", ""},
		{"lbx=x", ""},
		{"lb x=x", ""},
		{"a=lb=x", ""},
		{`a="; lb=x; "`, "x"}, // as browsers and Node: quotes hide nothing
		{";;;; ;lb=x;", "x"},
		{"=x", ""},
		{"", ""},
		{"lb=x,lb=y", "x,lb=y"},
		{"lb=\x80\xff", "\x80\xff"},
	} {
		var got []string
		for f := cookies(c.field); ; {
			v, ok := f.next("lb")
			if !ok {
				break
			}
			got = append(got, string(v))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%q: got %q, want %q", c.field, s, c.want)
		}
	}
}

func TestSetCookieField(t *testing.T) {
	for _, c := range []struct {
		field, want string
	}{
		{"sid=s%3Aabc.def; Path=/; HttpOnly", "s%3Aabc.def"},
		{`sid="abc"; Path=/`, "abc"},
		{"sid=abc", "abc"},
		{"SID=abc", ""},
		{"other=abc; sid=x", ""},
		{"sid=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT", ""},
		{"sid=deleted; Max-Age=0", ""},
		{"sid=deleted; max-age = -1", ""},
		{"sid=abc; Max-Age=3600", "abc"},
		{"sid=abc; Max-Age=", "abc"},
		{"sid=abc; Max-Age", "abc"},
		{"sid=abc; Max-Ages=0", "abc"},
		{"", ""},
		{";", ""},
	} {
		got, ok := setCookie([]byte(c.field), "sid")
		if string(got) != c.want || ok != (c.want != "") {
			t.Errorf("%q: got %q, want %q", c.field, got, c.want)
		}
	}
}

func TestCookieFields(t *testing.T) {
	k := keys(t, key1)
	for _, c := range []struct {
		o           CookieOptions
		plain, tls_ string
	}{
		{CookieOptions{Keys: k, Name: "lb"}, "Set-Cookie: lb=V; Path=/; HttpOnly; SameSite=Lax\r\n", "Set-Cookie: lb=V; Path=/; HttpOnly; SameSite=Lax; Secure\r\n"},
		{CookieOptions{Keys: k, Name: "lb", Path: "/app", Domain: "example.com", MaxAge: 90 * time.Minute, Secure: SecureNever, SameSite: SameSiteStrict},
			"Set-Cookie: lb=V; Path=/app; Domain=example.com; Max-Age=5400; HttpOnly; SameSite=Strict\r\n", ""},
		{CookieOptions{Keys: k, Name: "lb", Domain: "my_box.example.com"}, // as the configuration takes it
			"Set-Cookie: lb=V; Path=/; Domain=my_box.example.com; HttpOnly; SameSite=Lax\r\n",
			"Set-Cookie: lb=V; Path=/; Domain=my_box.example.com; HttpOnly; SameSite=Lax; Secure\r\n"},
		{CookieOptions{Keys: k, Name: "__Host-lb", Secure: SecureAlways, SameSite: SameSiteNone},
			"Set-Cookie: __Host-lb=V; Path=/; HttpOnly; SameSite=None; Secure\r\n", ""},
	} {
		f, err := c.o.fields()
		if err != nil {
			t.Error(err)
			continue
		}
		if c.tls_ == "" {
			c.tls_ = c.plain
		}
		plain, tls := string(f.append(nil, []byte("V"), false)), string(f.append(nil, []byte("V"), true))
		if plain != c.plain || tls != c.tls_ {
			t.Errorf("got %q and %q", plain, tls)
		}
		if _, err := http.ParseSetCookie(strings.TrimSuffix(strings.TrimPrefix(plain, "Set-Cookie: "), "\r\n")); err != nil {
			t.Errorf("%q: %v", plain, err)
		}
	}
	for _, c := range []struct {
		o    CookieOptions
		want string
	}{
		{CookieOptions{Name: "lb"}, "keys"},
		{CookieOptions{Keys: k}, "name"},
		{CookieOptions{Keys: k, Name: "l b"}, "name"},
		{CookieOptions{Keys: k, Name: "lb", Path: "app"}, "path"},
		{CookieOptions{Keys: k, Name: "lb", Path: "/a; Domain=com"}, "path"},
		{CookieOptions{Keys: k, Name: "lb", Path: "/a\r\nX: y"}, "path"},
		{CookieOptions{Keys: k, Name: "lb", Domain: "a b"}, "domain"},
		{CookieOptions{Keys: k, Name: "lb", MaxAge: time.Millisecond}, "max-age"},
		{CookieOptions{Keys: k, Name: "lb", SameSite: SameSiteNone}, "SameSite=None"},
		{CookieOptions{Keys: k, Name: "__host-lb", Path: "/a", Secure: SecureAlways}, "__Host-"},
		{CookieOptions{Keys: k, Name: "__Secure-lb"}, "__Secure-"},
	} {
		if _, err := c.o.fields(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want something about %s", c.o, err, c.want)
		}
	}
}

func TestDefaultName(t *testing.T) {
	for pool, want := range map[string]string{"app": "lb_app", "app v2;é": "lb_app_v2___"} {
		if got := DefaultName(pool); got != want || !isToken(got) {
			t.Errorf("%s: got %s, want %s", pool, got, want)
		}
	}
}

// FuzzCookie compares with net/http wherever that accepts the field, and looks for tokens that we did not make.
func FuzzCookie(f *testing.F) {
	p := newPool("a b")
	a := newAffinity(f, p, cookieOptions(f))
	good := ask{other: "b"}.of(f, a).value(f)
	for _, s := range []string{"lb=" + good, `lb="` + good + `"`, "a=b; lb=x; lb=" + good, "lb=" + good[:21], "lb", ";=;lb= ;", "lb=\x00; lb==" + good} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, field []byte) {
		var all [][]byte
		for c := cookies(field); ; {
			v, ok := c.next("lb")
			if !ok {
				break
			}
			all = append(all, v)
		}
		var v Visit
		v.Begin(a, &Request{Now: 2 * sec, Cookies: [][]byte{field}})
		if b, _ := v.Prefer(); b != nil && !strings.Contains(string(field), tokenFor(a, b.Name)) {
			t.Fatalf("%q is not b's", field)
		}
		if bytes.IndexFunc(field, unicode.IsControl) >= 0 {
			return // no head has them, but for tabs, which net/http treats otherwise
		}
		if std, err := http.ParseCookie(string(field)); err == nil {
			n := 0
			for _, c := range std {
				if c.Name != "lb" {
					continue
				}
				want := c.Value
				if !c.Quoted {
					want = strings.Trim(want, " ") // as Node's cookie does, and net/http does not
				}
				if n >= len(all) || string(all[n]) != want {
					t.Fatalf("got %q, want %q as the one of number %d", all, want, n)
				}
				n++
			}
			if n != len(all) {
				t.Fatalf("got %q, want %d", all, n)
			}
		}
		if v, ok := setCookie(field, "lb"); ok {
			if std, err := http.ParseSetCookie(string(field)); err == nil && strings.Trim(std.Value, " ") != string(bytes.Trim(v, " ")) {
				t.Fatalf("Set-Cookie %q, want %q", v, std.Value)
			}
		}
	})
}

func tokenFor(a *Affinity, name string) string {
	t := a.view.Load().tokens.set[name]
	return string(t[:])
}
