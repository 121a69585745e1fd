package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lb/admin"
)

func TestDecisionText(t *testing.T) {
	now := noon.Local()
	for want, e := range map[string]*admin.Ended{
		"not answered yet":                           nil,
		"503 after 1.0ms":                            {Status: 503, Took: 1, Fault: "status"},
		"connection refused after 0.2ms":             {Took: .2, Fault: "refused"},
		"200, then the connection broke after 7.0ms": {Status: 200, Took: 7, Fault: "reset"},
		"the client went away after 7.0ms":           {Took: 7, Fault: "client"},
		"no answer after 7.0ms":                      {Took: 7},
	} {
		if got := endedText(e, terminal{}); got != want {
			t.Errorf("%+v: %q, want %q", e, got, want)
		}
	}
	golden(t, "testdata/explain.txt", strings.ReplaceAll(strings.Join([]string{
		decisionText(&admin.Decision{
			Time: now, Pool: "app", Strategy: "least_conn", Request: "GET example.com/a\x1b[2J", Chosen: "b", Why: "fewest in flight for its weight",
			Attempt: 2, Held: 3.2, Ended: &admin.Ended{Status: 200, Took: 12.34}, Waiting: 7, Refused: 1, Again: 2,
			Candidates: []admin.Candidate{
				{Name: "127.0.0.1:3000", Out: "tried before", Score: "0 in flight of weight 1"}, {Name: "b", Score: "2 in flight of weight 2"},
				{Name: "c", Out: "at max_inflight", Score: "9 in flight of weight 1"}, {Name: "d", Out: "draining"},
			},
		}, terminal{}),
		decisionText(&admin.Decision{Time: now, Pool: "app", Strategy: "hash", Request: "GET /", Attempt: 1, Why: "no backend is ready", FailOpen: true}, terminal{}),
		decisionText(&admin.Decision{Time: now, Pool: "app", Strategy: "hash", Candidates: []admin.Candidate{{Name: "a", Score: "0 in flight of weight 1"}}}, terminal{}),
	}, "\n"), now.Format("15:04"), "HH:MM"))
}

func TestExplain(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer app.Close()
	at := app.Listener.Addr().String()
	r := runLB(t, `backends = ["`+at+`"]`)
	web := "http://" + r.event(`listener=web address=(\S+)`)
	r.do(0, `\S+  pool app, adaptive: no request came; .*\n    `+at+`  not measured yet x \(0\+1\)\n`, "", "explain", "--wait", "10ms")
	r.do(7, "", `lb: pool "ap" is not known, did you mean "app"\?\n`, "explain", "ap")
	r.do(64, "", "lb: --last 0: it is 1 to 10000\n", "explain", "--last", "0")

	ask := func(path string) {
		res, err := http.Get(web + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	// asking goes on until somebody is told: when that begins is not seen from here.
	asking := func(done func() bool) {
		for end := time.Now().Add(20 * time.Second); !done() && time.Now().Before(end); {
			ask("/some/path?secret=1")
		}
	}
	c := start(t, "explain", "app", "--last", "2", "--config", r.path)
	asking(func() bool { return strings.Count(c.stdout.String(), "some/path") >= 2 })
	if code := c.wait(); code != 0 || strings.Count(c.stdout.String(), "/some/path -> "+at+": 200 after ") != 2 || strings.Contains(c.stdout.String(), "secret") {
		t.Errorf("%d %s%s", code, c.stdout.String(), c.stderr.String())
	}
	c = start(t, "explain", "--follow", "--json", "--gap", "1ms", "--config", r.path)
	asking(func() bool { return strings.Count(c.stdout.String(), "\n") >= 3 })
	c.signal(syscall.SIGINT)
	if code := c.wait(); code != 0 {
		t.Errorf("%d %s", code, c.stderr.String())
	}
	var d admin.Decision
	first, _, _ := strings.Cut(c.stdout.String(), "\n")
	if err := json.Unmarshal([]byte(first), &d); err != nil || d.Chosen != at || d.Why != "the only one that is ready" {
		t.Errorf("%v %s", err, first)
	}
}

// TestExplainGoesOn holds that who follows decisions gets those of the next lb, too.
func TestExplainGoesOn(t *testing.T) {
	asked := 0
	socket := serveSocket(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		json.NewEncoder(w).Encode(admin.Decision{Attempt: 1, Request: fmt.Sprintf("GET /%d", asked), Chosen: "a"})
		http.NewResponseController(w).Flush()
		switch asked {
		case 1: // it was upgraded
		case 2:
			panic(http.ErrAbortHandler)
		default:
			<-r.Context().Done()
		}
	})
	c := start(t, "explain", "--follow", "--socket", socket)
	c.says(c.stdout.String, `(?s)GET /1 -> a.*\n\n.*GET /2 -> a.*\n\n.*GET /3 -> a`)
	c.signal(syscall.SIGINT)
	if code := c.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, c.stderr.String())
	}
}

// TestExplainWaits: who follows decisions waits for the next lb while there is none, and who asks where there never was one does
// not.
func TestExplainWaits(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	c := start(t, "explain", "--follow", "--socket", socket)
	if code := c.wait(); code != exitNoLB {
		t.Errorf("exit code %d: %s", code, c.stderr.String())
	}
	listen := func() net.Listener {
		ln, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	begin := func(name string) *http.Server {
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			json.NewEncoder(w).Encode(admin.Decision{Attempt: 1, Request: "GET /" + name, Chosen: "a"})
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})}
		go s.Serve(listen())
		t.Cleanup(func() { s.Close() })
		return s
	}
	first := begin("first")
	c = start(t, "explain", "--follow", "--socket", socket)
	c.says(c.stdout.String, `GET /first -> a`)
	first.Close()
	const waits = "lb: it has ended; waiting 1m0s for the next one\n"
	c.says(c.stderr.String, waits)
	failing := listen() // the next ones end as they begin, for want of their port, say
	for range 3 {
		conn, err := failing.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	failing.Close()
	begin("second")
	c.says(c.stdout.String, `GET /second -> a`)
	if s := c.stderr.String(); s != waits {
		t.Errorf("it said %q", s)
	}
	c.signal(syscall.SIGINT)
	if code := c.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, c.stderr.String())
	}
}
