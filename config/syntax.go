package config

import (
	"bytes"
	"errors"
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// plainText gives data as text that TOML allows: UTF-8, no byte order mark, no control characters.
func plainText(file string, data []byte) (string, Errors) {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) || bytes.IndexByte(data[:min(len(data), 4)], 0) >= 0 {
		return "", Errors{{File: file, Line: 1, Column: 1, Msg: "this file is UTF-16 or binary: save it as UTF-8 text"}}
	}
	for bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) { // the library would take away one more
		data = data[3:]
	}
	text := string(data)
	var errs Errors
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		for i, r := range line {
			msg := ""
			switch _, w := utf8.DecodeRuneInString(line[i:]); {
			case r == utf8.RuneError && w == 1:
				msg = fmt.Sprintf("the byte 0x%02x is not UTF-8: save the file as UTF-8 text", line[i])
			case r == '\r':
				msg = "a carriage return inside a line: end lines with a line feed"
			case r < ' ' && r != '\t' || r == 0x7f:
				msg = fmt.Sprintf("the control character 0x%02x cannot be in a file: remove it", r)
			default:
				continue
			}
			errs = append(errs, Error{File: file, Line: n + 1, Column: utf8.RuneCountInString(line[:i]) + 1, Msg: msg})
			break
		}
		if len(errs) == 10 {
			break
		}
	}
	// The last line has no line feed, so a carriage return at its end is a bare one.
	if errs == nil && strings.HasSuffix(text, "\r") {
		text += "\n"
	}
	return text, errs
}

// decodeText is toml.Decode without its panics on texts its author did not think of.
func decodeText(text string, into any) (meta toml.MetaData, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("cannot be read: %v", r)
		}
	}()
	return toml.Decode(text, into)
}

// decode gives what the text holds, after taking out what cannot be read and noting a fault for it: one run then
// names the faults before and after it too.
func (r *reader) decode() map[string]any {
	text := r.loc.text
	if f := r.loc.fault; f != nil {
		text = text[:f.stmt]
		r.partial = true
		r.addAt(f.off, "", "%s", f.msg)
	}
	for round := range 50 {
		tree := map[string]any{}
		_, err := decodeText(text, &tree)
		if err == nil {
			return tree
		}
		next := text
		if round == 0 {
			next = r.mendScalars(text)
		}
		if next == text {
			next = r.mendStatement(text, err)
		}
		text = next
	}
	r.partial = true
	return nil
}

// mendScalars replaces each value that is none by 0.
func (r *reader) mendScalars(text string) string {
	var b strings.Builder
	at := 0
	for _, e := range r.loc.entries {
		if e.end > len(text) || e.end <= e.val || r.loc.stmts[e.stmt].header && e.off == r.loc.stmts[e.stmt].start {
			continue
		}
		raw := text[e.val:e.end]
		if raw[0] == '[' || raw[0] == '{' {
			continue
		}
		if _, err := decodeText("x="+raw, new(map[string]any)); err == nil {
			continue
		}
		r.addAt(e.val, e.path, "%s", badScalar(raw))
		r.bad[e.path] = true
		b.WriteString(text[at:e.val])
		b.WriteString("0" + strings.Repeat(" ", len(raw)-1))
		at = e.end
	}
	return b.String() + text[at:]
}

// badScalar says what is wrong with a value that TOML cannot read.
func badScalar(raw string) string {
	switch lower := strings.ToLower(raw); {
	case raw[0] == '"':
		return `a "\" in this text is not followed by a letter that TOML knows: write "\\" for a plain one, or put the text in 'single quotes'`
	case raw[0] == '\'':
		return "this text cannot be read"
	case lower == "true" || lower == "false":
		return fmt.Sprintf("wants small letters: %s", lower)
	case lower == "yes" || lower == "no" || lower == "on" || lower == "off":
		return fmt.Sprintf("wants true or false, or quotes around text: \"%s\"", raw)
	case lower == "null" || lower == "nil" || lower == "undefined":
		return fmt.Sprintf("there is no %s in TOML: leave the key out for its default", raw)
	case strings.Trim(raw, "0123456789_.+-") == "" && strings.LastIndexAny(raw, "+-") <= 0 && strings.Count(raw, ".") < 2:
		if len(strings.TrimLeft(raw, "+-0")) > 18 {
			return fmt.Sprintf("%s is too large a number", short(raw))
		}
		return fmt.Sprintf("%s is not a number as TOML writes them: no zeros before it, digits around each dot", short(raw))
	case raw[0] == '`' || strings.HasPrefix(raw, "“"):
		return `text stands in straight double quotes: "like this"`
	}
	return fmt.Sprintf("text needs quotes: write \"%s\"", strings.Trim(short(raw), `"'`))
}

// mendStatement finds the first statement that cannot stand after those before it and blanks it out; a header
// together with the keys under it, which would otherwise land in another table.
func (r *reader) mendStatement(text string, err error) string {
	stmts := r.loc.stmts
	for n := len(stmts); n > 0 && stmts[n-1].end > len(text); n-- {
		stmts = stmts[:n-1]
	}
	i := sort.Search(len(stmts), func(i int) bool {
		_, err := decodeText(text[:stmts[i].end], new(map[string]any))
		return err != nil
	})
	if i == len(stmts) {
		// Not known to happen: the locator knows each statement of a text that it has followed to its end.
		off := 0
		var pe toml.ParseError
		if errors.As(err, &pe) {
			off = pe.Position.Start
		}
		r.partial = true
		r.addAt(off, "", "%s", libraryWords(err))
		return ""
	}
	_, err = decodeText(text[:stmts[i].end], new(map[string]any))
	again := r.twice(i, err)
	start, end := stmts[i].start, stmts[i].end
	if !stmts[i].header {
		r.bad[r.loc.entries[stmts[i].entry].path] = true
	} else {
		r.partial = r.partial || !again // the keys of a table that is there again are known by their paths
		end = len(text)
		for _, next := range stmts[i+1:] {
			if next.header {
				end = next.start
				break
			}
		}
	}
	blank := []byte(text)
	for j := start; j < end; j++ {
		if blank[j] != '\n' {
			blank[j] = ' '
		}
	}
	return string(blank)
}

// twice notes that statement i defines what is already there, and says whether it is a table that is there again.
func (r *reader) twice(i int, err error) bool {
	l := r.loc
	s := l.stmts[i]
	for n := s.entry; n < len(l.entries) && l.entries[n].stmt == i; n++ {
		e := l.entries[n]
		first := l.first[e.path]
		if list := strings.TrimSuffix(e.path, "[0]"); first == n && s.header && list != e.path {
			first = l.first[list] // [[backends]] after backends = ...
		}
		if first == n {
			continue
		}
		at := l.pos(l.entries[first].off)
		switch {
		case s.header && l.entries[first].path == e.path && l.stmts[l.entries[first].stmt].header:
			r.addAt(e.off, e.path, "this table is already on line %d: put its keys together there", at.Line)
			return true
		case l.entries[first].path == e.path || strings.HasSuffix(e.path, "[0]"):
			r.addAt(e.off, e.path, "is there twice, first on line %d: keep one of them", at.Line)
		default:
			r.addAt(e.off, e.path, "is already a table with keys of its own, since line %d", at.Line)
		}
		return false
	}
	e := l.entries[s.entry]
	r.addAt(e.off, e.path, "%s", libraryWords(err))
	return false
}

// libraryWords is the library's message without its positions.
func libraryWords(err error) string {
	var pe toml.ParseError
	if errors.As(err, &pe) {
		return strings.ToLower(pe.Message[:min(1, len(pe.Message))]) + pe.Message[min(1, len(pe.Message)):]
	}
	return err.Error()
}
