package proxy

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestReasonDocs holds that docs/troubleshooting.md helps with every reason, and with none that does not exist.
func TestReasonDocs(t *testing.T) {
	const file = "../docs/troubleshooting.md"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	text := string(data)
	heads := regexp.MustCompile("(?m)^### `([a-z_]+)` \\((\\d+)\\)\n").FindAllStringSubmatchIndex(text, -1)
	for _, h := range heads {
		section := text[h[1]:]
		if end := strings.Index(section, "\n#"); end >= 0 {
			section = section[:end]
		}
		name := text[h[2]:h[3]]
		if sections[name] != "" {
			t.Errorf("%s is there twice", name)
		}
		sections[name] = text[h[4]:h[5]] + "\n" + section
	}
	for r := None + 1; r < reasons; r++ {
		section, ok := sections[r.String()]
		if !ok {
			t.Errorf("%s has no section \"### `%s` (%d)\"", file, r, answers[r].status)
			continue
		}
		delete(sections, r.String())
		if !strings.HasPrefix(section, fmt.Sprintln(answers[r].status)) {
			t.Errorf("%s: its status is %d", r, answers[r].status)
		}
		for _, part := range []string{"\n- Usual causes: ", "\n- Look at: "} {
			if strings.Count(section, part) != 1 {
				t.Errorf("%s: wants one line%s", r, strings.ReplaceAll(part, "\n", " "))
			}
		}
	}
	for name := range sections {
		t.Errorf("%s is no reason", name)
	}
}
