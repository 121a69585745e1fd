package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// The origin and the load generator run as they do in earnest, as processes: here this test's own program.
func TestMain(m *testing.M) {
	if childMain() {
		return
	}
	os.Exit(m.Run())
}

func anyCore(t *testing.T) int {
	t.Helper()
	cpus, err := allowed()
	if err != nil {
		t.Fatal(err)
	}
	return cpus[len(cpus)-1]
}

func testOrigin(t *testing.T, head string) string {
	t.Helper()
	p, addr, err := startOrigin(head, anyCore(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return addr
}

func TestRowsAgainstOrigin(t *testing.T) {
	for _, head := range []string{headSmall, headBrowser} {
		addr := testOrigin(t, head)
		for _, r := range rows(40) {
			if r.job.PerRequest {
				continue // the origin never closes; a server that does is in the next test
			}
			t.Run(head+"/"+r.name, func(t *testing.T) {
				j := r.job
				j.Addr, j.Head = addr, head
				if !j.Hold {
					j.Duration = 50 * time.Millisecond
				}
				held := false
				res, err := runJob(t.Context(), j, anyCore(t), func() error { held = true; return nil })
				if err != nil {
					t.Fatal(err)
				}
				if res.Errors != 0 || res.Requests == 0 || res.P50 <= 0 || res.P99 < res.P50 || res.Elapsed <= 0 {
					t.Errorf("%+v", res)
				}
				if held != j.Hold || j.Hold && res.Requests != 40 {
					t.Errorf("held %v, %+v", held, res)
				}
			})
		}
	}
}

// serve answers with handler on a free port until the test ends.
func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handler}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	return ln.Addr().String()
}

func TestConnectionPerRequest(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !r.Close {
			t.Error("no Connection: close")
		}
		fmt.Fprint(w, strings.Repeat("x", smallBody))
	})
	j := rows(0)[2].job
	j.Addr, j.Head, j.Duration = addr, headSmall, 50*time.Millisecond
	res, err := runJob(t.Context(), j, anyCore(t), nil)
	if err != nil || res.Errors != 0 || res.Requests == 0 {
		t.Errorf("%+v, %v", res, err)
	}
}

// What is wrong with an answer must be found, or a proxy that breaks them would look cheap.
func TestWrongAnswersAreErrors(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"status": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(502) }, "status 502"},
		"short body": {func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "x")
		}, "a body of 1 bytes instead of 64"},
		"cut body": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "64")
			w.Write([]byte("x"))
			panic(http.ErrAbortHandler)
		}, "closed before the end of the answer"},
		"no answer": {func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, "closed before"},
	} {
		t.Run(name, func(t *testing.T) {
			j := job{Addr: serve(t, c.handler), Head: headSmall, Path: "/64", Answer: smallBody, Conns: 2,
				Duration: 20 * time.Millisecond}
			res, err := runJob(t.Context(), j, anyCore(t), nil)
			if err != nil || res.Errors == 0 || res.Requests != 0 || !strings.Contains(res.First, c.want) {
				t.Errorf("%+v, %v", res, err)
			}
		})
	}
}

// An idle connection that is closed while it is held counts.
func TestLostIdleConnection(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conns := make(chan net.Conn, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			c.Write(response(headSmall, make([]byte, smallBody)))
		}
		conns <- c
	}()
	j := job{Addr: ln.Addr().String(), Head: headSmall, Path: "/64", Answer: smallBody, Conns: 1, Hold: true,
		Duration: 10 * time.Second}
	res, err := runJob(t.Context(), j, anyCore(t), func() error { return (<-conns).Close() })
	if err != nil || res.Errors != 1 || res.Requests != 1 || res.First != "an idle connection was closed" {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestHead(t *testing.T) {
	const head = "HTTP/1.1 204 No Content\r\nConTent-length:  17 \r\nX: y\r\n\r\n"
	if n := headEnd([]byte(head + "body")); n != len(head) {
		t.Errorf("headEnd = %d", n)
	}
	if n := headEnd([]byte(head[:len(head)-1])); n != 0 {
		t.Errorf("headEnd of a part = %d", n)
	}
	b := []byte(head)
	if statusOf(b) != 204 || contentLength(b) != 17 || string(field(b, "x")) != "y" || field(b, "y") != nil {
		t.Errorf("%d %d %q %q", statusOf(b), contentLength(b), field(b, "x"), field(b, "y"))
	}
	if statusOf([]byte("HTTP/1.0 200 OK\r\n\r\n")) != 0 || contentLength([]byte("a\r\n\r\n")) != -1 {
		t.Error("no status and no length are not told apart")
	}
}
