package e2e

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// users are the clients of apps/busy.mjs, of all kinds, each of which asks again when it has its answer.
type users struct {
	addr    string
	stop    chan struct{}
	workers sync.WaitGroup
	ids     atomic.Int64

	mu       sync.Mutex
	done     map[string]int  // answers by kind
	wrong    []string        // what failed
	took     []time.Duration // of the quick route
	open     map[string]int  // streams by instance
	restarts int             // WebSockets that were told to connect again
}

func newUsers(t testing.TB, addr string) *users {
	c := &users{addr: addr, stop: make(chan struct{}), done: map[string]int{}, open: map[string]int{}}
	t.Cleanup(c.end)
	return c
}

// clients adds n clients of a kind. ask does one request and says what is wrong with what came of it.
func (c *users) clients(n int, kind string, ask func(k *conn, r *rand.Rand, id string) string) {
	for i := range n {
		c.workers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), uint64(len(kind))))
			k := &conn{addr: c.addr}
			defer k.close()
			for c.goesOn() {
				id := fmt.Sprint(kind, c.ids.Add(1))
				begin := time.Now()
				wrong := ask(k, r, id)
				c.mu.Lock()
				c.done[kind]++
				if wrong != "" {
					c.wrong = append(c.wrong, fmt.Sprintf("%s, after %v: %s", id, time.Since(begin).Round(time.Millisecond), wrong))
				}
				c.mu.Unlock()
			}
		})
	}
}

func (c *users) goesOn() bool {
	select {
	case <-c.stop:
		return false
	default:
		return true
	}
}

// end lets all finish what they have begun.
func (c *users) end() {
	if c.goesOn() {
		close(c.stop)
	}
	c.workers.Wait()
}

func (c *users) count(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done[kind]
}

// more waits until each kind has had n more answers.
func (c *users) more(t testing.TB, n int) {
	t.Helper()
	c.mu.Lock()
	was := maps.Clone(c.done)
	c.mu.Unlock()
	for kind := range was {
		eventually(t, fmt.Sprint(n, " more of ", kind), func() bool { return c.count(kind) >= was[kind]+n })
	}
}

// verdict fails the test for all that went wrong.
func (c *users) verdict(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.wrong[:min(len(c.wrong), 10)] {
		t.Error(w)
	}
	if len(c.wrong) > 0 {
		t.Errorf("%d of %v failed", len(c.wrong), c.done)
	}
}

// did is what is wrong with an answer that should tell of its request.
func did(a answer, id string) string {
	if !a.ok() || !strings.HasPrefix(a.body, a.instance+" did "+id) {
		return a.String()
	}
	return ""
}

// pages are computed, one after the other without a pause.
func (c *users) pages(n int) {
	c.clients(n, "page", func(k *conn, r *rand.Rand, id string) string {
		rows := 100 + int(r.ExpFloat64()*300)
		return did(k.do("GET", fmt.Sprintf("/page/%s?rows=%d", id, min(rows, 3000)), ""), id)
	})
}

// quick asks rate times a second in all for what takes no time.
func (c *users) quick(n, rate int) {
	c.clients(n, "quick", func(k *conn, r *rand.Rand, id string) string {
		time.Sleep(time.Duration(r.ExpFloat64() * float64(n) * float64(time.Second) / float64(rate)))
		begin := time.Now()
		wrong := did(k.do("GET", "/work/"+id, ""), id)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.took = append(c.took, time.Since(begin))
		return wrong
	})
}

// awaits have nothing computed for them for a second.
func (c *users) awaits(n int) {
	c.clients(n, "await", func(k *conn, r *rand.Rand, id string) string {
		return did(k.do("GET", "/await/"+id+"?ms=1000", ""), id)
	})
}

// polls all get their answers at once, and all come back at once.
func (c *users) polls(n int) {
	c.clients(n, "poll", func(k *conn, r *rand.Rand, id string) string {
		if a := k.do("GET", "/poll/"+id, ""); !a.ok() || !strings.Contains(a.body, `"`+id+`"`) {
			return a.String()
		}
		return ""
	})
}

// streams are read to the end, half of them as EventSource does, the others as a client of a language model does.
func (c *users) streams(n int) {
	c.clients(n/2, "events", func(k *conn, r *rand.Rand, id string) string {
		n := 8 + r.IntN(12)
		return c.stream(k, n, "GET", fmt.Sprintf("/events/%s?n=%d", id, n), "", "Accept: text/event-stream", "Cache-Control: no-cache")
	})
	c.clients(n-n/2, "chat", func(k *conn, r *rand.Rand, id string) string {
		n := 30 + r.IntN(30)
		return c.stream(k, n, "POST", "/chat/"+id, fmt.Sprintf(`{"stream":true,"max_tokens":%d}`, n), "Accept: application/json", "Content-Type: application/json")
	})
}

func (c *users) stream(k *conn, n int, method, path, body string, header ...string) string {
	if err := k.send(method, path, body, header...); err != nil {
		return err.Error()
	}
	k.SetDeadline(time.Now().Add(4 * patience))
	resp, err := http.ReadResponse(k.r, nil)
	if err != nil {
		k.close()
		return err.Error()
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || !strings.HasPrefix(got, "text/event-stream") {
		k.close()
		return fmt.Sprint(resp.StatusCode, " ", got)
	}
	instance := resp.Header.Get("X-Instance")
	c.opened(instance, 1)
	defer c.opened(instance, -1)
	events := bufio.NewReader(resp.Body)
	for i := range n + 1 {
		want := fmt.Sprintf("data: %d\n", i)
		if i == n {
			want = "data: [DONE]\n"
		}
		line, err := events.ReadString('\n')
		if err == nil && line == want {
			line, err = events.ReadString('\n')
			want = "\n"
		}
		if err != nil || line != want {
			k.close()
			return fmt.Sprintf("event %d of %d from %s: %q, %v", i, n, instance, line, err)
		}
	}
	if _, err := events.ReadByte(); err != io.EOF || resp.Close {
		k.close()
	}
	return ""
}

func (c *users) opened(instance string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[instance] += n
}

// spread is how many more streams are open on one of n instances than on another.
func (c *users) spread(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := slices.Collect(maps.Values(c.open))
	for len(all) < n {
		all = append(all, 0)
	}
	return slices.Max(all) - slices.Min(all)
}

// uploads come in pieces, over two seconds.
func (c *users) uploads(n int) {
	c.clients(n, "upload", func(k *conn, r *rand.Rand, id string) string {
		body := random(r, 200<<10+r.IntN(100<<10))
		if err := k.dial(); err != nil {
			return err.Error()
		}
		k.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(k, "PUT /upload/%s HTTP/1.1\r\nHost: e2e.test\r\nContent-Length: %d\r\n\r\n", id, len(body))
		for piece := range slices.Chunk(body, len(body)/20+1) {
			time.Sleep(100 * time.Millisecond)
			if _, err := k.Write(piece); err != nil {
				break // the answer says why
			}
		}
		s := shot{answer: k.receive("PUT")}
		s.holds(body)
		if !s.ok() {
			return s.answer.String() + s.wrong
		}
		return ""
	})
}

// downloads are read slowly: neither lb nor the kernels between hold all of it.
func (c *users) downloads(n int) {
	c.clients(n, "download", func(k *conn, r *rand.Rand, id string) string {
		const size = 12 << 20
		k.close()
		if err := k.dial(); err != nil {
			return err.Error()
		}
		k.Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		if err := k.send("GET", fmt.Sprintf("/download/%s?bytes=%d", id, size), ""); err != nil {
			return err.Error()
		}
		resp, err := http.ReadResponse(k.r, nil)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		for got := int64(0); ; {
			n, err := io.CopyN(io.Discard, resp.Body, size/20)
			if got += n; err == io.EOF && got == size && resp.StatusCode == 200 {
				return ""
			}
			if err != nil {
				return fmt.Sprintf("%d, %d of %d bytes: %v", resp.StatusCode, got, size, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

// talks are WebSockets, whose messages come back. Who is told to connect again does.
func (c *users) talks(n int) {
	c.clients(n, "websocket", func(k *conn, r *rand.Rand, id string) string {
		ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
		defer cancel()
		s, _, err := websocket.Dial(ctx, "http://"+c.addr+"/ws", nil)
		if err != nil {
			return err.Error()
		}
		defer s.CloseNow()
		_, _, err = s.Read(ctx) // its name
		for i := 0; err == nil && i < 100 && c.goesOn(); i++ {
			var back []byte
			text := fmt.Sprint(id, " ", i)
			time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
			if err = s.Write(ctx, websocket.MessageText, []byte(text)); err == nil || websocket.CloseStatus(err) == -1 {
				_, back, err = s.Read(ctx) // also where the close frame is read
			}
			if err == nil && string(back) != text {
				return fmt.Sprintf("%q came back as %q", text, back)
			}
		}
		if websocket.CloseStatus(err) == websocket.StatusServiceRestart {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.restarts++
			return ""
		}
		if err != nil {
			return err.Error()
		}
		s.Close(websocket.StatusNormalClosure, "")
		return ""
	})
}

// everybody is one of each kind, with load enough that a limit can be seen.
func (c *users) everybody() {
	c.pages(8)
	c.quick(4, 40)
	c.awaits(10)
	c.streams(60)
	c.polls(40)
	c.uploads(6)
	c.downloads(4)
	c.talks(20)
}

// learns waits until adaptive has found out that the instances compute.
func (l *lb) learns() {
	l.t.Helper()
	eventually(l.t, "each instance has a limit", func() bool {
		for _, b := range l.pool().Backends {
			if b.Limit == 0 {
				return false
			}
		}
		return true
	})
}

// rests waits until nothing is in work, waits or is open.
func (l *lb) rests() {
	l.t.Helper()
	var p poolStatus
	defer func() {
		if l.t.Failed() {
			l.t.Logf("%+v", p)
		}
	}()
	eventually(l.t, "nothing is in work or waits", func() bool {
		p = l.pool()
		busy := p.Queue.Waiting
		for _, b := range p.Backends {
			busy += b.Inflight + b.Parked + b.Tunnels
		}
		return busy == 0
	})
}

// Everything that apps have beside what they compute, while adaptive holds requests back: each is answered, and whole.
// Meanwhile the configuration is read again, an instance drains and comes back, and lb hands over to its successor. In the end
// no place is taken.
func TestAdaptive(t *testing.T) {
	apps := startApps(t, 4, "busy.mjs")
	s := setup{backends: apps, pool: `strategy = "adaptive"`, server: `grace = "2m"`}
	n := startLineage(t, s)
	c := newUsers(t, n.addr)
	c.everybody()
	n.learns()
	if apart := n.even(c); apart > 60/4 {
		t.Errorf("of 60 streams, one instance has %.1f more than another", apart)
	}

	for i := range 3 {
		s.pool = fmt.Sprintf("strategy = \"adaptive\"\nretries = %d", 3+i)
		n.reload(s, "msg=reloaded", i+1)
		c.more(t, 1)
	}
	n.cli(0, "drained", "drain", "app", "b", "--wait", "2m")
	c.more(t, 2)
	n.cli(0, "in use", "ready", "app", "b")
	c.more(t, 1)
	was := len(n.pids())
	if code, out, err := n.upgrade("--watch", "100ms"); code != 0 || !strings.Contains(out, "is in charge") {
		t.Fatalf("upgrade: %d %s%s", code, out, err)
	}
	eventually(t, "the next process is ready", func() bool { return len(n.pids()) == was+1 })
	n.learns() // anew
	n.event(`msg=stopped`)
	n.even(c)

	waits := n.pool().Queue.Waits
	c.end()
	c.verdict(t)
	n.rests()
	p := n.pool()
	t.Logf("%v; %d WebSockets were told to connect again, %d requests waited, limits %v", c.done, c.restarts, waits, p.Backends)
	if waits == 0 || p.Queue.Timeouts+p.Queue.Full+p.Failed != 0 {
		t.Errorf("%d requests waited, %+v", waits, p)
	}
	for _, a := range apps {
		a.order("streams")
		if open := a.hears("open"); open != "0" {
			t.Errorf("%s streams still %s answers", a.name, open)
		}
	}
	// As many as there are instances find a place at once. It may take a while until one that was slow under load is not
	// avoided any more.
	eventually(t, "one for each instance, and none waits", func() bool {
		before := n.pool().Queue.Waits
		allOK(t, flood(n.addr, len(apps), len(apps), func(k *conn, i int) sample {
			path := fmt.Sprintf("/await/%d?ms=100", i)
			return sample{path, k.do("GET", path, "")}
		}))
		return n.pool().Queue.Waits == before || t.Failed()
	})
	n.end()
}

// even holds what lasts to an even spread: streams, long polls and WebSockets go where the fewest are. They end by chance, and
// others come only then, so that some more may be on one than on another. It returns by how much the streams alone differ: who
// has come back and has few WebSockets gets more of those.
func (l *lb) even(c *users) (streams float64) {
	l.t.Helper()
	c.more(l.t, 1)
	const looks = 40
	all, diff, apart := 0, 0, 0
	for range looks {
		var here []int
		for _, b := range l.pool().Backends {
			here = append(here, b.Parked+b.Tunnels)
			all += b.Parked + b.Tunnels
		}
		diff += slices.Max(here) - slices.Min(here)
		apart += c.spread(len(here))
		time.Sleep(50 * time.Millisecond)
	}
	l.t.Logf("%d last, %.1f more on one than on another; of the streams %.1f", all/looks, float64(diff)/looks, float64(apart)/looks)
	if diff > all/len(l.pool().Backends)/2 {
		l.t.Errorf("of %d that last, one instance has %.1f more than another", all/looks, float64(diff)/looks)
	}
	return float64(apart) / looks
}

func quantile(all []time.Duration, q float64) time.Duration {
	all = slices.Clone(all)
	slices.SortFunc(all, cmp.Compare[time.Duration])
	return all[int(q*float64(len(all)-1))]
}

// The same app under adaptive and under least_conn, by turns: who asks for what takes no time does not wait longer.
func TestAdaptiveQuick(t *testing.T) {
	apps := startApps(t, 4, "busy.mjs")
	strategies := []string{"adaptive", "least_conn"}
	lbs := map[string]*lb{}
	took := map[string][]time.Duration{}
	var beside []*users
	for _, name := range strategies {
		l := startLB(t, setup{backends: apps, pool: fmt.Sprintf("strategy = %q", name)})
		lbs[name] = l
		c := newUsers(t, l.addr) // what lasts goes on all the time
		c.streams(30)
		c.polls(20)
		c.awaits(5)
		beside = append(beside, c)
	}
	phase := func(l *lb, d time.Duration) (*users, func()) {
		c := newUsers(t, l.addr)
		c.pages(8)
		c.quick(8, 80)
		return c, func() { time.Sleep(d); c.end(); c.verdict(t) }
	}
	_, over := phase(lbs["adaptive"], 0)
	lbs["adaptive"].learns()
	over()
	// Half as long is usual. The p99 of a few hundred is the worst handful of them, and the machine, when it is busy with something
	// else for a moment, chooses whom it hits. Who comes off badly by that does so no more when there are many more to judge by.
	const most = 2
	pages, p99 := map[string]int{}, map[string]time.Duration{}
	for round := 0; round < 5 || round < 25 && p99["adaptive"] > most*p99["least_conn"]; round++ {
		for _, name := range strategies {
			c, over := phase(lbs[name], 2*time.Second)
			over()
			took[name] = append(took[name], c.took...)
			pages[name] += c.count("page")
			p99[name] = quantile(took[name], .99)
		}
	}
	for _, c := range beside {
		c.end()
		c.verdict(t)
	}
	for _, name := range strategies {
		l, all := lbs[name], took[name]
		t.Logf("%s: %d pages; %d quick ones: p50 %v, p90 %v, p99 %v; %d waited in lb", name, pages[name], len(all),
			quantile(all, .5), quantile(all, .9), p99[name], l.pool().Queue.Waits)
		l.rests()
		l.stop(0)
	}
	if p99["adaptive"] > most*p99["least_conn"] {
		t.Errorf("p99 is %v under adaptive, %v under least_conn", p99["adaptive"], p99["least_conn"])
	}
}
