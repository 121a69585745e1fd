package rollout

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"lb/admin"
)

// Options is how a rollout is to go.
type Options struct {
	Exec         string        // the command of the instances, for people; see Shell
	Wait         time.Duration // for an instance to be empty
	Timeout      time.Duration // of the command
	StartTimeout time.Duration // from there to passed checks; also how long it waits when others are away
	Warmup       time.Duration // 0: the pool's slow start; below 0: none
	AtOnce       Amount        // how many may be out
	Canary       int           // so many are watched before the others follow; 0: none
	Watch        time.Duration
	Rule         Rule
	Only         []string // backends by name or address; empty: all
	InPlace      bool     // the process stays
	Force        bool     // begins although others are away
}

// Amount is how many instances, or what share of them.
type Amount struct{ N, Percent int }

// Of is how many that is of n: at least one.
func (a Amount) Of(n int) int {
	if a.Percent > 0 {
		return max(1, n*a.Percent/100)
	}
	return max(1, a.N)
}

// Target is a backend to restart.
type Target struct {
	Step    int // counted from 1
	Index   int // its place in the configuration, counted from 0
	Pool    string
	Name    string
	Address string
	Host    string
	Port    string // "" for a unix socket
}

// Plan is what a rollout is going to do.
type Plan struct {
	Options
	Pool     string
	Steps    []Target
	Canaries int // the first so many of Steps are watched
	AtOnce   int
	Warmup   time.Duration
	Notes    []string // what people had better know

	away map[string]bool // not ready from the beginning on, which Force put up with
}

// Refusal is why a rollout does not begin. Each line is one reason.
type Refusal struct{ Lines []string }

func (r *Refusal) Error() string { return strings.Join(r.Lines, "\n") }

// NewPlan finds out what is to be done with the pool of v, or why nothing is.
func NewPlan(v *admin.RolloutView, o Options) (*Plan, error) {
	p := &Plan{Options: o, Pool: v.Pool, Warmup: o.Warmup, away: map[string]bool{}}
	if p.Warmup == 0 {
		p.Warmup = v.SlowStart
	}
	p.Warmup = max(0, p.Warmup)
	var no Refusal
	refuse := func(format string, args ...any) { no.Lines = append(no.Lines, fmt.Sprintf(format, args...)) }
	if strings.TrimSpace(o.Exec) == "" {
		refuse("there is no command: give one by --exec 'pm2 restart app-{port}', or as exec in [pool.%s.rollout]", v.Pool)
	}
	chosen, unknown := choose(v, o.Only)
	for _, name := range unknown {
		refuse("--only %s: pool %s has no such backend; there is %s", name, v.Pool, strings.Join(names(v.Backends), ", "))
	}

	members, ready := 0, 0
	var away, foreign []string
	for _, b := range v.Backends {
		if b.Weight > 0 {
			members++
		}
		switch {
		case b.State == admin.Ready:
			ready++
		case b.Out == admin.OutOther:
			foreign = append(foreign, b.Name)
			p.away[b.Name] = true
		case b.Weight <= 0, broken(&b):
		default:
			away = append(away, fmt.Sprintf("%s is %s%s", b.Name, b.State, because(b.Why)))
			p.away[b.Name] = true
		}
	}
	chosen = slices.DeleteFunc(chosen, func(b admin.RolloutBackend) bool { return b.Out == admin.OutOther })
	p.order(v, chosen)
	p.AtOnce = min(o.AtOnce.Of(members), max(1, members-1))
	takes := slices.ContainsFunc(chosen, func(b admin.RolloutBackend) bool { return b.State == admin.Ready })

	for _, name := range foreign {
		if o.Force {
			p.Notes = append(p.Notes, name+" is draining, told so by somebody else: it is left alone")
		} else {
			refuse(`%s is draining, told so by somebody else: "lb ready %s %s" first, or --force to leave it alone`, name, v.Pool, name)
		}
	}
	if takes && !o.Force && len(away) > 0 && len(away)+1 > p.AtOnce {
		refuse("%s: with at most %d out at a time, none may be taken out; --force restarts what is away first, and goes on when it is well",
			strings.Join(away, ", "), p.AtOnce)
	}
	if takes && ready == 1 && chosen[0].State == admin.Ready {
		refuse("%s is the only backend of pool %s that is ready, and a rollout never takes out the last one. Restarted without one, requests wait for it as long as the pool's hold says",
			chosen[0].Name, v.Pool)
	}
	if len(p.Steps) == 0 && len(no.Lines) == 0 {
		refuse("there is nothing to restart in pool %s", v.Pool)
	}
	p.Canaries = min(o.Canary, len(p.Steps))
	if o.Canary > 0 && members-p.Canaries < 1 {
		refuse("--canary %d: pool %s has %d backends, and canaries are compared with the others: at most %d", o.Canary, v.Pool, members, max(0, members-1))
	}
	if len(no.Lines) > 0 {
		return nil, &no
	}
	p.advise()
	return p, nil
}

// broken reports whether b was left out by an earlier rollout: to restart it costs nobody anything.
func broken(b *admin.RolloutBackend) bool {
	return b.Out == admin.OutBad || b.Out == admin.OutDraining || b.Out == admin.OutRestarting
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}

// choose gives the backends that are meant, and the names of those that are not there.
func choose(v *admin.RolloutView, only []string) (chosen []admin.RolloutBackend, unknown []string) {
	if len(only) == 0 {
		return slices.Clone(v.Backends), nil
	}
	for _, name := range only {
		i := slices.IndexFunc(v.Backends, func(b admin.RolloutBackend) bool { return b.Name == name })
		if i < 0 {
			i = slices.IndexFunc(v.Backends, func(b admin.RolloutBackend) bool { return b.Address == name })
		}
		switch {
		case i < 0:
			unknown = append(unknown, name)
		case !slices.ContainsFunc(chosen, func(b admin.RolloutBackend) bool { return b.Name == v.Backends[i].Name }):
			chosen = append(chosen, v.Backends[i])
		}
	}
	return chosen, unknown
}

func names(all []admin.RolloutBackend) (list []string) {
	for _, b := range all {
		list = append(list, b.Name)
	}
	return list
}

// order makes steps of the backends: those that an earlier rollout left out come first, then whoever is away, since
// they cost nothing; else it is the order of the configuration, or of --only.
func (p *Plan) order(v *admin.RolloutView, chosen []admin.RolloutBackend) {
	rank := func(b admin.RolloutBackend) int {
		switch {
		case broken(&b):
			return 0
		case b.State == admin.Ready:
			return 2
		}
		return 1
	}
	slices.SortStableFunc(chosen, func(a, b admin.RolloutBackend) int { return rank(a) - rank(b) })
	for i, b := range chosen {
		t := Target{Step: i + 1, Pool: p.Pool, Name: b.Name, Address: b.Address}
		t.Index = slices.IndexFunc(v.Backends, func(o admin.RolloutBackend) bool { return o.Name == b.Name })
		if !strings.HasPrefix(b.Address, "unix:") {
			t.Host, t.Port, _ = net.SplitHostPort(b.Address)
		}
		p.Steps = append(p.Steps, t)
		if b.Out == admin.OutBad {
			p.Notes = append(p.Notes, fmt.Sprintf("%s was left out by an earlier rollout%s: it comes first", b.Name, because(b.Why)))
		}
	}
}

// advise looks for what is probably not meant.
func (p *Plan) advise() {
	if len(p.Steps) > 1 && !slices.ContainsFunc(naming, func(s string) bool { return strings.Contains(p.Exec, s) }) {
		p.Notes = append(p.Notes, "the command names no instance: unless it goes by the variables LB_PORT, LB_BACKEND and so on, it restarts all of them each time")
	}
	if want := p.Options.AtOnce.Of(1 << 20); p.Options.AtOnce.Percent == 0 && want > p.AtOnce {
		p.Notes = append(p.Notes, "at most "+strconv.Itoa(p.AtOnce)+" at a time: one is always left in use")
	}
	if p.Canaries > 0 && p.Canaries == len(p.Steps) {
		p.Notes = append(p.Notes, "all of them are canaries: nothing follows the watch")
	}
}
