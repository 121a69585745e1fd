package proxy

import "testing"

// working is how many requests the lab's backends have.
func (l *lab) working() (n int64) {
	for _, b := range l.pool.Snapshot().All {
		n += b.Inflight()
	}
	return n
}

// TestFailedRequests holds that a pool counts those requests as failed that a client did not get an answer to from the
// application although it did its part.
func TestFailedRequests(t *testing.T) {
	refuses := refusing(t)
	for _, c := range []struct {
		name          string
		backends      []string // "": an origin that does what answer says
		request       string
		answer        string
		reason        Reason // None: the client gets the answer
		tried, failed bool
	}{
		{"answered", []string{""}, get("/"), ok("hello"), None, true, false},
		{"the application's own 500", []string{""}, get("/"), "HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nhello", None, true, false},
		{"retried", []string{refuses, ""}, get("/"), ok("hello"), None, true, false},
		{"nobody listens", []string{refuses}, get("/"), "", ConnectFailed, true, true},
		{"no backends", nil, get("/"), "", NoBackend, false, true},
		{"closed before the answer", []string{""}, request("POST", "/", "x"), "", BackendClosed, true, true},
		{"broken off", []string{""}, get("/"), "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", BackendCut, true, true},
		{"a 500 broken off", []string{""}, get("/"), "HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\nhello", BackendCut, true, false},
		{"malformed request", []string{""}, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "", BadRequest, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o *origin
			backends := append([]string(nil), c.backends...)
			for i := range backends {
				if backends[i] == "" {
					o = newOrigin(t, nil)
					backends[i] = o.addr
				}
			}
			l := newLab(t, backends, single)
			p := l.client()
			p.send(c.request)
			if o != nil && c.tried {
				b := o.accept()
				b.head()
				if c.answer != "" {
					b.send(c.answer)
				}
				if c.reason == None {
					p.answer()
				}
				b.close()
			}
			if c.reason != None {
				l.answered(c.reason, 1)
			}
			want, wantUnserved := uint64(0), uint64(0)
			if c.failed {
				want = 1
				if !c.tried {
					wantUnserved = 1
				}
			}
			eventually(t, "all is counted", func() bool { return l.working() == 0 })
			if all, unserved := l.pool.Failed(); all != want || unserved != wantUnserved {
				t.Errorf("%d failed, %d of them unserved; want %d and %d", all, unserved, want, wantUnserved)
			}
		})
	}
}
