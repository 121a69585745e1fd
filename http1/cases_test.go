package http1

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// The files of testdata hold a case a line: a Go string of what came, "=>", and what we say to it. After a change of the rules,
// `go test ./http1 -update` writes the new verdicts, for review in the diff.
var update = flag.Bool("update", false, "write the verdicts of testdata/*.txt anew")

type textCase struct{ in, want string }

// readCases returns the cases of a file of testdata; with a verdict function it also checks them, or rewrites them on -update.
func readCases(t testing.TB, name string, verdict func(string) string) (cases []textCase) {
	t.Helper()
	path := "testdata/" + name
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	sc := bufio.NewScanner(bytes.NewReader(data))
	sc.Buffer(nil, 1<<20)
	for line := 1; sc.Scan(); line++ {
		text := sc.Text()
		if text == "" || text[0] == '#' {
			out.WriteString(text + "\n")
			continue
		}
		quoted, err := strconv.QuotedPrefix(text)
		if err != nil {
			t.Fatalf("%s:%d: %v", path, line, err)
		}
		in, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("%s:%d: %v", path, line, err)
		}
		c := textCase{in, strings.TrimPrefix(text[len(quoted):], " => ")}
		if verdict != nil {
			got := verdict(c.in)
			if got != c.want && !*update {
				t.Errorf("%s:%d: %s\n got %s\nwant %s", path, line, quoted, got, c.want)
			}
			fmt.Fprintf(&out, "%s => %s\n", quoted, got)
		}
		cases = append(cases, c)
	}
	if verdict != nil && *update {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return cases
}

func flags(pairs ...any) string {
	var s string
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1].(bool) {
			s += " " + pairs[i].(string)
		}
	}
	return s
}

func errorText(err error) string {
	var e *Error
	if !errors.As(err, &e) {
		return fmt.Sprintf("not an *Error: %v", err)
	}
	return fmt.Sprint(e.Status, " ", e.Reason)
}

func requestVerdict(in string) string {
	var r Request
	n, err := r.Parse([]byte(in), &defaults)
	return describeRequest(&r, n, err)
}

func describeRequest(r *Request, n int, err error) string {
	switch {
	case err != nil:
		return errorText(err)
	case n == 0:
		return "more"
	}
	return fmt.Sprintf("ok %d %s %q path=%q query=%q host=%q 1.%d len=%d fields=%d%s", n, r.Method, r.Target, r.Path, r.Query, r.Host,
		r.Minor, r.Length, len(r.Fields), flags("keep", r.KeepAlive, "upgrade", r.Upgrade, "expect", r.Expect, "nominated", r.Nominated,
			"absolute", r.Absolute))
}

func responseVerdict(in string, method Method) string {
	var r Response
	n, err := r.Parse([]byte(in), &defaults, method)
	return describeResponse(&r, n, err)
}

func describeResponse(r *Response, n int, err error) string {
	switch {
	case err != nil:
		return errorText(err)
	case n == 0:
		return "more"
	}
	s := fmt.Sprintf("ok %d %d %q 1.%d len=%d fields=%d%s", n, r.Status, r.Reason, r.Minor, r.Length, len(r.Fields),
		flags("keep", r.KeepAlive, "upgrade", r.Upgrade, "nominated", r.Nominated))
	if r.KeepAliveTimeout != 0 {
		s += fmt.Sprint(" timeout=", r.KeepAliveTimeout)
	}
	return s
}

func chunkedVerdict(in string) string {
	data, n, done, err := decode([]byte(in), len(in)+1)
	switch {
	case err != nil:
		return fmt.Sprintf("%s at %d", errorText(err), n)
	case !done:
		return "more"
	}
	return fmt.Sprintf("ok %d %q", n, data)
}

// decode reads a chunked body by Next, in pieces of size bytes.
func decode(in []byte, size int) (body []byte, n int, done bool, err error) {
	var c Chunked
	for n < len(in) && !done && err == nil {
		var data []byte
		var k int
		data, k, done, err = c.Next(in[n:min(n+size, len(in))])
		body = append(body, data...)
		n += k
	}
	return body, n, done, err
}

func TestRequests(t *testing.T) { readCases(t, "requests.txt", requestVerdict) }
func TestChunked(t *testing.T)  { readCases(t, "chunked.txt", chunkedVerdict) }
func TestResponses(t *testing.T) {
	readCases(t, "responses.txt", func(in string) string { return responseVerdict(in, MethodGet) })
}

func TestResponsesToHead(t *testing.T) {
	readCases(t, "responses_head.txt", func(in string) string { return responseVerdict(in, MethodHead) })
}
