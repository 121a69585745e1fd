package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// file writes a configuration.
func file(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What is wrong with a file is said all at once, with line and column, by check and by run alike, and nothing starts.
func TestBrokenFile(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"mistakes", "[pool.app]\nbackends = [\"127.0.0.1:99999\", \"127.0.0.1:3000\"]\nstrateggy = \"x\"\nresponse_timeout = 5\n[sever]\n[access_log]\nformat = \"jsno\"\n", []string{
			`:2:13: pool.app.backends[0]: `, `:3:1: pool.app.strateggy: unknown key, did you mean "strategy"?`,
			`:4:20: pool.app.response_timeout: wants a duration such as "5s"`, `:5:1: sever: unknown table, did you mean "server"?`, `:7:10: access_log.format: `,
		}},
		{"syntax", "[pool.app]\nbackends = [\"127.0.0.1:3000\"\n[admin]\n", []string{`config.toml:`}},
		{"nothing", "", []string{`config.toml`, `pool`}},
		{"route to nobody", "[pool.app]\nbackends = [3000]\n[route.x]\npool = \"ap\"\n", []string{`:4:8: route.x.pool: `, `did you mean "app"?`}},
		{"environment", "[pool.app]\nbackends = [\"${E2E_UNSET}:3000\"]\n", []string{`:2:13: pool.app.backends[0]: `, `E2E_UNSET`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := file(t, c.text)
			code, out, errs := run(t, lbBinary, "check", path)
			if code != 1 || errs != "" {
				t.Errorf("check ended with %d and said %q", code, errs)
			}
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("check did not say %q but\n%s", want, out)
				}
			}
			code, empty, said := run(t, lbBinary, "run", path)
			if code != 1 || empty != "" || said != out {
				t.Errorf("run ended with %d and said %q, %q; check said %q", code, empty, said, out)
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "nobody.toml")
		for _, command := range []string{"check", "run"} {
			if code, out, errs := run(t, lbBinary, command, path); code != 1 || out != "" || !strings.Contains(errs, path) {
				t.Errorf("%s ended with %d and said %q, %q", command, code, out, errs)
			}
		}
	})
}

func TestCommands(t *testing.T) {
	good := file(t, "[pool.app]\nbackends = [\"127.0.0.1:3000-3003\"]\n[listen.web]\naddress = \":0\"\n")
	for _, c := range []struct {
		args []string
		code int
		want string // a pattern for both outputs
	}{
		{[]string{"check", good}, 0, `^\S+config.toml: ok: .*pool app \(4 backends, adaptive\).*$`},
		{[]string{"check", "../config.toml"}, 0, `^../config.toml: ok: `},
		{[]string{"version"}, 0, `^lb \S+ \(go1\.\d+.*, \w+/\w+\)$`},
		{[]string{"--help"}, 0, `(?s)Usage:.*lb demo.*lb init.*lb run.*Setting up:.*check`},
		{[]string{"run", "--help"}, 0, `(?s)SIGTERM.*SIGHUP.*SIGUSR1.*Exit code`},
		{[]string{}, 0, `Usage:`},
		{[]string{"rum"}, 64, `there is no command "rum", did you mean "lb run"\?`},
		{[]string{"run", "--fast"}, 64, `has no flag --fast`},
		{[]string{"check", "a", "b"}, 64, `"b" is too much: lb check \[FILE\]`},
	} {
		code, out, errs := run(t, lbBinary, c.args...)
		if code != c.code || !regexp.MustCompile(c.want).MatchString(out+errs) || (code == 0) != (errs == "") {
			t.Errorf("lb %s ended with %d and said\n%s\nand as error\n%s", strings.Join(c.args, " "), code, out, errs)
		}
	}
}

// What cannot be had here and now keeps lb from starting, all of it named at once, before anything is served. (Row 43.)
func TestCannotStart(t *testing.T) {
	var taken []string
	for range 2 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		taken = append(taken, ln.Addr().String())
	}
	path := file(t, fmt.Sprintf("[pool.app]\nbackends = [3000]\n[listen.web]\naddress = %q\n[listen.free]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = %q\n[access_log]\npath = \"/nobody/knows/access.log\"\n", taken[0], taken[1]))
	code, _, errs := run(t, lbBinary, "run", path)
	if code != 1 || strings.Contains(errs, "msg=") {
		t.Errorf("run ended with %d", code)
	}
	for _, want := range []string{
		fmt.Sprintf(`config.toml:[34]:\d+: listen.web.address: "%s" is taken`, taken[0]),
		fmt.Sprintf(`config.toml:[78]:\d+: admin.address: "%s" is taken`, taken[1]),
		`config.toml:(9|10):\d+: access_log.path: .*no such file or directory`,
	} {
		if !regexp.MustCompile(want).MatchString(errs) {
			t.Errorf("run did not say %s but\n%s", want, errs)
		}
	}
}

// A second lb is told of the first: which process has the port, and what to do with the same file.
func TestSecondLB(t *testing.T) {
	l := startLB(t, setup{raw: "[pool.app]\nbackends = [\"127.0.0.1:1\"]\n[listen.web]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n[access_log]\nformat = \"off\"\n"})
	text := fmt.Sprintf("[pool.app]\nbackends = [\"127.0.0.1:1\"]\n[listen.web]\naddress = %q\n[admin]\naddress = \"off\"\n", l.addr)
	if err := os.WriteFile(l.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	pid := l.cmd.Process.Pid
	for path, want := range map[string]string{
		l.config:      fmt.Sprintf(`an lb runs with this file already, process %d: "lb reload \S+" has it change`, pid),
		file(t, text): fmt.Sprintf(`listen.web.address: "%s" is taken by another lb \(process %d\); stop it`, l.addr, pid),
	} {
		code, _, errs := run(t, lbBinary, "run", path)
		if code != 1 || !regexp.MustCompile(want).MatchString(errs) || strings.Contains(errs, "msg=") {
			t.Errorf("lb run ended with %d and said\n%s", code, errs)
		}
	}
	l.stop(0)
}

// The demo runs without a file or an app, shows who gets what, and ends cleanly.
func TestDemo(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd := exec.Command(lbBinary, "demo")
		cmd.Dir = t.TempDir()
		p := start(t, "lb demo", cmd)
		find := func(pattern string) string {
			t.Helper()
			found := ""
			re := regexp.MustCompile(pattern)
			eventually(t, "the demo shows "+pattern, func() bool {
				m := re.FindStringSubmatch(strings.Join(p.stdout(), "\n"))
				if m != nil {
					found = m[len(m)-1]
				}
				return m != nil
			})
			return found
		}
		resp, err := http.Get(find(`through lb\s+(http://\S+)`))
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		b.ReadFrom(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || b.Len() == 0 {
			t.Errorf("got %d, %s", resp.StatusCode, b.String())
		}
		resp, err = http.Get(find(`(http://\S+/metrics)`))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		find(`pool app, adaptive\s+\d+ requests`)
		find(`127\.0\.0\.1:\d+\s+ready\s+[1-9]`)
		for _, c := range []struct{ command, state string }{{"drain", "draining"}, {"ready", "ready"}} {
			if sig == syscall.SIGTERM {
				break // once is enough, it takes some seconds
			}
			args := strings.Fields(find(`(` + c.command + ` app \S+ --socket \S+)`))
			if code, out, errs := run(t, lbBinary, args...); code != 0 {
				t.Fatalf("lb %s: %d\n%s%s", strings.Join(args, " "), code, out, errs)
			}
			seen := len(p.stdout())
			row := regexp.MustCompile(regexp.QuoteMeta(args[2]) + `\s+` + c.state + `\s`)
			eventually(t, "the demo shows it "+c.state, func() bool { return row.MatchString(strings.Join(p.stdout()[seen:], "\n")) })
		}
		p.signal(sig)
		if code := p.wait(); code != 0 {
			t.Errorf("the demo ended with %d", code)
		}
		find(`sent, 0 failed`)
		if left, err := os.ReadDir(cmd.Dir); len(left) > 0 || err != nil {
			t.Errorf("the demo left %v, %v", left, err)
		}
	}
}

// cli runs a command against the lb and holds it to its exit code and to what it says, by patterns.
func (l *lb) cli(code int, pattern string, args ...string) string {
	l.t.Helper()
	got, out, errs := run(l.t, lbBinary, append(args, "--config", l.config)...)
	if all := out + errs; got != code || !regexp.MustCompile("(?s)"+pattern).MatchString(all) {
		l.t.Errorf("lb %s ended with %d, want %d, and said, without %s:\n%s", strings.Join(args, " "), got, code, pattern, all)
	}
	return out
}
