package config

import (
	"strings"
	"testing"
)

// TestTableDocs holds that each table of the keys has its sentence, and that none outlives its table.
func TestTableDocs(t *testing.T) {
	known := map[string]bool{}
	for _, k := range Keys() {
		if doc := TableDoc(k.Table); !known[k.Table] && !strings.HasSuffix(doc, ".") {
			t.Errorf("table %s: config/tables.go says %q, want a sentence of what it is for", k.Table, doc)
		}
		known[k.Table] = true
	}
	for table := range tables {
		if !known[table] {
			t.Errorf("config/tables.go: there is no table %s", table)
		}
	}
}
