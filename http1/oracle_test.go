package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// The oracle is net/http: what we accept it must accept, and read the same. That it accepts more is no fault of ours.

// reader holds all of in at once: net/http looks for the end of trailers in what is buffered.
func reader(in []byte) *bufio.Reader {
	return bufio.NewReaderSize(bytes.NewReader(in), max(len(in), 16))
}

func agreeRequest(t *testing.T, in []byte, n int, r *Request) {
	br := reader(bytes.TrimPrefix(in, []byte("\r\n"))) // its server reads on at an empty line, its parser does not
	req, err := http.ReadRequest(br)
	if err != nil {
		t.Fatalf("%q: net/http: %v", in, err)
	}
	uri := req.RequestURI
	if r.Absolute {
		_, rest, _ := strings.Cut(uri, "://")
		if uri = "/"; strings.Contains(rest, "/") {
			uri = rest[strings.Index(rest, "/"):]
		}
	}
	keep := !req.Close
	switch {
	case req.Method != string(r.Method), uri != string(r.Target), req.URL.RawQuery != string(r.Query), req.ProtoMinor != r.Minor,
		keep != r.KeepAlive, !strings.EqualFold(req.Host, string(r.Host)), req.ContentLength != r.Length,
		(len(req.TransferEncoding) == 1) != (r.Length == LengthChunked):
		t.Fatalf("%q:\n  we read %s\nnet/http %s %q query=%q host=%q 1.%d len=%d te=%v keep=%v", in, describeRequest(r, n, nil), req.Method,
			req.RequestURI, req.URL.RawQuery, req.Host, req.ProtoMinor, req.ContentLength, req.TransferEncoding, keep)
	}
	if string(r.Path) != "*" && req.URL.EscapedPath() == "" && !(r.Absolute && string(r.Path) == "/") {
		t.Fatalf("%q: net/http sees no path, we %q", in, r.Path)
	}
	agreeBody(t, in, n, r.Length, req.Body, func() http.Header { return req.Trailer }, br)
}

func agreeResponse(t *testing.T, in []byte, n int, r *Response, method Method) {
	name := http.MethodGet
	if method == MethodHead {
		name = http.MethodHead
	}
	br := reader(in)
	res, err := http.ReadResponse(br, &http.Request{Method: name})
	if err != nil {
		t.Fatalf("%q: net/http: %v", in, err)
	}
	noBody := method == MethodHead || r.Status < 200 || r.Status == 204 || r.Status == 304
	switch {
	case res.StatusCode != r.Status, res.ProtoMinor != r.Minor,
		!noBody && r.Length >= 0 && res.ContentLength != r.Length,
		!noBody && (r.Length == LengthUntilClose) != (res.ContentLength < 0 && len(res.TransferEncoding) == 0),
		!noBody && (r.Length == LengthChunked) != (len(res.TransferEncoding) == 1),
		r.KeepAlive && res.Close:
		t.Fatalf("%q:\n  we read %s\nnet/http %d 1.%d len=%d te=%v close=%v", in, describeResponse(r, n, nil), res.StatusCode,
			res.ProtoMinor, res.ContentLength, res.TransferEncoding, res.Close)
	}
	if r.Status != 101 {
		agreeBody(t, in, n, r.Length, res.Body, func() http.Header { return res.Trailer }, br)
	}
}

// agreeBody reads the body behind the head in[:n] both ways, if it is all there, and compares what is left after it.
func agreeBody(t *testing.T, in []byte, n int, length int64, body io.Reader, trailer func() http.Header, br *bufio.Reader) {
	rest := in[n:]
	var want []byte
	switch {
	case length == LengthUntilClose:
		want, rest = rest, nil
	case length >= 0:
		if int64(len(rest)) < length {
			return
		}
		want, rest = rest[:length], rest[length:]
	default:
		data, k, done, err := decode(rest, len(rest)+1)
		if err != nil || !done {
			return // that it may read on where we do not is its tolerance
		}
		want, rest = data, rest[k:]
	}
	got, err := io.ReadAll(body)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%q: body %q, net/http reads %q, %v", in, want, got, err)
	}
	if length == LengthChunked {
		for name := range trailer() {
			if k := kindOf([]byte(name)); notInTrailers&k.bit() != 0 {
				t.Fatalf("%q: trailer %s passed", in, name)
			}
		}
	}
	if left, _ := io.ReadAll(br); !bytes.Equal(left, rest) {
		t.Fatalf("%q: we leave %q, net/http %q", in, rest, left)
	}
}

func agreeChunked(t *testing.T, in []byte, n int, body []byte) {
	head := "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	br := reader([]byte(head + string(in)))
	req, err := http.ReadRequest(br)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(req.Body)
	if err != nil || !bytes.Equal(got, body) {
		t.Fatalf("%q: body %q, net/http reads %q, %v", in, body, got, err)
	}
	if left, _ := io.ReadAll(br); !bytes.Equal(left, in[n:]) {
		t.Fatalf("%q: we leave %q, net/http %q", in, in[n:], left)
	}
}
