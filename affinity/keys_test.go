package affinity

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestNewKeys(t *testing.T) {
	for _, c := range []struct {
		texts []string
		want  string
	}{
		{[]string{key1}, ""},
		{[]string{key1, key2}, ""},
		{nil, "no key"},
		{[]string{"short"}, "key 1 has 5 characters"},
		{[]string{key1, "short"}, "key 2"},
		{[]string{key1, key2, key1}, "key 3 is there twice"},
		{strings.Fields(strings.Repeat(" "+strings.Repeat("x", 40), 1)), ""},
	} {
		_, err := NewKeys(c.texts...)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.texts, err, c.want)
		}
	}
}

func TestLoadKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "affinity.keys")
	k, err := LoadKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	again, err := LoadKeys(path)
	if err != nil || string(again.list[0]) != string(k.list[0]) || k.Len() != 1 {
		t.Errorf("not the same key the second time: %v", err)
	}
	for range 3 {
		if err := RotateKeys(path, 3); err != nil {
			t.Fatal(err)
		}
	}
	rotated, err := LoadKeys(path)
	if err != nil || rotated.Len() != 3 {
		t.Fatalf("%d keys, %v", rotated.Len(), err)
	}
	if err := RotateKeys(path, 2); err != nil {
		t.Fatal(err)
	}
	last, err := LoadKeys(path)
	if err != nil || last.Len() != 2 || string(last.list[1]) != string(rotated.list[0]) {
		t.Errorf("the first key did not become the second: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("files left: %v, %v", left, err)
	}
}

func TestLoadKeysRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte("# nothing\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeys(path); err == nil || !strings.Contains(err.Error(), "no key") || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if _, err := LoadKeys(filepath.Dir(path)); err == nil {
		t.Error("a directory was read")
	}
}

// Several lb that start at once with one directory end up with the same key.
func TestLoadKeysAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	var wg sync.WaitGroup
	var got [8]*Keys
	for i := range got {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var err error
			if got[i], err = LoadKeys(path); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	for _, k := range got {
		if k == nil || string(k.list[0]) != string(got[0].list[0]) {
			t.Fatal("two keys")
		}
	}
}
