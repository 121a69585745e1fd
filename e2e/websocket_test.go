package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"

	"github.com/coder/websocket"
)

// A WebSocket through lb is as one without: sizes, kinds, compression, pings, and close codes both ways.
func TestWebSocket(t *testing.T) {
	apps := startApps(t, 2, "websocket.mjs")
	l := startLB(t, setup{backends: apps})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dial := func(t *testing.T, path string) (*websocket.Conn, map[string]any) {
		t.Helper()
		c, resp, err := websocket.Dial(ctx, l.url+path, &websocket.DialOptions{
			HTTPHeader:      http.Header{"Origin": {"http://" + l.addr}, "Cookie": {"session=1"}},
			CompressionMode: websocket.CompressionContextTakeover,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.CloseNow() })
		if resp.StatusCode != 101 || resp.Header.Get("Sec-Websocket-Extensions") == "" {
			t.Errorf("got %d, %v", resp.StatusCode, resp.Header)
		}
		c.SetReadLimit(64 << 20)
		_, b, err := c.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var hello map[string]any
		if err := json.Unmarshal(b, &hello); err != nil {
			t.Fatal(err)
		}
		return c, hello
	}
	t.Run("request", func(t *testing.T) {
		c, hello := dial(t, "/chat?room=1")
		headers := hello["headers"].(map[string]any)
		if hello["url"] != "/chat?room=1" || headers["x-forwarded-for"] != "127.0.0.1" || headers["cookie"] != "session=1" || headers["host"] != l.addr {
			t.Errorf("the app saw %v", hello)
		}
		c.Close(websocket.StatusNormalClosure, "")
	})
	t.Run("messages", func(t *testing.T) {
		c, _ := dial(t, "/")
		random := rand.NewChaCha8([32]byte{2})
		for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20, 8 << 20} {
			data := make([]byte, size)
			random.Read(data)
			go c.Write(ctx, websocket.MessageBinary, data) // while it comes back, or large ones would wait for each other
			kind, got, err := c.Read(ctx)
			if err != nil || kind != websocket.MessageBinary || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes: %v back, %v, %v", size, len(got), kind, err)
			}
		}
		read := make(chan error, 1)
		go func() {
			_, _, err := c.Read(ctx) // a ping is answered by who reads
			read <- err
		}()
		if err := c.Ping(ctx); err != nil {
			t.Errorf("ping: %v", err)
		}
		c.Close(4001, "enough")
		<-read
	})
	t.Run("closed by the app", func(t *testing.T) {
		c, _ := dial(t, "/")
		if err := c.Write(ctx, websocket.MessageText, []byte("close 4321 tired")); err != nil {
			t.Fatal(err)
		}
		_, _, err := c.Read(ctx)
		var e websocket.CloseError
		if !errors.As(err, &e) || e.Code != 4321 || e.Reason != "tired" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("cut by the client", func(t *testing.T) {
		c, hello := dial(t, "/")
		c.CloseNow()
		for _, a := range apps {
			if a.name == hello["name"] {
				a.hears("closed 1006")
			}
		}
	})
	t.Run("refused by the app", func(t *testing.T) {
		c := &conn{addr: l.addr}
		defer c.close()
		for i := range 4 {
			if a := c.do("GET", "/", ""); a.status != 426 || a.body != "WebSocket only" {
				t.Errorf("got %s", a.String())
			}
			if c.dials != 1 {
				t.Errorf("request %d: the connection was not kept", i)
			}
		}
	})
	l.reaches(0, "lb_backend_tunnels")
	told := make(chan error, 4)
	for range cap(told) {
		c, _ := dial(t, "/")
		go func() {
			_, _, err := c.Read(ctx)
			told <- err
		}()
	}
	l.stop(0)
	for range cap(told) {
		var e websocket.CloseError
		if err := <-told; !errors.As(err, &e) || e.Code != websocket.StatusServiceRestart {
			t.Errorf("as lb stopped, a client was told %v, want 1012: connect again", err)
		}
	}
	seen := map[string]int{}
	for _, r := range readLog(t, l.logPath) {
		seen[fmt.Sprint(r.Status, r.Reason)]++
	}
	if seen["101"] != 8 || seen["426"] != 4 {
		t.Errorf("the log has %v", seen)
	}
}
