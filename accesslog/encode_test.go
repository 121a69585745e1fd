package accesslog

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// sample is a record as a browser on a page of some application causes it.
func sample() *Record {
	return &Record{
		Time:      time.Date(2026, 11, 21, 7, 20, 29, 123456789, time.FixedZone("", 3600)),
		Client:    netip.MustParseAddr("203.0.113.195"),
		Method:    []byte("GET"),
		Host:      []byte("shop.example.com"),
		Target:    []byte("/api/v1/products?category=shoes&page=2"),
		Proto:     []byte("HTTP/1.1"),
		RequestID: []byte("4bf92f3577b34da6a3ce929d0e0e4736"),
		UserAgent: []byte("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"),
		Referer:   []byte("https://shop.example.com/shoes"),
		Listener:  "main", Route: "api", Pool: "app", Backend: "127.0.0.1:3000",
		Status: 200, Tries: 1,
		Connect: 0, FirstByte: 11234567, Total: 12345678,
		BytesIn: 0, BytesOut: 5120,
	}
}

func TestJSON(t *testing.T) {
	own := &Record{
		Time:   time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Client: netip.MustParseAddr("::ffff:192.0.2.1"),
		Status: 400, Reason: "bad_request",
		Connect: -1, FirstByte: -1, Total: 999_999_500,
		BytesIn: 3, BytesOut: 12,
	}
	for _, c := range []struct {
		name string
		r    *Record
		want string
	}{
		{"proxied", sample(), `{"time":"2026-11-21T06:20:29.123456Z","client":"203.0.113.195","method":"GET","host":"shop.example.com",` +
			`"path":"/api/v1/products?category=shoes&page=2","proto":"HTTP/1.1","status":200,"bytes_out":5120,"bytes_in":0,` +
			`"total":0.012346,"connect":0.000000,"first_byte":0.011235,"listener":"main","route":"api","pool":"app",` +
			`"backend":"127.0.0.1:3000","tries":1,"request_id":"4bf92f3577b34da6a3ce929d0e0e4736",` +
			`"user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",` +
			`"referer":"https://shop.example.com/shoes"}`},
		{"answered by lb", own, `{"time":"2026-01-02T03:04:05.000000Z","client":"192.0.2.1","status":400,"bytes_out":12,"bytes_in":3,` +
			`"total":1.000000,"reason":"bad_request"}`},
		{"hostile", &Record{
			Time: own.Time, Client: netip.MustParseAddr(`fe80::1%"},{`), Total: -1, Connect: -1, FirstByte: -1,
			Target:    []byte("/\"\\\x00\n\x7f<é\u2028\u202e\U0001f600\U000e0001\xff\xc3(\xed\xa0\x80"),
			UserAgent: []byte("\t\r\u009b31m"),
		}, `{"time":"2026-01-02T03:04:05.000000Z","client":"fe80::1",` +
			`"path":"/\"\\\u0000\n\u007f<é\u2028\u202e😀\udb40\udc01\ufffd\ufffd(\ufffd\ufffd\ufffd","status":0,"bytes_out":0,"bytes_in":0,` +
			`"user_agent":"\t\r\u009b31m"}`},
	} {
		var s stamp
		got := string(appendJSON(nil, c.r, &s))
		if diff := cmp.Diff(c.want+"\n", got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if !json.Valid([]byte(got)) {
			t.Errorf("%s: not JSON", c.name)
		}
	}
}

func TestCombined(t *testing.T) {
	bad := &Record{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	hostile := &Record{
		Time: bad.Time, Client: netip.MustParseAddr("2001:db8::1"), Status: 404,
		Method: []byte("GET"), Target: []byte("/a\"b\\c\x01é"), Proto: []byte("HTTP/1.0"),
		Referer: []byte("\n"), UserAgent: []byte("x\x7f"),
	}
	for _, c := range []struct {
		name string
		r    *Record
		want string
	}{
		{"proxied", sample(), `203.0.113.195 - - [21/Nov/2026:07:20:29 +0100] "GET /api/v1/products?category=shoes&page=2 HTTP/1.1" 200 5120 ` +
			`"https://shop.example.com/shoes" "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"`},
		{"no request line", bad, `- - - [02/Jan/2026:03:04:05 +0000] "-" 000 0 "-" "-"`},
		{"hostile", hostile, `2001:db8::1 - - [02/Jan/2026:03:04:05 +0000] "GET /a\x22b\x5Cc\x01\xC3\xA9 HTTP/1.0" 404 0 "\x0A" "x\x7F"`},
	} {
		var s stamp
		if diff := cmp.Diff(c.want+"\n", string(appendCombined(nil, c.r, &s))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// The cached second must follow the clock forwards, backwards and into another zone.
func TestStampFollowsTheClock(t *testing.T) {
	var js, cs stamp
	at := time.Date(2026, 11, 1, 5, 59, 59, 999_999_999, time.UTC)
	paris := time.FixedZone("CET", 3600)
	for _, tm := range []time.Time{at, at.Add(1), at, at.In(paris), at.Add(time.Hour), time.Unix(0, 0).UTC(), {}} {
		r := &Record{Time: tm}
		var got struct{ Time string }
		if err := json.Unmarshal(appendJSON(nil, r, &js), &got); err != nil {
			t.Fatal(err)
		}
		if want := tm.UTC().Format("2006-01-02T15:04:05.000000Z"); got.Time != want {
			t.Errorf("json: got %s, want %s", got.Time, want)
		}
		want := tm.Format("[02/Jan/2006:15:04:05 -0700]")
		if line := string(appendCombined(nil, r, &cs)); !strings.Contains(line, want) {
			t.Errorf("combined: %q lacks %s", line, want)
		}
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.000000", 499: "0.000000", 500: "0.000001", 1499: "0.000001", time.Second: "1.000000",
		59*time.Second + 999_999_499: "59.999999", math.MaxInt64: "9223372036.854776", -1: "",
	} {
		if got := string(appendSeconds(nil, "", d)); got != want {
			t.Errorf("%d ns: got %s, want %s", d, got, want)
		}
	}
}

// FuzzJSON checks against encoding/json that a line is valid, means the strings it was made of, is one line, and is
// never longer than the room that Append checks for.
func FuzzJSON(f *testing.F) {
	f.Add([]byte("GET"), []byte("/"), []byte("a"), "app", 200, int64(5), int64(1))
	f.Add([]byte("\"\\\n\x00\x7f\xff"), []byte("\xed\xa0\x80\xf4\x90\x80\x80"), []byte("\u2028\u202e\U000e0001"), "\xc3", -1, int64(-1), int64(math.MinInt64))
	f.Add([]byte("12345678\x8012345678"), bytes.Repeat([]byte{0}, maxField+1), []byte("1234567\""), "1234567\x1f", 999, int64(math.MaxInt64), int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, method, target, agent []byte, name string, status int, n, d int64) {
		r := &Record{
			Time: time.Unix(n%1e11, d), Method: method, Host: target, Target: target, Proto: method, RequestID: agent,
			UserAgent: agent, Referer: target, Listener: name, Route: name, Pool: name, Backend: name, Reason: name,
			Status: status, Tries: status, BytesIn: n, BytesOut: n,
			Connect: time.Duration(d), FirstByte: time.Duration(n), Total: time.Duration(d),
			Client: netip.AddrFrom16([16]byte(append(bytes.Clone(agent), make([]byte, 16)...))).WithZone(name),
		}
		var js, cs stamp
		line := appendJSON(nil, r, &js)
		if len(line) > r.room() {
			t.Fatalf("%d bytes, room for %d", len(line), r.room())
		}
		if bytes.IndexByte(line, '\n') != len(line)-1 || !utf8.Valid(line) {
			t.Fatalf("not one line of UTF-8: %q", line)
		}
		got := map[string]any{}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		for key, want := range map[string]string{
			"method": string(method), "host": string(target), "path": string(target), "proto": string(method),
			"request_id": string(agent), "user_agent": string(agent), "referer": string(target), "listener": name,
			"route": name, "pool": name, "backend": name, "reason": name,
		} {
			if want = oracle(t, want[:min(len(want), maxField)]); want == "" {
				if v, ok := got[key]; ok {
					t.Errorf("%s: empty, got %q", key, v)
				}
			} else if got[key] != want {
				t.Errorf("%s: got %q, want %q", key, got[key], want)
			}
		}
		if got["status"] != float64(status) {
			t.Errorf("status: got %v, want %v", got["status"], status)
		}
		if v, ok := got["total"].(float64); ok != (d >= 0) || math.Abs(v-float64(d)/1e9) > 1e-6+float64(d)*1e-15 && ok {
			t.Errorf("total: got %v, want %v ns", got["total"], d)
		}

		line = appendCombined(nil, r, &cs)
		if len(line) > r.room() {
			t.Fatalf("combined: %d bytes, room for %d", len(line), r.room())
		}
		if bytes.IndexByte(line, '\n') != len(line)-1 || plain(bytes.Map(quotes, line[:len(line)-1])) != len(line)-1 {
			t.Fatalf("combined: not one plain line: %q", line)
		}
	})
}

// quotes takes out of a combined line what the format itself consists of.
func quotes(x rune) rune {
	if x == '"' || x == '\\' {
		return '_'
	}
	return x
}

// oracle is what encoding/json makes of s on the way out and in again.
func oracle(t *testing.T, s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var out string
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestLongestLineFits is what keeps a client from staying out of the log by the size of its request.
func TestLongestLineFits(t *testing.T) {
	huge := bytes.Repeat([]byte{0}, 1<<20)
	s := string(huge)
	r := &Record{Method: huge, Host: huge, Target: huge, Proto: huge, RequestID: huge, UserAgent: huge, Referer: huge,
		Listener: s, Route: s, Pool: s, Backend: s, Reason: s}
	if n := r.room(); n > limit {
		t.Fatalf("a line may need %d bytes, a buffer has %d", n, limit)
	}
	l, err := Open(Options{Writer: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	l.Append(0, r)
	if err := l.Close(t.Context()); err != nil || l.Lines() != 1 || l.Dropped() != 0 {
		t.Errorf("Close: %v; %d lines, %d dropped", err, l.Lines(), l.Dropped())
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	for _, format := range []string{JSON, Combined} {
		l, err := Open(Options{Format: format, Writer: io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		r := sample()
		r.Referer = []byte("https://example.com/é\"")
		tick := time.Millisecond // crosses seconds too
		if n := testing.AllocsPerRun(5000, func() { r.Time = r.Time.Add(tick); l.Append(0, r) }); n != 0 {
			t.Errorf("%s: %v allocations a line", format, n)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, format := range []string{JSON, Combined, Off} {
		b.Run(format, func(b *testing.B) {
			l, err := Open(Options{Format: format, Writer: io.Discard})
			if err != nil {
				b.Fatal(err)
			}
			r := sample()
			b.ReportAllocs()
			for n := uint64(1); b.Loop(); n++ {
				l.Append(0, r)
				if n%1000 == 0 && l.On() { // a dropped line is quick, so none may be
					b.StopTimer()
					for n-l.Lines()-l.Dropped() > 500 {
						runtime.Gosched()
					}
					b.StartTimer()
				}
			}
			b.ReportMetric(100*float64(l.Dropped())/float64(b.N), "%dropped")
			_ = l.Close(b.Context())
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	r := sample()
	var buf []byte
	var js, cs stamp
	b.Run(JSON, func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = appendJSON(buf[:0], r, &js)
		}
	})
	b.Run(Combined, func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = appendCombined(buf[:0], r, &cs)
		}
	})
}
