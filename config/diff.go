package config

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Difference is a key that two configurations have with different values.
type Difference struct {
	Table   string // "server", "pool.app"
	Key     string
	Was, Is string // much as a file would have it
}

// Diff lists the keys whose values differ between a and b, of all tables that both have. Which tables, backends and
// listeners there are is not among it: those have names, and more than a value.
func Diff(a, b *Config) (all []Difference) {
	add := func(table string, was, is map[string]any) {
		for _, key := range slices.Sorted(maps.Keys(is)) {
			x, y := reflect.ValueOf(was[key]).Elem(), reflect.ValueOf(is[key]).Elem()
			if x.Kind() == reflect.Slice && x.Len() == 0 && y.Len() == 0 || reflect.DeepEqual(x.Interface(), y.Interface()) {
				continue
			}
			all = append(all, Difference{table, key, showValue(x.Interface()), showValue(y.Interface())})
		}
	}
	ae, be := a.essence(), b.essence()
	add("server", ae.Server.fields(), be.Server.fields())
	add("admin", ae.Admin.fields(), be.Admin.fields())
	add("access_log", ae.AccessLog.fields(), be.AccessLog.fields())
	for i := range be.Pools {
		is := &be.Pools[i]
		for j := range ae.Pools {
			was := &ae.Pools[j]
			if was.Name != is.Name {
				continue
			}
			table := joinKey("pool", is.Name)
			fa, fb := was.fields(), is.fields()
			delete(fa, "backends")
			delete(fb, "backends")
			add(table, fa, fb)
			add(joinKey(table, "health"), was.Health.fields(), is.Health.fields())
			add(joinKey(table, "ejection"), was.Ejection.fields(), is.Ejection.fields())
			add(joinKey(table, "affinity"), was.Affinity.fields(), is.Affinity.fields())
			add(joinKey(table, "rollout"), was.Rollout.fields(), is.Rollout.fields())
		}
	}
	for i := range be.Routes {
		for j := range ae.Routes {
			if ae.Routes[j].Name == be.Routes[i].Name {
				add(joinKey("route", be.Routes[i].Name), ae.Routes[j].fields(), be.Routes[i].fields())
			}
		}
	}
	return all
}

// showValue writes a value for people.
func showValue(v any) string {
	switch v := v.(type) {
	case time.Duration:
		return showDuration(v)
	case string:
		return fmt.Sprintf("%q", v)
	case Secrets:
		return v.String() // of which some is another
	case HashKey:
		return fmt.Sprintf("%q", strings.TrimSuffix(v.Source+":"+v.Name, ":"))
	case []netip.Prefix:
		var all []string
		for _, p := range v {
			all = append(all, p.String())
		}
		return "[" + strings.Join(all, ", ") + "]"
	}
	return fmt.Sprint(v)
}
