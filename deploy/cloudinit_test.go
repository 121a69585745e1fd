package deploy

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"lb/config"
)

const userData = "cloud-init/user-data.yaml"

// written are the files that the user data write, by their path.
func written(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	name := ""
	for line := range strings.Lines(read(t, userData)) {
		if m := regexp.MustCompile(`^  - path: (\S+)\n$`).FindStringSubmatch(line); m != nil {
			name = m[1]
		} else if line != "\n" && !strings.HasPrefix(line, "    ") {
			name = ""
		}
		if text, ok := strings.CutPrefix(line, "      "); ok && name != "" {
			files[name] += text
		} else if line == "\n" && files[name] != "" {
			files[name] += line
		}
	}
	return files
}

// TestCloudInit holds what the user data write to those who will read it.
func TestCloudInit(t *testing.T) {
	files := written(t)
	if len(files) != 5 {
		t.Fatalf("%d files", len(files))
	}
	dir := t.TempDir()
	tool := func(name, file string, args ...string) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			path := filepath.Join(dir, filepath.Base(file))
			if err := os.WriteFile(path, []byte(files[file]), 0o644); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(name, append(args, path)...).CombinedOutput()
			if errors.Is(err, exec.ErrNotFound) {
				t.Skipf("there is no %s: install it", name)
			}
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	const conf = "/etc/lb/config.toml"
	c, err := config.Parse(conf, []byte(strings.ReplaceAll(files[conf], "@PORTS@", "3000-3003")))
	if err != nil {
		t.Fatal(err)
	}
	const want = conf + ": ok: listens on :80, sends everything to pool app (4 backends, adaptive), metrics on 127.0.0.1:9901"
	if got := c.Summary(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	tool("node", "/srv/app/ecosystem.config.js", "--check")
	tool("node", "/srv/app/example/server.js", "--check")
	tool("shellcheck", "/usr/local/sbin/set-up-box", "--exclude=SC1091") // /etc/box.env is not here
	// Variables that the script takes are those that are written, and the other way round.
	for _, m := range regexp.MustCompile(`(?m)^([A-Z0-9_]+)=`).FindAllStringSubmatch(files["/etc/box.env"], -1) {
		if !strings.Contains(files["/usr/local/sbin/set-up-box"], "$"+m[1]) {
			t.Errorf("nobody reads %s", m[1])
		}
	}
}

// TestCloudInitSchema asks cloud-init itself.
func TestCloudInitSchema(t *testing.T) {
	out, err := exec.Command("cloud-init", "schema", "--config-file", userData).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("there is no cloud-init: install it")
	}
	if err != nil || !strings.Contains(string(out), "Valid") {
		t.Errorf("%v\n%s", err, out)
	}
}
