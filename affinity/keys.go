package affinity

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Keys sign cookies. The first signs, all verify; a cookie signed by another than the first is replaced.
//
// To change the key of several lb without anybody losing a session, give the new one to all of them as the second, then
// make it the first on all, and leave out the old one when the oldest cookie has expired.
type Keys struct{ list [][]byte }

const (
	minKey  = 32 // characters: what "openssl rand -hex 16" prints
	maxKeys = 8
)

// NewKeys takes keys as they are configured. Their text is the key: nothing is decoded, so that there is no question
// about how.
func NewKeys(texts ...string) (*Keys, error) {
	k := new(Keys)
	for i, s := range texts {
		if len(s) < minKey {
			return nil, fmt.Errorf("affinity: key %d has %d characters, want %d or more, such as of: openssl rand -base64 32", i+1, len(s), minKey)
		}
		for _, t := range texts[:i] {
			if s == t {
				return nil, fmt.Errorf("affinity: key %d is there twice", i+1)
			}
		}
		k.list = append(k.list, []byte(s))
	}
	switch {
	case len(k.list) == 0:
		return nil, errors.New("affinity: no key")
	case len(k.list) > maxKeys:
		return nil, fmt.Errorf("affinity: %d keys, want at most %d", len(k.list), maxKeys)
	}
	return k, nil
}

// Len is the number of keys.
func (k *Keys) Len() int { return len(k.list) }

// RandomKey is a new key of 256 bits.
func RandomKey() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}

// LoadKeys reads a file of keys: one on a line, but for empty lines and those that begin with #. If there is no file, it
// makes one with a random key, readable by its owner alone, and its directory if need be; of several processes that do so
// at once, one wins.
func LoadKeys(path string) (*Keys, error) {
	k, err := readKeys(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("affinity: directory of keys: %w", err)
	}
	tmp, err := writeTemp(path, []string{RandomKey()})
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("affinity: write keys: %w", err)
	}
	syncDir(path)
	return readKeys(path)
}

// RotateKeys makes a new key the first of a file, and keeps as many of the old ones as make up keep in all. Processes
// read it with LoadKeys when they are told to.
func RotateKeys(path string, keep int) error {
	old, err := readKeys(path)
	if err != nil {
		return err
	}
	texts := []string{RandomKey()}
	for _, k := range old.list {
		if len(texts) < min(max(keep, 1), maxKeys) {
			texts = append(texts, string(k))
		}
	}
	tmp, err := writeTemp(path, texts)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("affinity: write keys: %w", err)
	}
	syncDir(path)
	return nil
}

func readKeys(path string) (*Keys, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("affinity: read keys: %w", err)
	}
	var texts []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			texts = append(texts, line)
		}
	}
	k, err := NewKeys(texts...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// writeTemp writes a file of keys beside path, on disk when it returns.
func writeTemp(path string, texts []string) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".keys-*") // of mode 0600
	if err != nil {
		return "", fmt.Errorf("affinity: write keys: %w", err)
	}
	_, err = f.WriteString("# Keys of affinity cookies: the first signs, all verify. Keep them to yourself.\n" + strings.Join(texts, "\n") + "\n")
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(f.Name())
		return "", fmt.Errorf("affinity: write keys: %w", err)
	}
	return f.Name(), nil
}

// syncDir puts the name of a file on disk. If that fails there is at worst another key after a power failure.
func syncDir(path string) {
	if d, err := os.Open(filepath.Dir(path)); err == nil {
		d.Sync()
		d.Close()
	}
}
