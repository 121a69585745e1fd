package http1

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
)

func isIPv6(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is6() && a.Zone() == ""
}

func seed(f *testing.F, files ...string) {
	for _, name := range files {
		for _, c := range readCases(f, name, nil) {
			f.Add([]byte(c.in))
		}
	}
}

// tight are limits that short inputs reach.
var tight = Limits{MaxBytes: 120, MaxFields: 4, MaxTarget: 40}

func FuzzRequest(f *testing.F) {
	seed(f, "requests.txt")
	f.Add([]byte(browserRequest))
	f.Fuzz(checkRequest)
}

func checkRequest(t *testing.T, in []byte) {
	for _, lim := range []*Limits{&defaults, &tight} {
		var r Request
		n, err := r.Parse(in, lim)
		want := describeRequest(&r, n, err)
		if err == nil && n > 0 {
			checkFields(t, in[:n], r.Fields)
		}
		splitRequest(t, in, lim, want)
		if lim == &defaults && err == nil && n > 0 {
			agreeRequest(t, in, n, &r)
		}
	}
}

// splitRequest gives Parse in two parts, for each place to split it, and then byte by byte, always in another buffer. An error may
// come with the first part already; it is then the one of the whole.
func splitRequest(t *testing.T, in []byte, lim *Limits, want string) {
	for at := 0; at <= len(in); at++ {
		var r Request
		n, err := r.Parse(bytes.Clone(in[:at]), lim)
		if n == 0 && err == nil {
			n, err = r.Parse(bytes.Clone(in), lim)
		}
		if got := describeRequest(&r, n, err); got != want {
			t.Fatalf("%q split at %d:\n got %s\nwant %s", in, at, got, want)
		}
	}
	var r Request
	var n int
	var err error
	for at := 0; at <= len(in) && n == 0 && err == nil; at++ {
		n, err = r.Parse(bytes.Clone(in[:at]), lim)
	}
	if got := describeRequest(&r, n, err); got != want {
		t.Fatalf("%q byte by byte:\n got %s\nwant %s", in, got, want)
	}
}

// checkFields holds the fields of a head against a plain way of reading the same.
func checkFields(t *testing.T, head []byte, fields []Field) {
	text := strings.TrimPrefix(string(head), "\r\n")
	lines := strings.Split(strings.TrimSuffix(text, "\r\n\r\n"), "\r\n")[1:]
	if len(lines) != len(fields) {
		t.Fatalf("%q: %d fields, want %d", head, len(fields), len(lines))
	}
	for i, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		f := &fields[i]
		if !ok || string(f.Name(head)) != name || string(f.Value(head)) != strings.Trim(value, " \t") ||
			string(head[f.Start:f.End]) != line+"\r\n" || f.Kind != slowKind(name) {
			t.Fatalf("%q: field %d is %+v", head, i, *f)
		}
		for _, c := range []byte(line) {
			if c < ' ' && c != '\t' || c == 0x7f {
				t.Fatalf("%q: control byte in field %d", head, i)
			}
		}
		for _, c := range []byte(name) {
			if !isToken[c] {
				t.Fatalf("%q: no token in name %d", head, i)
			}
		}
	}
}

func slowKind(name string) Kind {
	name = strings.ToLower(name)
	for k := FieldOther + 1; k < FieldLookalike; k++ {
		if kindNames[k] == name {
			return k
		}
	}
	for k := FieldOther + 1; k < FieldLookalike; k++ {
		if lookalikes&k.bit() != 0 && kindNames[k] == strings.ReplaceAll(name, "_", "-") {
			return FieldLookalike
		}
	}
	return FieldOther
}

func FuzzResponse(f *testing.F) {
	seed(f, "responses.txt", "responses_head.txt")
	f.Add([]byte(smallResponse))
	f.Fuzz(checkResponse)
}

func checkResponse(t *testing.T, in []byte) {
	for _, method := range []Method{MethodGet, MethodHead} {
		for _, lim := range []*Limits{&defaults, &tight} {
			var r Response
			n, err := r.Parse(in, lim, method)
			want := describeResponse(&r, n, err)
			if err == nil && n > 0 {
				checkFields(t, in[:n], r.Fields)
			}
			splitResponse(t, in, lim, method, want)
			if lim == &defaults && err == nil && n > 0 {
				agreeResponse(t, in, n, &r, method)
			}
		}
	}
}

func splitResponse(t *testing.T, in []byte, lim *Limits, method Method, want string) {
	for at := 0; at <= len(in); at++ {
		var r Response
		n, err := r.Parse(bytes.Clone(in[:at]), lim, method)
		if n == 0 && err == nil {
			n, err = r.Parse(bytes.Clone(in), lim, method)
		}
		if got := describeResponse(&r, n, err); got != want {
			t.Fatalf("%q split at %d:\n got %s\nwant %s", in, at, got, want)
		}
	}
	var r Response
	var n int
	var err error
	for at := 0; at <= len(in) && n == 0 && err == nil; at++ {
		n, err = r.Parse(bytes.Clone(in[:at]), lim, method)
	}
	if got := describeResponse(&r, n, err); got != want {
		t.Fatalf("%q byte by byte:\n got %s\nwant %s", in, got, want)
	}
}

func FuzzChunked(f *testing.F) {
	seed(f, "chunked.txt")
	f.Fuzz(checkChunked)
}

func checkChunked(t *testing.T, in []byte) {
	body, n, done, err := decode(in, len(in)+1)
	for size := 1; size <= len(in); size++ {
		body2, n2, done2, err2 := decode(in, size)
		if !bytes.Equal(body2, body) || n2 != n || done2 != done || err2 != err {
			t.Fatalf("%q by %d: %q %d %v %v, want %q %d %v %v", in, size, body2, n2, done2, err2, body, n, done, err)
		}
	}
	for at := 0; at <= len(in); at++ {
		var c Chunked
		n2, done2, err2 := c.Feed(in[:at])
		if !done2 && err2 == nil {
			var k int
			k, done2, err2 = c.Feed(in[at:])
			n2 += k
		}
		if n2 != n || done2 != done || err2 != err {
			t.Fatalf("%q fed in two at %d: %d %v %v, want %d %v %v", in, at, n2, done2, err2, n, done, err)
		}
	}
	if done && err == nil {
		agreeChunked(t, in, n, body)
	}
}
