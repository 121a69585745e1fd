package affinity

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func benchVisit(b *testing.B, a *Affinity, r Request, other string) {
	ans := Answer{Now: r.Now, Status: 200}
	ans.Backend = backend(b, a.pool, other)
	var v Visit
	v.Begin(a, &r)
	if want, _ := v.Prefer(); want != nil {
		ans.Backend = want
	}
	line := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		v.Begin(a, &r)
		v.Prefer()
		line = v.Answer(line[:0], &ans)
		v.End()
	}
}

const otherCookies = "_ga=GA1.2.1234567890.1600000000; _gid=GA1.2.1234567890.1600000000; theme=dark; csrf=0123456789abcdef0123456789abcdef; "

func cases(t testing.TB) map[string]func() (*Affinity, Request) {
	names := "a b c d e f g h"
	return map[string]func() (*Affinity, Request){
		"none": func() (*Affinity, Request) {
			return newAffinity(t, newPool(names), Options{}), Request{Now: 2 * sec}
		},
		"other_traffic": func() (*Affinity, Request) {
			return newAffinity(t, newPool(names), Options{SocketIO: true}), Request{Now: 2 * sec, Query: []byte("page=7&sort=name&q=a+few+words")}
		},
		"cookie_new": func() (*Affinity, Request) {
			return newAffinity(t, newPool(names), cookieOptions(t)), Request{Now: 2 * sec}
		},
		"cookie_hit": func() (*Affinity, Request) {
			a := newAffinity(t, newPool(names), cookieOptions(t))
			c := otherCookies + "lb=" + ask{other: "c"}.of(t, a).value(t)
			return a, Request{Now: 2 * sec, Cookies: [][]byte{[]byte(c)}}
		},
		"cookie_hit_alone": func() (*Affinity, Request) {
			a := newAffinity(t, newPool(names), cookieOptions(t))
			c := "lb=" + ask{other: "c"}.of(t, a).value(t)
			return a, Request{Now: 2 * sec, Cookies: [][]byte{[]byte(c)}}
		},
		"cookie_hostile": func() (*Affinity, Request) {
			a := newAffinity(t, newPool(names), cookieOptions(t))
			c := strings.Repeat("lb="+strings.Repeat("A", tokenLen)+";", 600)
			return a, Request{Now: 2 * sec, Cookies: [][]byte{[]byte(c)}}
		},
		"app_cookie_hit": func() (*Affinity, Request) {
			a := newAffinity(t, newPool(names), Options{Kind: AppCookie, AppCookie: "connect.sid"})
			c := "connect.sid=s%3A0123456789abcdef0123456789abcdef.0123456789abcdef0123456789abcdef0123456789a"
			ask{other: "c", set: []string{c}}.of(t, a)
			return a, Request{Now: 2 * sec, Cookies: [][]byte{[]byte(otherCookies + c)}}
		},
		"sid_hit": func() (*Affinity, Request) {
			a := newAffinity(t, newPool(names), Options{SocketIO: true})
			for i := range 10000 {
				ask{query: polling, other: "c", body: open4(fmt.Sprintf("Kt6O2v4UXYltE-M%05d", i))}.of(t, a)
			}
			return a, Request{Now: 2 * sec, Query: []byte(polling + "&sid=Kt6O2v4UXYltE-M00007")}
		},
		"hash_ip": func() (*Affinity, Request) {
			return newAffinity(t, newPool(names), Options{Kind: Hash}), Request{Now: 2 * sec, Client: netip.MustParseAddr("203.0.113.7")}
		},
	}
}

func BenchmarkVisit(b *testing.B) {
	for name, make := range cases(b) {
		b.Run(name, func(b *testing.B) {
			a, r := make()
			benchVisit(b, a, r, "c")
		})
	}
}

func TestVisitAllocatesNothing(t *testing.T) {
	for name, make := range cases(t) {
		a, r := make()
		ans := Answer{Now: r.Now, Status: 200, Backend: backend(t, a.pool, "c")}
		var v Visit
		line := []byte(strings.Repeat(" ", 256))
		if n := testing.AllocsPerRun(100, func() {
			v.Begin(a, &r)
			v.Prefer()
			line = v.Answer(line[:0], &ans)
			v.End()
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// The same session again and again: one that is news costs an entry more, see BenchmarkTable/put.
func BenchmarkHandshake(b *testing.B) {
	for _, c := range captures(b) {
		if c.sid == "" {
			continue
		}
		b.Run(strings.TrimSuffix(c.name, ".http"), func(b *testing.B) {
			p := newPool("a b c")
			a := newAffinity(b, p, Options{SocketIO: true})
			r := Request{Now: 2 * sec, Query: []byte(polling)}
			ans := Answer{Now: 2 * sec, Status: 200, Backend: backend(b, p, "b"), Encoding: []byte(c.encoding)}
			var v Visit
			b.ReportAllocs()
			for b.Loop() {
				v.Begin(a, &r)
				v.Answer(nil, &ans)
				v.Feed(c.body, true)
				v.End()
			}
		})
	}
}

func BenchmarkTable(b *testing.B) {
	tab := newTable(1<<16, 1000*sec, newSecret())
	r := new(ref)
	keys := make([]uint64, 60000)
	for i := range keys {
		keys[i] = tab.key(id(uint64(i)))
		tab.put(keys[i], r, 1)
	}
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			tab.get(keys[i*7919%len(keys)], 2)
		}
	})
	b.Run("get_parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				tab.get(keys[i*7919%len(keys)], 2)
			}
		})
	})
	b.Run("put", func(b *testing.B) {
		b.ReportAllocs()
		for i := uint64(0); b.Loop(); i++ {
			tab.put(i*0x9e3779b97f4a7c15|1, r, int64(i))
		}
	})
	b.Run("sweep", func(b *testing.B) {
		for b.Loop() {
			tab.sweep(2, map[*ref]int64{})
		}
	})
}

func BenchmarkPoolChange(b *testing.B) {
	names := ""
	for i := range 100 {
		names += fmt.Sprintf(" n%d", i)
	}
	p := newPool(names)
	a := newAffinity(b, p, cookieOptions(b))
	b.ReportAllocs()
	for b.Loop() {
		a.view.Store(&view{snap: nil})
		a.look(1)
	}
}
