package upstream

import (
	"fmt"
	"strings"
	"testing"
)

func TestKindOf(t *testing.T) {
	of := func(s string) Kind {
		method, path, _ := strings.Cut(s, " ")
		return KindOf([]byte(method), []byte(path))
	}
	for _, same := range [][]string{
		{"GET /"},
		{"GET /rooms/42/poll", "GET /rooms/7/poll", "GET /rooms/8d6f1e9c-0a0b-4c0d-8e0f-aaaaaaaaaaaa/poll", "GET /rooms/a1/poll"},
		{"GET /rooms/42/poll/", "GET /rooms/1/poll/"},
		{"GET /rooms/lobby/poll"},
		{"GET /42", "GET /43abc"},
		{"POST /42"},
		{"GET /v1x/y", "GET /v2/y"},
		{"GET "},
	} {
		first := of(same[0])
		if first == 0 {
			t.Errorf("%s is no kind", same[0])
		}
		for _, s := range same[1:] {
			if of(s) != first {
				t.Errorf("%s is not of the kind of %s", s, same[0])
			}
		}
		for _, other := range []string{"GET /rooms", "PUT /rooms/42/poll", "GET /rooms/42/polls", "GET //", "GET /rooms//poll"} {
			if of(other) == first {
				t.Errorf("%s is of the kind of %s", other, same[0])
			}
		}
	}
}

// TestWaits: what a pool learns of a kind, at and beside each limit.
func TestWaits(t *testing.T) {
	const kind, other = 5, 7
	for _, c := range []struct {
		said string // w: it waited, q: it was quick
		want bool
	}{
		{"", true},
		{"q", false},
		{"w", true},
		{"wq", false},
		{"qww", false},
		{"qwww", true},
		{"qwwwq", false},
		{"qqqqqqqqwww", true},
		{"wwwwwqq", true},
		{"wwwwwqqq", false},
		{"wwwwwwwwwwwwwwwwwwwwqqq", false},
		{"wwqwwqwwqwwqwwq", false},
		{"wwwwqwwwqwwwqwwwq", true},
	} {
		var w waits
		for _, x := range c.said {
			w.learn(kind, x == 'w')
		}
		if w.has(kind) != c.want {
			t.Errorf("%q: waits is %v", c.said, !c.want)
		}
		if !w.has(other) {
			t.Errorf("%q: something is known of another kind", c.said)
		}
	}
}

// TestLeaseOfKind: requests of a kind that is new or waits are parked from the start.
func TestLeaseOfKind(t *testing.T) {
	const ms = 1e6
	good := Outcome{Latency: 1, Status: 200}
	for _, c := range []struct {
		name     string
		took     int64
		overtake bool
		o        Outcome
		want     bool // of a kind that was known as quick
		new      bool // of a new one
	}{
		{"a long poll", 500 * ms, true, good, true, true},
		{"quick", 499 * ms, true, good, false, false},
		{"slow, with nobody else there", 5000 * ms, false, good, false, false},
		{"a long poll whose client left", 5000 * ms, true, Outcome{Fault: FaultClient}, true, true},
		{"that failed fast", 5 * ms, true, Outcome{Latency: 1, Status: 503, Fault: FaultStatus}, false, false},
		{"whose client left before anything came", 5 * ms, true, Outcome{Fault: FaultClient}, false, true},
		{"silent", 5000 * ms, false, Outcome{Fault: FaultTimeout}, false, true},
	} {
		for _, quick := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", c.name, quick), func(t *testing.T) {
				p := newPool("a")
				a := backend(t, p, "a")
				if quick {
					p.waits.learn(9, false)
				}
				p.waits.learn(11, false)
				s := new(Selection)
				now := int64(0)
				begin := func(k Kind) Lease {
					s.Reset(now, 0)
					s.Kind = k
					return acquire(t, p, s)
				}
				want := c.new
				for range 3 {
					l := begin(9)
					if quick && l.Parked() {
						t.Fatal("parked too early")
					}
					if c.overtake {
						now += ms
						o := begin(11)
						o.Done(Outcome{Now: now + ms, Latency: ms, Status: 200})
						now -= ms
					}
					now += c.took
					l.Park(now) // as the proxy does from time to time
					c.o.Now = now
					l.Done(c.o)
				}
				if quick {
					want = c.want
				}
				l := begin(9)
				if l.Parked() != want {
					t.Errorf("parked from the start: %v", l.Parked())
				}
				if n := a.Load(); want && (n.Active() != 0 || n.Parked() != 1) {
					t.Errorf("%d active, %d parked", n.Active(), n.Parked())
				}
				if o := begin(11); o.Parked() {
					t.Error("another kind is parked, too")
				} else {
					o.Done(Outcome{Now: now, Latency: 1, Status: 200})
				}
				l.Done(Outcome{Now: now + 5, Latency: 5, Status: 200})
				if a.Load() != 0 {
					t.Errorf("load %x is left", a.Load())
				}
			})
		}
	}
}

// TestStream: what is a stream is parked at once, whether the request says so or the answer.
func TestStream(t *testing.T) {
	p := newPool("a")
	a := backend(t, p, "a")
	s := new(Selection)
	s.Reset(5, 0)
	s.Stream = true
	asked := acquire(t, p, s)
	s.Reset(6, 1)
	answered := acquire(t, p, s)
	if n := a.Load(); n.Active() != 1 || n.Parked() != 1 || !asked.Parked() || asked.Ahead() != 0 || answered.Ahead() != 0 {
		t.Errorf("%d active, %d parked; %d and %d ahead", n.Active(), n.Parked(), asked.Ahead(), answered.Ahead())
	}
	for range 2 {
		answered.Stream(7)
		asked.Stream(7)
	}
	if n := a.Load(); n.Active() != 0 || n.Parked() != 2 {
		t.Errorf("%d active, %d parked", n.Active(), n.Parked())
	}
	asked.Done(Outcome{Now: 8, Latency: 1, Status: 200})
	answered.Done(Outcome{Now: 9, Latency: 1, Status: 200})
	if a.Load() != 0 {
		t.Errorf("load %x is left", a.Load())
	}
}

// TestStreamsAreLearned: a kind whose answers are streams is one that waits, however short they are, and is not doubted when they
// were parked from the start.
func TestStreamsAreLearned(t *testing.T) {
	p := newPool("a")
	s := new(Selection)
	for i := range int64(20) {
		s.Reset(i*1e6, 0)
		s.Kind = 9
		l := acquire(t, p, s)
		if !l.Parked() {
			t.Errorf("number %d is not parked from the start", i)
		}
		l.Stream(i*1e6 + 1)
		l.Done(Outcome{Now: i*1e6 + 3, Latency: 1, Status: 200})
	}
}

// TestStreamFreesPlace: who turns out to be a stream makes room for who waits.
func TestStreamFreesPlace(t *testing.T) {
	p, _ := held("a:0", 1, nil)
	c := newCrowd(t, p)
	c.expect("stream", "a")
	c.expect("other", "waits")
	c.want("")
	c.who["stream"].lease.Stream(3)
	c.want("other")
	c.expect("other", "a")
	c.goes("stream")
	c.goes("other")
}

func BenchmarkKindOf(b *testing.B) {
	for _, path := range []string{"/", "/api/users/42/orders", "/assets/application.js", "/rooms/8d6f1e9c-0a0b-4c0d-8e0f-aaaaaaaaaaaa/poll"} {
		b.Run(path, func(b *testing.B) {
			method, path := []byte("GET"), []byte(path)
			for b.Loop() {
				KindOf(method, path)
			}
		})
	}
}

// TestStreamPasses: who waits for a place does not hold up a stream, which takes none; but for one that backends have a number
// of, it does.
func TestStreamPasses(t *testing.T) {
	for _, c := range []struct {
		name, pool, want string
		begin            func(*Selection)
	}{
		{"a stream", "a:0", "a", func(s *Selection) { s.Stream = true }},
		{"of a kind that waits", "a:0", "a", func(s *Selection) { s.Kind = 9 }},
		{"of a kind that is quick", "a:0", "waits", func(s *Selection) { s.Kind = 11 }},
		{"a stream, and max_inflight", "a:1", "waits", func(s *Selection) { s.Stream = true }},
		{"a WebSocket", "a:0", "waits", func(s *Selection) { s.Tunnel = true }},
	} {
		set := DefaultSettings()
		set.QueueLen = 9
		p, _ := held(c.pool, 1, set)
		p.waits.learn(11, false)
		x := newCrowd(t, p)
		x.expect("1", "a")
		x.expect("2", "waits")
		x.expect("3", "waits")
		c.begin(&x.person("last").s)
		if got := x.comes("last"); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		x.goes("1")
		x.want("2") // whose turn it is all the same
		x.expect("2", "a")
	}
}

// TestStreamTakesNoPlace: not even for a moment, in which somebody would find none.
func TestStreamTakesNoPlace(t *testing.T) {
	p := newPool("a")
	a := backend(t, p, "a")
	done := make(chan struct{})
	go func() {
		defer close(done)
		s := new(Selection)
		for range 100_000 {
			s.Reset(1, 0)
			s.Stream = true
			l, err := p.Acquire(s)
			if err != nil {
				t.Error(err)
				return
			}
			l.Done(Outcome{Now: 2, Latency: 1, Status: 200})
		}
	}()
	for {
		if n := a.Load().Active(); n != 0 {
			t.Errorf("%d active", n)
			break
		}
		select {
		case <-done:
			return
		default:
		}
	}
	<-done
}
