package loop

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestYieldTakesTurns(t *testing.T) {
	g := group(t, 1, Options{})
	l := g.Loop(0)
	var log strings.Builder
	onLoop(t, l, func() {
		me, left := l.Current(), 3
		for i := range left {
			l.Go(runFunc(func() {
				for range 4 {
					log.WriteByte(byte('a' + i))
					l.Yield()
				}
				if left--; left == 0 {
					me.Wake()
				}
			}), nil)
		}
		for left > 0 {
			me.Park(0)
		}
	})
	if s := log.String(); s != "abcabcabcabc" {
		t.Error(s)
	}
}

// TestWakeOfYielding: a task that yields goes on once, however often it is woken meanwhile, and nobody finds
// himself running by a wake-up that was meant for it.
func TestWakeOfYielding(t *testing.T) {
	g := group(t, 1, Options{})
	l := g.Loop(0)
	onLoop(t, l, func() {
		me := l.Current()
		yields := 0
		other := l.Go(runFunc(func() {
			l.Yield()
			yields++
		}), nil)
		l.Yield() // other has begun
		other.Wake()
		other.Interrupt(io.EOF)
		other.Wake()
		l.Yield()
		l.Yield()
		if yields != 1 {
			t.Errorf("went on %d times", yields)
		}
		if err := me.Park(l.Now() + 3*tick); err != ErrTimeout {
			t.Errorf("woken out of turn: %v", err)
		}
	})
	if g.Panics() != 0 {
		t.Error("a task that had ended ran again")
	}
}

// TestFastConnectionStarvesNobody: one connection always has data; others have their turns meanwhile.
func TestFastConnectionStarvesNobody(t *testing.T) {
	g := group(t, 1, Options{})
	var most, stop atomic.Int64
	fast := pair(t, g, func(c *Conn) {
		defer c.Close()
		b := make([]byte, 16) // small, so that there is always more
		inRound, round := int64(0), uint32(0)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
			if c.loop.round != round {
				inRound, round = 0, c.loop.round
			}
			inRound++
			most.Store(max(most.Load(), inRound))
		}
	})
	var writer sync.WaitGroup
	writer.Go(func() {
		b := make([]byte, 64<<10)
		for stop.Load() == 0 {
			if _, err := fast.Write(b); err != nil {
				return
			}
		}
	})
	slow := pair(t, g, func(c *Conn) { (&echo{c, make([]byte, 10)}).Run() })
	b := make([]byte, 1)
	for range 200 {
		slow.Write(b)
		if _, err := io.ReadFull(slow, b); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(1)
	fast.Close()
	writer.Wait()
	if n := most.Load(); n > maxReads || n == 0 {
		t.Errorf("%d reads in one round", n)
	}
}

// TestEndlessWakesStarveNobody has two tasks that wake each other for ever without waiting for a socket.
func TestEndlessWakesStarveNobody(t *testing.T) {
	g := group(t, 1, Options{})
	l := g.Loop(0)
	l.Post(func() {
		var a, b *Task
		a = l.Go(runFunc(func() {
			for a.Park(0) == nil {
				b.Wake()
			}
		}), nil)
		b = l.Go(runFunc(func() {
			for a.Wake(); b.Park(0) == nil; a.Wake() {
			}
		}), nil)
	})
	c := pair(t, g, func(c *Conn) { (&echo{c, make([]byte, 10)}).Run() })
	io.WriteString(c, "x")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestPostKeepsOrder(t *testing.T) {
	const posters, each = 8, 2000
	g := group(t, 2, Options{})
	for i := range g.Len() {
		l := g.Loop(i)
		var next [posters]int
		var wg sync.WaitGroup
		for p := range posters {
			wg.Go(func() {
				for n := range each {
					l.Post(func() {
						if next[p] != n {
							t.Errorf("poster %d: call %d came as number %d", p, n, next[p])
						}
						next[p]++
					})
					if n%100 == 0 {
						runtime.Gosched() // lets the loop fall asleep now and then
					}
				}
			})
		}
		wg.Wait()
		onLoop(t, l, func() {
			for p, n := range next {
				if n != each {
					t.Errorf("poster %d: %d calls", p, n)
				}
			}
		})
	}
}

// TestPostWakes posts to a loop that sleeps, many times over, each only when the one before has run.
func TestPostWakes(t *testing.T) {
	g := group(t, 1, Options{})
	ch := make(chan bool)
	for range 5000 {
		g.Loop(0).Post(func() { go func() { ch <- true }() })
		within(t, ch)
	}
}

// TestPanicIsContained has code of every kind panic or end its goroutine: the connection is lost, the loop and
// all others live.
func TestPanicIsContained(t *testing.T) {
	crash := map[string]func(){
		"panic":  func() { panic("on purpose") },
		"nil":    func() { var p *int; *p = 1 },
		"Goexit": runtime.Goexit,
	}
	places := map[string]func(c *Conn, crash func()){
		"task":    func(c *Conn, crash func()) { c.Loop().Go(runFunc(crash), c) },
		"accept":  func(c *Conn, crash func()) { crash() },
		"handler": func(c *Conn, crash func()) { c.Await(handlerFunc(func(*Conn, bool) { crash() })) },
		"timeout": func(c *Conn, crash func()) {
			c.SetReadDeadline(1)
			c.Await(handlerFunc(func(_ *Conn, timeout bool) { crash() }))
		},
		"task after waiting": func(c *Conn, crash func()) {
			c.Loop().Go(runFunc(func() {
				c.Loop().Sleep(1)
				c.Loop().Yield()
				crash()
			}), c)
		},
		"timer": func(c *Conn, crash func()) {
			c.Loop().AfterFunc(new(Timer), 1, func() { c.Abort(); crash() })
		},
		"post": func(c *Conn, crash func()) { c.Loop().Post(func() { c.Abort(); crash() }) },
	}
	for place, do := range places {
		for how, crash := range crash {
			t.Run(place+" "+how, func(t *testing.T) {
				var told atomic.Int64
				g := group(t, 1, Options{Panicked: func(v any, stack []byte) {
					if (v == nil) != (how == "Goexit") || len(stack) == 0 {
						t.Errorf("%v, %d bytes of stack", v, len(stack))
					}
					told.Add(1)
				}})
				well := pair(t, g, func(c *Conn) { (&echo{c, make([]byte, 10)}).Run() })
				addr, _ := accept(t, g, func(c *Conn) { do(c, crash) })
				for i := range 3 {
					c, err := net.DialTimeout("tcp", addr.String(), 10*time.Second)
					if err != nil {
						continue // reset before the dial was done
					}
					c.SetDeadline(time.Now().Add(20 * time.Second))
					c.Write([]byte("x"))
					if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("its connection: %v", err)
					}
					c.Close()
					well.Write([]byte{byte(i)})
					if _, err := io.ReadFull(well, make([]byte, 1)); err != nil {
						t.Errorf("another connection: %v", err)
					}
				}
				onLoop(t, g.Loop(0), func() {
					for g.Loop(0).Conns() > 1 {
						g.Loop(0).Sleep(tick)
					}
				})
				if n := g.Panics(); n != 3 || told.Load() != 3 {
					t.Errorf("%d counted, %d told of", n, told.Load())
				}
			})
		}
	}
}

func TestTimersOfALoop(t *testing.T) {
	g := group(t, 1, Options{})
	l := g.Loop(0)
	var fired []int
	onLoop(t, l, func() {
		var timers [4]Timer
		base := l.Now()
		for i, at := range []int64{9, 3, 6, 1} {
			l.AfterFunc(&timers[i], base+at*2*tick, func() {
				if l.Now() < base+at*2*tick {
					t.Error("early")
				}
				fired = append(fired, i)
			})
		}
		l.Stop(&timers[3])
		l.AfterFunc(&timers[2], base+30*tick, timers[2].target.(afterFunc).fn) // moved
		for len(fired) < 3 {
			l.Sleep(tick)
		}
	})
	if !slices.Equal(fired, []int{1, 0, 2}) {
		t.Error(fired)
	}
}

func TestPoolTrims(t *testing.T) {
	var dropped []int
	p := Pool[int]{Drop: func(v int) { dropped = append(dropped, v) }}
	if _, ok := p.Get(); ok {
		t.Error("an empty pool gave something")
	}
	for i := range 1000 {
		p.Put(i)
	}
	p.Trim() // all are new since the last: none was left unused for long
	if len(dropped) > 1 {
		t.Errorf("%d dropped at once", len(dropped))
	}
	dropped = nil
	v, _ := p.Get() // the newest; 999 were not used
	if v != 999 {
		t.Errorf("got %d", v)
	}
	p.Put(v)
	p.Trim()
	if len(dropped) != 500 || dropped[0] != 0 || dropped[499] != 499 {
		t.Errorf("%d dropped", len(dropped))
	}
	for range 20 {
		p.Trim()
	}
	if p.Len() != 0 || cap(p.free) > 64 {
		t.Errorf("%d kept of capacity %d", p.Len(), cap(p.free))
	}
	if !slices.IsSorted(dropped) {
		t.Error("newer ones were dropped before older ones")
	}
	p.Put(7)
	p.Clear()
	if p.Len() != 0 || dropped[len(dropped)-1] != 7 {
		t.Error("not cleared")
	}
}
