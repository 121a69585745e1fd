package deploy

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"lb/config"
)

// TestExamples has lb read the configurations of README.md.
func TestExamples(t *testing.T) {
	all := matches(read(t, "README.md"), "(?s)```toml\n(.*?)```")
	if len(all) < 1 {
		t.Fatalf("%d examples", len(all))
	}
	for _, text := range all {
		if _, err := config.Parse("README.md", []byte(text)); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
}

// TestPM2 has Node.js read what PM2 would.
func TestPM2(t *testing.T) {
	out, err := exec.Command("node", "-p", `JSON.stringify(require("./pm2/ecosystem.config.js"))`).Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("there is no node: install Node.js")
	}
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Apps []struct {
			Name, Script string
			Instances    int
			ExecMode     string `json:"exec_mode"`
			Env          map[string]string
		}
	}
	if err := json.Unmarshal(out, &file); err != nil {
		t.Fatal(err)
	}
	for i, a := range file.Apps {
		port := fmt.Sprint(3000 + i)
		if a.Name != "app-"+port || a.Env["PORT"] != port || a.ExecMode != "fork" || a.Instances != 1 {
			t.Errorf("app %d: %+v", i, a)
		}
	}
	if want := fmt.Sprintf(`"127.0.0.1:3000-%d"`, 2999+len(file.Apps)); !strings.Contains(read(t, "pm2/ecosystem.config.js"), want) {
		t.Errorf("its comment does not show the pool %s", want)
	}
}
