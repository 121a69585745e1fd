package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lb/admin"
	"lb/config"
	"lb/upstream"
)

// What people change while lb runs lasts over reloads, since the next one may come for another reason at any time: until
// the file itself says something new about the same backend, a reload is told to reset, or lb ends. So whoever edits the
// file is right, and whoever does not is not surprised.

// deviation is what differs from the file about one backend.
type deviation struct {
	name string
	file *config.Backend // what the file said when it was made; nil: the backend is not in it

	added   *upstream.Spec // the backend, when it is not in the file
	gone    bool           // it is in the file, and was taken out
	percent int            // of the file's weight; 0 with weight < 0: the file's
	weight  int            // in place of the file's; -1: see percent

	by string
	at time.Time
}

// none reports whether d changes nothing.
func (d *deviation) none() bool { return d.added == nil && !d.gone && d.weight < 0 && d.percent == 0 }

// deviations are those of all pools. A map by pool and backend never changes once it is here: each change makes another.
type deviations struct {
	mu sync.Mutex
	of map[string]map[string]*deviation // guarded by mu
}

func (d *deviations) load() map[string]map[string]*deviation {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.of
}

func (d *deviations) store(of map[string]map[string]*deviation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.of = of
}

// with is the deviations with another one of a pool's backend.
func (d *deviations) with(pool string, v *deviation) map[string]map[string]*deviation {
	next := map[string]map[string]*deviation{}
	for name, all := range d.load() {
		next[name] = all
	}
	own := map[string]*deviation{}
	for name, o := range next[pool] {
		own[name] = o
	}
	if own[v.name] = v; v.none() {
		delete(own, v.name)
	}
	next[pool] = own
	return next
}

// hundredths is the least weight that there can be: 1 % of a weight of 1.
const hundredths = 100

// deviate makes of the backends that the file has those that there shall be.
func deviate(file []upstream.Spec, all map[string]*deviation) []upstream.Spec {
	specs := make([]upstream.Spec, 0, len(file))
	weights := make([]int, 0, len(file)) // in hundredths
	whole := true
	put := func(s upstream.Spec, d *deviation) {
		w := s.Weight * hundredths
		if d != nil && d.percent > 0 {
			w = s.Weight * d.percent
		} else if d != nil && d.weight >= 0 {
			w = d.weight * hundredths
		}
		whole = whole && w%hundredths == 0
		specs, weights = append(specs, s), append(weights, w)
	}
	for _, s := range file {
		if d := all[s.Name]; d == nil || !d.gone {
			put(s, d)
		}
	}
	var added []*deviation
	for _, d := range all {
		if d.added != nil {
			added = append(added, d)
		}
	}
	slices.SortFunc(added, func(a, b *deviation) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.name, b.name)) })
	for _, d := range added {
		put(*d.added, d)
	}
	for i := range specs {
		if whole {
			specs[i].Weight, specs[i].Unit = weights[i]/hundredths, 0
		} else {
			specs[i].Weight, specs[i].Unit = weights[i], hundredths
		}
	}
	return specs
}

// keepDeviations says what of all, the deviations of a pool, still holds by a file that has backends, and what does not
// hold any more.
func keepDeviations(backends []config.Backend, all map[string]*deviation) (kept map[string]*deviation, over []*deviation) {
	kept = map[string]*deviation{}
	for _, name := range sortedNames(all) {
		d := all[name]
		var now *config.Backend
		for i := range backends {
			if b := &backends[i]; b.Name == name || d.added != nil && b.Address == d.added.Addr.String() {
				now = b
			}
		}
		switch {
		case d.file == nil && now == nil, d.file != nil && now != nil && alike(d.file, now):
			kept[name] = d
		default:
			over = append(over, d)
		}
	}
	return kept, over
}

func sortedNames(all map[string]*deviation) (names []string) {
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// alike reports whether two files say the same of a backend.
func alike(a, b *config.Backend) bool {
	return a.Address == b.Address && a.Weight == b.Weight && a.MaxInflight == b.MaxInflight
}

// deviatePlan applies what was changed while lb runs to a plan made of a file, or with reset nothing of it. It returns
// what holds from then on, and notes for the verdict.
func (s *Server) deviatePlan(p *plan, reset bool) (next map[string]map[string]*deviation, notes []string) {
	now := s.deviations.load()
	next = map[string]map[string]*deviation{}
	for i := range p.pools {
		pp := &p.pools[i]
		pp.file = pp.specs
		all := now[pp.name]
		if len(all) == 0 || reset {
			continue
		}
		kept, over := keepDeviations(p.cfg.Pools[i].Backends, all)
		for _, d := range over {
			notes = append(notes, fmt.Sprintf("backend %s of pool %s is as the file says again: its entry there is new", d.name, pp.name))
		}
		next[pp.name] = kept
		pp.specs = deviate(pp.file, kept)
		for _, name := range sortedNames(kept) {
			notes = append(notes, fmt.Sprintf("backend %s of pool %s: %s (\"lb reload --reset\" goes by the file)", name, pp.name, kept[name].words()))
		}
	}
	return next, notes
}

// words says how a backend differs from the file.
func (d *deviation) words() string {
	var s string
	switch {
	case d.gone:
		s = "removed while lb runs, the file has it"
	case d.added != nil:
		s = "added while lb runs, the file does not have it"
	default:
		s = fmt.Sprintf("weight %s while lb runs, %d in the file", d.weighs(), d.file.Weight)
	}
	if d.by != "" {
		s += ", by " + d.by
	}
	return s
}

// weighs is the weight that was asked for.
func (d *deviation) weighs() string {
	if d.percent > 0 {
		return fmt.Sprintf("%d%%", d.percent)
	}
	return fmt.Sprint(d.weight)
}

// addDeviations adds to the status of a pool how it differs from the file.
func (s *Server) addDeviations(p *admin.Pool) {
	all := s.deviations.load()[p.Name]
	for i := range p.Backends {
		if d := all[p.Backends[i].Name]; d != nil {
			p.Backends[i].Differs = d.words()
		}
	}
	for _, name := range sortedNames(all) {
		if d := all[name]; d.gone {
			p.Removed = append(p.Removed, admin.Removed{Name: name, Address: d.file.Address, Time: d.at.UTC().Truncate(time.Millisecond), By: d.by})
		}
	}
}

// alter makes d hold for a backend of p. The caller holds s.reload.
func (s *Server) alter(ctx context.Context, p *pool, d *deviation) (left []*upstream.Backend, err error) {
	d.by, d.at = admin.By(ctx), time.Now()
	s.turn.Lock()
	defer s.turn.Unlock()
	if err := s.mayChange(); err != nil {
		return nil, admin.Refused(err)
	}
	next := s.deviations.with(p.Name, d)
	left = p.Update(deviate(p.file, next[p.Name]), nil, nil)
	s.deviations.store(next)
	s.watch(s.Config())
	s.leaving.add(left)
	for _, b := range left {
		s.tasks.Go(func() { s.seeOff(b) })
	}
	return left, nil
}

// inFile is what the file in force says of a backend; nil when it is not in it.
func (s *Server) inFile(pool, backend string) *config.Backend {
	for _, p := range s.Config().Pools {
		if p.Name == pool {
			for i := range p.Backends {
				if p.Backends[i].Name == backend {
					return &p.Backends[i]
				}
			}
		}
	}
	return nil
}

// deviation is that of a backend, for alter to change; one that changes nothing when there is none.
func (s *Server) deviation(pool, backend string) *deviation {
	if d := s.deviations.load()[pool][backend]; d != nil {
		c := *d
		return &c
	}
	return &deviation{name: backend, file: s.inFile(pool, backend), weight: -1}
}

// As in the file.
const (
	maxWeight   = 256
	maxBackends = 1024
)

// parseWeight reads "3", "50%" or "reset".
func parseWeight(text string) (weight, percent int, err error) {
	if text == "reset" {
		return -1, 0, nil
	}
	digits, isPercent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(digits)
	switch {
	case err != nil || n < 0 || strings.Trim(digits, "0123456789") != "":
		return 0, 0, fmt.Errorf("weight %q: write a number from 0 to %d, a percentage of what the file says such as \"50%%\", or \"reset\"", text, maxWeight)
	case isPercent && n == 0:
		return 0, 0, nil
	case isPercent && n > 100*maxWeight, !isPercent && n > maxWeight:
		return 0, 0, fmt.Errorf("weight %s is too much, the most is %d", text, maxWeight)
	case isPercent:
		return -1, n, nil
	}
	return n, 0, nil
}

// SetWeight changes the weight of a backend until the file says another.
func (s *Server) SetWeight(ctx context.Context, o admin.Weighing) (w admin.Weighed, err error) {
	weight, percent, err := parseWeight(o.Weight)
	if err != nil {
		return w, admin.Wrong(err)
	}
	s.reload.Lock()
	defer s.reload.Unlock()
	p, b, err := s.find(o.Pool, o.Backend)
	if err != nil {
		return w, err
	}
	d := s.deviation(p.Name, b.Name)
	file := 0
	if d.added != nil {
		file = d.added.Weight
	} else {
		file = d.file.Weight
	}
	if percent > 0 && file*percent > maxWeight*hundredths {
		return w, admin.Wrong(fmt.Errorf("%d %% of %d is too much, the most is %d", percent, file, maxWeight))
	}
	if percent == hundredths || weight == file {
		weight, percent = -1, 0 // what the file says
	}
	d.weight, d.percent = weight, percent
	was := b.Weighs()
	if _, err := s.alter(ctx, p, d); err != nil {
		return w, err
	}
	w = admin.Weighed{Pool: p.Name, Backend: b.Name, Was: was, File: float64(file)}
	for _, now := range p.Snapshot().All {
		if now.Name == b.Name {
			w.Weight = now.Weighs()
		}
	}
	for _, now := range p.Snapshot().Ready {
		if now.Name != b.Name {
			w.Others++
		}
	}
	s.note(ctx, b, "weight changed", fmt.Sprintf("%.4g, was %.4g; the file says %d", w.Weight, w.Was, file))
	return w, nil
}

// Add adds a backend to a pool until the file has it too, and waits until it gets requests or ctx ends. One that the file
// has and Remove took out comes back.
func (s *Server) Add(ctx context.Context, o admin.Joining) (r admin.Readied, err error) {
	p, name, err := s.join(ctx, o)
	if err != nil {
		return r, err
	}
	return s.awaitReady(ctx, p, name, time.Now())
}

func (s *Server) join(ctx context.Context, o admin.Joining) (p *pool, name string, err error) {
	address, err := config.ParseBackend(o.Address)
	if err != nil {
		return nil, "", admin.Wrong(err)
	}
	if name = o.Name; name == "" {
		name = address
	} else if err := config.CheckBackendName(name); err != nil {
		return nil, "", admin.Wrong(err)
	}
	weight := -1
	if o.Weight != nil {
		if weight = *o.Weight; weight < 0 || weight > maxWeight {
			return nil, "", admin.Wrong(fmt.Errorf("weight %d: it is 0 to %d", weight, maxWeight))
		}
	}
	if o.MaxInflight != nil && (*o.MaxInflight < 0 || *o.MaxInflight > 1_000_000) {
		return nil, "", admin.Wrong(fmt.Errorf("max_inflight %d: it is 0 to 1000000", *o.MaxInflight))
	}
	s.reload.Lock()
	defer s.reload.Unlock()
	if p, err = s.findPool(o.Pool); err != nil {
		return nil, "", err
	}
	at, noAddr := upstream.ParseAddr(address)
	for _, b := range p.Snapshot().All {
		if b.Name == name || noAddr == nil && b.Addr.Is(at) {
			return nil, "", admin.Refused(fmt.Errorf("pool %s has that backend already: %s at %s", p.Name, b.Name, b.Addr))
		}
	}
	if n := len(p.Snapshot().All); n >= maxBackends {
		return nil, "", admin.Refused(fmt.Errorf("pool %s has %d backends, and that is the most", p.Name, n))
	}
	d, err := s.joiner(ctx, p, o, address, name, weight)
	if err != nil {
		return nil, "", err
	}
	if _, err := s.alter(ctx, p, d); err != nil {
		return nil, "", err
	}
	if b := s.backend(p.Name, d.name); b != nil {
		s.note(ctx, b, "added", "at "+b.Addr.String())
	}
	return p, d.name, nil
}

// joiner is what makes a backend join p: one that comes back, or a new one.
func (s *Server) joiner(ctx context.Context, p *pool, o admin.Joining, address, name string, weight int) (*deviation, error) {
	for _, gone := range s.deviations.load()[p.Name] {
		if gone.gone && (gone.name == name && o.Name != "" || gone.file.Address == address && o.Name == "") {
			if gone.file.Address != address {
				return nil, admin.Refused(fmt.Errorf("the file has a backend %s of pool %s at %s, which was removed: take another name", name, p.Name, gone.file.Address))
			}
			d := &deviation{name: gone.name, file: gone.file, weight: weight}
			if weight == gone.file.Weight {
				d.weight = -1
			}
			return d, nil
		}
	}
	at, err := s.resolve(ctx, address)
	if err != nil {
		return nil, admin.Wrong(err)
	}
	spec := upstream.Spec{Name: name, Addr: at, Weight: 1}
	for i := range s.Config().Pools {
		if c := &s.Config().Pools[i]; c.Name == p.Name {
			spec.MaxInflight = c.MaxInflight
			if c.Health.Port > 0 && at.Path != "" {
				return nil, admin.Wrong(fmt.Errorf("pool %s checks the health of its backends at port %d, and a unix socket has none", p.Name, c.Health.Port))
			}
		}
	}
	if weight >= 0 {
		spec.Weight = weight
	}
	if o.MaxInflight != nil {
		spec.MaxInflight = *o.MaxInflight
	}
	return &deviation{name: name, added: &spec, weight: -1}, nil
}

// resolve is where a backend with that address is connected to. The caller holds s.reload.
func (s *Server) resolve(ctx context.Context, address string) (upstream.Addr, error) {
	var names []string
	if host := hostName(address); host != "" {
		names = append(names, host)
	}
	// ctx ends with the wait for the backend, which may be none.
	return s.names.lookup(context.WithoutCancel(ctx), names).addr(address)
}

// Remove takes a backend out of its pool, and waits until it has done what it had, or ctx ends. A backend of the file stays
// out until its entry there changes, or Add.
func (s *Server) Remove(ctx context.Context, o admin.Leaving) (admin.Drained, error) {
	b, err := s.part(ctx, o)
	if err != nil {
		return admin.Drained{}, err
	}
	s.letGo(b, overOf(ctx), 0)
	return s.awaitEmpty(ctx, b)
}

func (s *Server) part(ctx context.Context, o admin.Leaving) (*upstream.Backend, error) {
	s.reload.Lock()
	defer s.reload.Unlock()
	p, b, err := s.find(o.Pool, o.Backend)
	if err != nil {
		return nil, err
	}
	if len(p.Snapshot().All) == 1 && !o.Force {
		return nil, admin.Refused(fmt.Errorf("backend %s is the last one of pool %s: without it, all its requests fail; --force removes it", b.Name, p.Name))
	}
	d := s.deviation(p.Name, b.Name)
	d.added, d.gone, d.weight, d.percent = nil, d.file != nil, -1, 0
	left, err := s.alter(ctx, p, d)
	if err != nil {
		return nil, err
	}
	if len(left) != 1 {
		return nil, errors.New("somebody else changed the pool meanwhile") // which s.reload rules out
	}
	s.note(ctx, b, "removed", "told to")
	return left[0], nil
}

// overOf is over which time the clients of a backend's tunnels are told to connect again, when it is to be empty by the
// deadline of ctx.
func overOf(ctx context.Context) time.Duration {
	if at, ok := ctx.Deadline(); ok {
		if left := time.Until(at); left > 0 {
			return min(leaveOver, left/2) // and time for them to go
		}
	}
	return leaveOver
}
