package upstream

import (
	"slices"
	"testing"
	"time"
)

func TestParseAddr(t *testing.T) {
	for _, c := range []struct {
		in, want string // want is the text form; "" is an error
		local    bool
	}{
		{"127.0.0.1:3000", "127.0.0.1:3000", true},
		{"[::1]:3000", "[::1]:3000", true},
		{"[::ffff:10.0.0.1]:80", "10.0.0.1:80", false},
		{"[fe80::1%eth0]:80", "[fe80::1%eth0]:80", false},
		{"unix:/run/app.sock", "unix:/run/app.sock", true},
		{"unix:@app", "unix:@app", true},
		{"unix:", "", false},
		{"localhost:80", "localhost:80", true},
		{"localhost:0", "", false},
		{"localhost", "", false},
		{"app.localhost:80", "", false},
		{"127.0.0.1", "", false},
		{"127.0.0.1:0", "", false},
		{"127.0.0.1:65536", "", false},
		{"", "", false},
	} {
		a, err := ParseAddr(c.in)
		switch {
		case c.want == "" && err == nil:
			t.Errorf("%q: no error", c.in)
		case c.want != "" && (err != nil || a.String() != c.want || a.Local() != c.local):
			t.Errorf("%q: got %v, local %v, %v; want %s, local %v", c.in, a, a.Local(), err, c.want, c.local)
		}
		if err == nil {
			if b, err := ParseAddr(a.String()); b != a {
				t.Errorf("%q: reads back as %v, %v", c.in, b, err)
			}
		}
	}
}

// TestAddrIs: localhost is 127.0.0.1 to begin with.
func TestAddrIs(t *testing.T) {
	for _, same := range [][]string{{"127.0.0.1:1", "localhost:1", "[::ffff:127.0.0.1]:1"}, {"127.0.0.1:2", "localhost:2"}, {"[::1]:1"}, {"unix:/a"}, {"unix:/b"}} {
		for _, other := range []string{"127.0.0.1:1", "localhost:1", "localhost:2", "[::1]:1", "unix:/a", "unix:/b"} {
			for _, s := range same {
				a, _ := ParseAddr(s)
				b, _ := ParseAddr(other)
				if got := a.Is(b); got != slices.Contains(same, other) {
					t.Errorf("%s is %s: %v", s, other, got)
				}
			}
		}
	}
}

func TestConnectTimeout(t *testing.T) {
	s := DefaultSettings()
	for in, want := range map[string]time.Duration{
		"127.0.0.1:1": time.Second, "unix:/x": time.Second, "10.0.0.1:1": 3 * time.Second,
	} {
		a, err := ParseAddr(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.ConnectTimeoutFor(a); got != want {
			t.Errorf("%s: %v, want %v", in, got, want)
		}
	}
	s.ConnectTimeout = 7
	if got := s.ConnectTimeoutFor(Addr{Path: "/x"}); got != 7 {
		t.Errorf("set to 7 ns: %v", got)
	}
}
