package config

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
)

func TestLocate(t *testing.T) {
	const text = `# comment
top = 1
[pool.app] # app
  backends = [ "a", 3000, # "b"
    { address = "x", weight = 2 },
    [1, [2]],
  ]
"quoted key".b = '''
x = 1
'''
[[list]]
a.b.c = 2026-01-02 03:04:05
[[list]]
a = { b = "}", "c d" = [] , }
[list.sub]
é = 1
`
	var b strings.Builder
	l := locate(strings.Replace(text, "é", `"é"`, 1))
	for _, e := range l.entries {
		p := l.pos(e.off)
		fmt.Fprintf(&b, "%d:%d %s %q\n", p.Line, p.Column, e.path, l.text[e.val:e.end])
	}
	want := `2:1 top "1"
3:1 pool.app "[pool.app]"
4:3 pool.app.backends "[ \"a\", 3000, # \"b\"\n    { address = \"x\", weight = 2 },\n    [1, [2]],\n  ]"
4:16 pool.app.backends[0] "\"a\""
4:21 pool.app.backends[1] "3000"
5:5 pool.app.backends[2] "{ address = \"x\", weight = 2 }"
5:7 pool.app.backends[2].address "\"x\""
5:22 pool.app.backends[2].weight "2"
6:5 pool.app.backends[3] "[1, [2]]"
6:6 pool.app.backends[3][0] "1"
6:9 pool.app.backends[3][1] "[2]"
6:10 pool.app.backends[3][1][0] "2"
8:1 pool.app."quoted key".b "'''\nx = 1\n'''"
11:1 list[0] "[[list]]"
12:1 list[0].a.b.c "2026-01-02 03:04:05"
13:1 list[1] "[[list]]"
14:1 list[1].a "{ b = \"}\", \"c d\" = [] , }"
14:7 list[1].a.b "\"}\""
14:16 list[1].a."c d" "[]"
15:1 list[1].sub "[list.sub]"
16:1 list[1].sub."é" "1"
`
	if d := cmp.Diff(want, b.String()); d != "" || l.fault != nil {
		t.Errorf("fault %v, -want +got:\n%s", l.fault, d)
	}
	for path, want := range map[string]string{"pool": "3:1", "list": "11:1", "list[0].a": "12:1", `pool.app."quoted key"`: "8:1"} {
		e, ok := l.find(path)
		if p := l.pos(e.off); !ok || fmt.Sprintf("%d:%d", p.Line, p.Column) != want {
			t.Errorf("%s is at %v, want %s", path, p, want)
		}
	}
}

// FuzzLocate holds the locator against the library: what the library reads, the locator follows to the end and
// sees the same keys in the same order; and every value it marks is one the library reads alone.
func FuzzLocate(f *testing.F) {
	for _, s := range seeds() {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		text, errs := plainText("f", data)
		if errs != nil {
			return
		}
		l := locate(text)
		for _, e := range l.entries {
			p := l.pos(e.off)
			if p.Line < 1 || p.Line > len(l.lines) || p.Column < 1 || e.val < e.off {
				t.Fatalf("%+v is at %v", e, p)
			}
		}
		if f := l.fault; f != nil && (strings.HasPrefix(f.msg, "a key of more") || strings.HasPrefix(f.msg, "values inside")) {
			return
		}
		if strings.Contains(text, `\\""""""`) {
			return // the library takes the quote after an escaped backslash for an escaped one; TOML forbids six quotes
		}
		meta, err := decodeText(text, new(map[string]any))
		if err != nil {
			return
		}
		if l.fault != nil {
			t.Fatalf("lost at %v: %s", l.pos(l.fault.off), l.fault.msg)
		}
		want, got := meta.Keys(), []toml.Key{}
		for _, e := range l.entries {
			if e.key != nil {
				got = append(got, e.key)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("-library +locator:\n%s", d)
		}
		for _, e := range l.entries {
			if l.stmts[e.stmt].header && e.off == l.stmts[e.stmt].start {
				continue
			}
			if _, err := decodeText("x="+text[e.val:e.end], new(map[string]any)); err != nil {
				t.Fatalf("%s is not a value: %q: %v", e.path, text[e.val:e.end], err)
			}
		}
	})
}

// seeds are texts that a fuzzer does well to start from.
func seeds() []string {
	s := []string{
		"a=1", "[a]\nb=2\n[a.c]\n", "[[a]]\n[[a]]\nb={c=[{d=1},{d=2}]}\n", "a.b.\"c\\u00e9\"='x'\r\n", `a="""x""""" # "`,
		"a=[1,[2,3,],{x=1}]", "a=1979-05-27 07:32:00 # x\nb=07:32:00", "\xef\xbb\xbfa=1", "a=[\n[true]\n]", "a={\nb=1,#c\n}", "a='''''''''",
		"a=\"\"\"\\\"\"\"\"", "a=inf\nb=-nan\nc=0x1f\nd=1e-3", "[ a . 'b' ]", "a=[\n\"b\"\n[x]\ny=1", `a="\`, "[a", "[[a]", "a b", "=", "a=", "a==1", "a=5s",
	}
	for _, c := range faults {
		s = append(s, c.in)
	}
	return s
}

func TestLocateIsFast(t *testing.T) {
	// A quadratic step anywhere would make this take minutes.
	text := bytes.Repeat([]byte("[[a]]\nb=[1,2,{c=\"d\"}]\n"), 20000)
	if l := locate(string(text)); len(l.entries) != 20000*6 || l.fault != nil {
		t.Errorf("%d entries, %v", len(l.entries), l.fault)
	}
}
