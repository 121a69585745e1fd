package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lb/admin"
)

// apiDoc is docs/api.md: its endpoints by "METHOD /path", and whether the address has them, too.
func apiDoc(t *testing.T) (text string, endpoints map[string]bool) {
	t.Helper()
	data, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	endpoints = map[string]bool{}
	open := true
	for _, line := range strings.Split(string(data), "\n") {
		if line == "Served on the socket only." {
			open = false
		}
		if m := regexp.MustCompile("^### `([A-Z]+ /\\S*)`$").FindStringSubmatch(line); m != nil {
			endpoints[m[1]] = open
		}
	}
	return string(data), endpoints
}

// TestAPIDocPaths: what docs/api.md has is what the code serves.
func TestAPIDocPaths(t *testing.T) {
	_, documented := apiDoc(t)
	served := map[string]bool{}
	for _, pattern := range []string{"../admin/*.go", "*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			src, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`mux\.Handle(?:Func)?\("([A-Z]+ /[^"]*)"`).FindAllSubmatch(src, -1) {
				path := strings.TrimSuffix(string(m[1]), "{$}")
				if path == "GET /page/" {
					for _, name := range []string{"page.css", "page.js", "icon.svg"} {
						served[path+name] = true
					}
					continue
				}
				served[path] = true
			}
		}
	}
	if a, b := slices.Sorted(maps.Keys(documented)), slices.Sorted(maps.Keys(served)); !slices.Equal(a, b) {
		t.Errorf("docs/api.md has\n%s\nand the code serves\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
	}
}

// TestAPIPlaces asks for each endpoint at both places. At the address nothing that is not documented there is served, and no
// POST changes anything.
func TestAPIPlaces(t *testing.T) {
	a := newInstance(t, "a", nil)
	path := filepath.Join(t.TempDir(), "lb.sock")
	h := startWith(t, pools(a.addr, "127.0.0.1:1")+kept, strings.Replace(everywhere, "[admin]\n", fmt.Sprintf("[admin]\nsocket = %q\n", path), 1))
	over := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	address := "http://" + h.AdminAddrs()[0].String()
	fingerprint := func() string {
		var s strings.Builder
		for _, p := range h.Status().Pools {
			for _, b := range p.Backends {
				fmt.Fprintf(&s, "%s %v %v;", b.Name, b.Weight, b.State == admin.Draining)
			}
		}
		return s.String()
	}
	before := fingerprint()
	ask := func(c *http.Client, method, url, body string) int {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel() // of the endless ones only the beginning is read
		req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	_, endpoints := apiDoc(t)
	orders := []string{
		fmt.Sprintf(`{"pool": "app", "backend": %q}`, a.addr), fmt.Sprintf(`{"pool": "app", "backend": %q, "weight": "9"}`, a.addr), `{"pool": "app", "address": "2"}`, ``,
	}
	for e, open := range endpoints {
		method, path, _ := strings.Cut(e, " ")
		if method == "POST" {
			for _, o := range orders {
				want := []int{404, 405}
				if open {
					want = []int{403}
				}
				if code := ask(h.client, method, address+path, o); !slices.Contains(want, code) {
					t.Errorf("%s at the address: %d", e, code)
				}
			}
			if code := ask(over, method, "http://lb"+path, "nonsense"); code == 404 || code == 405 {
				t.Errorf("%s on the socket: %d", e, code)
			}
			continue
		}
		code := ask(h.client, method, address+path+"?wait=0s", "")
		if open && code != 200 && !(path == "/page/token" && code == 403) || !open && code != 404 {
			t.Errorf("%s at the address: %d", e, code)
		}
		if code := ask(over, method, "http://lb"+path+"?wait=0s", ""); code != 200 && path != "/page/token" && !(strings.Contains(path, "{id}") && code == 410) {
			t.Errorf("%s on the socket: %d", e, code)
		}
		for _, other := range []string{"POST", "PUT", "DELETE", "PATCH"} {
			if _, there := endpoints[other+" "+path]; !there {
				if code := ask(h.client, other, address+path, orders[0]); code != 405 && code != 404 {
					t.Errorf("%s %s at the address: %d", other, path, code)
				}
			}
		}
	}
	if is := fingerprint(); is != before {
		t.Errorf("something changed:\n%s\n%s", before, is)
	}
}

// TestAPIDocExamples reads each example as what it is said to be: no field that is not there, and none that is not shown.
func TestAPIDocExamples(t *testing.T) {
	text, _ := apiDoc(t)
	of := map[string]func() any{
		"Fault": func() any { return new(admin.Fault) }, "Status": func() any { return new(admin.Status) }, "[]Event": func() any { return new([]admin.Event) },
		"Order": func() any { return new(admin.Order) }, "Drained": func() any { return new(admin.Drained) }, "Readied": func() any { return new(admin.Readied) },
		"Weighing": func() any { return new(admin.Weighing) }, "Weighed": func() any { return new(admin.Weighed) }, "Joining": func() any { return new(admin.Joining) },
		"Leaving": func() any { return new(admin.Leaving) }, "Verdict": func() any { return new(admin.Verdict) }, "Decision": func() any { return new(admin.Decision) },
		"RolloutProgress": func() any { return new(admin.RolloutProgress) },
		"RolloutOrder":    func() any { return new(admin.RolloutOrder) }, "Rollout": func() any { return new(admin.Rollout) },
		"RolloutStep": func() any { return new(admin.RolloutStep) }, "RolloutView": func() any { return new(admin.RolloutView) },
		"RolloutDrained": func() any { return new(admin.RolloutDrained) }, "RolloutChecked": func() any { return new(admin.RolloutChecked) },
		"UpgradeOrder": func() any { return new(admin.UpgradeOrder) }, "Upgraded": func() any { return new(admin.Upgraded) },
	}
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile("(?s)<!-- (\\S+) -->\n```json\n(.*?)```").FindAllStringSubmatch(text, -1) {
		name, example := m[1], m[2]
		if of[name] == nil {
			t.Errorf("unknown example %s", name)
			continue
		}
		seen[name] = true
		v := of[name]()
		d := json.NewDecoder(strings.NewReader(example))
		d.DisallowUnknownFields()
		if err := d.Decode(v); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := io.Copy(io.Discard, d.Buffered()); err != nil {
			t.Error(err)
		}
		// What the example leaves out is optional: it would be there otherwise, empty as it is.
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var shown, all any
		if json.Unmarshal([]byte(example), &shown) != nil || json.Unmarshal(again, &all) != nil {
			t.Fatal("does not read again")
		}
		for _, field := range missing(shown, all, name) {
			t.Errorf("the example of %s lacks %s", name, field)
		}
	}
	if len(seen) != len(of) {
		t.Errorf("there are examples of %q", slices.Sorted(maps.Keys(seen)))
	}
}

// missing lists the fields that all has and shown has not.
func missing(shown, all any, at string) (fields []string) {
	switch all := all.(type) {
	case map[string]any:
		s, _ := shown.(map[string]any)
		for k, v := range all {
			if _, ok := s[k]; !ok {
				fields = append(fields, at+"."+k)
			} else {
				fields = append(fields, missing(s[k], v, at+"."+k)...)
			}
		}
	case []any:
		s, _ := shown.([]any)
		for i := range min(len(s), len(all)) {
			fields = append(fields, missing(s[i], all[i], fmt.Sprintf("%s[%d]", at, i))...)
		}
	}
	return fields
}

// TestExplainStream reads decisions as a program does.
func TestExplainStream(t *testing.T) {
	a := newInstance(t, "a", nil)
	h := start(t, pools(a.addr)+kept)
	web := h.private()
	srv := &http.Server{Handler: web}
	ln, err := plainListen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(ln)
	defer srv.Close()
	get := func(query string) (int, []byte) {
		res, err := h.client.Get("http://" + ln.Addr().String() + "/explain" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, b
	}
	for _, query := range []string{"?last=-1", "?last=x", "?last=10001", "?wait=25h", "?wait=x", "?gap=-1s", "?gap=2h"} {
		if code, b := get(query); code != 400 || !bytes.Contains(b, []byte("last is a number")) {
			t.Errorf("%s: %d %s", query, code, b)
		}
	}
	if code, _ := get("?pool=nosuch"); code != 404 {
		t.Errorf("an unknown pool: %d", code)
	}
	if code, b := get("?wait=0s"); code != 200 || bytes.Count(b, []byte("\n")) != 1 || !bytes.Contains(b, []byte(`"attempt":0`)) {
		t.Errorf("%d %s", code, b)
	}
	l := h.load(2)
	code, b := get("?pool=app&last=5&wait=20s")
	l.end(t)
	if code != 200 || bytes.Count(b, []byte("\n")) != 5 || bytes.Count(b, []byte(`"chosen":"`+a.addr+`"`)) != 5 {
		t.Errorf("%d %s", code, b)
	}
}
