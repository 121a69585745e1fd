package http1

import (
	"os"
	"strings"
	"testing"
)

// TestFaultsAreDocumented holds that docs/accesslog.md names each reason why a message is refused.
func TestFaultsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/accesslog.md")
	if err != nil {
		t.Fatal(err)
	}
	for f := none + 1; f < faults; f++ {
		if word := "`" + requestErrors[f].Reason + "`"; !strings.Contains(string(page), word) {
			t.Errorf("docs/accesslog.md does not name %s", word)
		}
	}
}
