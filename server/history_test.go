package server

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"lb/admin"
)

// TestStatusTellsOfLate asks for what was recent, before and after a reload.
func TestStatusTellsOfLate(t *testing.T) {
	a, b := app(t, "a"), app(t, "b")
	h := start(t, "[pool.app]\nbackends = [\""+a+"\", \""+b+"\"]\n")
	begin := time.Now()
	for range 20 {
		h.get("/")
	}
	waitFor(t, "a rate", func() bool {
		p := h.Status().Pools[0]
		return p.Recent.Rate > 0 && p.Backends[0].Recent.Rate > 0 && p.Backends[1].Recent.Rate > 0
	})
	p := h.Status().Pools[0]
	if p.Requests != 20 || p.Failed != 0 || p.Recent.ErrorRate != 0 || p.Recent.P99 <= 0 || p.Recent.P50 > p.Recent.P99 {
		t.Errorf("%+v", p)
	}
	share := 0.
	for _, b := range p.Backends {
		share += b.Share
		if b.Since.Before(begin.Add(-time.Minute)) || b.Since.After(time.Now()) {
			t.Errorf("%s is %s since %v", b.Name, b.State, b.Since)
		}
	}
	if share < .99999 || share > 1.00001 {
		t.Errorf("shares add up to %v", share)
	}
	h.reloadTo("[pool.app]\nstrategy = \"random\"\nbackends = [\"" + a + "\"]\n")
	if r := h.Status().Pools[0].Backends[0].Recent; r.Rate == 0 {
		t.Error("a reload forgets what was recent")
	}
}

// TestPageMayActAfterAReload asks as the page does, before and after the configuration allows it.
func TestPageMayActAfterAReload(t *testing.T) {
	text := pools(app(t, "a"), app(t, "b"))
	h := start(t, text)
	url := "http://" + h.AdminAddrs()[0].String()
	ask := func(method, path, token string) (int, string) {
		t.Helper()
		name := h.Status().Pools[0].Backends[0].Name
		req, err := http.NewRequest(method, url+path, strings.NewReader(`{"pool": "app", "backend": "`+name+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", url)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-LB-Token", token)
		res, err := h.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var v struct{ Token, Error string }
		if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, v.Token + v.Error
	}
	if code, why := ask("GET", "/page/token", ""); code != 403 || !strings.Contains(why, "page_actions") {
		t.Errorf("token: %d %s", code, why)
	}
	h.rewrite(text + strings.Replace(everywhere, "[admin]", "[admin]\npage_actions = true", 1))
	if err := h.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	code, token := ask("GET", "/page/token", "")
	if code != 200 {
		t.Fatalf("token: %d %s", code, token)
	}
	if code, why := ask("POST", "/page/drain", token); code != 200 {
		t.Errorf("drain: %d %s", code, why)
	}
	if st := h.Status().Pools[0].Backends[0].State; st != admin.Draining {
		t.Errorf("it is %s", st)
	}
	var seen []string
	for _, e := range h.checks.events.list() {
		if e.Event == "reloaded" && strings.Contains(e.Why, "page_actions") {
			seen = append(seen, "reloaded")
		}
		if e.Event == "draining" && strings.HasPrefix(e.By, "page at 127.0.0.1:") {
			seen = append(seen, "draining")
		}
	}
	if !slices.Equal(seen, []string{"reloaded", "draining"}) {
		t.Errorf("events: %+v", h.checks.events.list())
	}
	h.rewrite("nonsense")
	h.Reload(t.Context())
	all := h.checks.events.list()
	if last := all[len(all)-1]; last.Event != "not reloaded" || last.Why == "" {
		t.Errorf("the last event: %+v", last)
	}
}

func TestPageForAllIsWarnedOf(t *testing.T) {
	for address, warn := range map[string]bool{"127.0.0.1:0": false, "localhost:0": false, "0.0.0.0:0": true, ":0": true} {
		h := startWith(t, pools(app(t, "a")), "[listen.web]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \""+address+"\"\npage_actions = true\n")
		if got := strings.Contains(h.events.String(), "there is no login"); got != warn {
			t.Errorf("%s: warned %v", address, got)
		}
		h.stop()
	}
}
