package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lb/history"
)

// stage is what a Live looks at in tests.
type stage struct {
	mu     sync.Mutex
	status Status
	events []Event
}

func (s *stage) happens(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, Event{Event: what})
}

func (s *stage) live() *Live {
	s.status.Pools = []Pool{PoolStatus(newPool("a", "b"), "first")}
	return NewLive(LiveSources{
		Status: func() Status {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.status
		},
		Samples: func(pool, backend string, n int) []history.Sample {
			all := []history.Sample{{Took: time.Second, Requests: 1}, {Took: 2 * time.Second, Requests: 4, Errors: 1, P50: .001, P99: .002, Inflight: 3, Waiting: 4, Tunnels: 5, Sent: 6, Received: 8}}
			return all[max(0, len(all)-n):]
		},
		Events: func(n int) ([]Event, int) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.events[n:], len(s.events)
		},
	})
}

// heard is what a viewer got.
type heard struct {
	kind string
	message
}

func (v *viewer) next(t *testing.T) (h heard) {
	t.Helper()
	b, ok := <-v.messages
	if !ok {
		t.Fatal("dropped")
	}
	kind, data, _ := strings.Cut(string(b), "\n")
	h.kind, _ = strings.CutPrefix(kind, "event: ")
	data = strings.TrimPrefix(data, "retry: 1000\n")
	if !strings.HasPrefix(data, "data: ") || !strings.HasSuffix(data, "\n\n") || strings.Count(data, "\n") != 2 {
		t.Fatalf("not a server-sent event: %q", b)
	}
	if err := json.Unmarshal([]byte(data[6:]), &h.message); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{}
		l := s.live()
		s.happens("one")
		ctx, end := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() {
			defer close(over)
			l.Run(ctx)
		}()
		join := func() *viewer {
			v := &viewer{messages: make(chan []byte, backlog)}
			l.joins <- v
			return v
		}
		first := join()
		h := first.next(t)
		if h.kind != "full" || len(h.Samples) != 1 || len(h.Samples[0]) != 3 || len(h.Samples[0][2]) != 2 || h.Ever != 1 || len(h.Events) != 1 {
			t.Errorf("the first message: %+v", h)
		}
		if want := (sample{2, .5, 1, 2, 3, 4, 5, 7}); h.Samples[0][0][1] != want {
			t.Errorf("sample %v, want %v", h.Samples[0][0][1], want)
		}
		l.Tick()
		synctest.Wait()
		if h := first.next(t); h.kind != "tick" || len(h.Samples[0][1]) != 1 || h.Samples[0][1][0][0] != 2 || h.Status.Pools[0].Backends[1].Name != "b" || len(h.Events) != 0 {
			t.Errorf("tick: %+v", h)
		}
		// Who joins gets all there is, and the others what is new to them.
		s.happens("two")
		second := join()
		if h := second.next(t); h.Ever != 2 || len(h.Events) != 2 {
			t.Errorf("full: %+v", h.Events)
		}
		time.Sleep(time.Second)
		l.News()
		synctest.Wait()
		if h := first.next(t); h.kind != "news" || h.Samples != nil || len(h.Events) != 1 || h.Events[0].Event != "two" || h.Ever != 2 {
			t.Errorf("news: %+v", h)
		}
		second.next(t)
		// A flood of news is one message, soon.
		begin := time.Now()
		for range 50 {
			s.happens("more")
			l.News()
			synctest.Wait()
		}
		if h := first.next(t); len(h.Events) != 50 || time.Since(begin) > newsPause {
			t.Errorf("%d events after %v", len(h.Events), time.Since(begin))
		}
		// Who does not read is dropped, and does not hold up others.
		for range 2 * backlog {
			l.Tick()
			synctest.Wait()
			first.next(t)
		}
		n := 0
		for range second.messages { // closed
			n++
		}
		if n != backlog {
			t.Errorf("%d messages were kept for who does not read, want %d", n, backlog)
		}
		l.leaves <- second // as its handler does
		l.leaves <- first
		if _, ok := <-first.messages; ok {
			t.Error("who left gets more")
		}
		third := join()
		end()
		<-over
		third.next(t)
		if _, ok := <-third.messages; ok {
			t.Error("there is more after the end")
		}
	})
}

// TestNobodyLooks holds that nothing is encoded while nobody looks.
func TestNobodyLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{}
		l := s.live()
		asked := 0
		status := l.src.Status
		l.src.Status = func() Status { asked++; return status() }
		ctx, end := context.WithCancel(t.Context())
		go l.Run(ctx)
		for range 10 {
			l.Tick()
			l.News()
			synctest.Wait()
			time.Sleep(time.Second)
		}
		end()
		synctest.Wait()
		if asked > 0 {
			t.Errorf("asked %d times", asked)
		}
	})
}

// liveServer serves a Live on loopback.
func liveServer(t *testing.T, options ...func(*http.Server)) (*stage, *Live, *http.Server, string) {
	s := &stage{}
	l := s.live()
	ctx, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	srv := NewServer(Handler(Sources{
		Status: l.src.Status, Ready: func() error { return nil }, Events: func() []Event { return nil }, Metrics: http.NotFoundHandler(), Live: l,
	}), slog.New(slog.DiscardHandler))
	for _, o := range options {
		o(srv)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() { srv.Serve(ln) })
	t.Cleanup(func() {
		srv.Close()
		end()
		running.Wait()
	})
	return s, l, srv, "http://" + ln.Addr().String()
}

func TestLiveOverHTTP(t *testing.T) {
	const limit = 20 * time.Millisecond // a stream outlasts it
	_, l, srv, url := liveServer(t, func(s *http.Server) { s.ReadTimeout, s.WriteTimeout = limit, limit })
	res, err := http.Get(url + "/live")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if ct := res.Header.Get("Content-Type"); ct != "text/event-stream" || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", res.Header)
	}
	r := bufio.NewReader(res.Body)
	await := func(line string) {
		t.Helper()
		for {
			s, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("before %q: %v", line, err)
			}
			if s == line+"\n" {
				return
			}
		}
	}
	await("event: full")
	for range 3 {
		time.Sleep(2 * limit) // so that it has passed
		l.Tick()
		await("event: tick")
	}
	// A shutdown does not wait for it.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Errorf("the end of the stream: %v", err)
	}
}

func TestSoManyViewers(t *testing.T) {
	_, _, _, url := liveServer(t)
	var open []io.Closer
	get := func() *http.Response {
		t.Helper()
		res, err := http.Get(url + "/live")
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, res.Body)
		return res
	}
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for i := range maxViewers {
		if res := get(); res.StatusCode != 200 {
			t.Fatalf("viewer %d: %d", i+1, res.StatusCode)
		}
	}
	res := get()
	if b, _ := io.ReadAll(res.Body); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || !strings.Contains(string(b), "64 pages") {
		t.Errorf("one more: %d %s", res.StatusCode, b)
	}
	// A place that is given up can be taken.
	open[0].Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if res := get(); res.StatusCode == 200 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the place of who left stays taken")
		}
	}
}

// TestAStalledViewerIsCut follows /live by a connection that is not read from.
func TestAStalledViewerIsCut(t *testing.T) {
	s, l, _, url := liveServer(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.mu.Lock()
	s.status.Version = strings.Repeat("x", 1<<20) // so that the kernel's buffers are soon full
	s.mu.Unlock()
	io.WriteString(c, "GET /live HTTP/1.1\r\nHost: lb\r\n\r\n")
	for _, n := range []int32{1, 0} {
		for end := time.Now().Add(40 * time.Second); l.viewers.Load() != n; time.Sleep(5 * time.Millisecond) {
			l.Tick()
			if time.Now().After(end) {
				t.Fatalf("%d viewers, want %d", l.viewers.Load(), n)
			}
		}
	}
}

func TestIndexOrPage(t *testing.T) {
	l := (&stage{}).live()
	h := Handler(Sources{
		Status: l.src.Status, Ready: func() error { return nil }, Events: func() []Event { return nil }, Metrics: http.NotFoundHandler(), Live: l,
	})
	for _, c := range []struct{ path, accept, kind, begins string }{
		{"/", "*/*", "text/plain; charset=utf-8", "lb "}, // curl
		{"/", "", "text/plain; charset=utf-8", "lb "},
		{"/", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8", "<!doctype html>"},
		{"/index.txt", "text/html", "text/plain; charset=utf-8", "lb "},
		{"/page/page.css", "text/css", "text/css; charset=utf-8", ""},
		{"/page/page.js", "*/*", "text/javascript; charset=utf-8", ""},
		{"/page/icon.svg", "*/*", "image/svg+xml", "<svg"},
	} {
		r := httptest.NewRequest("GET", c.path, nil)
		r.Header.Set("Accept", c.accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 200 || w.Header().Get("Content-Type") != c.kind || !strings.HasPrefix(w.Body.String(), c.begins) {
			t.Errorf("%s for %q: %d %v %.40q", c.path, c.accept, w.Code, w.Header(), w.Body)
		}
		if w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", c.path, w.Header())
		}
		if strings.HasPrefix(c.kind, "text/html") {
			p := w.Header().Get("Content-Security-Policy")
			if !strings.Contains(p, "default-src 'none'") || !strings.Contains(p, "frame-ancestors 'none'") || strings.Contains(p, "unsafe") {
				t.Errorf("policy %q", p)
			}
			if w.Header().Get("X-Frame-Options") != "DENY" || w.Header().Get("Vary") != "Accept" {
				t.Errorf("%v", w.Header())
			}
			for _, no := range []string{" onclick", " onload", " style=", "<style", "http://", "https://", "javascript:"} {
				if strings.Contains(w.Body.String(), no) {
					t.Errorf("the page has %q in it", no)
				}
			}
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/page/../page.go", nil))
	if w.Code == 200 {
		t.Errorf("serves what is no part of the page: %s", w.Body)
	}
}
