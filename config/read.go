package config

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// reader turns one file into a Config and gathers what is wrong with it.
type reader struct {
	file    string
	lookup  func(string) (string, bool)
	loc     *located
	errs    Errors
	bad     map[string]bool // paths whose value has been faulted already
	partial bool            // something could not be read, so what seems missing may not be

	poolMeant bool // a table of another name was meant to be a pool
}

func parse(file string, data []byte, lookup func(string) (string, bool)) (*Config, error) {
	text, errs := plainText(file, data)
	if errs != nil {
		return nil, errs
	}
	r := &reader{file: file, lookup: lookup, loc: locate(text), bad: map[string]bool{}}
	c := Default()
	c.File = file
	r.config(c, r.decode())
	r.check(c)
	if r.errs != nil {
		r.errs.sort()
		return nil, slices.Compact(r.errs)
	}
	return c, nil
}

func (r *reader) addAt(off int, path, format string, args ...any) {
	p := r.loc.pos(off)
	r.errs = append(r.errs, Error{r.file, p.Line, p.Column, path, fmt.Sprintf(format, args...)})
}

// fault notes what is wrong with the value at path.
func (r *reader) fault(path, format string, args ...any) {
	e, _ := r.loc.find(path)
	r.bad[path] = true
	r.addAt(e.val, path, format, args...)
}

// faultKey notes what is wrong with the key or table at path itself.
func (r *reader) faultKey(path, format string, args ...any) {
	e, _ := r.loc.find(path)
	r.bad[path] = true
	r.addAt(e.off, path, format, args...)
}

// badBelow says whether an element of the list at path has been faulted, or anything in one.
func (r *reader) badBelow(path string) bool {
	for p := range r.bad {
		if strings.HasPrefix(p, path+"[") {
			return true
		}
	}
	return false
}

// pos is where the key or table at path stands.
func (r *reader) pos(path string) Pos {
	e, ok := r.loc.find(path)
	if !ok {
		return Pos{}
	}
	return r.loc.pos(e.off)
}

// inOrder gives the keys of a table in the order of the file.
func (r *reader) inOrder(path string, m map[string]any) []string {
	off := map[string]int{}
	names := make([]string, 0, len(m))
	for name := range m {
		e, _ := r.loc.find(joinKey(path, name))
		off[name] = e.off
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(off[a], off[b]), strings.Compare(a, b)) })
	return names
}

// config reads the top level.
func (r *reader) config(c *Config, tree map[string]any) {
	for _, name := range r.inOrder("", tree) {
		path, v := joinKey("", name), tree[name]
		if r.bad[path] {
			continue
		}
		switch name {
		case "server":
			r.single(path, v, c.Server.fields())
		case "admin":
			c.Admin.Pos = r.pos(path)
			r.single(path, v, c.Admin.fields())
		case "access_log":
			c.AccessLog.Pos = r.pos(path)
			r.single(path, v, c.AccessLog.fields())
		case "listen":
			c.Listens = nil
			r.named(path, v, func(name, path string, m map[string]any) {
				l := Listen{Name: name, Pos: r.pos(path)}
				r.table("listen.NAME", path, m, l.fields())
				c.Listens = append(c.Listens, l)
			})
		case "pool":
			r.named(path, v, func(name, path string, m map[string]any) {
				p := DefaultPool(name)
				p.Pos = r.pos(path)
				m = maps.Clone(m)
				r.sub("pool.NAME", path, "health", m, p.Health.fields())
				r.sub("pool.NAME", path, "ejection", m, p.Ejection.fields())
				r.sub("pool.NAME", path, "affinity", m, p.Affinity.fields())
				r.sub("pool.NAME", path, "rollout", m, p.Rollout.fields())
				r.table("pool.NAME", path, m, p.fields())
				p.capBackends()
				c.Pools = append(c.Pools, p)
			})
		case "route":
			r.named(path, v, func(name, path string, m map[string]any) {
				t := Route{Name: name, Pos: r.pos(path)}
				r.table("route.NAME", path, m, t.fields())
				c.Routes = append(c.Routes, t)
			})
		default:
			r.unknownTop(path, name, v)
		}
	}
}

var tops = []string{"listen", "pool", "route", "admin", "access_log", "server"}

func (r *reader) unknownTop(path, name string, v any) {
	if says := absent[flatten(name)]; says != "" {
		r.faultKey(path, "unknown: %s", says)
		return
	}
	guess := Suggest(name, tops)
	r.poolMeant = r.poolMeant || guess == "pool" || name == "backends"
	if _, ok := v.(map[string]any); !ok && guess == "" {
		if s := Suggest(name, keyNames()); s != "" {
			name = s
		}
	}
	if table := tableOf(name); table != "" {
		if name != path {
			r.faultKey(path, "unknown key, and outside of any table: did you mean %q below a line [%s]?", name, exampleTable(table))
		} else {
			r.faultKey(path, "this key belongs in a table: write it below a line [%s]", exampleTable(table))
		}
		return
	}
	for in, names := range subs {
		if sub := Suggest(name, names); sub != "" && guess == "" {
			r.faultKey(path, "belongs to a pool: write [%s.%s]", exampleTable(in), sub)
			return
		}
	}
	what := "unknown table"
	if _, ok := v.(map[string]any); !ok {
		what = "unknown key outside of any table"
	}
	r.faultKey(path, "%s%s", what, didYouMean(name, tops, "; the tables are "+quoteList(tops, ", ")))
}

// exampleTable turns pool.NAME into a table that one could write.
func exampleTable(table string) string {
	table = strings.TrimSuffix(table, ".backends")
	return strings.NewReplacer("pool.NAME", "pool.app", "listen.NAME", "listen.web", "route.NAME", "route.api").Replace(table)
}

// single reads a table that is there once.
func (r *reader) single(path string, v any, fields map[string]any) {
	switch v := v.(type) {
	case map[string]any:
		r.table(path, path, v, fields)
	case []map[string]any:
		r.faultKey(path, "is one table: write [%s] instead of [[%s]]", path, path)
	default:
		r.fault(path, "is a table: write a line [%s] and its keys below, found %s", path, r.found(path, v))
	}
}

// named reads tables that have names of their own.
func (r *reader) named(path string, v any, each func(name, path string, m map[string]any)) {
	example := exampleTable(path + ".NAME")
	m, ok := v.(map[string]any)
	if !ok {
		if _, ok := v.([]map[string]any); ok {
			r.faultKey(path, "has a name instead of double brackets: write [%s]", example)
		} else {
			r.fault(path, "is a table: write a line [%s] and its keys below, found %s", example, r.found(path, v))
		}
		return
	}
	for _, name := range r.inOrder(path, m) {
		at := joinKey(path, name)
		if r.bad[at] {
			continue
		}
		switch t := m[name].(type) {
		case map[string]any:
			if err := checkTableName(name); err != "" {
				r.faultKey(at, "%s", err)
			}
			each(name, at, t)
		case []map[string]any:
			r.faultKey(at, "write [%s] instead of [[%s]]", at, at)
		default:
			if slices.ContainsFunc(keysOf(path+".NAME"), func(k *Key) bool { return k.Name == name }) {
				r.faultKey(at, "a %s has a name: write a line [%s] and this key below it", map[string]string{"listen": "listener", "pool": "pool", "route": "route"}[path], example)
			} else {
				r.fault(at, "is a table: write a line [%s] and its keys below, found %s", at, r.found(at, t))
			}
		}
	}
}

// checkTableName keeps names to what is safe in metrics, logs and addresses of pages.
func checkTableName(name string) string {
	if len(name) > 64 {
		return fmt.Sprintf("a name has at most 64 characters, this one has %d", len(name))
	}
	for i := range len(name) {
		if !isBare(name[i]) && (i == 0 || name[i] != '.') {
			return `a name is made of letters a-z, digits, "_", "-" and "."`
		}
	}
	if name == "" {
		return "a name cannot be empty"
	}
	return ""
}

// subs are the tables that stand in others, by the table that they stand in.
var subs = map[string][]string{"pool.NAME": {"health", "ejection", "affinity", "rollout"}}

// sub reads the table of the given name in m, which is the one at path, and takes it out of m.
func (r *reader) sub(table, path, name string, m, fields map[string]any) {
	v, ok := m[name]
	delete(m, name)
	at := joinKey(path, name)
	if !ok || r.bad[at] {
		return
	}
	switch v := v.(type) {
	case map[string]any:
		r.table(table+"."+name, at, v, fields)
	case []map[string]any:
		r.faultKey(at, "is one table: write [%s] instead of [[%s]]", at, at)
	default:
		r.fault(at, "is a table: write a line [%s] and its keys below, found %s", at, r.found(at, v))
	}
}

// table reads the keys of one table into fields, which has a pointer for each key.
func (r *reader) table(table, path string, m map[string]any, fields map[string]any) {
	known := keysOf(table)
	for _, k := range known {
		if d, ok := defaults()[k.Path()]; ok {
			k.assign(r, "", d, fields[k.Name])
		}
	}
	for _, name := range r.inOrder(path, m) {
		at := joinKey(path, name)
		i := slices.IndexFunc(known, func(k *Key) bool { return k.Name == name })
		switch {
		case r.bad[at]:
		case i < 0:
			r.unknownKey(table, at, name, known)
		default:
			known[i].assign(r, at, m[name], fields[name])
		}
	}
	for _, k := range known {
		at := joinKey(path, k.Name)
		if _, there := m[k.Name]; k.Default != "" || there || r.bad[at] || r.bad[path] {
			continue
		}
		if _, there := r.loc.first[at]; !there && !r.partial {
			r.faultKey(path, "wants the key %q: %s", k.Name, kinds[k.kind].wants)
		}
	}
}

func (r *reader) unknownKey(table, path, name string, known []*Key) {
	var names []string
	for _, k := range known {
		names = append(names, k.Name)
	}
	names = append(names, subs[table]...)
	guess := Suggest(name, names)
	sure := guess != "" && (slices.Contains(strings.Fields(aliases[flatten(name)]), guess) || distance(flatten(name), guess) <= 1)
	if at := tableOf(name); at != "" && at != "pool.NAME.backends" && !sure {
		r.faultKey(path, "unknown key here, it belongs in [%s]", at)
		return
	}
	if says := absent[flatten(name)]; says != "" {
		r.faultKey(path, "unknown key: %s", says)
		return
	}
	r.faultKey(path, "unknown key%s", didYouMean(name, names, "; the keys here are "+strings.Join(names, ", ")))
}

// found names a value as a message says it.
func (r *reader) found(path string, v any) string {
	raw := ""
	if e, ok := r.loc.find(path); ok && e.end > e.val && e.end <= len(r.loc.text) {
		raw = short(r.loc.text[e.val:e.end])
	}
	switch v := v.(type) {
	case string:
		return "the text " + quote(v)
	case int64:
		return "the integer " + strconv.FormatInt(v, 10)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) || raw == "" {
			return fmt.Sprintf("the number %v", v)
		}
		return "the number " + raw
	case bool:
		return fmt.Sprint(v)
	case time.Time:
		return "the date " + raw
	case []any, []map[string]any:
		return "a list"
	}
	return "a table"
}
