package proxy

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lb/upstream"
)

// Row 45: all ports that connections to a backend can come from are used. That is no backend's fault, the client hears of
// it at once, and it is over as soon as a port is free. The test runs itself in a network namespace with four ports.
func TestOutOfPorts(t *testing.T) {
	const inside = "LB_TEST_FEW_PORTS"
	if os.Getenv(inside) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestOutOfPorts$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		out, err := cmd.CombinedOutput()
		if os.IsPermission(err) {
			t.Skip("only root may make network namespaces here")
		}
		if strings.Contains(string(out), "--- SKIP") {
			t.Skip("the range of ports cannot be set here")
		}
		if err != nil || !strings.Contains(string(out), "--- PASS: TestOutOfPorts") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	loopbackUp(t)
	const ports = 4
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", fmt.Appendf(nil, "40000 %d", 40000+ports-1), 0); os.IsPermission(err) || errors.Is(err, unix.EROFS) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	o := newOrigin(t, nil) // it has one of them
	l := newLab(t, []string{o.addr}, single)
	clients := 0
	client := func() *peer { // from an address of its own, which has all ports
		clients++
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(clients))}}
		c, err := d.Dial("tcp", l.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return newPeer(t, "client", c, t.Fatalf)
	}
	var ps, bs []*peer
	for len(ps) < 10*ports {
		p := client()
		p.send(get(fmt.Sprintf("/%d", len(ps))))
		asked := false
		eventually(t, "the backend is asked, or there is no port left", func() bool {
			asked = len(o.conns) > 0
			return asked || l.ln.Stats().Answers[Exhausted] > 0
		})
		if !asked {
			head, body := p.answer()
			own(t, head, body, 503, false)
			break
		}
		b := o.accept()
		b.head()
		ps, bs = append(ps, p), append(bs, b)
	}
	if n := len(ps); n == 0 || n > ports {
		t.Fatalf("%d connections with %d ports", n, ports)
	}
	l.answered(Exhausted, 1)
	for _, f := range []upstream.Fault{upstream.FaultConnect, upstream.FaultRefused, upstream.FaultReset, upstream.FaultTimeout} {
		if n := l.faults(0, f); n != 0 {
			t.Errorf("the backend is blamed for %d faults of kind %s", n, f)
		}
	}
	for i, b := range bs { // those that were there notice nothing
		b.send(ok(fmt.Sprint(i)))
		if got := ps[i].status(200); got != fmt.Sprint(i) {
			t.Errorf("%q", got)
		}
	}
	p := client() // and by a kept connection, it goes on
	p.send(get("/again"))
	b := bs[len(bs)-1]
	b.head()
	b.send(ok("again"))
	p.status(200)
}

// loopbackUp makes 127.0.0.1 work in a new network namespace.
func loopbackUp(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	r.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		t.Fatal(err)
	}
}
