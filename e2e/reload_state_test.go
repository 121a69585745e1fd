package e2e

import (
	"fmt"
	"slices"
	"testing"
)

// A reload changes nothing of what lb has found out about backends that stay: what their strategy learned, to the last
// digit, what their checks say, for how long they are ejected, that they drain, and since when. (Row 37.)
func TestReloadKeepsWhatIsKnown(t *testing.T) {
	apps := startApps(t, 4, "chaos.mjs")
	a, c, d := apps[0], apps[2], apps[3]
	pool := "strategy = \"ewma\"\nhealth = { interval = \"1h\", down = \"1h\", changing = \"1h\" }\n"
	l := startLB(t, setup{backends: apps, pool: pool})
	ask := func(n int) {
		t.Helper()
		allOK(t, flood(l.addr, 8, n, func(c *conn, i int) sample {
			path := fmt.Sprintf("/work/%d", i)
			return sample{path, c.do("GET", path, "")}
		}))
	}
	ask(100)
	a.order("slow", "150")
	d.kill()
	ask(200)
	if code, out, _ := run(t, lbBinary, "drain", "--config", l.config, "app", c.name); code != 0 {
		t.Fatalf("drain: %d %s", code, out)
	}
	l.settled()
	before := l.backends()
	if k := before["a"]; k.Slow < 1.3 || k.State != "ready" {
		t.Errorf("the slow one: %+v", k)
	}
	if k := before["d"]; k.Until == "" || k.Why == "" {
		t.Errorf("the dead one: %+v", k)
	}
	if k := before["c"]; k.State != "draining" {
		t.Errorf("the drained one: %+v", k)
	}
	reversed := slices.Clone(apps)
	slices.Reverse(reversed)
	for i, s := range []setup{
		{backends: apps, pool: pool + "retries = 1\n"},
		{backends: reversed, pool: pool, server: "max_body = \"1MB\""},
		{backends: apps, pool: pool, more: "[listen.side]\naddress = \"127.0.0.1:0\"\n"},
	} {
		l.reload(s, "msg=reloaded", i+1)
		after := l.backends()
		for name, was := range before {
			if is := after[name]; is != was {
				t.Errorf("after reload %d: %+v, before: %+v", i, is, was)
			}
		}
	}
	// And it goes by that: the slow one gets less than its share at once.
	ask(40)
	if got := l.backends()["a"].Requests - before["a"].Requests; got > 10 {
		t.Errorf("the slow one got %d of 40 requests", got)
	}
	l.stop(0)
}
