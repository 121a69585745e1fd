package config

import (
	"slices"
	"strconv"
	"strings"
)

// check looks for what no single key shows: contradictions, references to nobody, and what nobody refers to. It
// fills in what follows from the whole, the listener and the route that a small file need not write.
func (r *reader) check(c *Config) {
	if len(c.Listens) == 0 {
		c.Listens = Default().Listens
	}
	r.checkListens(c)
	for i := range c.Pools {
		r.checkPool(c, &c.Pools[i])
	}
	if c.AccessLog.Format == "off" && r.given("access_log.path") && c.AccessLog.Path != "" {
		r.faultKey("access_log.path", `nothing is written to it, since format is "off": leave one of them out`)
	}
	r.checkRoutes(c)
}

// given says whether the file itself sets the key at path.
func (r *reader) given(path string) bool {
	_, ok := r.loc.first[path]
	return ok
}

func (r *reader) checkListens(c *Config) {
	at := func(l Listen) string {
		path := joinKey("listen", l.Name)
		if p := path + ".address"; r.given(p) {
			return p
		}
		return path
	}
	for i, l := range c.Listens {
		for _, other := range c.Listens[:i] {
			if !r.bad[at(l)] && !r.bad[at(other)] && overlap(l.Address, other.Address) {
				r.fault(at(l), "%s is taken by %s (%s) on line %d", quote(l.Address), joinKey("listen", other.Name), other.Address, other.Pos.Line)
				break
			}
		}
		if c.Admin.Address != "" && !r.bad[at(l)] && !r.bad["admin.address"] && overlap(l.Address, c.Admin.Address) {
			switch {
			case r.given("admin.address"):
				r.fault("admin.address", "%s is taken by %s (%s)", quote(c.Admin.Address), joinKey("listen", l.Name), l.Address)
			case l.Pos == Pos{}:
			default:
				r.fault(at(l), "%s is taken by the admin address (%s, the default): choose another here or in [admin]", quote(l.Address), c.Admin.Address)
			}
		}
	}
}

func (r *reader) checkPool(c *Config, p *Pool) {
	path := joinKey("pool", p.Name)
	if hash := path + ".hash"; r.given(hash) && p.Strategy != "hash" && !r.bad[path+".strategy"] && !r.bad[hash] {
		r.faultKey(hash, `is only for strategy = "hash", and the strategy here is %q: change that or leave this out`, p.Strategy)
	}
	if bound := path + ".hash_bound"; r.given(bound) && p.HashBound != DefaultPool("").HashBound && p.Strategy != "hash" && p.Affinity.Kind != "hash" && !r.bad[path+".strategy"] && !r.bad[bound] {
		r.faultKey(bound, `is only for strategy = "hash", or affinity of kind "hash": leave it out`)
	}
	for _, name := range []string{"max_idle", "idle_timeout"} {
		if key := path + "." + name; r.given(key) && !p.Reuse && !r.bad[key] {
			r.faultKey(key, "has no use with reuse = false, which keeps no connections: leave one of them out")
		}
	}
	r.checkHealth(path+".health", p)
	r.checkEjection(path+".ejection", &p.Ejection)
	r.checkAffinity(path+".affinity", c, p)
	for _, b := range p.Backends {
		i := strings.LastIndexByte(b.Address, ':')
		if strings.HasPrefix(b.Address, "unix:") || i < 0 {
			continue
		}
		host := b.Address[:i]
		for _, l := range c.Listens {
			own := l.Address == b.Address || host == "localhost" || host == "[::1]" || strings.HasPrefix(host, "127.")
			if own && overlap(l.Address, b.Address) {
				r.errs = append(r.errs, Error{r.file, b.Pos.Line, b.Pos.Column, path + ".backends",
					quote(b.Address) + " is where lb itself listens (" + l.Address + "): requests would go round in circles"})
			}
		}
	}
}

func (r *reader) checkRoutes(c *Config) {
	var pools []string
	for _, p := range c.Pools {
		pools = append(pools, p.Name)
	}
	switch {
	case r.partial:
		// What is missing may stand where the file could not be read.
		return
	case len(c.Pools) == 0:
		if !r.poolMeant && !r.bad["pool"] && !r.within("pool") {
			e, _ := r.loc.find("pool")
			r.addAt(e.off, "", `there is no pool, so requests have nowhere to go: write [pool.app] and below it backends = ["127.0.0.1:3000"], with the address of your app`)
		}
		return
	case len(c.Routes) == 0 && r.within("route"):
		return
	case len(c.Routes) == 0 && len(c.Pools) == 1:
		c.Routes = []Route{{Name: "default", Path: "/", Pool: pools[0]}}
		return
	case len(c.Routes) == 0:
		r.faultKey(joinKey("pool", pools[1]), `there are %d pools and no route, so it is open which requests go where: write for each pool a line such as [route.%s] and below it pool = %q and its path or host`,
			len(pools), pools[1], pools[1])
		return
	}
	used := map[string]bool{}
	sure := true
	type match struct{ host, path string }
	seen := map[match]Route{}
	for _, t := range c.Routes {
		path := joinKey("route", t.Name)
		switch {
		case t.Pool == "":
			sure = false
		case !slices.Contains(pools, t.Pool):
			sure = false
			r.fault(path+".pool", "there is no pool %s%s", quote(t.Pool), didYouMean(t.Pool, pools, "; there is "+quoteList(pools[:min(len(pools), 10)], ", ")))
		}
		used[t.Pool] = true
		if r.bad[path+".host"] || r.bad[path+".path"] {
			continue
		}
		if first, ok := seen[match{t.Host, t.Path}]; ok {
			r.faultKey(path, "takes the same requests (%s) as %s on line %d: give one of them another host or path", t.match(), joinKey("route", first.Name), first.Pos.Line)
			continue
		}
		seen[match{t.Host, t.Path}] = t
	}
	for _, p := range c.Pools {
		if !used[p.Name] && sure && !r.bad[joinKey("pool", p.Name)] {
			r.faultKey(joinKey("pool", p.Name), "no route leads to this pool: write a [route.NAME] with pool = %q, or take the pool out", p.Name)
		}
	}
}

// within says whether a fault about something in the table at path has been noted already.
func (r *reader) within(path string) bool {
	return slices.ContainsFunc(r.errs, func(e Error) bool { return e.Path == path || strings.HasPrefix(e.Path, path+".") })
}

// match says what a route takes, as in "example.com/api" or "everything".
func (t *Route) match() string {
	switch {
	case t.Host == "" && t.Path == "/":
		return "everything"
	case t.Path == "/":
		return t.Host
	}
	return t.Host + t.Path
}

// Summary says in one line what lb does with c.
func (c *Config) Summary() string {
	var b strings.Builder
	if c.File != "" {
		b.WriteString(c.File + ": ")
	}
	b.WriteString("ok: listens on ")
	for i, l := range c.Listens {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(l.Address)
	}
	if len(c.Routes) > 4 {
		b.WriteString(", has " + strconv.Itoa(len(c.Routes)) + " routes to ")
		for i, p := range c.Pools {
			if i == 4 && len(c.Pools) > 5 {
				b.WriteString(" and " + strconv.Itoa(len(c.Pools)-i) + " more pools")
				break
			}
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString("pool " + p.short())
		}
	} else {
		for i, t := range c.Routes {
			b.WriteString(", ")
			if i == 0 {
				b.WriteString("sends ")
			}
			b.WriteString(t.match() + " to ")
			for _, p := range c.Pools {
				if p.Name == t.Pool {
					b.WriteString("pool " + p.short())
				}
			}
		}
	}
	switch {
	case c.Admin.Address != "" && c.Admin.Socket != "":
		b.WriteString(", metrics on " + c.Admin.Address + " and " + c.Admin.Socket)
	case c.Admin.Address != "" || c.Admin.Socket != "":
		b.WriteString(", metrics on " + c.Admin.Address + c.Admin.Socket)
	default:
		b.WriteString(", metrics off")
	}
	return b.String()
}

func (p *Pool) short() string {
	s := p.Name + " (" + strconv.Itoa(len(p.Backends)) + " backend"
	if len(p.Backends) != 1 {
		s += "s"
	}
	return s + ", " + p.Strategy + ")"
}
