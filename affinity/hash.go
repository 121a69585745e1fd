package affinity

import (
	"bytes"

	"lb/upstream"
)

// Source is the part of a request that a HashKey looks at.
type Source uint8

// The sources.
const (
	FromIP     Source = iota // the client's whole address, as the trusted proxies tell it
	FromHeader               // the first header of that name
	FromCookie
	FromQuery
	FromPath
)

// HashKey says which part of a request is hashed.
type HashKey struct {
	Source Source
	Name   string // of the header, cookie or query key
	Part   int    // of the path, from 1: of /app/7/x the second is 7; 0 is the whole path
}

// Key is what upstream.Selection.Key is to be. Without what it looks at, or when that is empty, there is none.
func (h *HashKey) Key(r *Request) (uint64, bool) {
	var v []byte
	switch h.Source {
	case FromIP:
		if !r.Client.IsValid() {
			return 0, false
		}
		b := r.Client.As16()
		return upstream.KeyOf(b[:]), true
	case FromHeader:
		v = r.Header
	case FromCookie:
		for _, field := range r.Cookies {
			c := cookies(field)
			if v, _ = c.next(h.Name); len(v) > 0 {
				break
			}
		}
	case FromQuery:
		v, _ = param(r.Query, h.Name)
	case FromPath:
		v = segment(r.Path, h.Part)
	}
	if len(v) == 0 {
		return 0, false
	}
	return upstream.KeyOf(v), true
}

// segment is the nth part of a path, from 1; the whole path for 0. Empty parts, of double slashes, do not count.
func segment(path []byte, n int) []byte {
	if n == 0 {
		return path
	}
	for len(path) > 0 {
		i := bytes.IndexByte(path, '/')
		if i < 0 {
			i = len(path)
		}
		if i > 0 {
			if n--; n == 0 {
				return path[:i]
			}
		}
		path = path[min(i+1, len(path)):]
	}
	return nil
}

// param is the first value of a key of a query, as it was sent.
func param(query []byte, key string) ([]byte, bool) {
	for len(query) > 0 {
		item := query
		if i := bytes.IndexByte(query, '&'); i >= 0 {
			item, query = query[:i], query[i+1:]
		} else {
			query = nil
		}
		if len(item) > len(key) && item[len(key)] == '=' && string(item[:len(key)]) == key {
			return item[len(key)+1:], true
		}
	}
	return nil, false
}
