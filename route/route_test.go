package route

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"lb/upstream"
)

// parse reads rules from lines of "name host path", in which - stands for nothing.
func parse(text string) (rules []Rule) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		for i := range f {
			if f[i] == "-" {
				f[i] = ""
			}
		}
		rules = append(rules, Rule{Name: f[0], Host: f[1], Path: f[2], Pool: &upstream.Pool{Name: f[0]}})
	}
	return rules
}

const rules = `
	all      -                -
	api      -                /api
	below    -                /static/
	deep     -                /api/v2/users
	www      www.example.com  /
	wwwapi   www.example.com  /api
	shop     Shop.Example.com /cart
	wild     *.example.com    /
	wildapi  *.example.com    /api
	longer   *.eu.example.com /
	v6       [::1]            /
	v4       127.0.0.1        /
`

func TestMatch(t *testing.T) {
	tab, err := New(parse(rules))
	if err != nil {
		t.Fatal(err)
	}
	// host, path, the route's name or "none"
	const cases = `
		other.org          /                 all
		other.org          /apix             all
		other.org          /api              api
		other.org          /api/             api
		other.org          /api/x/y          api
		other.org          /api?q=/x         api
		other.org          /api/v2/users     deep
		other.org          /api/v2/users/7   deep
		other.org          /api/v2/users7    api
		other.org          /static           all
		other.org          /static/          below
		other.org          /static/a.css     below
		other.org          /x?/api           all
		other.org          /API              all
		-                  /api              api
		-                  -                 all
		other.org          *                 all
		www.example.com    /                 www
		WWW.example.COM    /api/x            wwwapi
		www.example.com.   /                 www
		shop.example.com   /cart             shop
		shop.example.com   /cart/1           shop
		shop.example.com   /                 wild
		shop.example.com   /api              wildapi
		a.b.example.com    /                 wild
		example.com        /                 all
		.example.com       /                 all
		xexample.com       /                 all
		a.eu.example.com   /                 longer
		a.eu.example.com   /api              longer
		eu.example.com     /                 wild
		[::1]              /                 v6
		[::1]:8080         /                 v6
		[::2]:8080         /                 all
		127.0.0.1          /                 v4
		127.0.0.1:80       /                 v4
		127.0.0.1.:80      /                 v4
		www.example.com:80 /                 www
		WWW.example.COM.:8 /                 www
		a.example.com:8080 /                 wild
		other.org:8080     /api              api
		www.example.com.evil.org /           all
	`
	for line := range strings.Lines(cases) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		host, path := strings.Trim(f[0], "-"), strings.Trim(f[1], "-")
		got := "none"
		if r := tab.Match([]byte(host), []byte(path)); r != nil {
			got = r.Name
			if r.Pool.Name != r.Name {
				t.Errorf("%s %s: route %s has pool %s", host, path, r.Name, r.Pool.Name)
			}
		}
		if got != f[2] {
			t.Errorf("%s %s: got %s, want %s", host, path, got, f[2])
		}
	}
}

func TestNoMatch(t *testing.T) {
	tab, err := New(parse("a www.example.com /x\nb *.example.org /"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{{"www.example.com", "/"}, {"example.org", "/"}, {"", "/x"}, {"www.example.com", ""}} {
		if r := tab.Match([]byte(c[0]), []byte(c[1])); r != nil {
			t.Errorf("%q: matched %s", c, r.Name)
		}
	}
	if r := new(Table).Match([]byte("a"), []byte("/")); r != nil {
		t.Errorf("an empty table matched %s", r.Name)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct{ rules, want string }{
		{"a - -\nb - /", "routes a and b: both are for any host, path /"},
		{"a x.org /p\nb X.ORG. /p", "routes a and b: both are for host x.org, path /p"},
		{"a *.x.org /\nb *.X.org -", "routes a and b: both are for host *.x.org, path /"},
		{"a x.org:80 /", `route a: host "x.org:80": want app.example.com or *.example.com, without a port`},
		{"a *x.org /", `route a: host "*x.org"`},
		{"a a.*.org /", `route a: host "a.*.org"`},
		{"a * /", `route a: host "*"`},
		{"a *. /", `route a: host "*."`},
		{"a . /", `route a: host "."`},
		{"a - api", `route a: path "api": want a prefix such as /api, without a query`},
		{"a - /api?x", `route a: path "/api?x"`},
	} {
		_, err := New(parse(c.rules))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %s", c.rules, err, c.want)
		}
	}
}

// TestMatchIsSlowMatch compares with the rules applied one by one, as the documentation states them.
func TestMatchIsSlowMatch(t *testing.T) {
	host := rapid.SampledFrom([]string{"", "a.b", "A.b", "x.a.b", "*.b", "*.a.b", "c"})
	path := rapid.SampledFrom([]string{"", "/", "/a", "/a/", "/a/b", "/ab", "/a/b/"})
	rapid.Check(t, func(t *rapid.T) {
		var rs []Rule
		seen := map[string]bool{}
		for i := range rapid.IntRange(0, 8).Draw(t, "rules") {
			r := Rule{Name: fmt.Sprint(i), Host: host.Draw(t, "host"), Path: path.Draw(t, "path")}
			k := strings.ToLower(r.Host) + " /" + strings.TrimPrefix(r.Path, "/")
			if !seen[k] {
				rs = append(rs, r)
			}
			seen[k] = true
		}
		tab, err := New(rs)
		if err != nil {
			t.Fatal(err)
		}
		h := strings.TrimPrefix(host.Draw(t, "asked host"), "*.")
		p := rapid.SampledFrom([]string{"/", "/a", "/a/", "/a/b", "/a/bc", "/a/b/c", "/ab", "/a?x/b"}).Draw(t, "asked path")
		got := ""
		if r := tab.Match([]byte(h), []byte(p)); r != nil {
			got = r.Name
		}
		if want := slowMatch(rs, h, p); got != want {
			t.Fatalf("%q %q among %v: got %q, want %q", h, p, rs, got, want)
		}
	})
}

func slowMatch(rs []Rule, host, path string) (name string) {
	path, _, _ = strings.Cut(path, "?")
	best := -1
	for _, r := range rs {
		rank := 0
		suffix, wild := strings.CutPrefix(r.Host, "*")
		switch {
		case r.Host == "":
		case wild && len(host) > len(suffix) && strings.HasSuffix(strings.ToLower(host), suffix):
			rank = 1000 * len(suffix)
		case !wild && strings.EqualFold(r.Host, host):
			rank = 1000000
		default:
			continue
		}
		dir := strings.TrimSuffix(r.Path, "/") + "/"
		if path != r.Path && !strings.HasPrefix(path, dir) {
			continue
		}
		if rank += len(r.Path); r.Path == "" {
			rank++
		}
		if rank > best {
			best, name = rank, r.Name
		}
	}
	return name
}

func TestMatchAllocatesNothing(t *testing.T) {
	tab, err := New(parse(rules))
	if err != nil {
		t.Fatal(err)
	}
	host, path := []byte("WWW.Eu.example.com"), []byte("/api/v2/users/7?x=y")
	if n := testing.AllocsPerRun(100, func() { tab.Match(host, path) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, c := range []struct{ name, rules string }{
		{"one", "all - /"},
		{"eleven", rules},
	} {
		b.Run(c.name, func(b *testing.B) {
			tab, err := New(parse(c.rules))
			if err != nil {
				b.Fatal(err)
			}
			host, path := []byte("www.example.com"), []byte("/api/v2/users/7?x=y")
			b.ReportAllocs()
			for b.Loop() {
				tab.Match(host, path)
			}
		})
	}
}
