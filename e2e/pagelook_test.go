package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// fake is an app in the test's own process, for tests of how many or how uneven instances look.
type fake struct {
	name  string
	addr  string
	think atomic.Int64 // ns, about
	fails atomic.Int64 // of a thousand requests
	srv   *http.Server
}

func startFake(t testing.TB, name string, think time.Duration) *fake {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &fake{name: name, addr: ln.Addr().String()}
	a.think.Store(int64(think))
	a.srv = &http.Server{Handler: a}
	go a.srv.Serve(ln)
	t.Cleanup(a.end)
	return a
}

// end is like kill -9: whatever is under way is cut.
func (a *fake) end() { a.srv.Close() }

func (a *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "" {
		c, err := websocket.Accept(w, r, nil)
		if err == nil {
			c.Read(r.Context())
			c.CloseNow()
		}
		return
	}
	time.Sleep(time.Duration(float64(a.think.Load()) * (.5 + rand.ExpFloat64()/2)))
	if rand.Int64N(1000) < a.fails.Load() {
		w.WriteHeader(500)
	}
	fmt.Fprintln(w, "hello from", a.name)
}

// traffic sends requests through lb at about a rate until stop is called. What comes of them is of no interest.
func traffic(url string, rate float64) (stop func()) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}, Timeout: patience}
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		t := time.NewTicker(10 * time.Millisecond)
		defer t.Stop()
		due := 0.
		for begin := time.Now(); ; {
			select {
			case <-done:
				return
			case <-t.C:
			}
			// Slow waves, so that there is something to see.
			for due += rate / 100 * (1 + .25*wave(time.Since(begin))); due >= 1; due-- {
				all.Go(func() {
					res, err := client.Get(url)
					if err == nil {
						res.Body.Close()
					}
				})
			}
		}
	})
	return sync.OnceFunc(func() {
		close(done)
		all.Wait()
		client.CloseIdleConnections()
	})
}

func wave(t time.Duration) float64 {
	x := t.Seconds() / 30
	x -= float64(int(x))
	return 4*max(x, 1-x) - 3
}

// fleet is a configuration of instances in pools.
func fleet(more string, pools ...[]*fake) string {
	var b strings.Builder
	b.WriteString("[listen.web]\naddress = \"127.0.0.1:0\"\n[access_log]\nformat = \"off\"\n[admin]\naddress = \"127.0.0.1:0\"\n" + more + "\n")
	for i, all := range pools {
		name := []string{"app", "api", "images"}[i]
		fmt.Fprintf(&b, "[pool.%s]\nbackends = [\n", name)
		for _, a := range all {
			fmt.Fprintf(&b, "  { address = %q, name = %q },\n", a.addr, a.name)
		}
		b.WriteString("]\n")
		path := map[string]string{"api": "path = \"/api\"\n", "images": "path = \"/images\"\n"}[name]
		fmt.Fprintf(&b, "[route.%s]\n%spool = %q\n", name, path, name)
	}
	return b.String()
}

// TestPagePictures takes the pictures of the documentation, into the directory that LB_PICTURES names.
func TestPagePictures(t *testing.T) {
	dir := os.Getenv("LB_PICTURES")
	if dir == "" {
		t.Skip("LB_PICTURES names no directory to put pictures in; it takes two minutes and compares nothing")
	}
	save := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name+".png"), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b := startBrowser(t)
	var app, api []*fake
	for i := range 8 {
		app = append(app, startFake(t, fmt.Sprintf("127.0.0.1:%d", 3000+i), 20*time.Millisecond))
	}
	for i := range 3 {
		api = append(api, startFake(t, fmt.Sprintf("api-%d", i+1), 60*time.Millisecond))
	}
	l := startLB(t, setup{raw: fleet("page_actions = true", app, api, []*fake{startFake(t, "images-1", 0), startFake(t, "images-2", 0)})})
	defer traffic(l.url+"/", 300)()
	defer traffic(l.url+"/api/x", 40)()
	p := b.open(t, l.admin+"/", desk)
	wait := 100 * time.Second
	if os.Getenv("LB_PICTURES_QUICK") != "" {
		wait = 10 * time.Second
	}
	time.Sleep(wait)
	save("page-well", p.picture(false))
	api[1].fails.Store(900)
	app[2].end()
	time.Sleep(8 * time.Second)
	if code, _, errs := run(t, lbBinary, "drain", "app", "127.0.0.1:3005", "--config", l.config, "--wait", "0s"); code != 0 && code != 2 {
		t.Errorf("drain: %d %s", code, errs)
	}
	time.Sleep(4 * time.Second)
	save("page-light", p.picture(true))
	dark := desk
	dark.dark = true
	p.show(dark)
	time.Sleep(time.Second)
	save("page-dark", p.picture(true))
	p.show(look{width: 360, height: 780, scale: 2, phone: true})
	time.Sleep(2 * time.Second)
	save("page-phone", p.picture(false))
	save("page-phone-all", p.picture(true))
	p.show(look{width: 360, height: 780, scale: 2, phone: true, dark: true})
	save("page-phone-dark", p.picture(true))
	p.show(desk)
	value[bool](p, `document.querySelector('[data-backend="127.0.0.1:3001"] button').click() || true`)
	time.Sleep(500 * time.Millisecond)
	save("page-ask", p.picture(false))
	value[bool](p, `document.querySelector('#ask-no').click() || true`)
	l.stop(0)
	time.Sleep(3 * time.Second)
	save("page-lost", p.picture(false))
}
