package affinity

import (
	"net/netip"
	"testing"

	"lb/upstream"
)

func TestHashKey(t *testing.T) {
	r := &Request{
		Client:  netip.MustParseAddr("203.0.113.7"),
		Path:    []byte("/tenant//42/x"),
		Query:   []byte("a=1&room=7&room=8&empty="),
		Cookies: [][]byte{[]byte("a=b; user="), []byte(`user="joe"; user=x`)},
		Header:  []byte("h"),
	}
	ip := r.Client.As16()
	for _, c := range []struct {
		h    HashKey
		want string
	}{
		{HashKey{Source: FromIP}, string(ip[:])},
		{HashKey{Source: FromHeader, Name: "x-user"}, "h"},
		{HashKey{Source: FromCookie, Name: "user"}, "joe"},
		{HashKey{Source: FromCookie, Name: "none"}, ""},
		{HashKey{Source: FromQuery, Name: "room"}, "7"},
		{HashKey{Source: FromQuery, Name: "roo"}, ""},
		{HashKey{Source: FromQuery, Name: "empty"}, ""},
		{HashKey{Source: FromPath}, "/tenant//42/x"},
		{HashKey{Source: FromPath, Part: 1}, "tenant"},
		{HashKey{Source: FromPath, Part: 2}, "42"},
		{HashKey{Source: FromPath, Part: 3}, "x"},
		{HashKey{Source: FromPath, Part: 4}, ""},
	} {
		got, ok := c.h.Key(r)
		if ok != (c.want != "") || ok && got != upstream.KeyOf([]byte(c.want)) {
			t.Errorf("%+v: not the key of %q", c.h, c.want)
		}
	}
	if _, ok := (&HashKey{}).Key(&Request{}); ok {
		t.Error("a key without an address")
	}
}
