package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// line is a shell command of this PM2.
func (p *pm2) line(args string) string {
	p.t.Helper()
	bin, err := filepath.Abs("apps/node_modules/.bin/pm2")
	if err != nil {
		p.t.Fatal(err)
	}
	return fmt.Sprintf("PM2_HOME=%s PM2_DISCRETE_MODE=true %s --no-color %s", p.home, bin, args)
}

// startAll runs apps by an ecosystem file.
func (p *pm2) startAll(apps []map[string]any) {
	p.t.Helper()
	text, err := json.Marshal(map[string]any{"apps": apps})
	if err != nil {
		p.t.Fatal(err)
	}
	path := filepath.Join(p.home, "ecosystem.config.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.run("start", path)
}

// slowApp is apps/slow.mjs for PM2.
func slowApp(t testing.TB, name, port string, env map[string]string) map[string]any {
	t.Helper()
	dir, err := filepath.Abs("apps")
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{"PORT": port, "NAME": name}
	maps.Copy(vars, env)
	return map[string]any{
		"name": name, "script": filepath.Join(dir, "slow.mjs"), "cwd": dir, "exec_mode": "fork", "instances": 1, "env": vars,
		"kill_timeout": 12000, "max_restarts": 3, "min_uptime": 1000,
	}
}

// freePorts gives ports that nobody listens at, and that the system gives to nobody by itself: who has one may close it and come
// back.
func freePorts(t testing.TB, n int) (ports []string) {
	t.Helper()
	for range 1000 {
		if len(ports) == n {
			return ports
		}
		port := strconv.Itoa(15000 + rand.IntN(15000))
		if ln, err := net.Listen("tcp", ":"+port); err == nil {
			defer ln.Close() // all at the end, so that no two are the same
			ports = append(ports, port)
		}
	}
	t.Fatal("no port is free")
	return nil
}
