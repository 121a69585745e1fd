package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"lb/admin"
	"lb/affinity"
	"lb/config"
	"lb/loop"
	"lb/metrics"
	"lb/upstream"
)

// affinityOptions is how the clients of c are kept where they were, nil for not at all.
func affinityOptions(c *config.Pool, keys *keyring) (*affinity.Options, error) {
	a := &c.Affinity
	o := &affinity.Options{
		Kind: affinityKinds[a.Kind], SocketIO: a.SocketIO, Sessions: a.Sessions, TTL: a.TTL,
	}
	hash := a.Hash
	if o.Kind == affinity.None && c.Strategy == "hash" {
		o.Kind, hash = affinity.Hash, c.Hash
	}
	switch o.Kind {
	case affinity.None:
		if !o.SocketIO {
			return nil, nil
		}
	case affinity.AppCookie:
		o.AppCookie = a.Name
	case affinity.Hash:
		o.Hash = affinity.HashKey{Source: hashSources[hash.Source], Name: hash.Name}
		if o.Hash.Source == affinity.FromPath {
			o.Hash.Name = ""
			o.Hash.Part, _ = strconv.Atoi(hash.Name) // "" is 0, the whole
		}
	case affinity.Cookie:
		k, err := keys.of(a)
		if err != nil {
			return nil, err
		}
		o.Cookie = affinity.CookieOptions{
			Keys: k, Name: a.Name, Path: a.Path, Domain: a.Domain, MaxAge: a.MaxAge, Secure: secures[a.Secure], SameSite: sameSites[a.SameSite],
		}
		if a.Name == "" {
			o.Cookie.Name = affinity.DefaultName(c.Name)
		}
	}
	return o, nil
}

var (
	affinityKinds = map[string]affinity.Kind{
		"off": affinity.None, "cookie": affinity.Cookie, "app_cookie": affinity.AppCookie, "hash": affinity.Hash,
	}
	hashSources = map[string]affinity.Source{
		"ip": affinity.FromIP, "header": affinity.FromHeader, "cookie": affinity.FromCookie, "query": affinity.FromQuery, "path": affinity.FromPath,
	}
	secures   = map[string]affinity.Secure{"auto": affinity.SecureAuto, "always": affinity.SecureAlways, "never": affinity.SecureNever}
	sameSites = map[string]affinity.SameSite{"lax": affinity.SameSiteLax, "strict": affinity.SameSiteStrict, "none": affinity.SameSiteNone}
)

// drainSessions is how long a draining backend of c keeps its clients. Those of a hash are kept by nobody: it is only among
// the backends that are there.
func drainSessions(c *config.Pool, o *affinity.Options) time.Duration {
	if o == nil || o.Kind == affinity.Hash && !o.SocketIO {
		return 0
	}
	return c.Affinity.Drain
}

// keyring gives pools the keys of their cookies.
type keyring struct {
	dir  string // where to keep those that lb makes; "": nowhere
	warn func(msg string, args ...any)
	own  *affinity.Keys // made for want of a directory
	text string         // of own; of the process before, if there was one
}

// stateDirectory is the first directory that systemd names for what outlives the process, "" without one.
func stateDirectory(getenv func(string) string) string {
	dir, _, _ := strings.Cut(getenv("STATE_DIRECTORY"), ":")
	return dir
}

func (k *keyring) of(a *config.Affinity) (*affinity.Keys, error) {
	switch {
	case len(a.Keys) > 0:
		return affinity.NewKeys(a.Keys...)
	case a.KeyFile != "":
		return affinity.LoadKeys(a.KeyFile)
	case k.dir != "":
		return affinity.LoadKeys(filepath.Join(k.dir, "affinity.keys"))
	}
	if k.own == nil {
		if k.text == "" {
			k.text = affinity.RandomKey()
		}
		own, err := affinity.NewKeys(k.text)
		if err != nil {
			return nil, err
		}
		k.own = own
		k.warn("cookies of affinity are good until lb ends: it has no $STATE_DIRECTORY to keep a key in; set keys or key_file in [pool.NAME.affinity]")
	}
	return k.own, nil
}

// newAffinity makes what keeps the clients of up, knowing what old knows, which may be nil.
func (s *Server) newAffinity(up *upstream.Pool, o *affinity.Options, old *pool) (*affinity.Affinity, error) {
	switch {
	case o == nil:
		return nil, nil
	case old == nil || old.affinity == nil:
		return affinity.New(up, s.group.Len(), loop.Clock(), *o, nil)
	case reflect.DeepEqual(old.options, o):
		return old.affinity, nil
	}
	return affinity.New(up, s.group.Len(), loop.Clock(), *o, old.affinity)
}

// newKeys reports whether cookies are signed by other keys than before. Those of a file are not in the configuration.
func newKeys(was, is *affinity.Options) bool {
	return was != nil && is != nil && was.Kind == affinity.Cookie && is.Kind == affinity.Cookie && !reflect.DeepEqual(was.Cookie.Keys, is.Cookie.Keys)
}

// tendEvery is how often sessions are counted, and WebSockets moved. A sweep of 65,536 sessions takes a millisecond.
const tendEvery = 10 * time.Second

// tend sees to what is remembered of sessions.
func (s *Server) tend() {
	t := time.NewTicker(tendEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-s.ended.Done():
			return
		}
		for _, p := range *s.pools.Load() {
			if p.affinity != nil {
				p.affinity.Sweep(loop.Clock())
			}
			s.rebalance(p, tendEvery)
		}
	}
}

// slack is by how much a backend may have more tunnels than its share before some are moved.
const slack = 1.1

// rebalance closes some tunnels of backends that have more than their share while others have less, so that their clients
// connect again, to those. It closes a bounded part of them in a minute, and never more than is too much.
func (s *Server) rebalance(p *pool, over time.Duration) {
	if p.percent == 0 || s.state.Load() != running {
		return
	}
	ready := p.Snapshot().Ready
	all, weight := int64(0), 0
	for _, b := range ready {
		all += b.Tunnels()
		weight += b.Weight
	}
	for name := range p.owed {
		if s.backend(p.Name, name) == nil {
			delete(p.owed, name)
		}
	}
	for _, b := range ready {
		n := b.Tunnels()
		share := float64(all) * float64(b.Weight) / float64(weight)
		if float64(n) <= max(slack*share, share+1) {
			delete(p.owed, b.Name)
			continue
		}
		if p.owed == nil {
			p.owed = map[string]float64{}
		}
		p.owed[b.Name] += float64(n) * float64(p.percent) / 100 * over.Minutes()
		if k := int(min(p.owed[b.Name], float64(n)-share)); k > 0 {
			p.owed[b.Name] -= float64(k)
			in := over / 2 // and time for them to go, before they are counted again
			if s.checks.hurry > 0 {
				in = min(in, s.checks.hurry)
			}
			s.proxy.LeaveSome(b, k, in)
			s.log.Info("rebalance", "pool", p.Name, "backend", b.Name, "tunnels", n, "share", int(share), "closed", k)
		}
	}
}

const (
	// look is how often lb looks whether a draining backend still has sessions.
	look = 250 * time.Millisecond
	// begun is how long requests that were on their way may begin another one.
	begun = time.Second
)

// keeping is one drain of a backend that keeps its sessions. A later drain of the same has another one, and its limit
// counts.
type keeping struct {
	begin time.Time
	limit time.Duration
}

// keepSessions lets a draining backend keep its sessions until it has none, or for the given time.
func (s *Server) keepSessions(b *upstream.Backend, limit time.Duration) {
	k := &keeping{time.Now(), limit}
	s.keeping.Store(b.Live, k)
	if s.ends(b, k) { // it has none, as most
		return
	}
	s.tasks.Go(func() {
		t := time.NewTicker(look)
		defer t.Stop()
		for !s.ends(b, k) {
			select {
			case <-t.C:
			case <-s.ended.Done():
				return
			}
		}
	})
}

// ends ends the sessions of a draining backend when it is time, and reports whether k has nothing more to do.
func (s *Server) ends(b *upstream.Backend, k *keeping) bool {
	if b.Life().Sessions && !s.lost(b, k) {
		now, _ := s.keeping.Load(b.Live)
		return now != k // a later drain sees to it
	}
	if s.keeping.CompareAndDelete(b.Live, k) && b.Life().Sessions {
		b.Pool().EndSessions(b)
		s.proxy.Forget([]*upstream.Backend{b})
	}
	return true
}

// lost reports whether a draining backend has no sessions any more, or none that are worth waiting for.
func (s *Server) lost(b *upstream.Backend, k *keeping) bool {
	p := s.pool(b.Pool().Name)
	life := b.Life()
	if p == nil || p.affinity == nil || life.Probed == upstream.Down || life.Dead || time.Since(k.begin) >= k.limit {
		return true
	}
	p.affinity.Sweep(loop.Clock())
	return p.affinity.Quiet(b.Name, loop.Clock()) && (b.Inflight() == 0 || time.Since(k.begin) >= begun)
}

// stateFile is where the sessions of a pool are kept while lb is restarted.
func (s *Server) stateFile(p *pool) string {
	return filepath.Join(s.keys.dir, "affinity-"+p.Name+".state")
}

// recall reads what another process remembered of sessions.
func (s *Server) recall() {
	for _, p := range *s.pools.Load() {
		if p.affinity == nil || s.keys.dir == "" {
			continue
		}
		state, err := os.ReadFile(s.stateFile(p))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = p.affinity.Load(state, loop.Clock())
		}
		if err = errors.Join(err, os.Remove(s.stateFile(p))); err != nil {
			s.log.Warn("what was known of sessions is lost", "pool", p.Name, "err", err)
		}
	}
}

// remember keeps what is known of sessions for the next process.
func (s *Server) remember() {
	for _, p := range *s.pools.Load() {
		if p.affinity == nil || s.keys.dir == "" {
			continue
		}
		state := p.affinity.Save(loop.Clock())
		if state == nil {
			continue
		}
		if err := os.WriteFile(s.stateFile(p), state, 0o600); err != nil {
			s.log.Warn("what is known of sessions is lost with the end", "pool", p.Name, "err", err)
		}
	}
}

// affinityStatus is what became of clients that were known, as the admin interface shows it; nil without affinity.
func affinityStatus(p *pool) *admin.Affinity {
	a := p.affinity
	if a == nil {
		return nil
	}
	out := &admin.Affinity{Kind: kindName(a.Kind()), SocketIO: a.SocketIO()}
	for l := range a.Loops() {
		st := a.Stats(l)
		for by := range st.Visits {
			out.New += st.Visits[by][affinity.Newcomer].Load()
			out.Hits += st.Visits[by][affinity.Hit].Load()
			out.Misses += st.Visits[by][affinity.Miss].Load()
			out.Moved += st.Visits[by][affinity.Moved].Load()
			out.Strayed += st.Visits[by][affinity.Strayed].Load()
		}
	}
	return out
}

func kindName(k affinity.Kind) string {
	for name, kind := range affinityKinds {
		if kind == k {
			return name
		}
	}
	return fmt.Sprint(k)
}

// affinityMetrics is the same for metrics.
func (s *Server) affinityMetrics() (all []metrics.Affinity) {
	for _, p := range *s.pools.Load() {
		a := p.affinity
		if a == nil {
			continue
		}
		m := metrics.Affinity{Pool: p.Name, Evicted: a.Evicted()}
		var sum [affinity.Bys][affinity.Results]uint64
		for l := range a.Loops() {
			st := a.Stats(l)
			m.Learned += st.Learned.Load()
			m.Unread += st.Unread.Load()
			for by := range st.Visits {
				for r := range st.Visits[by] {
					sum[by][r] += st.Visits[by][r].Load()
				}
			}
		}
		for by := affinity.ByNothing + 1; int(by) < affinity.Bys; by++ {
			if !a.Uses(by) {
				continue
			}
			for r := affinity.NoResult + 1; int(r) < affinity.Results; r++ {
				m.Visits = append(m.Visits, metrics.Visits{By: by.String(), Result: r.String(), Count: sum[by][r]})
			}
		}
		all = append(all, m)
	}
	return all
}
