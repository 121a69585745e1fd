package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestEcosystem has a real PM2 run deploy/pm2/ecosystem.config.js with the app of docs/getting-started.md, lb before it,
// and restarts one instance as docs/pm2.md says it is done by hand.
func TestEcosystem(t *testing.T) {
	home, err := os.MkdirTemp("", "pm2-") // short: PM2's sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	first := portsInARow(t, 4)
	replaced := func(path, pattern, by string) string {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		re := regexp.MustCompile(pattern)
		if n := len(re.FindAll(text, -1)); n != 1 {
			t.Fatalf("%s has %s %d times", path, pattern, n)
		}
		return re.ReplaceAllString(string(text), by)
	}
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("ecosystem.config.js", replaced("../deploy/pm2/ecosystem.config.js", `const first = 3000;`, fmt.Sprintf("const first = %d;", first)))
	guide, err := os.ReadFile("../docs/getting-started.md")
	if err != nil {
		t.Fatal(err)
	}
	server := regexp.MustCompile("(?s)```js\n(// server.js\n.*?)```").FindSubmatch(guide)
	if server == nil {
		t.Fatal("docs/getting-started.md has no server.js")
	}
	put("server.js", string(server[1]))

	bin, err := filepath.Abs("apps/node_modules/pm2/bin/pm2")
	if err != nil {
		t.Fatal(err)
	}
	pm2 := func(args ...string) (string, error) {
		cmd := exec.Command("node", append([]string{bin, "--no-color"}, args...)...)
		cmd.Dir = home
		cmd.Env = append(os.Environ(), "PM2_HOME="+home, "PM2_DISABLE_VERSION_CHECK=true")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(args ...string) {
		t.Helper()
		if out, err := pm2(args...); err != nil {
			t.Fatalf("pm2 %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	defer func() {
		text, _ := os.ReadFile(filepath.Join(home, "pm2.pid"))
		if out, err := pm2("kill"); err != nil { // and its apps; it must not outlive the test
			t.Errorf("pm2 kill: %v\n%s", err, out)
			if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 1 {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}()
	must("start", "ecosystem.config.js")
	l := startLB(t, setup{raw: fmt.Sprintf("[pool.app]\nbackends = [\"127.0.0.1:%d-%d\"]\n[pool.app.health]\npath = \"/health\"\n"+
		"[listen.web]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n[access_log]\npath = \"%%LOG%%\"\n", first, first+3)})

	get := func() (string, error) {
		res, err := http.Get(l.url + "/")
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %s: %s", res.Status, body)
		}
		return strings.TrimSpace(string(body)), err
	}
	seen := map[string]bool{}
	eventually(t, "all four instances answer", func() bool {
		who, err := get()
		if err != nil {
			t.Fatal(err)
		}
		seen[who] = true
		return len(seen) == 4
	})

	over := make(chan struct{})
	var clients sync.WaitGroup
	var mu sync.Mutex
	answers, failures := 0, []error(nil) // guarded by mu
	for range 2 {
		clients.Go(func() {
			for {
				select {
				case <-over:
					return
				case <-time.After(2 * time.Millisecond):
				}
				_, err := get()
				mu.Lock()
				if answers++; err != nil {
					failures = append(failures, err)
				}
				mu.Unlock()
			}
		})
	}
	who := fmt.Sprintf("127.0.0.1:%d", first)
	for _, order := range []string{"drain", "ready"} {
		if code, out, errs := run(t, lbBinary, order, "app", who, "--config", l.config); code != 0 {
			t.Errorf("lb %s: %d\n%s%s", order, code, out, errs)
		}
		if order == "drain" {
			must("restart", fmt.Sprintf("app-%d", first))
		}
	}
	close(over)
	clients.Wait()
	if len(failures) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(failures), answers, failures[0])
	}
	t.Logf("%d requests meanwhile", answers)
}

// portsInARow gives the first of n ports that nobody listens at. Somebody else may take one meanwhile; PM2 says so then.
func portsInARow(t testing.TB, n int) int {
	t.Helper()
next:
	for range 100 {
		first := 20000 + rand.IntN(10000)
		var taken []net.Listener
		free := func() {
			for _, ln := range taken {
				ln.Close()
			}
		}
		for i := range n {
			ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+i))
			if err != nil {
				free()
				continue next
			}
			taken = append(taken, ln)
		}
		free()
		return first
	}
	t.Fatal("no ports in a row are free")
	return 0
}
