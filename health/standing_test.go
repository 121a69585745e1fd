package health

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"lb/upstream"
)

// TestStanding: a process that takes over has the same backends ready before it has asked any, and ends ejections when
// the one before would have.
func TestStanding(t *testing.T) {
	const names = "a B C d e"
	play(t, names, Check{Kind: TCP, Interval: 5 * time.Second}, Passive{}, func(l *lab) {
		l.set("d", errRefused)
		l.at(30 * time.Second)
		l.set("e", ErrDrain)
		l.at(40 * time.Second)
		for range 20 { // on another machine: a fault is a suspicion
			l.request("B", upstream.FaultReset)
		}
		l.wantReady("a C")
		until := l.m.Standing(l.backend("B")).Ejected.Until

		known := map[string]Standing{}
		for _, b := range l.p.Snapshot().All {
			text, err := json.Marshal(l.m.Standing(b))
			if err != nil {
				t.Fatal(err)
			}
			var s Standing
			if err := json.Unmarshal(text, &s); err != nil {
				t.Fatal(err)
			}
			known[b.Name] = s
			t.Logf("%s: %s", b.Name, text)
		}
		p := upstream.NewPool("app", 2, specs(names+" f"), nil, func(r []*upstream.Backend) upstream.Strategy { return want(r) })
		for _, b := range p.Snapshot().All { // what is wanted is the server's to say
			if b.Name == "e" {
				p.SetWanted(b, upstream.Draining)
			}
		}
		next := &lab{t: t, p: p, begin: l.begin, says: map[string]func() error{}, probes: map[string]int{}}
		gate := make(chan struct{})
		for _, b := range p.Snapshot().All {
			next.says[b.Name] = func() error {
				<-gate
				return map[string]error{"d": errRefused, "e": ErrDrain}[b.Name]
			}
		}
		next.m = New(p, Check{Kind: TCP, Interval: 5 * time.Second, Timeout: time.Hour}, Passive{}, Options{
			Probe: next.probe, Chance: func() float64 { return .5 },
			Known: func(b *upstream.Backend) (Standing, bool) { s, ok := known[b.Name]; return s, ok },
		})
		defer next.m.Close()
		next.wantReady("a C") // f is not known, and there are others who are
		close(gate)
		synctest.Wait()
		next.wantReady("a C f")
		if st := next.m.Status(next.backend("B")); !st.Ejected.Equal(until) || st.Why == "" {
			t.Errorf("B is out until %v by %q, was until %v", st.Ejected, st.Why, until)
		}
		next.at(until.Sub(l.begin) - time.Millisecond)
		if !next.m.Standing(next.backend("B")).Ejected.Until.Equal(until) {
			t.Error("B came back early")
		}
		next.set("d e", nil)
		next.at(until.Sub(l.begin) + 30*time.Second)
		next.wantReady("a B C d e f") // and the new one takes back whom the old one drained because it was asked to
		if n := next.m.Standing(next.backend("B")).Times; n != 1 {
			t.Errorf("B was ejected %d times, want 1", n)
		}
	})
}
