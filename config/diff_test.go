package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiff(t *testing.T) {
	parse := func(text string) *Config {
		t.Helper()
		c, err := Parse("config.toml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a := parse(`
[server]
grace = "10s"
trusted_proxies = ["10.0.0.0/8", "192.168.0.0/16"]
[pool.app]
backends = [3000]
strategy = "hash"
hash = "header:X"
[pool.old]
backends = [1]
[route.app]
pool = "app"
[route.old]
pool = "old"
path = "/old"
`)
	b := parse(`
[server]
trusted_proxies = ["192.168.0.0/16", "10.0.0.0/8"]
max_body = "1KiB"
[access_log]
format = "off"
[pool.app]
backends = [3000, 3001]
retries = 1
[pool.app.health]
fall = 5
[route.app]
pool = "app"
path = "/app"
[route.new]
pool = "app"
`)
	want := []Difference{
		{"server", "grace", "10s", "30s"},
		{"server", "max_body", "0", "1024"},
		{"access_log", "format", `"json"`, `"off"`},
		{"pool.app", "hash", `"header:X"`, `"ip"`},
		{"pool.app", "retries", "2", "1"},
		{"pool.app", "strategy", `"hash"`, `"adaptive"`},
		{"pool.app.health", "fall", "3", "5"},
		{"route.app", "path", `"/"`, `"/app"`},
	}
	if d := cmp.Diff(want, Diff(a, b)); d != "" {
		t.Error(d)
	}
	if d := Diff(a, a); d != nil {
		t.Errorf("to itself: %v", d)
	}
}
