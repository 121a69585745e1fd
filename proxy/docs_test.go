package proxy

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestReasonsAreDocumented holds that docs/accesslog.md has a row for each reason.
func TestReasonsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/accesslog.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## Reasons\n")
	for r := None + 1; r < reasons; r++ {
		if row := fmt.Sprintf("\n| `%s` | %d | ", r, answers[r].status); !strings.Contains(table, row) {
			t.Errorf("docs/accesslog.md has no row that begins %q", row[1:])
		}
	}
	if n := strings.Count(table, "\n| `"); n != Reasons-1 {
		t.Errorf("docs/accesslog.md has %d reasons, lb %d", n, Reasons-1)
	}
}
