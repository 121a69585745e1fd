package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// inOrder takes the first backend that has not been tried.
type inOrder []*Backend

func (r inOrder) Pick(s *Selection) *Backend {
	for _, b := range r {
		if !s.Has(b.Live) {
			return b
		}
	}
	return nil
}

func buildInOrder(r []*Backend) Strategy { return inOrder(r) }

// specs makes backends from "name", "name=address's last byte" and "name*weight".
func specs(text string) (s []Spec) {
	for _, f := range strings.Fields(text) {
		sp := Spec{Weight: 1}
		f, w, ok := strings.Cut(f, "*")
		if ok {
			fmt.Sscan(w, &sp.Weight)
		}
		name, at, ok := strings.Cut(f, "=")
		host := byte(len(name)) + name[0]
		if ok {
			fmt.Sscan(at, &host)
		}
		sp.Name = name
		sp.Addr.AddrPort = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, host}), 80)
		s = append(s, sp)
	}
	return s
}

func newPool(text string) *Pool { return NewPool("app", 2, specs(text), nil, buildInOrder) }

func names(bs []*Backend) string {
	var s []string
	for _, b := range bs {
		s = append(s, b.Name)
	}
	return strings.Join(s, " ")
}

// backend is the one of that name in the pool's snapshot.
func backend(t testing.TB, p *Pool, name string) *Backend {
	t.Helper()
	for _, b := range p.Snapshot().All {
		if b.Name == name {
			return b
		}
	}
	t.Fatalf("no backend %s", name)
	return nil
}

func acquire(t testing.TB, p *Pool, s *Selection) Lease {
	t.Helper()
	l, err := p.Acquire(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestAcquireTriesEachOnce(t *testing.T) {
	p := newPool("a b c")
	s := new(Selection)
	for range 2 { // Reset forgets
		s.Reset(1, 1)
		for i, want := range []string{"a", "b", "c"} {
			l := acquire(t, p, s)
			if l.Backend().Name != want || s.Tried() != i+1 {
				t.Errorf("attempt %d: %s, %d tried; want %s", i, l.Backend().Name, s.Tried(), want)
			}
			l.Done(Outcome{Now: 2, Fault: FaultConnect})
		}
		if _, err := p.Acquire(s); !errors.Is(err, ErrTried) {
			t.Errorf("all tried: %v", err)
		}
	}
	st := backend(t, p, "b").Stats(1)
	if st.Picks.Load() != 2 || st.Retries.Load() != 2 || st.Faults[FaultConnect].Load() != 2 || st.Requests[0].Load() != 2 {
		t.Errorf("stats of b: %+v", st)
	}
	if st := backend(t, p, "a").Stats(1); st.Retries.Load() != 0 {
		t.Errorf("a has %d retries", st.Retries.Load())
	}
	if n := backend(t, p, "a").Stats(0).Picks.Load(); n != 0 {
		t.Errorf("loop 0 counted %d picks of loop 1", n)
	}
}

func TestSelectionHasManyIDs(t *testing.T) {
	s := new(Selection)
	rapid.Check(t, func(t *rapid.T) {
		s.Reset(0, 0)
		marked := map[int]bool{}
		for _, id := range rapid.SliceOf(rapid.IntRange(0, 1000)).Draw(t, "ids") {
			s.mark(&Live{ID: id})
			marked[id] = true
		}
		for id := range 1100 {
			if s.Has(&Live{ID: id}) != marked[id] {
				t.Fatalf("ID %d: %v, want %v", id, !marked[id], marked[id])
			}
		}
	})
}

func TestMaxInflight(t *testing.T) {
	sp := specs("a b")
	sp[0].MaxInflight = 2
	p := NewPool("app", 1, sp, nil, buildInOrder)
	s := new(Selection)
	var held []Lease
	for _, want := range []string{"a", "a", "b", "b"} {
		s.Reset(0, 0)
		l := acquire(t, p, s)
		if l.Backend().Name != want {
			t.Errorf("got %s, want %s", l.Backend().Name, want)
		}
		held = append(held, l)
	}
	held[0].Tunnel() // is not in flight, and so makes room
	s.Reset(0, 0)
	if l := acquire(t, p, s); l.Backend().Name != "a" || l.Ahead() != 1 {
		t.Errorf("got %s with %d ahead, want a with 1", l.Backend().Name, l.Ahead())
	}
}

func TestUpdate(t *testing.T) {
	p := newPool("a b c*2")
	first := p.Snapshot()
	a, b, c := first.All[0], first.All[1], first.All[2]

	if left := p.Update(specs("a b c*2"), nil, nil); len(left) != 0 {
		t.Errorf("equal: %s left", names(left))
	}
	for i, is := range p.Snapshot().All {
		if was := first.All[i]; is.Live != was.Live || is.Spec != was.Spec {
			t.Errorf("equal: %s changed", is.Name)
		}
	}
	if p.Snapshot().Settings != first.Settings {
		t.Error("equal: settings changed")
	}

	// a moved, b left, c has another weight, d is new
	set := DefaultSettings()
	left := p.Update(specs("d a=99 c*3"), set, nil)
	if got := names(left); got != "a b" || left[0].Live != a.Live || left[1].Live != b.Live {
		t.Errorf("left: %s", got)
	}
	now := p.Snapshot()
	if got := names(now.All); got != "d a c" || now.Settings != set {
		t.Errorf("now: %s", got)
	}
	if now.All[1].Live == a.Live {
		t.Error("another address kept its Live")
	}
	if now.All[2].Live != c.Live || now.All[2].Weight != 3 || c.Weight != 2 {
		t.Error("c: want the same Live with another weight")
	}
	for _, b := range left {
		if !b.Draining() || !closed(b.Drained()) || b.Life().Wanted != Out {
			t.Errorf("%s left: draining %v, drained %v, %v", b.Name, b.Draining(), closed(b.Drained()), b.Life())
		}
		p.SetWanted(b, In)
		if b.Life().Wanted != Out {
			t.Errorf("%s came back", b.Name)
		}
	}
	if names(first.All) != "a b c" || names(first.Ready) != "a b c" {
		t.Error("the old snapshot changed")
	}
}

func TestReady(t *testing.T) {
	for _, c := range []struct {
		facts string // name:facts of each backend: w wanted draining, e ejected, x dead, u up, d down, 0 weight 0
		want  string
	}{
		{"a: b: c:", "a b c"},   // nobody is checked
		{"a:u b: c:u", "a c"},   // b has just joined
		{"a:d b: c:d", "b"},     // better unknown than nobody
		{"a:d b:d c:d", ""},     //
		{"a:u b:u c:d", "a b"},  //
		{"a:ue b: c:d", "b"},    // the only one that is up is ejected
		{"a:w b: c:", "b c"},    //
		{"a:0 b:u c:0u", "b"},   //
		{"a:e b:w c:0", "a"},    // fail open
		{"a:x b:w c:0", ""},     // known to be dead
		{"a:e b:x c:ue", "a c"}, //
		{"a:e b:x c:de", "a"},   //
		{"a:uw b:ue c:u0", "b"}, //
		{"a:uw b: c:", "b c"},   //
		{"a:u0 b: c:d", "b"},    //
		{"a:uwe b:ud c:u", "c"}, //
	} {
		p := newPool("a b c")
		sp := specs("a b c")
		for i, f := range strings.Fields(c.facts) {
			name, facts, _ := strings.Cut(f, ":")
			for _, fact := range facts {
				b := backend(t, p, name)
				switch fact {
				case 'w':
					p.SetWanted(b, Draining)
				case 'e':
					p.SetEjected(b, time.Unix(1, 0))
				case 'x':
					p.SetDead(b, time.Unix(1, 0))
				case 'u':
					p.SetProbed(b, Up)
				case 'd':
					p.SetProbed(b, Down)
				case '0':
					sp[i].Weight = 0
					p.Update(sp, nil, nil)
				}
			}
		}
		snap := p.Snapshot()
		if got := names(snap.Ready); got != c.want {
			t.Errorf("%s: ready %q, want %q", c.facts, got, c.want)
		}
		for i, b := range snap.Ready {
			if b.Index() != i {
				t.Errorf("%s: %s has index %d, want %d", c.facts, b.Name, b.Index(), i)
			}
		}
		p.Update(sp, nil, nil) // facts survive it
		if got := names(p.Snapshot().Ready); got != c.want {
			t.Errorf("%s: ready %q after an update, want %q", c.facts, got, c.want)
		}
		s := new(Selection)
		if _, err := p.Acquire(s); (err == nil) != (c.want != "") {
			t.Errorf("%s: Acquire: %v", c.facts, err)
		}
	}
}

func TestDrain(t *testing.T) {
	p := newPool("a b")
	a := backend(t, p, "a")
	if a.Drained() != nil {
		t.Error("can be waited for before it drains")
	}
	s := new(Selection)
	var held [3]Lease
	for i := range held {
		s.Reset(0, i%2)
		held[i] = acquire(t, p, s)
	}
	held[2].Tunnel()

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p.SetWanted(a, Draining)
	if err := AwaitDrained(ctx, a); !errors.Is(err, context.Canceled) {
		t.Errorf("AwaitDrained: %v", err)
	}
	s.Reset(0, 0)
	if l := acquire(t, p, s); l.Backend().Name != "b" {
		t.Errorf("a request went to %s", l.Backend().Name)
	}
	for i := range held {
		if closed(a.Drained()) {
			t.Errorf("drained with %d leases left", 3-i)
		}
		held[i].Done(Outcome{})
	}
	if err := AwaitDrained(t.Context(), a); err != nil {
		t.Error(err)
	}
	p.SetWanted(a, In)
	s.Reset(0, 0)
	l := acquire(t, p, s)
	if l.Backend().Live != a.Live || a.Draining() || a.Drained() != nil {
		t.Errorf("taken back: the request went to %s, draining %v", l.Backend().Name, a.Draining())
	}
	p.SetWanted(a, Draining)
	if closed(a.Drained()) {
		t.Error("drained again with a lease left")
	}
	l.Done(Outcome{})
	if !closed(a.Drained()) {
		t.Error("not drained")
	}
}

func TestTakenBack(t *testing.T) {
	p := newPool("a b")
	a := backend(t, p, "a")
	s := new(Selection)
	s.Reset(0, 0)
	l := acquire(t, p, s)
	p.SetWanted(a, Draining)
	wait := a.Drained()
	done := make(chan error)
	go func() { done <- AwaitDrained(t.Context(), a) }()
	p.SetWanted(a, In)
	p.SetWanted(a, In)
	if !closed(wait) {
		t.Error("who waited for the drain still does")
	}
	// Whether it came to wait before or comes now, it does not begin another drain.
	if err := <-done; !errors.Is(err, ErrTakenBack) {
		t.Errorf("AwaitDrained: %v", err)
	}
	if err := AwaitDrained(t.Context(), a); !errors.Is(err, ErrTakenBack) || a.Draining() {
		t.Errorf("AwaitDrained afterwards: %v", err)
	}
	l.Done(Outcome{})
}

// TestOldSnapshot is the reason for looking twice: the strategy chose from a snapshot whose backends have all left.
func TestOldSnapshot(t *testing.T) {
	p := newPool("a b")
	s := new(Selection)
	s.Reset(0, 0)
	old := p.Snapshot()
	p.Update(specs("c d"), nil, nil)
	if _, ok := old.acquire(s); ok {
		t.Error("a backend that left admitted a request")
	}
	if l := acquire(t, p, s); l.Backend().Name != "c" {
		t.Errorf("went to %s, want c", l.Backend().Name)
	}
}

// TestBlueGreen replaces all backends again and again under load. No request is refused, and after Drained is closed
// nobody holds a lease.
func TestBlueGreen(t *testing.T) {
	const loops = 4
	p := NewPool("app", loops, specs("blue1 blue2"), nil, func(r []*Backend) Strategy { return inOrder(r) })
	var stop atomic.Bool
	var late, refused atomic.Int64
	var gone sync.Map // *Live that have drained
	var wg sync.WaitGroup
	for loop := range loops {
		wg.Go(func() {
			s := new(Selection)
			for i := int64(0); !stop.Load(); i++ {
				s.Reset(i, loop)
				l, err := p.Acquire(s)
				if err != nil {
					refused.Add(1)
					continue
				}
				if _, ok := gone.Load(l.Backend().Live); ok {
					late.Add(1)
				}
				if i%64 == 0 {
					runtime.Gosched()
				}
				if i%3 == 0 {
					l.Tunnel()
				}
				if _, ok := gone.Load(l.Backend().Live); ok {
					late.Add(1)
				}
				l.Done(Outcome{Now: i + 1})
			}
		})
	}
	for i := range 300 {
		next := "blue1 blue2"
		if i%2 == 0 {
			next = "green1 green2 green3"
		}
		for _, b := range p.Update(specs(next), nil, nil) {
			<-b.Drained()
			gone.Store(b.Live, true)
			if l := b.Load(); l.Active()+l.Tunnels() > 1<<20 {
				t.Errorf("%s: count %x", b.Name, l)
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	if refused.Load() != 0 || late.Load() != 0 {
		t.Errorf("%d refused, %d held after the drain", refused.Load(), late.Load())
	}
	for _, b := range p.Snapshot().All {
		if b.Load() != 0 {
			t.Errorf("%s: load %x left", b.Name, b.Load())
		}
	}
}

// TestSaw checks that a choice made at an outdated load is made again, and not for ever.
func TestSaw(t *testing.T) {
	var p *Pool
	asked := 0
	p = NewPool("app", 1, specs("a b"), nil, func(r []*Backend) Strategy {
		return pickFunc(func(s *Selection) *Backend {
			if asked++; asked > 10 {
				return nil
			}
			s.Saw(r[0].Load())
			r[0].admit(one, 0) // another loop was faster
			return r[0]
		})
	})
	s := new(Selection)
	s.Reset(0, 0)
	l := acquire(t, p, s)
	if asked != repicks+1 || l.Ahead() != int64(repicks+1) {
		t.Errorf("asked %d times, %d ahead; want %d, %d", asked, l.Ahead(), repicks+1, repicks+1)
	}
}

// TestRefusedIsNotTried: whoever drains at the moment it is chosen counts as not tried, and who is taken in its place as tried.
func TestRefusedIsNotTried(t *testing.T) {
	var p *Pool
	p = NewPool("app", 1, specs("a b"), nil, func(r []*Backend) Strategy {
		return pickFunc(func(s *Selection) *Backend {
			if b := inOrder(r).Pick(s); b != nil && b.Name == "a" {
				p.SetWanted(b, Draining) // another loop was faster
				return b
			}
			return inOrder(r).Pick(s)
		})
	})
	a, b := backend(t, p, "a"), backend(t, p, "b")
	s := new(Selection)
	s.Reset(1, 0)
	if l := acquire(t, p, s); l.Backend().Name != "b" || s.Tried() != 1 || !s.Has(b.Live) || s.Has(a.Live) {
		t.Errorf("%s, %d tried: b %t, a %t", l.Backend().Name, s.Tried(), s.Has(b.Live), s.Has(a.Live))
	}
	p.SetWanted(a, In)
	p.Update(specs("a b"), nil, buildInOrder)
	if l := acquire(t, p, s); l.Backend().Name != "a" { // it is there again
		t.Error(l.Backend().Name)
	}
}

type pickFunc func(*Selection) *Backend

func (f pickFunc) Pick(s *Selection) *Backend { return f(s) }

// TestIDs waits for the garbage collector to give the IDs of backends back.
func TestIDs(t *testing.T) {
	high := 0
	for i := range 200 {
		p := newPool("a b c d e f g h")
		for _, b := range p.Snapshot().All {
			high = max(high, b.ID)
		}
		if i%10 == 9 {
			runtime.GC()
		}
	}
	// 1600 backends were made; how many at a time exist is up to the collector, but not that many.
	if high >= 1600 {
		t.Errorf("IDs went up to %d", high)
	}
	p := newPool("a b c")
	seen := map[int]bool{}
	for _, b := range p.Snapshot().All {
		if seen[b.ID] {
			t.Errorf("ID %d given twice", b.ID)
		}
		seen[b.ID] = true
	}
}
