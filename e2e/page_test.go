package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// row is JavaScript for the row of a backend.
func row(name string) string { return fmt.Sprintf(`document.querySelector('[data-backend=%q]')`, name) }

// isState waits until the page says a state of a backend, in its attribute and in words.
func (p *tab) isState(name, state string) {
	p.t.Helper()
	p.until(name+" is "+state, row(name)+`?.dataset.state === '`+state+`' && `+
		row(name)+`.querySelector('.state b').textContent.toLowerCase() === '`+state+`'`)
}

func (p *tab) isLive() {
	p.t.Helper()
	p.until("the page is live", `document.body.dataset.live === 'yes'`)
}

// presses sends keys to the page.
func (p *tab) presses(keys string) { p.t.Helper(); p.do(chromedp.KeyEvent(keys)) }

// TestPage looks at the live page of the binary as a person does.
func TestPage(t *testing.T) {
	b := startBrowser(t)
	t.Run("Kill", func(t *testing.T) { pageKill(t, b) })
	t.Run("Drain", func(t *testing.T) { pageDrain(t, b) })
	t.Run("Rollout", func(t *testing.T) { pageRollout(t, b) })
	t.Run("OnlyShows", func(t *testing.T) { pageOnlyShows(t, b) })
	t.Run("OtherSites", func(t *testing.T) { pageOtherSites(t, b) })
	t.Run("Reconnects", func(t *testing.T) { pageReconnects(t, b) })
	t.Run("Upgrade", func(t *testing.T) { pageUpgrade(t, b) })
	t.Run("Hundred", func(t *testing.T) { pageHundred(t, b) })
	t.Run("Accessible", func(t *testing.T) { pageAccessible(t, b) })
}

// pageKill kills an instance. Within two seconds of finding out, lb's page says so.
func pageKill(t *testing.T, b *browser) {
	apps := startApps(t, 3, "express.mjs")
	l := startLB(t, setup{backends: apps, more: "[pool.app.health]\ndown = \"100ms\""})
	load := startLoad(t, l.addr, 4, 100, nil)
	p := b.open(t, l.admin+"/", desk)
	p.isLive()
	for _, a := range apps {
		p.isState(a.name, "ready")
	}
	p.until("requests are counted", `Number(document.getElementById('f-rate').textContent) > 0`)
	p.until("the bars are there", row("b")+`.querySelector('.pc').textContent !== '0 %'`)
	p.until("all is well", `document.getElementById('verdict').dataset.level === 'ok'`)

	// When the page shows another state, by the same clock as lb's.
	value[bool](p, `window.changes = [], new MutationObserver((all) => {
		for (const m of all) if (m.attributeName === 'data-state') window.changes.push([m.target.dataset.backend, m.target.dataset.state, Date.now()])
	}).observe(document.getElementById('pools'), { subtree: true, attributes: true }), true`)
	best := time.Hour
	for range 3 { // the machine may be busy with other things; whoever is always late is late
		from := value[int](p, `window.changes.length`)
		killed := time.Now()
		apps[1].kill()
		p.until("the page shows that b is out", row("b")+`.dataset.state !== 'ready'`)
		shown := value[float64](p, fmt.Sprintf(`window.changes.slice(%d).find(([name, state]) => name === 'b' && state !== 'ready')[2]`, from))
		p.until("and what happened", `[...document.querySelectorAll('#events li')].some((e) => /b (is down|was ejected)/.test(e.textContent) && Date.parse(e.dataset.time) >= `+fmt.Sprint(killed.UnixMilli())+`)`)
		told := value[float64](p, `Math.min(...[...document.querySelectorAll('#events li')].filter((e) => /b (is down|was ejected)/.test(e.textContent)).map((e) => Date.parse(e.dataset.time)).filter((at) => at >= `+fmt.Sprint(killed.UnixMilli())+`))`)
		late := time.Duration(shown-told) * time.Millisecond
		t.Logf("lb noticed %v after the kill, the page showed it %v after that", time.Duration(told-float64(killed.UnixMilli()))*time.Millisecond, late)
		best = min(best, late)
		p.until("why", row("b")+`.querySelector('.why').textContent.includes('refused')`)
		p.until("it is said on top", `document.getElementById('verdict').dataset.level !== 'ok' && document.getElementById('f-ready').textContent === '2 of 3'`)
		apps[1].again(t)
		p.isState("b", "ready")
		p.until("all is well again", `document.getElementById('f-ready').textContent === '3 of 3'`)
		if best < 2*time.Second {
			break
		}
	}
	if best >= 2*time.Second {
		t.Errorf("the page showed it %v after lb knew, three times", best)
	}
	load.end()

	// A reload is among the events, and what it takes away is gone from the page.
	s := setup{backends: apps[:2], log: `format = "off"`}
	s.write(t, l.config, l.logPath)
	l.signal(syscall.SIGHUP)
	p.until("c has left", row("c")+` === null && document.getElementById('f-ready').textContent === '2 of 2'`)
	p.until("the reload is told", `document.querySelector('#events li[data-event=reloaded]')?.textContent.includes('c')`)
	p.clean()
	l.stop(0)
	p.until("that lb is gone", `!document.getElementById('lost').hidden`)
}

// pageDrain drains a backend by keyboard alone, and takes it back.
func pageDrain(t *testing.T, b *browser) {
	apps := []*fake{startFake(t, "a", 0), startFake(t, "b", 0)}
	l := startLB(t, setup{raw: fleet("page_actions = true\npage_host = \"lb.test\"", apps)})
	p := b.open(t, l.admin+"/", desk)
	p.isLive()
	button := row("a") + `.querySelector('button')`
	p.until("there is a button", button)
	value[bool](p, button+`.focus(), true`)
	p.presses(kb.Enter)
	p.until("the page asks", `document.getElementById('ask').open`)
	if got := value[string](p, `document.activeElement.id`); got != "ask-no" {
		t.Errorf("%q has the focus of the question: a second Enter would do it", got)
	}
	if got := value[string](p, `document.getElementById('ask').innerText`); !strings.Contains(got, "Drain a?") || !strings.Contains(got, "One other backend of pool app takes") {
		t.Errorf("the page asks: %q", got)
	}
	p.presses(kb.Escape)
	p.until("the question is gone", `!document.getElementById('ask').open`)
	if !value[bool](p, `document.activeElement === `+button) {
		t.Error("the focus is not where it was")
	}
	if got := l.backends()["a"].State; got != "ready" {
		t.Errorf("it is %s although nobody said so", got)
	}
	p.presses(kb.Enter)
	p.until("the page asks again", `document.getElementById('ask').open`)
	p.presses(kb.Tab)
	p.presses(kb.Enter)
	p.isState("a", "draining")
	p.until("it says what came of it", `document.getElementById('toast').textContent === 'a is empty'`)
	p.until("by whom", `[...document.querySelectorAll('#events li')].some((e) => /a is draining.*by page at 127/.test(e.textContent))`)
	if got := l.backends()["a"].State; got != "draining" {
		t.Errorf("lb says that it is %s", got)
	}
	// The other one is the last: the page says so before it asks for it.
	value[bool](p, `document.querySelectorAll('#pools button')[1].click(), true`)
	p.until("it warns", `document.getElementById('ask').open && !document.getElementById('ask-warning').hidden`)
	p.presses(kb.Escape)

	p.until("the button is another", button+`.textContent === 'Ready'`)
	value[bool](p, button+`.click(), document.getElementById('ask-yes').click(), true`)
	p.isState("a", "ready")
	p.until("it says so", `document.getElementById('toast').textContent === 'a gets requests again'`)

	// What comes from outside is text: here a mistake in the configuration.
	const evil = `<img src=x onerror=alert(1)>`
	(&setup{raw: fleet("page_actions = true", apps) + "[server]\ngrace = \"" + evil + "\"\n"}).write(t, l.config, "")
	l.signal(syscall.SIGHUP)
	p.until("the mistake is told", `document.querySelector('#events li[data-event="not reloaded"]')?.textContent.includes('<img src=x')`)
	if value[int](p, `document.querySelectorAll('img').length`) != 0 {
		t.Error("a text became a part of the page")
	}
	p.clean()
	l.stop(0)
}

// pageRollout looks on as a pool is restarted: first well, then with an instance that fails.
func pageRollout(t *testing.T, b *browser) {
	apps := startApps(t, 3, "express.mjs")
	l := startLB(t, setup{backends: apps, pool: "slow_start = \"1s\"", more: "[pool.app.health]\ndown = \"100ms\""})
	p := b.open(t, l.admin+"/", desk)
	p.isLive()
	const box = `document.querySelector('.rollout')`
	words := func(pattern string) string {
		return box + `.offsetParent && ` + pattern + `.test(` + box + `.innerText)`
	}
	if value[bool](p, box+`.offsetParent !== null`) {
		t.Error("a rollout is shown, and there is none")
	}
	// Its command says where it is, and goes on when it is told to.
	gate := t.TempDir()
	begin := func(script string, args ...string) *process {
		return start(t, "rollout", exec.Command(lbBinary, append([]string{"rollout", "app", "--config", l.config, "--in-place", "--exec",
			fmt.Sprintf("while ! [ -e %s/{name} ]; do sleep 0.05; done; %s", gate, script)}, args...)...))
	}
	open := func(names ...string) {
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(gate, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	first := begin("true", "--warmup", "1h") // until the page has shown it, however long that takes
	p.until("it begins", words(`/^Rollout: 0 of 3 restarted/`))
	p.until("a is restarted", words(`/a is being restarted, for/`)+` && `+row("a")+`.dataset.state === 'draining'`)
	p.until("it is said on top", `/Rollout of pool app: 0 of 3 restarted\./.test(document.getElementById('verdict').textContent)`)
	if got := value[string](p, `document.getElementById('verdict').textContent`); strings.Contains(got, "draining") {
		t.Errorf("it is said twice: %q", got)
	}
	for _, fault := range value[[]string](p, accessibility) {
		t.Error(fault)
	}
	open("a")
	p.until("a warms up", words(`/a is back and warms up, for/`))
	first.kill()
	p.until("it is over", words(`/^Rollout was interrupted: 0 of 3 restarted/`))

	second := begin("true")
	p.until("b follows", words(`/^Rollout: 1 of 3 restarted/`)+` && `+words(`/b is being restarted/`))
	if got := value[string](p, `getComputedStyle(`+box+`.querySelector('.p-done')).flexGrow + getComputedStyle(`+box+`.querySelector('.p-under')).flexGrow + getComputedStyle(`+box+`.querySelector('.p-rest')).flexGrow`); got != "111" {
		t.Errorf("the parts of the bar are %s", got)
	}
	open("b", "c")
	p.until("it is done", words(`/^Rollout finished: 3 of 3 restarted/`)+` && `+box+`.dataset.level === 'ok'`)
	p.until("all is well", `document.getElementById('verdict').dataset.level === 'ok'`)
	if code := second.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}

	for _, name := range []string{"a", "b", "c"} {
		os.Remove(filepath.Join(gate, name))
	}
	open("a")
	third := begin(`test {name} != a || { echo "no such <b>release</b>"; exit 3; }`)
	p.until("it stopped", words(`/^Rollout stopped: 0 of 3 restarted/`)+` && `+box+`.dataset.level === 'bad'`)
	p.until("why", words(`/a is bad and stays out: .*exit status 3/`))
	p.until("it is said on top", `/A rollout of pool app stopped: a is bad and stays out\./.test(document.getElementById('verdict').textContent)`)
	if code := third.wait(); code != 9 {
		t.Errorf("exit code %d", code)
	}
	for _, fault := range value[[]string](p, accessibility) {
		t.Error(fault)
	}
	p.show(look{width: 360, height: 740, scale: 2, phone: true, dark: true})
	for _, fault := range value[[]string](p, accessibility) {
		t.Errorf("dark phone: %s", fault)
	}
	if code, out, errs := run(t, lbBinary, "status", "--config", l.config); !strings.Contains(strings.ReplaceAll(out, "\n", " "), "0 of 3 restarted, stopped") {
		t.Errorf("lb status: %d %s%s", code, out, errs)
	}
	if code, out, errs := run(t, lbBinary, "ready", "--config", l.config, "app", "a"); code != 0 {
		t.Errorf("lb ready: %d %s%s", code, out, errs)
	}
	p.until("it was put back", words(`/a was bad, and was put back: .*exit status 3/`)+` && `+box+`.dataset.level === 'warn'`)
	p.clean()
	l.stop(0)
}

// pageOnlyShows holds that the page does nothing unless it is told that it may.
func pageOnlyShows(t *testing.T, b *browser) {
	l := startLB(t, setup{raw: fleet("", []*fake{startFake(t, "a", 0)})})
	p := b.open(t, l.admin+"/", desk)
	p.isLive()
	p.isState("a", "ready")
	if n := value[int](p, `document.querySelectorAll('#pools button').length`); n != 0 {
		t.Errorf("%d buttons", n)
	}
	for _, ask := range []string{
		`fetch('page/token')`,
		`fetch('page/drain', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: '{"pool": "app", "backend": "a"}'})`,
		`fetch('page/ready', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: '{"pool": "app", "backend": "a"}'})`,
	} {
		if code := value[int](p, ask+`.then((r) => r.status)`); code != 403 {
			t.Errorf("%s: %d", ask, code)
		}
	}
	// Nor are the orders of the unix socket to be had here.
	if code := value[int](p, `fetch('drain', {method: 'POST', body: '{"pool": "app", "backend": "a"}'}).then((r) => r.status)`); code != 404 && code != 405 {
		t.Errorf("POST /drain: %d", code)
	}
	if got := l.backends()["a"].State; got != "ready" {
		t.Errorf("it is %s", got)
	}
	p.clean("network: Failed to load resource") // of what was refused
	l.stop(0)
}

// pageOtherSites has another site's page try to give orders by the browser of somebody who may.
func pageOtherSites(t *testing.T, b *browser) {
	l := startLB(t, setup{raw: fleet("page_actions = true", []*fake{startFake(t, "a", 0), startFake(t, "b", 0)})})
	port := l.admin[strings.LastIndexByte(l.admin, ':')+1:]
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!doctype html><title>other</title>
<form id=form method=post enctype="text/plain" target=frame action="%s/page/drain"><input name='{"pool":"app","backend":"a","wait":"' value='"}'></form>
<iframe id=frame name=frame></iframe><iframe id=page src="%[1]s/"></iframe>`, l.admin)
	}))
	defer other.Close()
	p := b.open(t, other.URL, desk)
	const order = `'{"pool": "app", "backend": "a"}'`
	for _, ask := range []string{
		`fetch('%s/page/drain', {method: 'POST', mode: 'no-cors', body: ` + order + `})`,
		`fetch('%s/page/drain', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: ` + order + `})`,
		`fetch('%s/page/drain', {method: 'POST', headers: {'Content-Type': 'application/json', 'X-LB-Token': 'x'}, body: ` + order + `})`,
		`fetch('%s/page/token').then((r) => r.text())`,
		`fetch('%s/status').then((r) => r.text())`,
	} {
		ask = fmt.Sprintf(ask, l.admin)
		if got := value[string](p, ask+`.then((r) => 'read: ' + (r.type ?? r) + (r.status || ''), (e) => 'kept off')`); got != "kept off" && got != "read: opaque" {
			t.Errorf("%s: %s", ask, got)
		}
	}
	value[bool](p, `document.getElementById('form').submit(), true`)
	l.event(`an order from the page was refused.*order=drain.*why="another site asks"`)
	p.until("the form has been answered", `(() => { try { return !document.getElementById('frame').contentDocument } catch { return true } })()`)
	for _, name := range []string{"a", "b"} {
		if got := l.backends()[name].State; got != "ready" {
			t.Errorf("%s is %s: another site drained it", name, got)
		}
	}
	// The page does not let itself be put into another's frame.
	p.until("the frame is refused", `(() => { try { return !document.getElementById('page').contentDocument } catch { return true } })()`)
	if _, body := l.get("/status"); !strings.Contains(body, `"ready"`) {
		t.Error(body)
	}

	// A name that leads here and is not lb's own: the page shows, and may not act.
	q := b.open(t, "http://lb.localhost:"+port+"/", desk)
	q.isLive()
	if got := value[string](q, `fetch('page/token').then((r) => r.json()).then((a) => a.error)`); !strings.Contains(got, "page_host") {
		t.Errorf("the token by another name: %q", got)
	}
	l.stop(0)
}

// pageReconnects takes lb away and brings another to the same address.
func pageReconnects(t *testing.T, b *browser) {
	a := startFake(t, "a", 0)
	l := startLB(t, setup{raw: fleet("", []*fake{a})})
	p := b.open(t, l.admin+"/", desk)
	p.isLive()
	l.kill()
	p.until("the loss is said", `!document.getElementById('lost').hidden && document.getElementById('lost').textContent.startsWith('Connection lost') && document.getElementById('link-text').textContent === 'Connection lost'`)
	if !value[bool](p, row("a")+` !== null`) {
		t.Error("what was known is gone")
	}
	text := strings.Replace(fleet("", []*fake{a, startFake(t, "b", 0)}), "[admin]\naddress = \"127.0.0.1:0\"", fmt.Sprintf("[admin]\naddress = %q", strings.TrimPrefix(l.admin, "http://")), 1)
	again := &lb{config: filepath.Join(t.TempDir(), "config.toml")}
	s := setup{raw: text}
	s.write(t, again.config, "")
	again.process = start(t, "lb", exec.Command(lbBinary, "run", again.config))
	again.event(`msg=ready`)
	p.isLive()
	p.isState("b", "ready")
	p.until("nothing is said any more", `document.getElementById('lost').hidden`)
	if n := value[int](p, `document.querySelectorAll('section.pool').length`); n != 1 {
		t.Errorf("%d pools are shown", n)
	}
	p.clean("network: Failed to load resource")
	again.stop(0)
}

// pageUpgrade has another process take over: the page goes on with it, and with what the old one knew.
func pageUpgrade(t *testing.T, b *browser) {
	a := startFake(t, "a", 0)
	l := startLineage(t, setup{raw: fleet("", []*fake{a})})
	defer traffic(l.url+"/", 50)()
	p := b.open(t, l.admin+"/", desk)
	p.isLive()
	chart := `(document.querySelector('.pool-head path.rate').getAttribute('d') ?? '').split('L').length`
	p.until("the chart has some seconds", chart+` >= 4`)
	began := value[int](p, chart)
	pid := `fetch('status').then((r) => r.json()).then((st) => st.pid)`
	was := value[int](p, pid)
	value[bool](p, `window.same = true`)
	if code, out, errs := l.upgrade("--watch", "100ms"); code != 0 {
		t.Fatalf("upgrade: %d %s %s", code, out, errs)
	}
	if is := value[int](p, pid); is == was {
		t.Errorf("process %d answers still", is)
	}
	// The old process has let the page go by now, or does within its next message.
	p.until("the page follows the new process", `document.body.dataset.live === 'yes' && document.getElementById('lost').hidden`)
	eventually(t, "the chart goes on", func() bool {
		uptime := value[int](p, `fetch('status').then((r) => r.json()).then((st) => st.uptime_seconds)`)
		return value[int](p, chart) > began && value[int](p, chart) > uptime+2 // else it began with the new process
	})
	p.until("what happened before is known", `[...document.querySelectorAll('#events li')].some((e) => /a is up/.test(e.textContent))`)
	if !value[bool](p, `window.same === true`) {
		t.Error("the page was loaded again")
	}
	p.clean("network: Failed to load resource")
}

// pageHundred shows a hundred backends. Nothing is made anew that only changes; how long it takes is told.
func pageHundred(t *testing.T, b *browser) {
	var all []*fake
	for i := range 100 {
		all = append(all, startFake(t, fmt.Sprintf("app-%03d", i+1), time.Millisecond))
	}
	l := startLB(t, setup{raw: fleet("", all)})
	defer traffic(l.url+"/", 200)()
	p := b.open(t, l.admin+"/", desk)
	p.isLive()
	p.until("a hundred rows", `document.querySelectorAll('#pools tbody tr').length === 100`)
	p.until("requests", row("app-100")+`.querySelector('.c-rate span').textContent !== '0'`)
	value[bool](p, `window.made = 0, new MutationObserver((all) => {
		for (const m of all) for (const n of [...m.addedNodes, ...m.removedNodes]) if (n.nodeType === 1) window.made++
	}).observe(document.getElementById('pools'), { subtree: true, childList: true }), window.frames = [], window.shown = 0,
	new PerformanceObserver((all) => { window.shown += all.getEntries().length }).observe({ type: 'measure' }),
	(function frame(before) { requestAnimationFrame((now) => { if (before) window.frames.push(now - before); frame(now) }) })(0), true`)
	p.until("five more messages", `window.shown >= 5`)
	if n := value[int](p, `window.made`); n != 0 {
		t.Errorf("%d elements were made or removed while nobody came or went", n)
	}
	t.Logf("100 backends: %s", value[string](p, `(() => {
		const at = (list, q) => list.length ? Math.round([...list].sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(q * list.length))] * 10) / 10 : 0
		const work = performance.getEntriesByName('lb-show').map((e) => e.duration)
		return 'a message takes ' + at(work, .5) + ' ms (median; at most ' + at(work, 1) + '), frames come every ' + at(window.frames, .5) + ' ms (median; 99 %: ' + at(window.frames, .99) + ', at most ' + at(window.frames, 1) + ')'
	})()`))
	// Only those who need a look.
	value[bool](p, `document.getElementById('trouble').click(), true`)
	all[41].end()
	p.until("only one is shown", `[...document.querySelectorAll('#pools tbody tr')].filter((e) => e.offsetParent).map((e) => e.dataset.backend).join() === 'app-042'`)
	p.clean()
	l.stop(0)
}

// pageAccessible looks at the page with the eyes of those who do not see it, or not as meant.
func pageAccessible(t *testing.T, b *browser) {
	apps := []*fake{startFake(t, "a", 0), startFake(t, "b", 0), startFake(t, "c", 0)}
	l := startLB(t, setup{raw: fleet("page_actions = true", apps, []*fake{startFake(t, "d", 0)})})
	defer traffic(l.url+"/", 50)()
	p := b.open(t, l.admin+"/", desk)
	p.isLive()
	apps[1].end()
	if code, _, errs := run(t, lbBinary, "drain", "app", "c", "--config", l.config); code != 0 {
		t.Fatalf("drain: %d %s", code, errs)
	}
	p.until("states of all kinds", row("b")+`.dataset.state === 'down' && `+row("c")+`.dataset.state === 'draining'`)
	value[bool](p, `document.querySelector('details').open = true`)
	for name, l := range map[string]look{
		"light": desk, "dark": {width: 1280, height: 900, scale: 1, dark: true},
		"narrow": {width: 1000, height: 700, scale: 1}, "phone": {width: 360, height: 740, scale: 2, phone: true},
		"dark phone": {width: 360, height: 740, scale: 2, phone: true, dark: true},
	} {
		p.show(l)
		for _, fault := range value[[]string](p, accessibility) {
			t.Errorf("%s: %s", name, fault)
		}
	}
	p.show(desk)
	value[bool](p, `document.querySelector('#pools button').click(), true`)
	for _, fault := range value[[]string](p, accessibility) {
		t.Errorf("while it asks: %s", fault)
	}
	p.presses(kb.Escape)

	// By the tabulator key to everything, in the order in which it stands there, and out again.
	value[bool](p, `document.activeElement.blur(), window.scrollTo(0, 0), true`)
	p.do(chromedp.Navigate(l.admin + "/"))
	p.isLive()
	p.until("there are buttons", `document.querySelectorAll('#pools button').length === 4`)
	want := value[[]string](p, `window.label = (e) => e.getAttribute('aria-label') ?? e.id ?? '' ? (e.getAttribute('aria-label') || e.id || e.textContent) : e.textContent,
		[...document.querySelectorAll('a[href], button, input, summary, [tabindex="0"]')].filter((e) => e.offsetParent && !e.closest('dialog')).map(window.label)`)
	var got []string
	for range want {
		p.presses(kb.Tab)
		got = append(got, value[string](p, `window.label(document.activeElement)`))
		if !value[bool](p, `(() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2 })()`) {
			t.Errorf("nobody sees that %q has the focus", got[len(got)-1])
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the tabulator key goes to\n%q, want\n%q", got, want)
	}
	p.clean()
	l.stop(0)
}

// accessibility lists what is wrong with the page as it is now.
const accessibility = `(() => {
	const faults = [], all = (s) => [...document.querySelectorAll(s)], shown = (e) => e.getClientRects().length > 0
	const here = (e) => e.outerHTML.slice(0, 120)
	if (!document.documentElement.lang) faults.push('no language')
	if (!document.title) faults.push('no title')
	for (const s of ['h1', 'main', 'header', 'footer']) if (all(s).length !== 1) faults.push(all(s).length + ' of ' + s)
	let level = 0
	for (const h of all('h1, h2, h3, h4').filter((h) => !h.closest('dialog'))) {
		const n = Number(h.tagName[1])
		if (n > level + 1) faults.push('a heading is left out before ' + here(h))
		level = n
	}
	for (const s of all('section')) {
		const by = s.getAttribute('aria-labelledby')
		if (!by || !document.getElementById(by)?.textContent) faults.push('a section without a name: ' + here(s))
	}
	const ids = all('[id]').map((e) => e.id)
	for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push('twice the id ' + id)
	for (const e of all('button, a[href], summary')) if (shown(e) && !(e.getAttribute('aria-label') ?? e.textContent).trim()) faults.push('no name: ' + here(e))
	for (const e of all('input')) if (!e.labels.length) faults.push('no label: ' + here(e))
	for (const e of all('svg')) if (e.getAttribute('aria-hidden') !== 'true' && !(e.getAttribute('role') === 'img' && e.getAttribute('aria-label')) && !e.closest('[aria-hidden=true]')) faults.push('a picture without words: ' + here(e))
	for (const t of all('table')) {
		const n = t.querySelectorAll('th[scope=col][role=columnheader]').length
		for (const r of t.querySelectorAll('tbody tr')) if (r.children.length !== n || [...r.children].some((c) => c.getAttribute('role') !== 'cell')) faults.push('a row that is unlike its table: ' + here(r))
		if (!n) faults.push('a table without heads: ' + here(t))
	}
	for (const e of all('[aria-hidden=true]')) if (e.querySelector('a, button, input, [tabindex]')) faults.push('what is hidden can have the focus: ' + here(e))
	for (const s of ['[role=status]', '[role=log], [aria-live]', '[role=alert]']) if (!all(s).length) faults.push('nothing is read aloud as ' + s)
	for (const e of all('button, summary, label')) {
		const r = e.getBoundingClientRect()
		if (shown(e) && (r.height < 24 || r.width < 24)) faults.push('hard to hit: ' + r.width + 'x' + r.height + ' ' + here(e))
		if (shown(e) && matchMedia('(max-width: 460px)').matches && r.height < 36) faults.push('hard to hit by thumb: ' + r.height + ' ' + here(e))
	}

	// Contrast of every text against what is behind it.
	const color = (s) => {
		let m = s.match(/^rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)$/)
		if (m) return [m[1] / 255, m[2] / 255, m[3] / 255, m[4] === undefined ? 1 : Number(m[4])]
		m = s.match(/^color\(srgb ([\d.e-]+) ([\d.e-]+) ([\d.e-]+)(?: \/ ([\d.e-]+))?\)$/)
		if (m) return [Number(m[1]), Number(m[2]), Number(m[3]), m[4] === undefined ? 1 : Number(m[4])]
		throw new Error('a color that is not known: ' + s)
	}
	const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1)
	const behind = (e) => {
		const layers = []
		for (; e; e = e.parentElement) {
			const c = color(getComputedStyle(e).backgroundColor)
			layers.push(c)
			if (c[3] === 1) break
		}
		return layers.reverse().reduce((below, c) => over(c, below), [1, 1, 1, 1])
	}
	const light = (c) => {
		const [r, g, b] = c.map((x) => (x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4))
		return .2126 * r + .7152 * g + .0722 * b
	}
	const seen = new Set(), walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement
		if (!walk.currentNode.data.trim() || !shown(e) || seen.has(e) || e.closest('.hidden, .skip, noscript, script') || (document.querySelector('dialog[open]') && !e.closest('dialog'))) continue
		seen.add(e)
		const s = getComputedStyle(e), back = behind(e), fore = over(color(s.color), back)
		const [a, b] = [light(fore), light(back)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05)
		const large = parseFloat(s.fontSize) >= 24 || parseFloat(s.fontSize) >= 18.66 && Number(s.fontWeight) >= 700
		if (ratio < (large ? 3 : 4.5)) faults.push('contrast ' + ratio.toFixed(2) + ' of ' + here(e))
	}
	if (seen.size < 40 && !document.querySelector('dialog[open]')) faults.push('only ' + seen.size + ' texts were looked at')

	// Nothing sticks out at the side.
	const width = document.documentElement.clientWidth
	if (document.documentElement.scrollWidth > width) faults.push('it is ' + document.documentElement.scrollWidth + ' wide in a window of ' + width)
	for (const e of all('body *')) if (shown(e) && !e.closest('.scroll, .hidden, .skip, svg, thead') && e.getBoundingClientRect().right > width + 1) faults.push('sticks out: ' + here(e))
	return faults
})()`
