package config

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata and docs from the code; read the difference")

// faults are the cases of testdata/faults.txt: after "=== name" a file, after "--->" what is said about it.
var faults = func() (cases []struct{ name, in, out string }) {
	data, err := os.ReadFile("testdata/faults.txt")
	if err != nil {
		panic(err)
	}
	for _, c := range strings.Split("\n"+string(data), "\n=== ")[1:] {
		name, rest, _ := strings.Cut(c, "\n")
		in, out, _ := strings.Cut("\n"+rest+"\n", "\n--->\n")
		cases = append(cases, struct{ name, in, out string }{name, strings.TrimPrefix(in+"\n", "\n"), strings.TrimRight(out, "\n")})
	}
	return cases
}()

func testEnv(name string) (string, bool) {
	v, ok := map[string]string{"HOST": "127.0.0.1", "PORT": "3000", "EMPTY": "", "BAD": "::"}[name]
	return v, ok
}

func verdict(in string) string {
	c, err := parse("f", []byte(in), testEnv)
	if err != nil {
		return err.Error()
	}
	return c.Summary()
}

func TestFaults(t *testing.T) {
	var b strings.Builder
	names := map[string]bool{}
	for _, c := range faults {
		if names[c.name] {
			t.Errorf("%s is there twice", c.name)
		}
		names[c.name] = true
		got := verdict(c.in)
		fmt.Fprintf(&b, "=== %s\n%s--->\n%s\n", c.name, c.in, got)
		if got != c.out && !*update {
			t.Errorf("%s:\n%s-want +got:\n%s", c.name, c.in, cmp.Diff(c.out, got))
		}
	}
	if *update {
		if err := os.WriteFile("testdata/faults.txt", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestValues(t *testing.T) {
	t.Setenv("LB_TEST_PORT", "3009")
	c, err := Parse("f", []byte(`
[server]
workers = 3
trusted_proxies = ["10.0.0.0/8", "::1"]
grace = "1m30s"
header_timeout = "1s"
body_timeout = "2s"
idle_timeout = "3s"
write_timeout = "4s"
max_header_bytes = "32KiB"
max_header_fields = 100
max_body = "10MB"
stop_pause = "5s"
max_connections = 1000
max_connections_per_client = 100
[listen.web]
address = "127.0.0.1:80"
[admin]
address = "off"
socket = "/run/lb.sock"
[access_log]
format = "combined"
path = "/var/log/lb.log"
[pool.app]
  backends = [3000, { address = "[::1]:3001-3002", weight = 3, max_inflight = 0 }, "${LB_TEST_PORT}"]
strategy = "hash"
hash = "header:X-User"
hash_bound = 300
connect_timeout = "500ms"
response_timeout = "5s"
read_timeout = "6s"
tunnel_idle = "2h"
max_idle = 9
idle_timeout = "7s"
retries = 0
max_inflight = 50
retry_budget = 100
try_timeout = "3s"
queue = "off"
queue_timeout = "8s"
hold = "9s"
hold_requests = 10
hold_bytes = "1MiB"
slow_start = "off"
rollout = { exec = "a $b ${C} {port}", wait = "0s", timeout = "14s", start_timeout = "15s", warmup = "off", max_unavailable = "${SHARE:-30%}", canary = 1, watch = "16s", canary_errors = 2, canary_slower = 60, in_place = true }
[pool.app.health]
path = "/health?full=1"
method = "HEAD"
host = "app.example.com:81"
port = 9000
headers = { x-check = "lb", Authorization = "Bearer ${EMPTY:-x}" }
status = [204, "${OK:-200}-202"]
interval = "3s"
changing = "100ms"
down = "4s"
timeout = "5s"
fall = 4
rise = 5
jitter = 0
[pool.app.ejection]
faults = 6
share = 70
window = "11s"
out = "12s"
max_out = "13s"
[pool.api]
backends = [{ address = "unix:/run/api.sock", name = "api-1" }]
reuse = false
queue = 7
health = { kind = "off" }
ejection.faults = "off"
affinity = { kind = "cookie", name = "n", path = "/p", domain = "d.example", max_age = "1h", secure = "always", same_site = "strict", keys = ["${OK:-x}123456789abcdef0123456789abcdef"], key_file = "", socketio = false, drain = "1m", rebalance = 5 }
[route.api]
host = "API.example.com"
path = "/v1"
pool = "api"
[route.rest]
pool = "app"
`))
	if err != nil {
		t.Fatal(err)
	}
	api := DefaultPool("api")
	api.Backends = []Backend{{"unix:/run/api.sock", "api-1", 1, 0, Pos{67, 13}}}
	api.Reuse, api.Pos = false, Pos{66, 1}
	api.Health.Kind, api.Ejection.Faults, api.QueueLen = "off", 0, 7
	api.Affinity = Affinity{
		"cookie", "n", "/p", "d.example", time.Hour, "always", "strict", Secrets{"x123456789abcdef0123456789abcdef"}, "",
		HashKey{"ip", ""}, false, 65536, 10 * time.Minute, time.Minute, 5,
	}
	want := &Config{
		File: "f",
		Server: Server{3, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}, 90 * time.Second,
			5 * time.Second, time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second, 32 << 10, 100, 10e6, 1000, 100},
		Admin:     Admin{Address: "", Socket: "/run/lb.sock", SocketMode: "0660", Pos: Pos{18, 1}},
		AccessLog: AccessLog{"combined", "/var/log/lb.log", Pos{21, 1}},
		Listens:   []Listen{{"web", "127.0.0.1:80", Pos{16, 1}}},
		Pools: []Pool{{
			"app", []Backend{
				{"127.0.0.1:3000", "127.0.0.1:3000", 1, 50, Pos{25, 15}},
				{"[::1]:3001", "[::1]:3001", 3, 0, Pos{25, 21}},
				{"[::1]:3002", "[::1]:3002", 3, 0, Pos{25, 21}},
				{"127.0.0.1:3009", "127.0.0.1:3009", 1, 50, Pos{25, 84}},
			}, "hash", HashKey{"header", "X-User"}, 300, 500 * time.Millisecond, 5 * time.Second, 6 * time.Second, 2 * time.Hour,
			9, 7 * time.Second, true, 0, 50, 100, 3 * time.Second, -1, 8 * time.Second, 9 * time.Second, 10, 1 << 20, 0,
			Health{
				"http", "/health?full=1", "HEAD", "app.example.com:81", 9000,
				map[string]string{"X-Check": "lb", "Authorization": "Bearer x"}, []StatusRange{{204, 204}, {200, 202}}, "",
				3 * time.Second, 100 * time.Millisecond, 4 * time.Second, 5 * time.Second, 4, 5, 0,
			},
			Ejection{6, 70, 11 * time.Second, 12 * time.Second, 13 * time.Second}, DefaultPool("").Affinity,
			Rollout{"a $b ${C} {port}", 0, 14 * time.Second, 15 * time.Second, -1, "30%", 1, 16 * time.Second, 2, 60, true}, Pos{24, 1},
		}, api},
		Routes: []Route{{"api", "api.example.com", "/v1", "api", Pos{73, 1}}, {"rest", "", "/", "app", Pos{77, 1}}},
	}
	if d := cmp.Diff(want, c, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// TestLimits tries each bound of each number: one below, on it, one above.
func TestLimits(t *testing.T) {
	for _, k := range Keys() {
		if k.Range() == "" {
			continue
		}
		try := func(n int64, good bool) {
			v := fmt.Sprint(n)
			if k.kind == kindDuration {
				v = fmt.Sprintf("%q", time.Duration(n).String())
			}
			line := k.Name + " = " + v + "\n"
			text := "[pool.app]\nbackends = [3000]\n"
			switch k.Table {
			case "pool.NAME":
				if k.Name == "hash_bound" {
					line += "strategy = \"hash\"\n"
				}
				text += line
			case "pool.NAME.affinity":
				if k.Name == "max_age" {
					line += "kind = \"cookie\"\n"
				}
				text += "[pool.app.affinity]\n" + line
			case "pool.NAME.backends":
				text = "[pool.app]\nbackends = [3001, { address = 3000, " + strings.TrimSpace(line) + " }]\n"
			case "pool.NAME.health":
				text += "[pool.app.health]\n" + line
			case "pool.NAME.ejection":
				switch k.Name {
				case "out":
					line += "max_out = \"24h\"\n"
				case "max_out":
					line += "out = \"10ms\"\n"
				}
				text += "[pool.app.ejection]\n" + line
			case "pool.NAME.rollout":
				text += "[pool.app.rollout]\n" + line
			case "server":
				text += "[server]\n" + line
			default:
				t.Fatalf("no test for numbers in %s", k.Table)
			}
			_, err := Parse("f", []byte(text))
			if (err == nil) != good {
				t.Errorf("%s: %v", strings.TrimSpace(line), err)
			}
			if err != nil && !strings.Contains(err.Error(), k.Name+": ") {
				t.Errorf("%s is blamed on another key: %v", strings.TrimSpace(line), err)
			}
		}
		try(k.min-1, false)
		try(k.min, true)
		try(k.max, true)
		try(k.max+1, false)
	}
	for n, good := range map[int]bool{1: true, 64: true, 65: false} {
		name := strings.Repeat("a", n)
		_, err := Parse("f", []byte("[pool.app]\nbackends = [{ address = 3000, name = \""+name+"\" }]\n[route."+name+"]\npool = \"app\"\n"))
		if errs, _ := err.(Errors); (err == nil) != good || !good && len(errs) != 2 {
			t.Errorf("a name of %d characters: %v", n, err)
		}
	}
	for _, c := range []struct {
		backends string
		good     bool
	}{
		{`"127.0.0.1:1-1024"`, true},
		{`"127.0.0.1:1-1025"`, false},
		{`"127.0.0.1:1-1000", "127.0.0.1:2001-2024"`, true},
		{`"127.0.0.1:1-1000", "127.0.0.1:2001-2025"`, false},
		{`"127.0.0.1:1"`, true},
		{`"127.0.0.1:0"`, false},
		{`"127.0.0.1:65535"`, true},
		{`"127.0.0.1:65536"`, false},
		{`"unix:/` + strings.Repeat("a", 106) + `"`, true},
		{`"unix:/` + strings.Repeat("a", 107) + `"`, false},
		{`"` + strings.Repeat("a", 63) + `.b:1"`, true},
		{`"` + strings.Repeat("a", 64) + `.b:1"`, false},
		{`"` + strings.Repeat("a.", 126) + `b:1"`, true},
		{`"` + strings.Repeat("a.", 126) + `bc:1"`, false},
	} {
		_, err := Parse("f", []byte("[pool.app]\nbackends = ["+c.backends+"]\n"))
		if (err == nil) != c.good {
			t.Errorf("%.80s: %v", c.backends, err)
		}
	}
}

func TestNotText(t *testing.T) {
	for in, want := range map[string]string{
		"\xff\xfe[\x00p\x00":               "f:1:1: this file is UTF-16 or binary: save it as UTF-8 text",
		"[pool.app]\n# caf\xe9\n":          "f:2:6: the byte 0xe9 is not UTF-8: save the file as UTF-8 text",
		"# \x01\n# \x02 \x03\n":            "f:1:3: the control character 0x01 cannot be in a file: remove it\nf:2:3: the control character 0x02 cannot be in a file: remove it",
		"a = 1\rb = 2\n":                   "f:1:6: a carriage return inside a line: end lines with a line feed",
		"\xef\xbb\xbf[poool.a]\r\n\r\nx=1": "f:1:1: poool: unknown table, did you mean \"pool\"?",
		"#é日\n[pool.\"é日\"]\nx = 1\n":      "f:2:1: pool.\"é日\": a name is made of letters a-z, digits, \"_\", \"-\" and \".\"\nf:3:1: pool.\"é日\".x: unknown key; the keys here are backends, strategy, hash, hash_bound, connect_timeout, response_timeout, read_timeout, tunnel_idle, max_idle, idle_timeout, reuse, retries, max_inflight, retry_budget, try_timeout, queue, queue_timeout, hold, hold_requests, hold_bytes, slow_start, health, ejection, affinity, rollout",
	} {
		if got := verdict(in); got != want {
			t.Errorf("%q:\n got %s\nwant %s", in, got, want)
		}
	}
	if c, err := Parse("f", []byte("\xef\xbb\xbf[pool.app]\r\nbackends = [3000]\r\n")); err != nil || c.Pools[0].Pos != (Pos{1, 1}) {
		t.Errorf("a file from Windows: %v", err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir + "/none.toml"); err == nil || !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), dir) {
		t.Errorf("no file: %v", err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("a directory: %v", err)
	}
	big := dir + "/big.toml"
	if err := os.WriteFile(big, []byte(strings.Repeat("#", maxFile+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big); err == nil || !strings.Contains(err.Error(), "4 MiB") {
		t.Errorf("a large file: %v", err)
	}
}

func TestEqual(t *testing.T) {
	read := func(text string) *Config {
		t.Helper()
		c, err := Parse("f", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	base := read("[pool.app]\nbackends = [3000, 3001]\n")
	for _, same := range []string{
		"\n# moved\n[pool.app]\n  backends = [\"127.0.0.1:3001\", \"3000\"]\n",
		"[pool.app]\nbackends = [\"3000-3001\"]\nretries = 2\n[listen.default]\n[route.default]\npool = \"app\"\n[admin]\n[server]\ntrusted_proxies = []\n",
	} {
		if !Equal(base, read(same)) {
			t.Errorf("not equal: %s", same)
		}
	}
	for _, other := range []string{
		"[pool.app]\nbackends = [3000]\n", "[pool.ap]\nbackends = [3000, 3001]\n", "[pool.app]\nbackends = [3000, 3001]\nretries = 1\n",
		"[pool.app]\nbackends = [3000, {address = 3001, weight = 2}]\n",
		"[pool.app]\nbackends = [3000, 3001]\nhealth.headers.a = \"b\"\nhealth.path = \"/\"\n", "[pool.app]\nbackends = [3000, 3001]\nejection.faults = \"off\"\n", "[pool.app]\nbackends = [3000, 3001]\n[admin]\naddress = \"off\"\n",
	} {
		if Equal(base, read(other)) {
			t.Errorf("equal: %s", other)
		}
	}
	if Equal(base, nil) || !Equal(nil, nil) {
		t.Error("nil")
	}
	if p := base.Pools[0].Backends[0].Pos; p != (Pos{2, 13}) {
		t.Errorf("comparing changed what it compared: %v", p)
	}
}

// FuzzParse asks that reading never panics, and that each fault has a place inside the file.
func FuzzParse(f *testing.F) {
	for _, s := range seeds() {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse("f", data, testEnv)
		if err == nil {
			if len(c.Pools) == 0 || len(c.Listens) == 0 || len(c.Routes) == 0 || strings.Contains(c.Summary(), "\n") {
				t.Fatalf("good, and not whole: %+v", c)
			}
			return
		}
		errs, ok := err.(Errors)
		if !ok || len(errs) == 0 {
			t.Fatalf("%T %v", err, err)
		}
		text := string(data)
		for strings.HasPrefix(text, "\ufeff") {
			text = text[3:]
		}
		lines := strings.Split(text, "\n")
		for _, e := range errs {
			if e.Line < 1 || e.Line > len(lines) || e.Column < 1 || e.Column > len([]rune(lines[e.Line-1]))+1 || e.Msg == "" || strings.Contains(e.Error(), "\n") {
				t.Fatalf("%q is outside of the file", e.Error())
			}
		}
	})
}
