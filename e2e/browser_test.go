package e2e

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// chromiums are what the browser is called by those who package it.
var chromiums = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}

// findChromium skips the test where there is no browser, unless LB_E2E_REQUIRE says that there has to be one.
func findChromium(t testing.TB) string {
	t.Helper()
	names := chromiums
	if own := os.Getenv("LB_CHROMIUM"); own != "" {
		names = []string{own}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if strings.Contains(os.Getenv("LB_E2E_REQUIRE"), "chromium") {
		t.Fatalf("there is no browser: none of %q, and LB_E2E_REQUIRE asks for it", names)
	}
	t.Skipf("there is no browser: install chromium, or name one by LB_CHROMIUM; looked for %q", names)
	return ""
}

// browser is a Chromium of its own, with an empty profile. It ends with the test.
type browser struct{ ctx context.Context }

func startBrowser(t testing.TB) *browser {
	t.Helper()
	path := findChromium(t)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-component-update", true),
		chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) { cmd.SysProcAttr = dieWithParent() }),
		chromedp.WSURLReadTimeout(patience),
	)
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, end := chromedp.NewContext(allocator)
	t.Cleanup(end)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return &browser{ctx}
}

// tab is a page that is open. What went wrong in it, and whom it asked, is kept.
type tab struct {
	t      testing.TB
	ctx    context.Context
	origin string

	mu       sync.Mutex
	troubles []string // guarded by mu
	asked    []string // guarded by mu: URLs
}

// look is how a page is shown.
type look struct {
	width, height int64
	scale         float64
	dark, phone   bool
}

var desk = look{width: 1280, height: 900, scale: 1}

// open opens a URL. The page must load; what it does then is up to the caller.
func (b *browser) open(t testing.TB, address string, l look) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	t.Cleanup(cancel)
	p := &tab{t: t, ctx: ctx}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	p.origin = u.Scheme + "://" + u.Host
	if err := chromedp.Listen(ctx, p.hear); err != nil {
		t.Fatal(err)
	}
	p.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, log.Enable, cdp.Empty{})
		return err
	}))
	p.show(l)
	p.do(chromedp.Navigate(address))
	return p
}

// show changes how the page is shown.
func (p *tab) show(l look) {
	p.t.Helper()
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	view := []chromedp.EmulateViewportOption{chromedp.EmulateScale(l.scale)}
	if l.phone {
		view = append(view, chromedp.EmulateMobile, chromedp.EmulateTouch)
	}
	p.do(chromedp.EmulateViewport(l.width, l.height, view...), chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
}

// hear keeps what is worth knowing. It runs on the browser's goroutine and waits for nothing.
func (p *tab) hear(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		p.troubles = append(p.troubles, "exception: "+(&chromedp.ExceptionError{ExceptionDetails: e.ExceptionDetails}).Error())
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			var words []string
			for _, a := range e.Args {
				words = append(words, fmt.Sprintf("%s %s", a.Value, a.Description))
			}
			p.troubles = append(p.troubles, "console: "+strings.Join(words, " "))
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			p.troubles = append(p.troubles, fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	case *network.EventRequestWillBeSent:
		p.asked = append(p.asked, e.Request.URL)
	}
}

// clean fails the test when the page complained, or asked anybody but lb. What begins with one of expected is let pass.
func (p *tab) clean(expected ...string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
next:
	for _, s := range p.troubles {
		for _, e := range expected {
			if strings.HasPrefix(s, e) {
				continue next
			}
		}
		p.t.Errorf("the page complains: %s", s)
	}
	if len(p.asked) == 0 {
		p.t.Error("the page asked for nothing: nobody listens to what it asks")
	}
	for _, u := range p.asked {
		if !strings.HasPrefix(u, p.origin+"/") {
			p.t.Errorf("the page asks another host: %s", u)
		}
	}
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

// value evaluates JavaScript in the page; a promise is waited for.
func value[T any](p *tab, js string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](js, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%v in %s", err, js)
	}
	return v
}

// until waits until JavaScript is true.
func (p *tab) until(what, js string) {
	p.t.Helper()
	for end := time.Now().Add(patience); !value[bool](p, "!!("+js+")"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("waited in vain: %s; the page says:\n%s", what, value[string](p, "document.body.innerText"))
		}
	}
}

// picture takes a screenshot of the page, or of its first screen.
func (p *tab) picture(whole bool) []byte {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if whole {
		b, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
		if err != nil {
			p.t.Fatal(err)
		}
		return b
	}
	b, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}
