package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// One of two instances comes and goes every second. (Row 16.) Requests that may be repeated never fail, and what it costs
// is bounded: it is left out for longer each time, so that it draws fewer and fewer requests while it is there.
func TestFlapping(t *testing.T) {
	t.Parallel() // it is about time, not load
	apps := startApps(t, 2, "express.mjs")
	l := startLB(t, setup{backends: apps})
	traffic := startLoad(t, l.addr, 8, 200, nil)
	traffic.goesOn(t, 100)
	begin, up := time.Now(), time.Duration(0)
	const times = 6
	for range times {
		apps[0].kill()
		time.Sleep(time.Second)
		apps[0].again(t)
		back := time.Now()
		time.Sleep(time.Second)
		up += time.Since(back)
	}
	whole := time.Since(begin)
	all := traffic.end()
	allOK(t, all)
	m := l.settled()
	if got := m.sum("lb_backend_ejections_total", "backend=a"); got < 3 || got > times {
		t.Errorf("ejected %v times, went away %d times", got, times)
	}
	// In its share of the time it would have had half of the requests.
	got, fair := m.sum("lb_backend_requests_total", "backend=a"), float64(len(all))*up.Seconds()/whole.Seconds()/2
	t.Logf("%v requests went to who flaps, of %d; %.0f would be its share of the time that it was there", got, len(all), fair)
	if got > fair {
		t.Errorf("%v requests went to who flaps, of %d", got, len(all))
	}
	if got := m.sum("lb_backend_ejections_total", "backend=b") + m.sum("lb_backend_faults_total", "backend=b"); got != 0 {
		t.Errorf("the other one is blamed: %v", got)
	}
	l.stop(0)
}

// lb itself is killed with -9. (Row 40.) Started again with the same file, it takes its addresses and its socket over from
// the dead, finds out who is well before the first request, and serves.
func TestCrash(t *testing.T) {
	apps := startApps(t, 3, "express.mjs")
	apps[2].kill() // a backend that is not there
	address := "127.0.0.1:" + freePorts(t, 1)[0]
	socket := filepath.Join(t.TempDir(), "admin.sock")
	raw := fmt.Sprintf("[listen.web]\naddress = %q\n[admin]\naddress = \"127.0.0.1:0\"\nsocket = %q\n[access_log]\npath = \"%%LOG%%\"\n[pool.app]\nbackends = [%q, %q, %q]\n",
		address, socket, apps[0].addr(), apps[1].addr(), apps[2].addr())
	l := startLB(t, setup{raw: raw})
	traffic := startLoad(t, l.addr, 8, 200, nil)
	traffic.goesOn(t, 50)
	half := startWaiters(t, l, apps[:2], 2, "/half/g")
	l.kill()
	for _, a := range half.end() {
		if a.err == nil {
			t.Errorf("an answer that was cut seems whole: %s", a.String())
		}
	}
	if _, err := os.Stat(socket); err != nil {
		t.Fatalf("what the dead left: %v", err) // else this tests nothing
	}
	at := traffic.count()
	again := start(t, "lb", exec.Command(lbBinary, "run", l.config))
	l.process = again
	l.event(`msg=ready`)
	l.admin = "http://" + l.event(`msg=admin address=(127\S+)`)
	traffic.goesOn(t, 100)
	all := traffic.end()
	// Clients had no lb for a while. From the first answer on, there is one for each.
	first := len(all)
	for i, s := range all[at:] {
		if s.ok() {
			first = at + i
			break
		}
	}
	allOK(t, all[min(len(all), first+8):]) // each of the 8 clients may have lost one
	m := l.settled()
	if got := m.sum("lb_backend_connection_errors_total"); got != 0 {
		t.Errorf("%v requests were sent to who is not there", got)
	}
	if code, out, _ := run(t, lbBinary, "reload", l.config); code != 0 || !strings.Contains(out, "nothing to change") {
		t.Errorf("reload: %d %s", code, out)
	}
	l.signal(syscall.SIGTERM)
	if code := l.wait(); code != 0 {
		t.Errorf("lb ended with %d", code)
	}
}
