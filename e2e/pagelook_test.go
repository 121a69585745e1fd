package e2e

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
	"github.com/coder/websocket"
)

// fake is an app in the test's own process, for tests of how many or how uneven instances look.
type fake struct {
	name  string
	addr  string
	think atomic.Int64 // ns, about
	fails atomic.Int64 // of a thousand requests
	srv   *http.Server
	over  context.CancelFunc
}

func startFake(t testing.TB, name string, think time.Duration) *fake {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &fake{name: name, addr: ln.Addr().String()}
	a.think.Store(int64(think))
	ctx, over := context.WithCancel(context.Background())
	a.over = over
	a.srv = &http.Server{Handler: a, BaseContext: func(net.Listener) context.Context { return ctx }}
	go a.srv.Serve(ln)
	t.Cleanup(a.end)
	return a
}

// end is like kill -9: whatever is under way is cut.
func (a *fake) end() {
	a.srv.Close()
	a.over() // for tunnels, which the server does not know any more
}

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
		b, err := small(b)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+".png"), b, 0o644)
		}
		if err != nil || len(b) > 150<<10 {
			t.Errorf("%s: %v, %d bytes", name, err, len(b))
		}
	}
	b := startBrowser(t)
	var app, api []*fake
	for i := range 6 {
		app = append(app, startFake(t, fmt.Sprintf("app-%d", i), 20*time.Millisecond))
	}
	for i := range 3 {
		api = append(api, startFake(t, fmt.Sprintf("api-%d", i), 60*time.Millisecond))
	}
	images := []*fake{startFake(t, "images-0", 0), startFake(t, "images-1", 0)}
	l := startLB(t, setup{raw: fleet("page_actions = true", app, api, images)})
	defer traffic(l.url+"/", 300)()
	defer traffic(l.url+"/api/x", 60)()
	var sockets []*websocket.Conn
	for range 40 {
		c, _, err := websocket.Dial(t.Context(), l.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		sockets = append(sockets, c)
	}
	defer func() {
		for _, c := range sockets {
			c.CloseNow()
		}
	}()
	phone := look{width: 360, height: 780, scale: 2, phone: true}
	dark, darkPhone := desk, phone
	dark.dark, darkPhone.dark = true, true
	short := look{width: 1280, height: 640, scale: 1}

	p := b.open(t, l.admin+"/", short)
	wait := 115 * time.Second // until the charts are full
	if os.Getenv("LB_PICTURES_QUICK") != "" {
		wait = 10 * time.Second
	}
	time.Sleep(wait)
	save("page", p.picture(false))
	app[2].end()
	api[1].fails.Store(120)
	if code, _, errs := run(t, lbBinary, "drain", "app", "app-4", "--config", l.config, "--wait", "0s"); code != 0 && code != 5 {
		t.Errorf("drain: %d %s", code, errs)
	}
	time.Sleep(12 * time.Second)
	p.show(desk)
	time.Sleep(time.Second)
	save("page-trouble", p.picture(true))
	p.show(dark)
	time.Sleep(time.Second)
	save("page-dark", p.picture(false))
	p.show(phone)
	time.Sleep(time.Second)
	save("page-phone", p.picture(false))
	value[bool](p, row("app-0")+`.scrollIntoView(), true`)
	p.show(darkPhone)
	time.Sleep(time.Second)
	save("page-phone-dark", p.picture(false))
	p.show(short)
	value[bool](p, row("app-1")+`.querySelector('button').click() || true`)
	time.Sleep(500 * time.Millisecond)
	save("page-ask", p.picture(false))
	p.presses(kb.Escape)
	api[1].fails.Store(0)
	rollout := start(t, "rollout", exec.Command(lbBinary, "rollout", "api", "--config", l.config, "--in-place", "--exec", "sleep 4", "--warmup", "4s"))
	p.until("the second is being restarted", `/1 of 3 restarted/.test(document.querySelector('[data-pool=api] .rollout').innerText) && /is being restarted, for [23]/.test(document.querySelector('[data-pool=api] .rollout').innerText)`)
	p.show(look{width: 1280, height: 420, scale: 1})
	value[bool](p, `document.querySelector('[data-pool=api]').scrollIntoView(), true`)
	save("page-rollout", p.picture(false))
	rollout.kill()
	l.kill()
	time.Sleep(2 * time.Second)
	save("page-lost", p.picture(false))
}

// small makes a PNG one of at most 256 colors, which are enough for lines and letters.
func small(b []byte) ([]byte, error) {
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	const fine = 0xf8 // colors that differ by less are one
	key := func(x, y int) color.RGBA {
		r, g, b, _ := img.At(x, y).RGBA()
		return color.RGBA{uint8(r>>8) & fine, uint8(g>>8) & fine, uint8(b>>8) & fine, 255}
	}
	count, exact := map[color.RGBA]int{}, map[color.RGBA]map[color.RGBA]int{}
	r := img.Bounds()
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			k := key(x, y)
			count[k]++
			if exact[k] == nil {
				exact[k] = map[color.RGBA]int{}
			}
			exact[k][color.RGBAModel.Convert(img.At(x, y)).(color.RGBA)]++
		}
	}
	keys := slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int { return count[b] - count[a] })
	var p color.Palette
	index := map[color.RGBA]uint8{}
	for i, k := range keys[:min(256, len(keys))] {
		index[k] = uint8(i)
		most, n := k, 0
		for c, m := range exact[k] {
			if m > n {
				most, n = c, m
			}
		}
		p = append(p, most)
	}
	out := image.NewPaletted(r, p)
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			k := key(x, y)
			i, ok := index[k]
			if !ok {
				i = uint8(p.Index(img.At(x, y)))
				index[k] = i
			}
			out.SetColorIndex(x, y, i)
		}
	}
	var w bytes.Buffer
	e := png.Encoder{CompressionLevel: png.BestCompression}
	err = e.Encode(&w, out)
	return w.Bytes(), err
}
