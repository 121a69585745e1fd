package proxy

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"lb/upstream"
)

var hexID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// TestRequestFields looks at the head that the backend gets, whose X-Request-Id is replaced by ID if it is lb's own.
func TestRequestFields(t *testing.T) {
	const added = "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h.example:81\r\nX-Request-Id: ID\r\n\r\n"
	trusted := []string{"127.0.0.0/8", "10.0.0.0/8", "fd00::/8"}
	for _, c := range []struct {
		name    string
		trusted []string
		fields  string // after "GET /p HTTP/1.1\r\nHost: h.example:81\r\n"
		want    string
	}{
		{"as they came", nil, "b: 2\r\nA:1\r\na: \t x y \r\nACCEPT: */*\r\nCookie: a=b; c=d\r\nEmpty:\r\nUser-Agent: \xff\x80\r\n",
			"b: 2\r\nA:1\r\na: \t x y \r\nACCEPT: */*\r\nCookie: a=b; c=d\r\nEmpty:\r\nUser-Agent: \xff\x80\r\n" + added},
		{"none", nil, "", added},
		{"hop-by-hop", nil, "A: 1\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nB: 2\r\nProxy-Connection: keep-alive\r\n" +
			"TE: trailers\r\nTrailer: x\r\nProxy-Authorization: x\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nx-mine: 2\r\nC: 3\r\n",
			"A: 1\r\nB: 2\r\nTrailer: x\r\nC: 3\r\n" + added},
		{"several Connection fields", nil, "Connection: a\r\nA: 1\r\nB: 2\r\nConnection: , b ,close\r\nC: 3\r\n", "C: 3\r\n" + added},
		{"claims of a stranger", nil, "X-Forwarded-For: 1.2.3.4\r\nA: 1\r\nX-Real-IP: 1.2.3.4\r\nx-forwarded-proto: https\r\nX-Forwarded-Host: evil\r\n" +
			"X-Forwarded-Port: 1\r\nForwarded: for=1.2.3.4\r\nX-Request-Id: mine\r\n", "A: 1\r\n" + added},
		{"lookalikes", nil, "X_Forwarded_For: 1.2.3.4\r\nX-Forwarded_For: 1.2.3.4\r\nA_B: 1\r\nX_Real_IP: 1\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\n" +
			"x_request_id: 1\r\nX_Forwarded-Proto: https\r\n", "A_B: 1\r\n" + added},
		{"lb's own cannot be named away", nil, "Connection: X-Forwarded-For, X-Real-IP, X-Request-Id, X-Forwarded-Proto, X-Forwarded-Host\r\n", added},
		{"what the client waits for cannot be named away", nil, "Connection: Expect\r\nExpect: 100-continue\r\n", "Expect: 100-continue\r\n" + added},

		{"trusted, nothing said", trusted, "", added},
		{"trusted", trusted, "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: outer\r\nX-Forwarded-Port: 443\r\nForwarded: for=1.2.3.4\r\n" +
			"X-Request-Id: theirs\r\nX-Real-IP: 9.9.9.9\r\n",
			"X-Forwarded-Proto: https\r\nX-Forwarded-Host: outer\r\nX-Forwarded-Port: 443\r\nForwarded: for=1.2.3.4\r\n" +
				"X-Forwarded-For: 1.2.3.4, 127.0.0.1\r\nX-Real-IP: 1.2.3.4\r\nX-Request-Id: theirs\r\n\r\n"},
		{"trusted, a list", trusted, "X-Forwarded-For: 6.6.6.6, 1.2.3.4,10.0.0.1 , 127.0.0.9\r\n",
			"X-Forwarded-For: 6.6.6.6, 1.2.3.4,10.0.0.1 , 127.0.0.9, 127.0.0.1\r\nX-Real-IP: 1.2.3.4\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h.example:81\r\nX-Request-Id: ID\r\n\r\n"},
		{"trusted, several fields", trusted, "X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\nA: 1\r\nx-forwarded-for: 10.0.0.1\r\n",
			"A: 1\r\nX-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.1, 127.0.0.1\r\nX-Real-IP: 1.2.3.4\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h.example:81\r\nX-Request-Id: ID\r\n\r\n"},
		{"trusted all the way", trusted, "X-Forwarded-For: 10.0.0.2, 10.0.0.1\r\n",
			"X-Forwarded-For: 10.0.0.2, 10.0.0.1, 127.0.0.1\r\nX-Real-IP: 10.0.0.2\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h.example:81\r\nX-Request-Id: ID\r\n\r\n"},
		{"trusted, ports and IPv6", trusted, "X-Forwarded-For: [2001:db8::1]:1234, [fd00::1]:80, fd00::2, 10.0.0.1:99\r\n",
			"X-Forwarded-For: [2001:db8::1]:1234, [fd00::1]:80, fd00::2, 10.0.0.1:99, 127.0.0.1\r\nX-Real-IP: 2001:db8::1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h.example:81\r\nX-Request-Id: ID\r\n\r\n"},
		{"trusted, garbage", trusted, "X-Forwarded-For: 1.2.3.4, what is this, 10.0.0.1\r\n",
			"X-Forwarded-For: 1.2.3.4, what is this, 10.0.0.1, 127.0.0.1\r\nX-Real-IP: 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h.example:81\r\nX-Request-Id: ID\r\n\r\n"},
		{"trusted, only garbage", trusted, "X-Forwarded-For: unknown\r\n",
			"X-Forwarded-For: unknown, 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h.example:81\r\nX-Request-Id: ID\r\n\r\n"},
		{"trusted, empty", trusted, "X-Forwarded-For:\r\nX-Request-Id:\r\n", added},
		{"trusted, mapped", trusted, "X-Forwarded-For: 1.2.3.4, ::ffff:10.1.1.1\r\n",
			"X-Forwarded-For: 1.2.3.4, ::ffff:10.1.1.1, 127.0.0.1\r\nX-Real-IP: 1.2.3.4\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h.example:81\r\nX-Request-Id: ID\r\n\r\n"},
		{"trusted, a long id", trusted, "X-Request-Id: " + strings.Repeat("x", 129) + "\r\n", added},
		{"trusted, what a client names away through the proxy", trusted, "Connection: X-Forwarded-Proto, X-Forwarded-Host, X-Forwarded-For\r\n" +
			"X-Forwarded-Proto: https\r\nX-Forwarded-Host: outer\r\nX-Forwarded-For: 1.2.3.4\r\n",
			"X-Forwarded-Proto: https\r\nX-Forwarded-Host: outer\r\nX-Forwarded-For: 1.2.3.4, 127.0.0.1\r\nX-Real-IP: 1.2.3.4\r\nX-Request-Id: ID\r\n\r\n"},
		{"others are trusted", []string{"10.0.0.0/8"}, "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Request-Id: x\r\n", added},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOrigin(t, nil)
			l := newLab(t, []string{o.addr}, trust(c.trusted...))
			p := l.client()
			p.send("GET /p HTTP/1.1\r\nHost: h.example:81\r\n" + c.fields + "\r\n")
			b := o.accept()
			h := b.head()
			if id := field(h, "X-Request-Id"); hexID.MatchString(id) {
				h = strings.Replace(h, id, "ID", 1)
			}
			if want := "GET /p HTTP/1.1\r\nHost: h.example:81\r\n" + c.want; h != want {
				t.Errorf("got  %q\nwant %q", h, want)
			}
			b.send(ok(""))
			p.status(200)
		})
	}
}

func TestRequestTargets(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single)
	var b *peer
	for _, c := range [][2]string{
		{"GET / HTTP/1.1\r\nHost: A.Example\r\nX: y\r\n\r\n", "GET / HTTP/1.1\r\nHost: A.Example\r\nX: y\r\n"},
		{"GET /%7e//./../a?b=c&d=%00 HTTP/1.1\r\nX: y\r\nhost: [::1]:80\r\n\r\n", "GET /%7e//./../a?b=c&d=%00 HTTP/1.1\r\nX: y\r\nhost: [::1]:80\r\n"},
		{"GET http://a.example/x?y HTTP/1.1\r\nX: y\r\nHost: a.example\r\n\r\n", "GET /x?y HTTP/1.1\r\nHost: a.example\r\nX: y\r\n"},
		{"GET http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.example\r\n"},
		{"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n"},
		{"get / HTTP/1.1\r\nHost: a\r\n\r\n", "get / HTTP/1.1\r\nHost: a\r\n"},
		{"REPORT /r HTTP/1.1\r\nHost: a\r\n\r\n", "REPORT /r HTTP/1.1\r\nHost: a\r\n"},
		{"\r\nGET /after-an-empty-line HTTP/1.1\r\nHost: a\r\n\r\n", "GET /after-an-empty-line HTTP/1.1\r\nHost: a\r\n"},
		{"GET /old HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", "GET /old HTTP/1.1\r\nHost: a\r\n"},
		{"GET /older HTTP/1.0\r\nX: y\r\n\r\n", "GET /older HTTP/1.1\r\nHost: " + o.addr + "\r\nX: y\r\n"},
	} {
		p := l.client()
		p.send(c[0])
		if b == nil {
			b = o.accept()
		}
		if h := b.head(); !strings.HasPrefix(h, c[1]+"X-Forwarded-For: 127.0.0.1\r\n") {
			t.Errorf("got  %q\nwant %q", h, c[1])
		}
		b.send(ok(""))
		p.status(200)
		l.idle(1)
	}
}

// Every request has an id of its own, also when it is sent twice.
func TestRequestIDs(t *testing.T) {
	seen := map[string]bool{}
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr}, single)
	p := l.client()
	var b *peer
	for i := range 100 {
		p.send(get("/"))
		if i == 0 {
			b = o.accept()
		}
		id := field(b.head(), "X-Request-Id")
		if seen[id] || !hexID.MatchString(id) {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
		if i == 50 {
			b.close()
			b = o.accept()
			if again := field(b.head(), "X-Request-Id"); again != id {
				t.Fatalf("sent again as %q, before as %q", again, id)
			}
		}
		b.send(ok(""))
		p.status(200)
		l.idle(1)
	}
}

func TestUnixSockets(t *testing.T) {
	dir, err := os.MkdirTemp("", "lb")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	front, back := filepath.Join(dir, "front"), filepath.Join(dir, "back")
	ln, err := net.Listen("unix", back)
	if err != nil {
		t.Fatal(err)
	}
	o := serveOrigin(t, ln, "unix:"+back, nil)
	l := newLab(t, []string{o.addr}, single, trust("127.0.0.0/8"), func(p *plan) {
		p.listen = func() (net.Listener, error) {
			ln, err := net.Listen("unix", front)
			if err == nil {
				ln.(*net.UnixListener).SetUnlinkOnClose(false)
			}
			return ln, err
		}
	})
	p := l.client()
	p.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
	b := o.accept()
	if h := b.head(); !strings.HasPrefix(h, "GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: unknown\r\nX-Real-IP: unknown\r\n") {
		t.Errorf("%q", h)
	}
	b.send(ok("x"))
	p.status(200)
	p.send(get("/", "Connection: close"))
	b.head()
	b.send(ok("x"))
	p.status(200)
	p.rest()
	if n := l.sum(0, func(s *upstream.Stats) uint64 { return s.ConnsReused.Load() }); n != 1 {
		t.Errorf("%d reused", n)
	}
}

// HTTP/1.0 knows no Expect: a backend that sees one under lb's HTTP/1.1 would wait, or refuse.
func TestExpectOfOldClients(t *testing.T) {
	o := newOrigin(t, nil)
	l := newLab(t, []string{o.addr})
	c := l.client()
	c.send("POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody")
	b := o.accept()
	if h := b.head(); field(h, "Expect") != "" {
		t.Errorf("%q", h)
	}
	b.expect("body")
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	c.status(200)
}
