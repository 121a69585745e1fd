package http1

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// A generator makes messages that are mostly right and now and then wrong in one of the ways that smuggling lives on: random bytes
// hardly ever get past the request line, so the fuzzers alone would not reach framing.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, seed))} }

func (g generator) pick(from ...string) string { return from[g.IntN(len(from))] }

func (g generator) one(in int) bool { return g.IntN(in) == 0 }

func (g generator) request() string {
	var b strings.Builder
	b.WriteString(g.pick("GET", "POST", "POST", "PUT", "HEAD", "OPTIONS", "PATCH", "DELETE", "TRACE", "LOCK", "get"))
	b.WriteString(" " + g.pick("/", "/", "/a/b", "/?q", "/a?b=c%20%zz", "/%41", "//x", "http://a/", "http://a", "http://a/x?y", "*", "/a#b"))
	b.WriteString(" " + g.pick("HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2") + g.eol())
	if !g.one(20) {
		b.WriteString("Host: " + g.pick("a", "a", "a", "A", "a:80", "[::1]", "") + g.eol())
	}
	for range g.IntN(3) {
		b.WriteString(g.field() + g.eol())
	}
	body := g.body()
	for range g.IntN(2) {
		b.WriteString(g.field() + g.eol())
	}
	return b.String() + body
}

func (g generator) field() string {
	return g.pick("Accept: */*", "Connection: close", "Connection: keep-alive", "Connection: x, keep-alive", "X: y", "x-empty:", "Cookie: a=b",
		"Connection: Upgrade\r\nUpgrade: websocket", "Upgrade: h2c", "Expect: 100-continue", "TE: trailers", "Trailer: X-Sum", "X_Forwarded_For: 1",
		"Transfer_Encoding: chunked", "Content_Length: 7", "X: \xff\x80", "X:\ty\t ", "Keep-Alive: timeout=5", "Content-Encoding: gzip",
		"Proxy-Connection: close", "Content-Length: 3", "Transfer-Encoding: chunked", " folded", "X : y", "X: y\x00", "X: y\rz", "X: y\nz")
}

func (g generator) eol() string {
	if g.one(150) {
		return g.pick("\n", "\r", "\r\r\n", "\n\r\n", " \r\n", "")
	}
	return "\r\n"
}

func (g generator) body() string {
	switch g.IntN(4) {
	case 0:
		return g.eol()
	case 1:
		data := strings.Repeat("x", g.IntN(12))
		n := len(data)
		if g.one(10) {
			n += g.IntN(3)
		}
		return "Content-Length: " + g.number(n, 10) + g.eol() + g.eol() + data
	case 2:
		data := "0\r\n\r\n"
		return "Content-Length: " + g.number(len(data), 10) + g.eol() + g.eol() + data
	}
	name := g.pick("Transfer-Encoding", "Transfer-Encoding", "transfer-encoding", "Transfer_Encoding", "Transfer-Encoding ")
	if !g.one(10) {
		name = "Transfer-Encoding"
	}
	value := "chunked"
	if g.one(6) {
		value = g.pick("Chunked", "chunked ", "\tchunked", "xchunked", "gzip, chunked", "chunked, chunked", "chunked,", "identity", "\"chunked\"",
			"chunked;q=1", "\x0bchunked", "chunked\x00")
	}
	return name + ": " + value + g.eol() + g.eol() + g.chunks()
}

func (g generator) chunks() string {
	var b strings.Builder
	for range g.IntN(4) {
		data := g.pick("a", "abc", "0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n", strings.Repeat("z", 20))
		b.WriteString(g.number(len(data), 16) + g.extension() + g.eol() + data + g.eol())
	}
	b.WriteString(g.pick("0", "0", "0", "00", "000000", "0x0", "") + g.extension() + g.eol())
	for range g.IntN(3) * g.IntN(2) {
		b.WriteString(g.pick("X-Sum: 1", "A:b", "Server-Timing: x;y", "Content-Length: 5", "Transfer-Encoding: chunked", "Host: b", " x", "x", "X : y") + g.eol())
	}
	return b.String() + g.eol()
}

func (g generator) number(n, base int) string {
	const digits = "0123456789abcdef"
	s := string(digits[n%base])
	for n /= base; n > 0; n /= base {
		s = string(digits[n%base]) + s
	}
	if g.one(15) {
		s = g.pick("0"+s, "00000"+s, "+"+s, "-"+s, " "+s, s+" ", s+"\t", "0x"+s, s+","+s, s+"\x00", s+"_", strings.ToUpper(s), s+"L", "\""+s+"\"")
	}
	return s
}

func (g generator) extension() string {
	if g.one(5) {
		return g.pick(";a", ";a=b", ";a=\"b;c\"", ";a=\"\\\"\"", ";a=b;c=d", ";", ";a=", "; a", ";a =b", ";a=\"", ";a=\"\r\n\"", ";a\n", ";a\rb", ";\xff", " ;a", ";a=\"\xff\"")
	}
	return ""
}

func (g generator) response() string {
	var b strings.Builder
	b.WriteString(g.pick("HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"))
	b.WriteString(g.pick(" 200 OK", " 200 OK", " 200", " 204 No Content", " 304 Not Modified", " 404 Not Found", " 100 Continue", " 103 Early", " 101 X", " 600 X") + g.eol())
	for range g.IntN(3) {
		b.WriteString(g.field() + g.eol())
	}
	return b.String() + g.body()
}

// mutate changes, drops, adds or doubles a few bytes.
func (g generator) mutate(s string) string {
	for range 1 + g.IntN(2) {
		if s == "" {
			return s
		}
		i := g.IntN(len(s))
		j := min(len(s), i+g.IntN(4))
		switch g.IntN(4) {
		case 0:
			s = s[:i] + g.pick("\r", "\n", "\r\n", "\x00", " ", "\t", ":", ",", ";", "\x0b", "\x7f", "\x80", "0", "_", "-", "\"") + s[j:]
		case 1:
			s = s[:i] + s[j:]
		case 2:
			s = s[:j] + s[i:]
		case 3:
			s = s[:i] + string([]byte{byte(g.IntN(256))}) + s[min(len(s), i+1):]
		}
	}
	return s
}

// message is a few requests behind one another, perhaps spoilt.
func (g generator) pipeline() string {
	var s string
	for range 1 + g.IntN(3) {
		s += g.request()
	}
	if g.one(2) {
		s = g.mutate(s)
	}
	return s
}

const generated = 2500

func TestGeneratedRequests(t *testing.T) {
	g := newGenerator(1)
	accepted := 0
	for range generated {
		in := g.pipeline()
		if strings.HasPrefix(requestVerdict(in), "ok") {
			accepted++
		}
		checkRequest(t, []byte(in))
	}
	enough(t, accepted)
}

func TestGeneratedResponses(t *testing.T) {
	g := newGenerator(2)
	accepted := 0
	for range generated {
		in := g.response()
		if g.one(2) {
			in = g.mutate(in)
		}
		if strings.HasPrefix(responseVerdict(in, MethodGet), "ok") {
			accepted++
		}
		checkResponse(t, []byte(in))
	}
	enough(t, accepted)
}

func TestGeneratedChunked(t *testing.T) {
	g := newGenerator(3)
	accepted := 0
	for range generated {
		in := g.chunks()
		if g.one(2) {
			in = g.mutate(in)
		}
		if strings.HasPrefix(chunkedVerdict(in), "ok") {
			accepted++
		}
		checkChunked(t, []byte(in))
	}
	enough(t, accepted)
}

// enough fails where a generator no longer makes both kinds of messages.
func enough(t *testing.T, accepted int) {
	t.Logf("%d of %d accepted", accepted, generated)
	if accepted < generated/10 || accepted > generated*9/10 {
		t.Errorf("accepts %d of %d", accepted, generated)
	}
}
