package health

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb/upstream"
)

func TestLog(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	now := time.Now()
	for _, e := range []Event{
		{Backend: "a", What: WentDown, Why: "status 500"},
		{Backend: "a", What: Ejected, Why: "connection refused", Time: now, Until: now.Add(5123 * ms)},
		{What: FailOpen},
	} {
		e.Pool = "app"
		e.log(log)
	}
	want := `level=WARN msg="backend is down" pool=app backend=a why="status 500"
level=WARN msg="backend is ejected" pool=app backend=a why="connection refused" for=5.1s
level=ERROR msg="no backend is ready: requests go to all that are not known to be dead" pool=app
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
	for w := range FailOpenOver + 1 {
		if w.String() == "" || texts[w] == "" {
			t.Errorf("event %d has no text", w)
		}
	}
}

func TestEqual(t *testing.T) {
	base := func() Check {
		c := DefaultCheck()
		c.Kind, c.Header, c.Status = HTTP, http.Header{"A": {"1"}}, []Range{{200, 299}}
		return c
	}
	a, b := base(), base()
	if !a.equal(&b) {
		t.Error("equal checks differ")
	}
	for i, change := range []func(*Check){
		func(c *Check) { c.Kind = TCP }, func(c *Check) { c.Port++ }, func(c *Check) { c.Method = "HEAD" },
		func(c *Check) { c.Path = "/x" }, func(c *Check) { c.Host = "x" }, func(c *Check) { c.Header.Set("A", "2") },
		func(c *Check) { c.Header.Set("B", "2") }, func(c *Check) { c.Header = nil }, func(c *Check) { c.Status = nil },
		func(c *Check) { c.Body = "x" }, func(c *Check) { c.Interval++ }, func(c *Check) { c.Changing++ },
		func(c *Check) { c.Down++ }, func(c *Check) { c.Timeout++ }, func(c *Check) { c.Fall++ },
		func(c *Check) { c.Rise++ }, func(c *Check) { c.Jitter++ },
	} {
		c := base()
		change(&c)
		if a.equal(&c) || c.equal(&a) {
			t.Errorf("change %d goes unnoticed", i)
		}
	}
}

// TestJitter: intervals differ by at most a tenth.
func TestJitter(t *testing.T) {
	low, high := time.Hour, time.Duration(0)
	m := &Monitor{}
	for i := range 11 {
		m.opt.Chance = func() float64 { return float64(i) / 10 }
		d := m.jittered(10*sec, .1)
		low, high = min(low, d), max(high, d)
	}
	if low != 9*sec || high != 11*sec {
		t.Errorf("%v to %v", low, high)
	}
}

// TestPassiveOff: nobody is ejected then, and who is comes back in time.
func TestPassiveOff(t *testing.T) {
	play(t, "a B C", DefaultCheck(), Passive{}, func(l *lab) {
		l.eject("B", upstream.FaultStatus)
		l.m.Update(DefaultCheck(), Passive{Off: true})
		l.eject("C", upstream.FaultStatus)
		l.request("a", upstream.FaultRefused)
		l.wantReady("a C")
		l.at(6 * sec)
		l.wantReady("a B C")
	})
}

// TestEverythingAtOnce is for the race detector: requests that fail, wait and succeed on several loops, reloads, and
// probes that change their minds.
func TestEverythingAtOnce(t *testing.T) {
	c := Check{Kind: TCP, Interval: ms, Changing: ms, Down: ms, Jitter: .5}
	p := upstream.NewPool("app", 4, specs("a b C D"), nil, func(r []*upstream.Backend) upstream.Strategy { return want(r) })
	var mu sync.Mutex
	what := map[What]int{}
	m := New(p, c, Passive{Out: 2 * ms, MaxOut: 4 * ms}, Options{
		Probe: func() Probe {
			l := &lab{says: map[string]func() error{}, probes: map[string]int{}}
			for _, name := range []string{"a", "b", "C", "D"} {
				l.says[name] = func() error {
					switch time.Now().UnixNano() / 1e6 / int64(name[0]) % 3 {
					case 0:
						return errRefused
					case 1:
						return ErrDrain
					}
					return nil
				}
			}
			return l.probe
		}(),
		OnEvent: func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			what[e.What]++
		},
		Log: slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil)),
	})
	begin := time.Now()
	done := func() bool {
		mu.Lock()
		defer mu.Unlock()
		all := what[WentUp] > 0 && what[WentDown] > 0 && what[Ejected] > 0 && what[Returned] > 0
		past := time.Since(begin)
		return past > 500*ms && all || past > 20*sec
	}
	var wg sync.WaitGroup
	for loop := range 4 {
		wg.Go(func() {
			s := new(upstream.Selection)
			woken := make(chan struct{}, 1)
			w := &upstream.Waiter{Wake: func() {
				select {
				case woken <- struct{}{}:
				default:
				}
			}}
			for i := int64(1); !done(); i++ {
				s.Reset(time.Now().UnixNano(), loop)
				lease, err := p.Acquire(s)
				if err != nil {
					if p.Wait(w, s) {
						select {
						case <-woken:
							lease, err = p.Acquire(s)
						case <-time.After(ms):
						}
						p.Leave(w, true, 0)
					}
					if err != nil {
						continue
					}
				}
				f := upstream.FaultNone
				if i%3 == 0 {
					f = upstream.Fault(i / 3 % int64(upstream.Faults))
				}
				lease.Done(upstream.Outcome{Now: time.Now().UnixNano(), Fault: f})
				p.AllowRetry(time.Now().UnixNano())
			}
		})
	}
	for i := 0; !done(); i++ {
		names := []string{"a b C D", "a b", "C D a", "a b C D"}[i%4]
		p.Update(specs(names), nil, nil)
		c.Path = strings.Repeat("/", i/4%2+1) // another check now and then
		m.Update(c, Passive{Out: 2 * ms, MaxOut: 4 * ms})
		for _, b := range p.Snapshot().All {
			m.Status(b)
		}
		time.Sleep(5 * ms)
	}
	m.Close()
	wg.Wait()
	for _, w := range []What{WentUp, WentDown, Ejected, Returned} {
		if what[w] == 0 {
			t.Errorf("no event %v", w)
		}
	}
}

// BenchmarkFault is a failure of a backend that cannot be ejected, as in a pool of which everybody fails.
func BenchmarkFault(b *testing.B) {
	p := upstream.NewPool("app", 2, specs("A"), nil, func(r []*upstream.Backend) upstream.Strategy { return want(r) })
	m := New(p, Check{}, Passive{}, Options{})
	defer m.Close()
	s := new(upstream.Selection)
	now := int64(1)
	b.ReportAllocs()
	for b.Loop() {
		now += 1e6
		s.Reset(now, 0)
		l, err := p.Acquire(s)
		if err != nil {
			b.Fatal(err)
		}
		l.Done(upstream.Outcome{Now: now, Fault: upstream.FaultStatus})
	}
}
