package http1

import (
	"errors"
	"strings"
	"testing"
)

func head(line string, fields ...string) string {
	return line + "\r\n" + strings.Join(append(fields, "", ""), "\r\n")
}

func wantError(t *testing.T, what string, err error, status int, reason string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Status != status || e.Reason != reason {
		t.Errorf("%s: got %v, want %d %s", what, err, status, reason)
	}
}

// Each limit at, below and above.
func TestRequestLimits(t *testing.T) {
	whole := head("GET /0123456789 HTTP/1.1", "Host: a", "X: y")
	size := len(whole)
	for _, c := range []struct {
		name   string
		lim    Limits
		in     string
		n      int
		status int
		reason string
	}{
		{"bytes, exactly", Limits{MaxBytes: size}, whole, size, 0, ""},
		{"bytes, exactly, with more behind", Limits{MaxBytes: size}, whole + whole, size, 0, ""},
		{"bytes, one too many", Limits{MaxBytes: size - 1}, whole, 0, 431, "header_too_large"},
		{"bytes, one too many, not all there", Limits{MaxBytes: size - 1}, whole[:size-1], 0, 431, "header_too_large"},
		{"bytes, more may still fit", Limits{MaxBytes: size}, whole[:size-1], 0, 0, ""},
		{"an error within the limit comes first", Limits{MaxBytes: size - 1}, strings.Replace(whole, "X:", "X :", 1), 0, 400, "space_before_colon"},
		{"an error past the limit is not looked for", Limits{MaxBytes: 30}, whole[:30] + "\x00", 0, 431, "header_too_large"},
		{"the tolerated empty line counts", Limits{MaxBytes: size}, "\r\n" + whole, 0, 431, "header_too_large"},
		{"bytes end in the target", Limits{MaxBytes: 10}, whole, 0, 414, "target_too_long"},
		{"bytes end in the version", Limits{MaxBytes: 20}, whole, 0, 414, "target_too_long"},
		{"target, exactly", Limits{MaxTarget: 11}, whole, size, 0, ""},
		{"target, one too many", Limits{MaxTarget: 10}, whole, 0, 414, "target_too_long"},
		{"target, one too many, not all there", Limits{MaxTarget: 10}, whole[:15], 0, 414, "target_too_long"},
		{"target, may still fit", Limits{MaxTarget: 10}, whole[:14], 0, 0, ""},
		{"fields, exactly", Limits{MaxFields: 2}, whole, size, 0, ""},
		{"fields, one too many", Limits{MaxFields: 1}, whole, 0, 431, "too_many_fields"},
		{"default fields", Limits{}, head("GET / HTTP/1.0", many(200)...), 16 + 200*6 + 2, 0, ""},
		{"default fields, one too many", Limits{}, head("GET / HTTP/1.0", many(201)...), 0, 431, "too_many_fields"},
		{"default bytes", Limits{}, head("GET / HTTP/1.0", "A: "+strings.Repeat("x", 16384-16-3-4)), 16384, 0, ""},
		{"default bytes, one too many", Limits{}, head("GET / HTTP/1.0", "A: "+strings.Repeat("x", 16384-16-3-3)), 0, 431, "header_too_large"},
	} {
		var r Request
		n, err := r.Parse([]byte(c.in), &c.lim)
		if n != c.n {
			t.Errorf("%s: n = %d, want %d (%v)", c.name, n, c.n, err)
		}
		if c.status != 0 {
			wantError(t, c.name, err, c.status, c.reason)
		} else if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func many(n int) (fields []string) {
	for range n {
		fields = append(fields, "A: b")
	}
	return fields
}

func TestResponseLimits(t *testing.T) {
	whole := head("HTTP/1.1 200 OK", "Content-Length: 0", "X: y")
	size := len(whole)
	for _, c := range []struct {
		lim    Limits
		in     string
		n      int
		reason string
	}{
		{Limits{MaxBytes: size}, whole, size, ""},
		{Limits{MaxBytes: size - 1}, whole, 0, "header_too_large"},
		{Limits{MaxBytes: 13}, whole, 0, "header_too_large"},
		{Limits{MaxBytes: 5}, whole, 0, "header_too_large"},
		{Limits{MaxFields: 2}, whole, size, ""},
		{Limits{MaxFields: 1}, whole, 0, "too_many_fields"},
	} {
		var r Response
		n, err := r.Parse([]byte(c.in), &c.lim, MethodGet)
		if n != c.n {
			t.Errorf("%+v: n = %d, want %d (%v)", c.lim, n, c.n, err)
		}
		if c.reason != "" {
			wantError(t, c.reason, err, 502, c.reason)
		}
	}
}

func TestFieldOffsets(t *testing.T) {
	in := head("GET / HTTP/1.1", "Host:  a ", "X-Empty:", "COOKIE:\tb=c")
	var r Request
	if _, err := r.Parse([]byte(in), &defaults); err != nil {
		t.Fatal(err)
	}
	want := []struct {
		kind              Kind
		line, name, value string
	}{
		{FieldHost, "Host:  a \r\n", "Host", "a"},
		{FieldOther, "X-Empty:\r\n", "X-Empty", ""},
		{FieldCookie, "COOKIE:\tb=c\r\n", "COOKIE", "b=c"},
	}
	buf := []byte(in)
	for i, w := range want {
		f := &r.Fields[i]
		if f.Kind != w.kind || string(buf[f.Start:f.End]) != w.line || string(f.Name(buf)) != w.name || string(f.Value(buf)) != w.value {
			t.Errorf("field %d: %v %q %q %q", i, f.Kind, buf[f.Start:f.End], f.Name(buf), f.Value(buf))
		}
	}
	if !r.Has(FieldCookie) || r.Has(FieldVia) {
		t.Error("Has is wrong")
	}
}

func TestKinds(t *testing.T) {
	for k := FieldOther + 1; k < FieldLookalike; k++ {
		name := kindNames[k]
		for _, s := range []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:]} {
			if got := kindOf([]byte(s)); got != k {
				t.Errorf("%s is %v", s, got)
			}
		}
		// One byte changed to any other of a token is another name.
		for i := range name {
			for c := range 256 {
				if !isToken[c] || byte(c)|0x20 == name[i] && c >= 'A' && c <= 'Z' || byte(c) == name[i] {
					continue
				}
				s := name[:i] + string([]byte{byte(c)}) + name[i+1:]
				if got := kindOf([]byte(s)); got == k {
					t.Errorf("%s is taken for %v", s, k)
				}
			}
		}
		for _, s := range []string{name + "x", "x" + name, name[1:], name[:len(name)-1]} {
			if got := kindOf([]byte(s)); got == k {
				t.Errorf("%s is taken for %v", s, k)
			}
		}
	}
	for s, want := range map[string]Kind{
		"X_Forwarded_For": FieldLookalike, "x-forwarded_for": FieldLookalike, "X_FORWARDED-PROTO": FieldLookalike,
		"x_forwarded_host": FieldLookalike, "x_forwarded_port": FieldLookalike, "X_Real_IP": FieldLookalike,
		"x_request-id": FieldLookalike, "Transfer_Encoding": FieldLookalike, "CONTENT_LENGTH": FieldLookalike,
		"user_agent": FieldOther, "content_type": FieldOther, "_____________________": FieldOther, "______________": FieldOther, "a": FieldOther,
	} {
		if got := kindOf([]byte(s)); got != want {
			t.Errorf("%s is %v, want %v", s, got, want)
		}
	}
}

func TestNominates(t *testing.T) {
	buf := []byte(head("GET / HTTP/1.1", "Host: a", "Connection: x-a, keep-alive", "X-A: 1", "X-B: 2", "x-c: 3", "connection: X-C"))
	var r Request
	if _, err := r.Parse(buf, &defaults); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"X-A": true, "x-c": true}
	for i := range r.Fields {
		f := &r.Fields[i]
		if name := string(f.Name(buf)); r.Nominates(buf, f) != want[name] {
			t.Errorf("%s: %v", name, !want[name])
		}
	}
}

// Connection fields are bounded together.
func TestConnectionSize(t *testing.T) {
	half := "Connection: " + strings.Repeat("x", maxConnection/2)
	for in, want := range map[string]string{
		head("GET / HTTP/1.0", half, half):       "ok",
		head("GET / HTTP/1.0", half, half+"x"):   "400 bad_connection",
		head("HTTP/1.1 200 OK", half, half+"xy"): "502 bad_connection",
	} {
		verdict := requestVerdict(in)
		if strings.HasPrefix(in, "HTTP") {
			verdict = responseVerdict(in, MethodGet)
		}
		if !strings.HasPrefix(verdict, want) {
			t.Errorf("%q: %s, want %s", in, verdict, want)
		}
	}
}

// The scanners take eight bytes at a time; these are the same, one by one.
func TestScanners(t *testing.T) {
	slow := func(b []byte, i int, in func(c byte) bool) int {
		for i < len(b) && in(b[i]) {
			i++
		}
		return i
	}
	const special = "\x00\t\n\r\x1f !#-:@AZ[_`az{~\x7e\x7f\x80\xa0\xff"
	check := func(b []byte) {
		for i := range b {
			if got, want := token(b, i), slow(b, i, func(c byte) bool { return isToken[c] }); got != want {
				t.Fatalf("token(%q, %d) = %d, want %d", b, i, got, want)
			}
			if got, want := text(b, i), slow(b, i, func(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' }); got != want {
				t.Fatalf("text(%q, %d) = %d, want %d", b, i, got, want)
			}
			if got, want := targetEnd(b, i), slow(b, i, func(c byte) bool { return c > ' ' && c < 0x7f && c != '#' }); got != want {
				t.Fatalf("targetEnd(%q, %d) = %d, want %d", b, i, got, want)
			}
		}
	}
	g := newGenerator(5)
	for range 20000 {
		b := make([]byte, 1+g.IntN(30))
		for i := range b {
			b[i] = 'a'
			if g.one(3) {
				b[i] = special[g.IntN(len(special))]
			} else if g.one(10) {
				b[i] = byte(g.IntN(256))
			}
		}
		check(b)
	}
}

func TestIdempotent(t *testing.T) {
	for in, want := range map[string]bool{
		head("GET / HTTP/1.0"): true, head("HEAD / HTTP/1.0"): true, head("OPTIONS / HTTP/1.0"): true, head("TRACE / HTTP/1.0"): true,
		head("PUT / HTTP/1.0"): true, head("DELETE / HTTP/1.0"): true, head("POST / HTTP/1.0"): false, head("PATCH / HTTP/1.0"): false,
		head("get / HTTP/1.0"): false, head("POST / HTTP/1.0", "Idempotency-Key: x"): true,
	} {
		var r Request
		if _, err := r.Parse([]byte(in), &defaults); err != nil {
			t.Fatal(err)
		}
		if r.Idempotent() != want {
			t.Errorf("%q: %v", in, !want)
		}
	}
}

// A Request serves one head after another, and what the last one said is gone.
func TestReuse(t *testing.T) {
	var r Request
	in := []byte(head("POST http://a/b?c HTTP/1.1", "Host: a", "Content-Length: 5", "Connection: x, close", "Expect: 100-continue"))
	if _, err := r.Parse(in, &defaults); err != nil {
		t.Fatal(err)
	}
	n, err := r.Parse([]byte(smallRequest), &defaults)
	if got, want := describeRequest(&r, n, err), requestVerdict(smallRequest); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// A slow sender of long lines must not make us read them again with each byte.
func TestSlowSender(t *testing.T) {
	in := []byte(head("GET /"+strings.Repeat("a", 5000)+" HTTP/1.1", "Host: a", "Cookie: "+strings.Repeat("b", 9000)))
	var r Request
	for i := range in {
		n, err := r.Parse(in[:i+1:i+1], &defaults)
		if done := i+1 == len(in); err != nil || done != (n == len(in)) {
			t.Fatal(i, n, err)
		}
		if (i == 4000 || i == 8000) && r.text != i+1 {
			t.Errorf("would read on at %d of %d", r.text, i+1)
		}
	}
	if len(r.Path) != 5001 || len(r.Fields) != 2 {
		t.Error(len(r.Path), len(r.Fields))
	}
}

func TestNoAllocs(t *testing.T) {
	var r Request
	var p Response
	browser, bad, answer := []byte(browserRequest), []byte("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n"), []byte(smallResponse)
	if n := testing.AllocsPerRun(100, func() {
		r.Reset()
		r.Parse(browser, &defaults)
		r.Reset()
		r.Parse(bad, &defaults)
		p.Reset()
		p.Parse(answer, &defaults, MethodGet)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestValidHostAsNetip(t *testing.T) {
	for _, c := range readCases(t, "requests.txt", nil) {
		_, rest, ok := strings.Cut(c.in, "Host: [")
		if !ok {
			continue
		}
		addr, _, _ := strings.Cut(rest, "]\r\n")
		if got, want := validIPv6([]byte(addr)), isIPv6(addr); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}
