package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// Many clients send POSTs with gaps from 0.2 to 7 s to a Node.js server as it comes: it closes kept connections after 5 s
// and a little, lb after 4 s, and a POST that meets a connection as it closes cannot be sent again. Not one may fail.
// EDGES_TIME says how long, a few minutes by themselves and less among other tests.
func TestKeepAliveSoak(t *testing.T) {
	t.Parallel() // it is about time, not load
	length := lasting(t, "EDGES_TIME", 25*time.Second)
	const clients = 150
	apps := startApps(t, 2, "chaos.mjs", "RECORD=1")
	l := startLB(t, setup{backends: apps})
	load := &mixed{door: &door{now: l.addr}, stop: make(chan struct{}), keep: true}
	// Half of them send at the same moments, so that each of those requests has a connection of its own, and all these
	// connections have been idle for as long as the others when the next comes.
	begin := time.Now()
	for i := range clients {
		load.workers.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(i)))
			together := rand.New(rand.NewPCG(7, 1000))
			c := &conn{addr: l.addr}
			defer c.close()
			gap := func(r *rand.Rand) time.Duration {
				if r.IntN(2) == 0 { // around the times at which lb and Node.js close
					return 3800*time.Millisecond + time.Duration(r.IntN(1500))*time.Millisecond
				}
				return time.Duration(200+r.IntN(6800)) * time.Millisecond
			}
			next := begin
			for {
				if i%2 == 0 {
					next = next.Add(gap(together))
				} else {
					next = time.Now().Add(gap(r))
				}
				if !load.rest(time.Until(next)) {
					return
				}
				load.book(load.post(c, r, "post"))
			}
		})
	}
	time.Sleep(length)
	load.over()
	stood := &story{}
	for _, a := range apps {
		a.kill()
		n := &instance{app: a, past: []*process{a.process}}
		stood.stalls = append(stood.stalls, n.story().stalls...)
	}
	failed := 0
	for _, s := range load.shots {
		if !s.ok() {
			failed++
			t.Errorf("%s", s.String())
		}
	}
	m := l.settled()
	t.Logf("%d POSTs in %v, %d failed; %v came on a connection that had served before; instances stood still for more than half a second %d times",
		len(load.shots), length, failed, m.sum("lb_backend_connections_reused_total"), len(stood.stalls))
	if got := m.sum("lb_listener_requests_total"); got != float64(len(load.shots)) {
		t.Errorf("lb counts %v requests, clients %d", got, len(load.shots))
	}
	if len(load.shots) < clients {
		t.Error("too few POSTs to say anything")
	}
	l.stop(0)
}

// A backend that is a port which workers share, one of which is handed connections and never says anything: with
// reuse = false, requests that may be repeated are tried again on another connection to the same port, and come to
// another worker.
func TestClusterPort(t *testing.T) {
	node := startApp(t, "cluster.mjs", "cluster", "WORKERS=4")
	l := startLB(t, setup{backends: []*app{node}, pool: "reuse = false\ntry_timeout = \"500ms\"\nretry_budget = 100\n"})
	ask := func(n int, method string) (all []sample) {
		return flood(l.addr, 8, n, func(c *conn, i int) sample {
			path := fmt.Sprintf("/%s/%d", method, i)
			return sample{path, c.do(method, path, "")}
		})
	}
	all := ask(40, "GET")
	allOK(t, all)
	if got := shares(all); len(got) != 4 {
		t.Errorf("answers came from %v", got)
	}
	node.order("hang", "1")
	node.hears("sent")
	all = ask(80, "PUT")
	allOK(t, all)
	if got := shares(all); len(got) != 3 {
		t.Errorf("with one that hangs, answers came from %v", got)
	}
	m := l.settled()
	retries, timeouts := m.sum("lb_backend_retries_total"), m.sum("lb_backend_faults_total", "fault=timeout")
	if retries == 0 || retries != timeouts {
		t.Errorf("%v retries, %v timeouts", retries, timeouts)
	}
	node.order("go", "1")
	node.hearsTimes("sent", 2)
	l.stop(0)
}
