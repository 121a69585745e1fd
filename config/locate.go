package config

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// Limits on shape. No config comes near them; without them a hostile file could exhaust the stack of a recursive
// reader (a Go stack overflow cannot be recovered) or make the library's path handling quadratic.
const (
	maxDepth = 16 // values inside values
	maxParts = 16 // a.b.c in one key
)

// entry is one thing that has a place: a table header, a key, or an element of an array.
type entry struct {
	path     string   // with indexes, such as pool.app.backends[1].weight; what people are shown
	key      []string // without indexes, as MetaData.Keys gives it; nil for elements
	off      int      // byte offset of the header, the key, or the element
	val, end int      // the value's text; of a header: the header's
	stmt     int      // index into stmts
}

// stmt is one top-level statement: a header, or a key and its value.
type stmt struct {
	start, end int
	header     bool
	entry      int // its first entry
}

// located is where everything in a TOML text stands. The library says what a text means and has no reliable
// positions; this says only where, and never what: values are skipped over, not read.
type located struct {
	text    string
	lines   []int // offset of each line's first character
	entries []entry
	stmts   []stmt
	first   map[string]int // path -> first entry of that path or, for a table without a header, inside it
	fault   *fault         // where reading stopped; nil at the end of the text
}

type fault struct {
	off  int
	stmt int // offset of the statement it is in
	msg  string
}

// locate finds every key of text, which must be UTF-8 without a byte order mark. It stops at the first place
// whose structure cannot be followed.
func locate(text string) (l *located) {
	l = &located{text: text, lines: []int{0}, first: map[string]int{}}
	for i := range len(text) {
		if text[i] == '\n' {
			l.lines = append(l.lines, i+1)
		}
	}
	s := scanner{located: l, counts: map[string]int{}}
	defer func() {
		switch f := recover().(type) {
		case nil:
		case *fault:
			f.stmt, l.fault = s.start, f
		default:
			panic(f)
		}
	}()
	s.file()
	return l
}

// pos turns an offset into a line and a column.
func (l *located) pos(off int) Pos {
	off = min(max(off, 0), len(l.text))
	n := sort.SearchInts(l.lines, off+1)
	return Pos{n, utf8.RuneCountInString(l.text[l.lines[n-1]:off]) + 1}
}

// find gives the entry of a path; of its nearest parent if it has none.
func (l *located) find(path string) (entry, bool) {
	if i, ok := l.first[path]; ok {
		return l.entries[i], true
	}
	for i := len(path) - 1; i > 0; i-- {
		if path[i] == '.' || path[i] == '[' {
			if n, ok := l.first[path[:i]]; ok {
				return l.entries[n], false
			}
		}
	}
	return entry{}, false
}

// joinKey appends a key to a path, quoting it where TOML would ask for quotes.
func joinKey(path, key string) string {
	bare := key != ""
	for i := range len(key) {
		bare = bare && isBare(key[i])
	}
	if !bare {
		key = strconv.Quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func joinIndex(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// scanner walks the text. It panics with a *fault where it is lost; locate recovers.
type scanner struct {
	*located
	at     int
	start  int            // of the statement being read
	table  string         // path of the current header
	key    []string       // the same without indexes
	counts map[string]int // tables so far of each [[array]]
}

func (s *scanner) failf(off int, format string, args ...any) {
	panic(&fault{off: off, msg: fmt.Sprintf(format, args...)})
}

func (s *scanner) file() {
	for {
		s.blank(true)
		if s.start = s.at; s.at == len(s.text) {
			return
		}
		if s.text[s.at] == '{' {
			s.failf(s.at, `did not expect "{": this is TOML, not JSON, and a table begins with a line such as [pool.app]`)
		}
		header := s.text[s.at] == '['
		s.stmts = append(s.stmts, stmt{start: s.at, header: header, entry: len(s.entries)})
		if header {
			s.header()
		} else {
			s.pair(s.table, s.key, 0)
		}
		s.stmts[len(s.stmts)-1].end = s.at
		s.blank(false)
		if s.at < len(s.text) && s.text[s.at] != '\n' {
			s.failf(s.at, "did not expect %s here: one key = value a line", s.see())
		}
	}
}

// blank skips white space and comments, and line ends if lines is set.
func (s *scanner) blank(lines bool) {
	for ; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case ' ', '\t', '\r':
		case '\n':
			if !lines {
				return
			}
		case '#':
			n := strings.IndexByte(s.text[s.at:], '\n')
			if n < 0 {
				n = len(s.text) - s.at
			}
			s.at += n - 1
		default:
			return
		}
	}
}

func (s *scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

// see names what stands here, for a message.
func (s *scanner) see() string {
	switch rest := s.text[s.at:]; {
	case rest == "":
		return "the end of the file"
	case rest[0] == '\n' || strings.HasPrefix(rest, "\r\n"):
		return "the end of the line"
	case rest[0] == '"':
		return "a quote"
	default:
		if n := strings.IndexAny(rest, " \t\r\n,=[]{}#\"'"); n > 0 && n <= 40 {
			return strconv.Quote(rest[:n])
		}
		r, _ := utf8.DecodeRuneInString(rest)
		return strconv.Quote(string(r))
	}
}

func (s *scanner) header() {
	start, array := s.at, strings.HasPrefix(s.text[s.at:], "[[")
	closing := "]"
	if array {
		closing = "]]"
	}
	s.at += len(closing)
	key := s.keyPath("a name such as pool.app")
	if !strings.HasPrefix(s.text[s.at:], closing) {
		if c := s.peek(); c == 0 || c == '\n' || c == '\r' || c == '#' || c == ']' {
			s.failf(start, "this table is never closed: write %s at its end", closing)
		}
		s.failf(s.at, "did not expect %s in the name of a table", s.see())
	}
	s.at += len(closing)
	path := ""
	for i, k := range key {
		path = joinKey(path, k)
		s.mark(path)
		if i == len(key)-1 && array {
			s.counts[path]++
		}
		if n := s.counts[path]; n > 0 && (array || i < len(key)-1) {
			path = joinIndex(path, n-1)
			s.mark(path)
		}
	}
	s.table, s.key = path, key
	s.add(entry{path: path, key: key, off: start, val: start, end: s.at})
}

// pair reads key = value inside the table at path.
func (s *scanner) pair(path string, parent []string, depth int) {
	off := s.at
	parts := s.keyPath("a key")
	if s.peek() != '=' {
		if c := s.peek(); c == ':' {
			s.failf(s.at, `keys and values are parted by "=", not ":"`)
		}
		s.failf(s.at, `wants "=" and a value after the key %s, found %s`, s.text[off:off+len(strings.TrimRight(s.text[off:s.at], " \t"))], s.see())
	}
	s.at++
	s.space()
	for _, k := range parts {
		path = joinKey(path, k)
		s.mark(path)
	}
	key := append(parent[:len(parent):len(parent)], parts...)
	n := s.add(entry{path: path, key: key, off: off, val: s.at})
	s.value(path, key, depth)
	s.entries[n].end = s.at
}

func (s *scanner) space() {
	for s.peek() == ' ' || s.peek() == '\t' {
		s.at++
	}
}

func (s *scanner) keyPath(want string) (key []string) {
	for {
		s.space()
		off := s.at
		switch c := s.peek(); {
		case c == '"' || c == '\'':
			s.line(c)
			key = append(key, s.unquote(off))
		default:
			for isBare(s.peek()) {
				s.at++
			}
			if s.at == off {
				s.failf(off, "wants %s, found %s", want, s.see())
			}
			key = append(key, s.text[off:s.at])
		}
		if len(key) > maxParts {
			s.failf(off, "a key of more than %d parts", maxParts)
		}
		s.space()
		if s.peek() != '.' {
			return key
		}
		s.at++
	}
}

// unquote gives the key whose quoted text starts at off. Escapes are the library's business.
func (s *scanner) unquote(off int) string {
	raw := s.text[off:s.at]
	if raw[0] == '\'' || !strings.Contains(raw, `\`) {
		return raw[1 : len(raw)-1]
	}
	var v struct{ K string }
	if _, err := toml.Decode("K="+raw, &v); err != nil {
		s.failf(off, `a "\" in this key is not followed by a letter that TOML knows; write "\\" for a plain one`)
	}
	return v.K
}

// value skips over a value and adds what is inside it.
func (s *scanner) value(path string, key []string, depth int) {
	if depth > maxDepth {
		s.failf(s.at, "values inside values, more than %d deep", maxDepth)
	}
	switch c := s.peek(); c {
	case '"', '\'':
		if three := strings.Repeat(string(c), 3); strings.HasPrefix(s.text[s.at:], three) {
			s.lines3(c)
		} else {
			s.line(c)
		}
	case '[':
		s.list(']', "array", func(i int) {
			p := joinIndex(path, i)
			n := s.add(entry{path: p, off: s.at, val: s.at})
			s.value(p, key, depth+1)
			s.entries[n].end = s.at
		})
	case '{':
		s.list('}', "inline table", func(int) { s.pair(path, key, depth+1) })
	default:
		s.bare()
	}
}

// list reads the elements between two brackets, commas between them and, if wanted, after the last.
func (s *scanner) list(closing byte, what string, element func(i int)) {
	open := s.at
	s.at++
	for i := 0; ; i++ {
		s.blank(true)
		switch s.peek() {
		case closing:
			s.at++
			return
		case 0:
			s.failf(open, `this %s is never closed: write "%c" at its end`, what, closing)
		}
		if closing == ']' && (s.isHeader() || s.isPair()) {
			s.failf(open, `this %s is never closed: write "%c" at its end`, what, closing)
		}
		element(i)
		s.blank(true)
		switch s.peek() {
		case ',':
			s.at++
		case closing, 0:
		default:
			if s.isHeader() || closing == ']' && s.isPair() {
				s.failf(open, `this %s is never closed: write "%c" at its end`, what, closing)
			}
			s.failf(s.at, `wants "," or "%c" before %s`, closing, s.see())
		}
	}
}

// isHeader says whether what looks like [a.table] starts a line here: a sign that a bracket before was left open.
func (s *scanner) isHeader() bool {
	if s.text[s.at] != '[' || s.at > 0 && s.text[s.at-1] != '\n' {
		return false
	}
	line, _, _ := strings.Cut(s.text[s.at:], "\n")
	line = strings.Trim(line, "[] \t\r")
	for i := range len(line) {
		if !isBare(line[i]) && line[i] != '.' || isDigit(line[0]) {
			return false
		}
	}
	return line != "" && line != "true" && line != "false" && line != "inf" && line != "nan" && line[0] != '-'
}

// isPair says whether a key and "=" start here, where an element of an array should.
func (s *scanner) isPair() bool {
	i := s.at
	for i < len(s.text) && isBare(s.text[i]) {
		i++
	}
	rest := strings.TrimLeft(s.text[i:], " \t")
	return i > s.at && strings.HasPrefix(rest, "=")
}

// line skips a string that ends on its line.
func (s *scanner) line(quote byte) {
	open := s.at
	for s.at++; ; s.at++ {
		switch c := s.peek(); {
		case c == 0 || c == '\n':
			s.failf(open, "this text is never closed: write %c at its end", quote)
		case c == '\\' && quote == '"' && s.at+1 < len(s.text) && s.text[s.at+1] != '\n':
			s.at++
		case c == quote:
			s.at++
			return
		}
	}
}

// lines3 skips a string in three quotes. Up to two quotes before the closing three belong to the text.
func (s *scanner) lines3(quote byte) {
	open := s.at
	for s.at += 3; ; {
		switch c := s.peek(); {
		case c == 0:
			s.failf(open, "this text is never closed: write %c%c%c at its end", quote, quote, quote)
		case c == '\\' && quote == '"':
			s.at += 2
		case c == quote:
			n := 1
			for n < 5 && s.at+n < len(s.text) && s.text[s.at+n] == quote {
				n++
			}
			if s.at += n; n >= 3 {
				return
			}
		default:
			s.at++
		}
	}
}

// bare skips a number, a date, true or false, or what was meant as text and has no quotes: whether it is a value
// at all is for the library to say.
func (s *scanner) bare() {
	off := s.at
	for s.at < len(s.text) && !strings.ContainsRune(" \t\r\n,]}#", rune(s.text[s.at])) {
		s.at++
	}
	if s.at == off {
		s.failf(off, "wants a value, found %s", s.see())
	}
	// A date and its time may be parted by a space.
	if t := s.text[off:s.at]; len(t) == 10 && t[4] == '-' && t[7] == '-' && s.at+1 < len(s.text) && isDigit(s.text[s.at+1]) && s.peek() == ' ' {
		s.at++
		s.bare()
	}
}

// mark makes the entry that is added next the place of path, unless it has one.
func (s *scanner) mark(path string) {
	if _, ok := s.first[path]; !ok {
		s.first[path] = len(s.entries)
	}
}

func (s *scanner) add(e entry) int {
	e.stmt = len(s.stmts) - 1
	s.mark(e.path)
	s.entries = append(s.entries, e)
	return len(s.entries) - 1
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isBare(c byte) bool {
	return isDigit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '-'
}
