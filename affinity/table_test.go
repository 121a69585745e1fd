package affinity

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func (t *table) len(now int64) (n int) {
	t.each(now, func(*entry) { n++ })
	return n
}

func id(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// What is found was put last, and has been used within the TTL; as long as few enough sessions are used, all are found.
func TestTableModel(t *testing.T) {
	refs := []*ref{{name: "a"}, {name: "b"}, {name: "c"}}
	rapid.Check(t, func(t *rapid.T) {
		const ttl = 1000
		tab := newTable(64, ttl, secret{rapid.Uint64().Draw(t, "k0"), 1})
		type known struct {
			ref  *ref
			used int64
		}
		model := map[uint64]known{}
		few := rapid.Bool().Draw(t, "few")
		most := uint64(500)
		if few {
			most = 16
		}
		now := int64(1)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, r := rapid.Uint64Range(0, most-1).Draw(t, "key"), rapid.SampledFrom(refs).Draw(t, "ref")
				tab.put(tab.key(id(k)), r, now)
				model[k] = known{r, now}
			},
			"get": func(t *rapid.T) {
				k := rapid.Uint64Range(0, most-1).Draw(t, "key")
				got := tab.get(tab.key(id(k)), now)
				m, ok := model[k]
				idle := now - m.used
				switch {
				case got == nil && ok && few && idle <= ttl-ttl/16:
					t.Fatalf("session %d of %s was forgotten after %d", k, m.ref.name, idle)
				case got != nil && (!ok || got != m.ref):
					t.Fatalf("session %d is %s's, want %v", k, got.name, m.ref)
				case got != nil && idle > ttl:
					t.Fatalf("session %d was remembered for %d", k, idle)
				case got != nil:
					model[k] = known{m.ref, now}
				}
			},
			"wait": func(t *rapid.T) { now += rapid.Int64Range(1, 2*ttl/3).Draw(t, "time") },
			"sweep": func(t *rapid.T) {
				left := map[*ref]int64{}
				tab.sweep(now, left)
				sum := int64(0)
				for _, n := range left {
					sum += n
				}
				if n := tab.len(now); int64(n) != sum || n > tab.capacity() {
					t.Fatalf("%d left of %d, counted %d", n, tab.capacity(), sum)
				}
			},
		})
	})
}

// The table takes nearly as many sessions as it has places before it forgets one that is in use.
func TestTableFills(t *testing.T) {
	// Of the last, in ten thousand.
	for full, most := range map[int]int{50: 0, 75: 10, 90: 200, 100: 600} {
		tab := newTable(1<<14, 1000, newSecret())
		n := tab.capacity() * full / 100
		r := new(ref)
		for i := range n {
			tab.put(tab.key(id(uint64(i))), r, int64(i/1000))
		}
		lost := 0
		for i := range n {
			if tab.get(tab.key(id(uint64(i))), 20) == nil {
				lost++
			}
		}
		t.Logf("%d%% full: %d of %d sessions forgotten", full, lost, n)
		if lost > most*n/10000 {
			t.Errorf("too many")
		}
		if got := int(tab.evicted.Load()); got != lost {
			t.Errorf("%d were counted", got)
		}
	}
}

// A flood of sessions that are begun and left pushes out next to none that is used more often than the flood fills the
// table. (Next to: the longest unused of 16 is not the longest unused of all.)
func TestTableFlood(t *testing.T) {
	tab := newTable(1<<12, 1000, newSecret())
	const used = 500
	r := new(ref)
	for i := range used {
		tab.put(tab.key(id(uint64(i))), r, 0)
	}
	next, lost, asked := uint64(1<<32), 0, 0
	for now := int64(1); now < 1000; now++ {
		for range 20 { // fills the table in 200
			tab.put(tab.key(id(next)), r, now)
			next++
		}
		for i := range used {
			if (int64(i)+now)%80 != 0 {
				continue
			}
			asked++
			if tab.get(tab.key(id(uint64(i))), now) == nil {
				lost++
				tab.put(tab.key(id(uint64(i))), r, now)
			}
		}
	}
	if lost > asked/200 {
		t.Errorf("%d of %d times a session in use was forgotten", lost, asked)
	}
}

// Loops put, move, look up and sweep the same sessions at once.
func TestTableStress(t *testing.T) {
	tab := newTable(1<<10, 1000, newSecret())
	refs := [8]*ref{}
	for i := range refs {
		refs[i] = new(ref)
	}
	// A session is learned by one loop before any other hears of it; its ref says what its number is.
	refOf := func(n uint64) *ref { return refs[n%8] }
	var wg sync.WaitGroup
	heard := make(chan uint64, 100)
	for w := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(1, uint64(w)))
			for i := range 20000 {
				now := int64(i / 100)
				n := rnd.Uint64N(400) + uint64(w)*1000
				tab.put(tab.key(id(n)), refOf(n), now)
				select {
				case heard <- n:
				default:
				}
				select {
				case n := <-heard:
					// It may have been pushed out, but is never another's.
					if r := tab.get(tab.key(id(n)), now); r != nil && r != refOf(n) {
						t.Errorf("session %d is another's", n)
						return
					}
				default:
				}
				tab.put(tab.key(id(1<<40)), refs[rnd.IntN(8)], now) // all fight over one
				if i%1000 == 0 {
					tab.sweep(now, map[*ref]int64{})
				}
			}
		}()
	}
	wg.Wait()
	tab.agree(t)
	// Alone again, everything that is put is found.
	for n := range uint64(100) {
		tab.put(tab.key(id(n)), refOf(n), 300)
		if tab.get(tab.key(id(n)), 300) != refOf(n) {
			t.Fatalf("session %d is not found", n)
		}
	}
}

// Loops fight over the places of few sets: in the end every key is that of its entry.
func TestTableFight(t *testing.T) {
	for range 20 {
		tab := newTable(64, 1000, newSecret())
		r := new(ref)
		var wg sync.WaitGroup
		for w := range uint64(4) {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := range uint64(5000) {
					tab.put(tab.key(id(w<<32+i)), r, int64(i))
				}
			}()
		}
		wg.Wait()
		tab.agree(t)
	}
}

// agree checks that keys are those of the entries.
func (t *table) agree(tb testing.TB) {
	for n := range *t.sets.Load() {
		s := &(*t.sets.Load())[n]
		for i := range s.keys {
			want := uint64(0)
			if e := s.entries[i].Load(); e != nil {
				want = e.key
			}
			if got := s.keys[i].Load(); got != want {
				tb.Errorf("set %d, place %d: key %x, entry's %x", n, i, got, want)
			}
		}
	}
}

// What one loop learned, another finds at once, while others replace sessions in the same sets.
func TestTableHandOver(t *testing.T) {
	tab := newTable(1<<14, 1000, newSecret())
	r := new(ref)
	var wg sync.WaitGroup
	for w := range 4 {
		to := make(chan uint64)
		wg.Add(2)
		go func() {
			defer wg.Done()
			defer close(to)
			for i := range uint64(2000) { // in all half of what the table holds
				n := uint64(w)<<32 + i
				tab.put(tab.key(id(n)), r, 1)
				to <- n
			}
		}()
		go func() {
			defer wg.Done()
			for n := range to {
				if tab.get(tab.key(id(n)), 1) != r {
					t.Errorf("session %x is not known", n)
				}
			}
		}()
	}
	wg.Wait()
}

// A hundred thousand sessions take no more memory than as many as are remembered.
func TestMemoryIsBounded(t *testing.T) {
	if testing.CoverMode() != "" || raceEnabled {
		t.Skip("memory of another kind counts there")
	}
	var before, after runtime.MemStats
	p := newPool("a b c")
	a := newAffinity(t, p, Options{SocketIO: true})
	runtime.GC()
	runtime.ReadMemStats(&before)
	const n = 100_000
	for i := range n {
		var v Visit
		v.Begin(a, &Request{Now: 2 * sec, Query: []byte(polling)})
		v.Answer(nil, &Answer{Now: 2 * sec, Backend: p.Snapshot().All[i%3], Status: 200})
		v.Feed([]byte(open4(fmt.Sprint("S", i))), true)
		v.End()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("%d sessions take %d KiB", n, grown>>10)
	} else {
		t.Logf("%d sessions take %d KiB", n, grown>>10)
	}
	held := a.Sessions("a") + a.Sessions("b") + a.Sessions("c")
	if held > DefaultSessions || held+int64(a.Evicted()) != n {
		t.Errorf("%d are held, %d were evicted", held, a.Evicted())
	}
	runtime.KeepAlive(a)
}
