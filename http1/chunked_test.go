package http1

import (
	"bytes"
	"strings"
	"testing"
)

func feed(in string) error {
	var c Chunked
	_, _, err := c.Feed([]byte(in))
	return err
}

// Framing without data is bounded over the whole body, not by the chunk; honest small chunks are free.
func TestChunkedOverhead(t *testing.T) {
	if err := feed(strings.Repeat("1\r\nx\r\n", 100000)); err != nil {
		t.Error(err)
	}
	// 1 digit, 4 of line ends, 1000 of extension, less 16 and 2 for the byte of data: the 17th chunk is past 16 KiB.
	chunk := "1;" + strings.Repeat("a", 1000) + "\r\nx\r\n"
	if err := feed(strings.Repeat(chunk, 16)); err != nil {
		t.Error(err)
	}
	wantError(t, "extensions", feed(strings.Repeat(chunk, 17)), 400, "chunk_overhead")
	// The same extensions on chunks with data enough are no burden.
	chunk = "200;" + strings.Repeat("a", 1000) + "\r\n" + strings.Repeat("x", 512) + "\r\n"
	if err := feed(strings.Repeat(chunk, 1000)); err != nil {
		t.Error(err)
	}
}

func TestTrailerSize(t *testing.T) {
	// The line is "A:", the value and CRLF; the empty line counts too.
	fits := "0\r\nA:" + strings.Repeat("x", maxTrailerBytes-6) + "\r\n\r\n"
	if err := feed(fits); err != nil {
		t.Error(err)
	}
	wantError(t, "one more", feed(strings.Replace(fits, "A:", "A:x", 1)), 400, "trailer_too_large")
}

// A failed body stays failed: nothing behind a fault is read as if it had not been.
func TestChunkedStaysFailed(t *testing.T) {
	var c Chunked
	if n, _, err := c.Feed([]byte("5\nabcde")); n != 1 || err == nil {
		t.Fatal(n, err)
	}
	if n, done, err := c.Feed([]byte("\r\nabcde\r\n0\r\n\r\n")); n != 0 || done || err == nil {
		t.Error(n, done, err)
	}
	c.Reset()
	if n, done, err := c.Feed([]byte("0\r\n\r\n")); n != 5 || !done || err != nil {
		t.Error(n, done, err)
	}
	if n, done, err := c.Feed([]byte("GET")); n != 0 || !done || err != nil {
		t.Error(n, done, err)
	}
}

func TestAppendChunk(t *testing.T) {
	var body, want []byte
	for _, size := range []int{1, 15, 16, 255, 4096, 70000} {
		data := bytes.Repeat([]byte{'x'}, size)
		want = append(want, data...)
		body = AppendChunkEnd(append(AppendChunk(body, size), data...))
	}
	body = AppendLastChunk(body)
	got, n, done, err := decode(body, 1000)
	if !bytes.Equal(got, want) || n != len(body) || !done || err != nil {
		t.Error(len(got), n, done, err)
	}
}

func TestResponseNominates(t *testing.T) {
	buf := []byte(head("HTTP/1.1 204 No Content", "X-A: 1", "X-B: 2", "Connection: x-b"))
	var r Response
	if _, err := r.Parse(buf, &defaults, MethodGet); err != nil {
		t.Fatal(err)
	}
	if r.Nominates(buf, &r.Fields[0]) || !r.Nominates(buf, &r.Fields[1]) {
		t.Error("wrong fields")
	}
}
