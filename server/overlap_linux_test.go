package server

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A listener's host changes, and its port does not, again and again, while clients connect all the time: none is refused,
// and no request fails. The same for the admin server. After each, a second lb is refused the port.
func TestReloadSamePort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := portOf(ln.Addr().String())
	ln.Close()
	if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	adminPort := portOf(ln.Addr().String())
	ln.Close()
	backend := app(t, "a")
	a := pools(backend)
	text := func(host, adminHost string) string {
		return a + listens("web", host+":"+port) + fmt.Sprintf("[admin]\naddress = %q\n", adminHost+":"+adminPort)
	}
	h := start(t, a)
	h.reloadWords(text("127.0.0.1", "127.0.0.1"))
	stop := make(chan struct{})
	var comers sync.WaitGroup
	var served, refused, failed atomic.Int64
	for range 4 {
		comers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 20*time.Second)
				if err != nil {
					refused.Add(1)
					t.Error(err)
					return
				}
				c.SetDeadline(time.Now().Add(20 * time.Second))
				fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil || resp.StatusCode != 200 {
					failed.Add(1)
					t.Errorf("%v %v", resp, err)
				}
				c.Close()
				served.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	hosts := []string{"127.0.0.1", "", "0.0.0.0", "localhost", "127.0.0.1", "0.0.0.0"}
	for i := range 12 {
		host, before := hosts[(i+1)%len(hosts)], hosts[i%len(hosts)]
		if i%3 == 2 { // one that opens all it needs and is refused for another reason
			h.rewrite(text(host, host) + listens("taken", backend))
			if _, err := h.reloadOnce(t.Context(), false); err == nil {
				t.Error("a taken port was had")
			}
		}
		v := h.reloadWords(text(host, host))
		if want := fmt.Sprintf("listener web moved from %s:%s to %s:%s", before, port, host, port); len(v.Changes) == 0 || v.Changes[0] != want {
			t.Errorf("changes %q, want %q", v.Changes, want)
		}
		at := served.Load()
		waitFor(t, "clients are served", func() bool { return served.Load() > at+20 || t.Failed() })
		if code, _ := h.fetch("http://127.0.0.1:" + adminPort + "/-/healthy"); code != 200 {
			t.Errorf("admin: %d", code)
		}
		for _, p := range []string{port, adminPort} {
			ln, err := plainListen("tcp", "127.0.0.1:"+p)
			if err == nil {
				ln.Close()
			}
			if !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("after move %d, a second lb at port %s: %v", i, p, err)
			}
		}
	}
	close(stop)
	comers.Wait()
	// What the next start would be refused, a reload does not do either.
	for _, more := range []string{"0.0.0.0", ""} {
		h.rewrite(text("127.0.0.1", "127.0.0.1") + listens("more", more+":"+port))
		if _, err := h.reloadOnce(t.Context(), false); err == nil || !strings.Contains(err.Error(), "is taken by listen.web") {
			t.Errorf("two listeners at one port: %v", err)
		}
	}
	t.Logf("%d requests on as many connections, over 12 moves; %d refused, %d failed", served.Load(), refused.Load(), failed.Load())
}
