package admin

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"encoding/hex"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"
)

// assets is the live page: plain files, which need nothing else.
//
//go:embed page
var assets embed.FS

var assetTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

// policy lets the page load its own files and talk to its own lb, and nothing else: whatever a name or a reason may hold,
// it cannot become a script, and no other site can have the page in a frame to be clicked on unawares.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

func asset(w http.ResponseWriter, name string) {
	b, err := assets.ReadFile("page/" + name)
	if err != nil {
		text(w, http.StatusNotFound, "not found\n")
		return
	}
	h := w.Header()
	h.Set("Content-Type", assetTypes[path.Ext(name)])
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	w.Write(b)
}

// Page is what the live page may do beside showing. There is no login: whoever reaches the address may do it, but no
// other web site in a browser that reaches it.
type Page struct {
	rules   func() (on bool, host string)
	actions Actions
	log     *slog.Logger
	token   string // of this process; who knows it has read from the page's origin
}

// NewPage makes a Page. rules is asked for each request: whether the page may do anything, and under which name it may be
// reached beside localhost and addresses, "" for none.
func NewPage(rules func() (on bool, host string), a Actions, log *slog.Logger) *Page {
	var b [32]byte
	rand.Read(b[:])
	return &Page{rules: rules, actions: a, log: log, token: hex.EncodeToString(b[:])}
}

func servePage(mux *http.ServeMux, p *Page) {
	for _, name := range []string{"page.css", "page.js", "icon.svg"} {
		mux.HandleFunc("GET /page/"+name, func(w http.ResponseWriter, r *http.Request) { asset(w, name) })
	}
	if p == nil {
		return
	}
	mux.HandleFunc("GET /page/token", func(w http.ResponseWriter, r *http.Request) {
		if why := p.forbids(r); why != "" {
			answer(w, http.StatusForbidden, Fault{why})
			return
		}
		answer(w, http.StatusOK, map[string]string{"token": p.token})
	})
	mux.HandleFunc("POST /page/drain", p.order("drain", func(ctx context.Context, o Order) (any, error) {
		return p.actions.Drain(ctx, o.Pool, o.Backend)
	}))
	mux.HandleFunc("POST /page/ready", p.order("ready", func(ctx context.Context, o Order) (any, error) {
		return p.actions.Ready(ctx, o.Pool, o.Backend, o.Now)
	}))
}

// order serves one kind of order.
func (p *Page) order(what string, do func(context.Context, Order) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		why := p.forbids(r)
		if why == "" {
			why = p.forbidsOrder(r)
		}
		if why != "" {
			p.log.Warn("an order from the page was refused", "order", what, "client", r.RemoteAddr, "why", why)
			answer(w, http.StatusForbidden, Fault{why})
			return
		}
		o, ok := readOrder(w, r)
		if !ok {
			return
		}
		ctx, cancel, ok := patience(w, r, o.Wait, DefaultWait)
		if !ok {
			return
		}
		defer cancel()
		out, err := do(context.WithValue(ctx, callerKey{}, "page at "+r.RemoteAddr), o)
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, out)
	}
}

// forbids says why nothing that r asks for is for it, else "".
//
// A name that somebody else owns may lead to this address: then a page from there is of the same origin as this one, to
// the browser (DNS rebinding). Who says an address or a name that is known to be ours did not come that way.
func (p *Page) forbids(r *http.Request) string {
	on, name := p.rules()
	switch site := r.Header.Get("Sec-Fetch-Site"); {
	case !on:
		return "the page may only show: page_actions = true in [admin] allows more"
	case !ownHost(r.Host, name):
		return "the page is not reached by this name: use an address or localhost, or set page_host in [admin]"
	case site != "" && site != "same-origin":
		return "another site asks"
	}
	return ""
}

// forbidsOrder says why an order is not taken from r, else "". The token is the proof that whoever sends it has read the
// page of this process; the rest is there so that it does not hang on one thing alone.
func (p *Page) forbidsOrder(r *http.Request) string {
	origin := r.Header.Get("Origin")
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case origin == "" && r.Header.Get("Sec-Fetch-Site") == "":
		return "no browser says where this comes from; programs have the unix socket"
	case origin != "" && !strings.EqualFold(origin, "http://"+r.Host) && !strings.EqualFold(origin, "https://"+r.Host):
		return "another site asks"
	case kind != "application/json":
		return "wants Content-Type: application/json"
	case subtle.ConstantTimeCompare([]byte(r.Header.Get("X-LB-Token")), []byte(p.token)) != 1:
		return "the token is not of this process: load the page again"
	}
	return ""
}

// ownHost reports whether a Host header is an address, localhost or name, which may be "".
func ownHost(host, name string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	host = strings.TrimSuffix(host, ".")
	return strings.EqualFold(host, "localhost") || name != "" && strings.EqualFold(host, strings.TrimSuffix(name, "."))
}
