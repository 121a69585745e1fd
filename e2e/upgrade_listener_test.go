package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/coder/websocket"
)

// Clients' connections outlive an upgrade also when they came by an address that lb has left since, or leaves by the
// upgrade: for another port, or for another host with the same port.
func TestUpgradeMovedListener(t *testing.T) {
	apps := startApps(t, 2, "chaos.mjs")
	ports := freePorts(t, 3)
	s := setup{backends: apps, address: "127.0.0.1:" + ports[0]}
	n := startLineage(t, s)
	type client struct {
		*conn
		by string
		ws *websocket.Conn
	}
	var all []client
	come := func(port string) {
		t.Helper()
		addr := "127.0.0.1:" + port
		c := &conn{addr: addr}
		t.Cleanup(c.close)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		ws, _, err := websocket.Dial(ctx, "http://"+addr+"/ws/x", nil)
		if err == nil {
			_, _, err = ws.Read(ctx) // the instance's greeting
		}
		if err == nil {
			err = c.dial()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ws.CloseNow() })
		all = append(all, client{c, port, ws})
	}
	talk := func(when string) {
		t.Helper()
		for i, c := range all {
			if a := c.do("POST", fmt.Sprint("/sum/", i), "a body"); !a.ok() || a.closes || c.dials != 1 {
				t.Errorf("%s, the client of %s: %s, on connection %d", when, c.by, a.String(), c.dials)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			err := c.ws.Write(ctx, websocket.MessageText, []byte(when))
			if err == nil {
				_, _, err = c.ws.Read(ctx)
			}
			cancel()
			if err != nil {
				t.Errorf("%s, the WebSocket of %s: %v", when, c.by, err)
			}
		}
	}
	move := func(address string) {
		s.address = address
		s.write(t, n.config, n.logPath)
	}
	upgrade := func(when string) {
		t.Helper()
		if code, out, errs := n.upgrade("--watch", "100ms"); code != 0 {
			t.Fatalf("%s: %d %s%s", when, code, out, errs)
		}
		all := n.pids()
		eventually(t, when+": the one before has ended", func() bool { return !kill0(all[len(all)-2]) })
		talk(when)
	}

	come(ports[0])
	talk("at the start")
	move("127.0.0.1:" + ports[1])
	if code, out, errs := run(t, lbBinary, "reload", n.config); code != 0 {
		t.Fatalf("reload: %d %s%s", code, out, errs)
	}
	come(ports[1])
	talk("after a reload that moves the listener")
	upgrade("after an upgrade")
	come(ports[1])
	move("127.0.0.1:" + ports[2])
	upgrade("after an upgrade that moves the listener")
	come(ports[2])
	move("0.0.0.0:" + ports[2])
	upgrade("after an upgrade that changes its host")
	come(ports[2])
	move("127.0.0.1:" + ports[2])
	upgrade("after one that changes it back")
	come(ports[2])
	talk("at the end")
	n.end()
}

// A request that waits while all backends are drained, as lb is upgraded, is served by the old process when they are taken back:
// which only the new one is told.
func TestUpgradeWhileWaiting(t *testing.T) {
	apps := startApps(t, 1, "chaos.mjs")
	n := startLineage(t, setup{backends: apps, pool: "hold = \"30s\""})
	command := func(args ...string) {
		t.Helper()
		if code, out, errs := run(t, lbBinary, append(args, "--config", n.config)...); code != 0 {
			t.Fatalf("%v: %d %s%s", args, code, out, errs)
		}
	}
	command("drain", "app", "a")
	answers := make(chan answer, 1)
	go func() {
		c := &conn{addr: n.addr}
		defer c.close()
		answers <- c.do("POST", "/sum/1", "a body")
	}()
	n.reaches(1, "lb_pool_waiting_requests")
	if code, out, errs := n.upgrade("--watch", "0s"); code != 0 {
		t.Fatalf("upgrade: %d %s%s", code, out, errs)
	}
	command("ready", "app", "a")
	if a := <-answers; !a.ok() {
		t.Error(a.String())
	}
	n.end()
}
