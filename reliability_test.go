package lb

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// firstRelease are the faults that lb has to come through from the first release on; the others are in the table, too.
var firstRelease = []int{
	1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 21, 24, 25, 26, 27, 29, 31, 33, 34, 35, 36, 37, 38, 40, 41,
	43, 44, 47, 48, 50,
}

// waits are those among them that concern what lb cannot do yet. Whoever adds it, fills in the row.
var waits = map[int]string{44: "Comes with TLS.", 48: "Comes with HTTP/2."}

const faults = 50

// TestReliability holds docs/reliability.md to the code: every fault has its row, and every test that the page names is
// there.
func TestReliability(t *testing.T) {
	page, err := os.ReadFile("docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	_, table, _ := strings.Cut(text, "<!-- faults -->")
	table, _, _ = strings.Cut(table, "<!-- end -->")
	var rows []int
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) < 2 {
			continue
		}
		n, err := strconv.Atoi(strings.TrimSpace(cells[0]))
		if err != nil {
			continue // the head
		}
		rows = append(rows, n)
		if len(cells) != 4 {
			t.Errorf("row %d has %d cells", n, len(cells))
			continue
		}
		named := strings.Contains(cells[3], "`Test")
		if want := waits[n]; want != "" && !named {
			if got := strings.TrimSpace(cells[2]); got != want {
				t.Errorf("row %d says %q, and names no test", n, got)
			}
			continue
		}
		if slices.Contains(firstRelease, n) && !named {
			t.Errorf("row %d names no test", n)
		}
	}
	for n := 1; n <= faults; n++ {
		if !slices.Contains(rows, n) {
			t.Errorf("there is no row %d", n)
		}
	}
	if !slices.IsSorted(rows) || len(rows) != faults {
		t.Errorf("the rows are %v", rows)
	}

	tests := map[string]string{} // what a package's tests say
	found := 0
	for _, m := range regexp.MustCompile("(?:^|[\\s(])([a-z0-9/]+)\\s+`(Test\\w+)`").FindAllStringSubmatch(text, -1) {
		dir, name := m[1], m[2]
		if _, ok := tests[dir]; !ok {
			files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
			if err != nil || len(files) == 0 {
				t.Errorf("there are no tests in %q", dir)
			}
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				tests[dir] += string(b)
			}
		}
		if !strings.Contains(tests[dir], "\nfunc "+name+"(t *testing.T)") {
			t.Errorf("%s has no %s", dir, name)
		}
		found++
	}
	if all := strings.Count(text, "`Test"); found != all {
		t.Errorf("%d of %d tests on the page have no package", all-found, all)
	}
}
