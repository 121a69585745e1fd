package health

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lb/upstream"
	"lb/upstream/upstreamtest"
)

var errRefused = errors.New("refused")

// lab is a pool whose backends are functions, in a bubble where time stands still unless everybody waits.
type lab struct {
	t     *testing.T
	p     *upstream.Pool
	m     *Monitor
	begin time.Time

	mu     sync.Mutex
	says   map[string]func() error // what a probe of the backend says
	probes map[string]int
	events []string
}

// want chooses the backend that the request names.
type want []*upstream.Backend

func (w want) Pick(s *upstream.Selection) *upstream.Backend {
	for _, b := range w {
		if uint64(b.ID) == s.Key && !s.Has(b.Live) {
			return b
		}
	}
	return upstreamtest.InOrder(w).Pick(s)
}

func specs(names string) (s []upstream.Spec) {
	for _, name := range strings.Fields(names) {
		ap := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name[0]))
		if name[0] >= 'A' && name[0] <= 'Z' { // on another machine
			ap = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), uint16(name[0]))
		}
		s = append(s, upstream.Spec{Name: name, Addr: upstream.Addr{AddrPort: ap}, Weight: 1})
	}
	return s
}

// play runs f in a bubble with a pool of the named backends, all of them well.
func play(t *testing.T, names string, c Check, pas Passive, f func(*lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &lab{t: t, begin: time.Now(), says: map[string]func() error{}, probes: map[string]int{}}
		l.p = upstream.NewPool("app", 2, specs(names), nil, func(r []*upstream.Backend) upstream.Strategy { return want(r) })
		l.m = New(l.p, c, pas, Options{
			Probe:  l.probe,
			Chance: func() float64 { return .5 },
			OnEvent: func(e Event) {
				s := fmt.Sprintf("%v %s %v", e.Time.Sub(l.begin), e.Backend, e.What)
				if e.What == Ejected {
					s += fmt.Sprintf(" for %v", e.Until.Sub(e.Time))
				}
				if e.Pool != "app" {
					t.Errorf("event of pool %q", e.Pool)
				}
				l.mu.Lock()
				defer l.mu.Unlock()
				l.events = append(l.events, s)
			},
		})
		defer l.m.Close()
		synctest.Wait()
		f(l)
	})
}

func (l *lab) probe(ctx context.Context, a upstream.Addr) error {
	name := string(rune(a.AddrPort.Port()))
	l.mu.Lock()
	says := l.says[name]
	l.probes[name]++
	l.mu.Unlock()
	if says == nil {
		return nil
	}
	return says()
}

// set makes probes of the backend say err.
func (l *lab) set(names string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range strings.Fields(names) {
		l.says[name] = func() error { return err }
	}
}

// at goes on to a moment after the beginning.
func (l *lab) at(d time.Duration) {
	time.Sleep(time.Until(l.begin.Add(d)))
	synctest.Wait()
}

func (l *lab) now() int64 { return int64(time.Since(l.begin)) + 1e12 }

func (l *lab) backend(name string) *upstream.Backend {
	for _, b := range l.p.Snapshot().All {
		if b.Name == name {
			return b
		}
	}
	l.t.Fatalf("no backend %s", name)
	return nil
}

// request sends one to the named backend, if it is ready, and has it end with fault.
func (l *lab) request(name string, fault upstream.Fault) bool {
	s := new(upstream.Selection)
	s.Reset(l.now(), 0)
	s.Key = uint64(l.backend(name).ID)
	lease, err := l.p.Acquire(s)
	if err != nil {
		return false
	}
	if lease.Backend().Name != name {
		lease.Done(upstream.Outcome{Now: l.now(), Fault: upstream.FaultClient})
		return false
	}
	lease.Done(upstream.Outcome{Now: l.now(), Latency: 1, Fault: fault})
	return true
}

func (l *lab) ready() string {
	var s []string
	for _, b := range l.p.Snapshot().Ready {
		s = append(s, b.Name)
	}
	if l.p.Snapshot().Panic {
		s = append(s, "panic")
	}
	return strings.Join(s, " ")
}

func (l *lab) wantReady(names string) {
	l.t.Helper()
	synctest.Wait()
	if got := l.ready(); got != names {
		l.t.Errorf("after %v: ready %q, want %q", time.Since(l.begin), got, names)
	}
}

// wantEvents compares all events since the last call.
func (l *lab) wantEvents(lines ...string) {
	l.t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	// What happens at the same time has no order.
	slices.SortStableFunc(l.events, func(a, b string) int {
		at, as, _ := strings.Cut(a, " ")
		bt, bs, _ := strings.Cut(b, " ")
		if at != bt {
			ad, _ := time.ParseDuration(at)
			bd, _ := time.ParseDuration(bt)
			return int(ad - bd)
		}
		an, _, _ := strings.Cut(as, " ")
		bn, _, _ := strings.Cut(bs, " ")
		if an == "" || bn == "" { // the pool itself comes after
			return len(bn) - len(an)
		}
		return strings.Compare(an, bn)
	})
	got, want := strings.Join(l.events, "\n"), strings.Join(lines, "\n")
	if got != want {
		l.t.Errorf("after %v, events:\n%s\nwant:\n%s", time.Since(l.begin), got, want)
	}
	l.events = nil
}

// count is the number of probes of a backend since the last call.
func (l *lab) count(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.probes[name]
	l.probes[name] = 0
	return n
}
