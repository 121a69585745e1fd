package affinity

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// captured is an answer of Socket.IO 2 or 4 as it was sent, see testdata: the body without chunked framing.
type captured struct {
	name     string
	status   int
	encoding string
	body     []byte
	plain    string
	sid      string // "" where there is none to learn
}

var sidIn = regexp.MustCompile(`\\?"sid\\?":\\?"([A-Za-z0-9_-]{20})\\?"`)

func captures(t testing.TB) (all []captured) {
	files, err := filepath.Glob("testdata/*.http")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c := captured{filepath.Base(name), resp.StatusCode, resp.Header.Get("Content-Encoding"), body, "", ""}
		var plain io.Reader = bytes.NewReader(body)
		switch c.encoding {
		case "gzip":
			plain, err = gzip.NewReader(plain)
		case "deflate":
			plain, err = zlib.NewReader(plain)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b, err := io.ReadAll(plain)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c.plain = string(b)
		if m := sidIn.FindStringSubmatch(c.plain); m != nil && c.status == 200 {
			c.sid = m[1]
		}
		all = append(all, c)
	}
	return all
}

// feed gives body to a handshake in pieces that end at the given offsets.
func feed(encoding string, body []byte, ends ...int) (sid string, h handshake) {
	h.begin([]byte(encoding))
	at := 0
	for _, end := range append(ends, len(body)) {
		if !h.reading {
			break
		}
		if s := h.feed(body[at:end], end == len(body)); s != nil {
			sid = string(s)
		}
		at = end
	}
	h.end()
	return sid, h
}

func TestHandshakeCaptures(t *testing.T) {
	with := 0
	for _, c := range captures(t) {
		if c.status == 101 {
			continue // has no body; what follows belongs to the tunnel
		}
		if c.sid != "" {
			with++
		}
		var ends []int
		for i := range c.body {
			if got, _ := feed(c.encoding, c.body, i); got != c.sid {
				t.Errorf("%s in two at %d: got %q, want %q", c.name, i, got, c.sid)
			}
			ends = append(ends, i)
		}
		if got, _ := feed(c.encoding, c.body); got != c.sid {
			t.Errorf("%s: got %q, want %q", c.name, got, c.sid)
		}
		if got, _ := feed(c.encoding, c.body, ends...); got != c.sid {
			t.Errorf("%s in single bytes: got %q, want %q", c.name, got, c.sid)
		}
	}
	if with < 15 {
		t.Errorf("only %d captures with a sid", with)
	}
}

// By the time that the last byte of the sid has come, it is known: no client can know it earlier.
func TestHandshakeInTime(t *testing.T) {
	for _, c := range captures(t) {
		if c.sid == "" || c.encoding != "" {
			continue
		}
		end := bytes.Index(c.body, []byte(c.sid)) + len(c.sid)
		end += bytes.IndexByte(c.body[end:], '"') + 1
		var h handshake
		h.begin(nil)
		if sid := h.feed(c.body[:end], false); string(sid) != c.sid {
			t.Errorf("%s: got %q, want %q", c.name, sid, c.sid)
		}
	}
}

// So it is where the answer is compressed, when it comes in a reasonable number of pieces.
func TestHandshakeInTimeCompressed(t *testing.T) {
	const sid = "lv_VI97HAXpY6yYWAAAC"
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	io.WriteString(w, `0{"sid":"`+sid+`"`)
	w.Flush()
	by := out.Len()
	io.WriteString(w, `,"upgrades":[]}`+strings.Repeat("\x1e4hello", 10))
	w.Close()
	for pieces := 1; pieces < maxInflates; pieces++ {
		var h handshake
		h.begin([]byte("gzip"))
		var got []byte
		for i := range pieces {
			if sid := h.feed(out.Bytes()[by*i/pieces:by*(i+1)/pieces], false); sid != nil {
				got = sid
				break
			}
		}
		if string(got) != sid {
			t.Errorf("%d pieces: got %q", pieces, got)
		}
		h.end()
	}
}

func TestOpenPacket(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`0{"sid":"abc"}`, "abc"},
		{`0{"sid":"abc"`, "abc"},
		{`0{"upgrades":["websocket","}\"{"],"x":{"sid":"no"},"n":-1.5e3,"t":true,"sid":"abc"}`, "abc"},
		{"0{ \"a\" : null ,\r\n\t\"sid\" : \"abc\" }", "abc"},
		{`0{"sid":"a\"b\u00e9\\"}`, "a\"bé\\"},
		{`97:0{"sid":"abc"}2:40`, "abc"},
		{"\x00\x09\x07\xff0{\"sid\":\"abc\"}", "abc"},
		{`___eio[0]("0{\"sid\":\"abc\"}");`, "abc"},
		{`___eio[]("0{\"sid\":\"abc\"}");`, "abc"},
		{`/**/___eio[12]("97:0{\"sid\":\"abc\"}2:40");`, "abc"},
		{`___eio[1]("0{\"x\":\"\u2028\u001e\n\\n\",\"sid\":\"a\\\"b\"}");`, `a"b`},
		{`0{}`, "no"},
		{`0{"sid":7}`, "no"},
		{`0{"sid":""}`, "no"},
		{`0{"sid":null,"sid":"x"}`, "no"},
		{`0{"Sid":"x"}`, "no"},
		{`0{"a"}`, "no"},
		{`0{"a":1]`, "no"},
		{`0["sid"]`, "no"},
		{`1`, "more"},
		{`1:1`, "no"},
		{`4hello`, "no"},
		{`2probe`, "no"},
		{`{"code":1,"message":"Session ID unknown"}`, "no"},
		{`<html>`, "no"},
		{`12345678901:0{"sid":"x"}`, "no"},
		{`:0{"sid":"x"}`, "no"},
		{"\x00\xff0{\"sid\":\"x\"}", "no"},
		{`/*`, "more"},
		{`/**/`, "more"},
		{`/**/x`, "no"},
		{`___ei`, "more"},
		{`___eio[1](`, "more"},
		{`___eio[1](0`, "no"},
		{`___eio[1]("0{\"sid\":\"ab`, "more"},
		{`___eio[1]("0{\`, "more"},
		{`___eio[1]("0{\u00`, "more"},
		{``, "more"},
		{`0`, "more"},
		{`0{`, "more"},
		{`0{"sid"`, "more"},
		{`0{"sid":`, "more"},
		{`0{"sid":"ab`, "more"},
		{`0{"sid":"ab\`, "more"},
		{`0{"x":[1,2`, "more"},
		{`0{"x":1`, "more"},
		{`0{"sid":"` + strings.Repeat("x", maxSID) + `"}`, strings.Repeat("x", maxSID)},
		{`0{"sid":"` + strings.Repeat("x", maxSID+1) + `"}`, "no"},
		{`0{"sid":"` + strings.Repeat("x", maxSID+2), "no"},
	} {
		sid, v := openPacket([]byte(c.body), make([]byte, 0, maxAnswer))
		got := string(sid)
		switch v {
		case more:
			got = "more"
		case nothing:
			got = "no"
		}
		if got != c.want {
			t.Errorf("%.80q: got %q, want %q", c.body, got, c.want)
		}
	}
}

func compress(t testing.TB, encoding string, b []byte) []byte {
	var out bytes.Buffer
	var w io.WriteCloser
	switch encoding {
	case "gzip", "x-gzip":
		w = gzip.NewWriter(&out)
	case "deflate":
		w = zlib.NewWriter(&out)
	case "raw":
		w, _ = flate.NewWriter(&out, 6)
	default:
		return b
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestHandshakeCodings(t *testing.T) {
	const sid = "lv_VI97HAXpY6yYWAAAC"
	plain := []byte(`0{"sid":"` + sid + `","upgrades":["websocket"]}` + "\x1e40")
	noise := make([]byte, 20<<10)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(' ' + rnd.IntN(90))
	}
	long := append(plain[:len(plain):len(plain)], noise...)
	for _, c := range []struct{ name, how, encoding, want string }{
		{"none", "", "", sid},
		{"identity", "", "identity", sid},
		{"gzip", "gzip", "gzip", sid},
		{"in other case", "gzip", " X-Gzip ", sid},
		{"deflate is zlib", "deflate", "deflate", sid},
		{"deflate without zlib", "raw", "deflate", sid},
		{"not what it says", "", "gzip", ""},
		{"not what it says", "gzip", "deflate", ""},
		{"not what it says", "gzip", "", ""},
		{"brotli", "", "br", ""},
		{"several", "gzip", "gzip, br", ""},
	} {
		for _, body := range [][]byte{plain, long} {
			b := compress(t, c.how, body)
			for _, ends := range [][]int{nil, {1}, {20}, {100}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 50, 60, 90}} {
				if len(ends) > 0 && ends[len(ends)-1] > len(b) {
					continue
				}
				if got, h := feed(c.encoding, b, ends...); got != c.want || h.reading || h.buf != nil {
					t.Errorf("%s, %d bytes at %v: got %q, want %q", c.name, len(b), ends, got, c.want)
				}
			}
		}
	}
}

// What is not what it says it is encoded as ends the reading at once.
func TestHandshakeGarbage(t *testing.T) {
	for _, encoding := range []string{"gzip", "deflate"} {
		var h handshake
		h.begin([]byte(encoding))
		if sid := h.feed([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), false); sid != nil || h.reading {
			t.Errorf("%s: found %q, reads on: %t", encoding, sid, h.reading)
		}
		h.end()
	}
}

// An answer that never says what we look for ends the reading after maxAnswer bytes, whatever it is decoded to.
func TestHandshakeBounds(t *testing.T) {
	zeros := []byte(`0{"x":"` + strings.Repeat("0", 1<<20))
	noise := []byte(`0{"x":"`)
	for rnd := rand.New(rand.NewPCG(1, 2)); len(noise) < 1<<16; {
		noise = append(noise, byte('0'+rnd.IntN(70)))
	}
	noise = bytes.ReplaceAll(noise[7:], []byte{'\\'}, nil)
	noise = append([]byte(`0{"x":"`), noise...)
	for i, encoding := range []string{"", "gzip", "deflate", "", "gzip", "deflate"} {
		body := compress(t, encoding, zeros)
		if i >= 3 {
			body = compress(t, encoding, noise)
		}
		for _, step := range []int{1, 7, 1000, 1 << 20} {
			var h handshake
			h.begin([]byte(encoding))
			fed := 0
			for h.reading && fed < len(body) {
				n := min(step, len(body)-fed)
				if sid := h.feed(body[fed:fed+n], fed+n == len(body)); sid != nil {
					t.Fatalf("found %q", sid)
				}
				fed += n
			}
			if h.reading || fed > maxAnswer+step {
				t.Errorf("%q by %d: read %d bytes", encoding, step, fed)
			}
			h.end()
		}
	}
}

func TestEngineIO(t *testing.T) {
	for _, c := range []struct{ query, want string }{
		{"EIO=4&transport=polling&t=50rkgk5r", "begins"},
		{"EIO=3&transport=polling&t=Q7zCDYo&b64=1", "begins"},
		{"EIO=4&transport=polling&t=50rlxen4&sid=Kt6O2v4UXYltE-MUAAAA", "Kt6O2v4UXYltE-MUAAAA"},
		{"sid=abc&EIO=4", "abc"},
		{"a=b&EIO=4&sid=", "begins"},
		{"EIO=4&sid=a&sid=b", "a"},
		{"EIO=4&xsid=a", "begins"},
		{"sid=abc", "no"},
		{"XEIO=4&sid=abc", "no"},
		{"XEIO=4&EIO=4&sid=abc", "abc"},
		{"EIO=&sid=abc", "no"},
		{"EIO=x&sid=abc", "no"},
		{"EIO=", "no"},
		{"eio=4", "no"},
		{"q=EIO=4", "no"},
		{"", "no"},
	} {
		sid, ok := engineIO([]byte(c.query))
		got := string(sid)
		if !ok {
			got = "no"
		} else if got == "" {
			got = "begins"
		}
		if got != c.want {
			t.Errorf("%q: got %q, want %q", c.query, got, c.want)
		}
	}
}

func TestSIDInQuery(t *testing.T) {
	tab := newTable(64, 1, newSecret())
	for query, sid := range map[string]string{
		"abc-_09":                     "abc-_09",
		"a%2Fb":                       "a/b",
		"a%2fb+c%20d":                 "a/b c d",
		"100%":                        "100%",
		"%zz%4":                       "%zz%4",
		"%25":                         "%",
		"%C3%A9":                      "é",
		strings.Repeat("%41", maxSID): strings.Repeat("A", maxSID),
	} {
		if tab.keyOfQuery([]byte(query)) != tab.key([]byte(sid)) {
			t.Errorf("%q is not %q", query, sid)
		}
	}
}

// FuzzHandshake gives any body in any pieces: the pieces make no difference where the body is not compressed, and what is
// found is what a JSON parser finds.
func FuzzHandshake(f *testing.F) {
	for _, c := range captures(f) {
		if c.status != 101 {
			f.Add(c.body, c.encoding, uint16(len(c.body)/2), uint16(7))
			f.Add([]byte(c.plain), "", uint16(1), uint16(30))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, encoding string, a, b uint16) {
		whole, _ := feed(encoding, body)
		i, j := int(a)%(len(body)+1), int(b)%(len(body)+1)
		parts, h := feed(encoding, body, min(i, j), max(i, j))
		if h.buf != nil {
			t.Fatal("a buffer was kept")
		}
		if codingOf([]byte(encoding)) != identity {
			return
		}
		if whole != parts {
			t.Fatalf("whole: %q, parts: %q", whole, parts)
		}
		var open struct{ SID string }
		var exact map[string]json.RawMessage
		if packet, ok := bytes.CutPrefix(body, []byte{'0'}); ok && len(body) < maxAnswer && utf8.Valid(body) && json.Unmarshal(packet, &exact) == nil {
			want := ""
			if json.Unmarshal(exact["sid"], &open.SID) == nil && bytes.Count(packet, []byte("sid")) == 1 && !bytes.Contains(packet, []byte(`\u`)) {
				want = open.SID
				if len(exact["sid"]) <= maxSID && whole != want {
					t.Fatalf("got %q, want %q", whole, want)
				}
			}
		}
	})
}
