package http1

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// A saw is one request as somebody read it.
type saw struct {
	Method, URL, Host string
	Length, Trailers  int
}

// sentinel stands behind each message: a reader that takes it for body, or part of it for a request, differs from us.
const sentinel = "GET /sentinel HTTP/1.1\r\nHost: sentinel\r\nConnection: close\r\n\r\n"

// nodeMethod are the methods of our inputs that Node's parser knows. lb passes on the others too, but here its refusal of one would hide
// one for a body that it takes for a request.
var nodeMethod = map[string]bool{"GET": true, "HEAD": true, "POST": true, "PUT": true, "DELETE": true, "OPTIONS": true, "PATCH": true,
	"TRACE": true, "LOCK": true, "PURGE": true}

// readAll reads the requests of one connection as the proxy would, up to the first that is refused, not all there or not for Node, or
// after which the connection closes. sent is what it would send on, over one connection.
func readAll(in []byte) (list []saw, sent []byte) {
	var r Request
	for {
		r.Reset()
		n, err := r.Parse(in, &defaults)
		if n == 0 || err != nil || !nodeMethod[string(r.Method)] {
			break
		}
		s := saw{Method: string(r.Method), URL: string(r.Target), Host: string(r.Host)}
		body := in[n:]
		if r.Length >= 0 {
			if int64(len(body)) < r.Length {
				break
			}
			s.Length, body = int(r.Length), body[:r.Length]
		} else {
			data, k, done, err := decode(body, len(body)+1)
			if !done || err != nil {
				break
			}
			var c Chunked
			c.Feed(body)
			s.Length, s.Trailers, body = len(data), c.lines, body[:k]
		}
		sent = append(passOn(sent, in, &r), body...)
		list = append(list, s)
		if in = in[n+len(body):]; !r.KeepAlive {
			break
		}
	}
	return list, sent
}

// passOn writes a head for the next reader: what the proxy leaves as it was is left, byte for byte.
func passOn(dst, buf []byte, r *Request) []byte {
	dst = fmt.Appendf(dst, "%s %s HTTP/1.1\r\n", r.Method, r.Target)
	if !r.Has(FieldHost) {
		dst = fmt.Appendf(dst, "Host: %s\r\n", r.Host)
	}
	for i := range r.Fields {
		switch f := &r.Fields[i]; f.Kind {
		case FieldConnection, FieldProxyConnection, FieldKeepAlive, FieldUpgrade, FieldLookalike:
		case FieldExpect: // HTTP/1.0 has none; under our version it would begin to mean something
			if r.Minor == 0 {
				continue
			}
			fallthrough
		default:
			dst = append(dst, buf[f.Start:f.End]...)
		}
	}
	return append(dst, "\r\n"...)
}

// askNode returns what Node says about in: what it saw, and the code of its parser's error, if any.
func askNode(addr string, in []byte) (list []saw, code string, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	go func() {
		conn.Write(in)
		conn.(*net.TCPConn).CloseWrite()
	}()
	answers, err := io.ReadAll(conn) // a reset after an answer is no news
	br := bufio.NewReader(bytes.NewReader(answers))
	for {
		// Of HEAD, so that no body is expected; there is none in any.
		res, rerr := http.ReadResponse(br, &http.Request{Method: http.MethodHead})
		if rerr != nil {
			return list, code, nil
		}
		if res.StatusCode == http.StatusContinue {
			continue
		}
		if res.StatusCode == http.StatusBadRequest {
			return list, res.Header.Get("X-Code"), nil
		}
		var s saw
		if err := json.Unmarshal([]byte(res.Header.Get("X-Saw")), &s); err != nil {
			return list, "", fmt.Errorf("answer %d: %w", res.StatusCode, err)
		}
		s.Host = strings.ToLower(s.Host)
		list = append(list, s)
	}
}

func startNode(t *testing.T) (addr string) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not on PATH")
	}
	cmd := exec.Command(node, "testdata/reader.mjs")
	cmd.Stderr = os.Stderr
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return "127.0.0.1:" + strings.TrimSpace(port)
}

// What we pass on, Node reads as the same requests with bodies of the same lengths.
func TestNodeAgrees(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	addr := startNode(t)
	inputs := make(chan string)
	var wg sync.WaitGroup
	var mu sync.Mutex
	requests, refused := 0, map[string]int{}
	for range 4 {
		wg.Go(func() {
			for in := range inputs {
				want, send := readAll([]byte(in))
				for i := range want {
					want[i].Host = strings.ToLower(want[i].Host) // of a target in absolute-form
				}
				want = append(want, saw{Method: "GET", URL: "/sentinel", Host: "sentinel"})
				send = append(send, sentinel...)
				got, code, err := askNode(addr, send)
				if err != nil {
					t.Errorf("%q: %v", send, err)
				}
				mu.Lock()
				requests += len(got)
				refused[code]++
				mu.Unlock()
				if code == "HPE_INVALID_CONTENT_LENGTH" { // it accepts no HTAB behind the number
					want = want[:min(len(got), len(want))]
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%q: Node reads\n     %+v %s\nwant %+v", send, got, code, want)
				}
			}
		})
	}
	sent := 0
	give := func(in string) {
		if list, _ := readAll([]byte(in)); len(list) > 0 {
			sent++
			inputs <- in
		}
	}
	for _, c := range readCases(t, "requests.txt", nil) {
		give(c.in)
	}
	for _, c := range readCases(t, "chunked.txt", nil) {
		give("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + c.in)
	}
	for g := newGenerator(4); sent < 1000; {
		give(g.pipeline())
	}
	close(inputs)
	wg.Wait()
	t.Logf("%d connections, %d requests agreed on; refused by Node: %v", sent, requests, refused)
}
