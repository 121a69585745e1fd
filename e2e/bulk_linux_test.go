package e2e

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"
)

const gib = 1 << 30

// maxGrowth is by how many MiB lb may grow while large bodies pass: buffers are 64 KiB, the rest is the runtime's.
const maxGrowth = 32

// blocks is a body of some size in which no two blocks of 1 MiB are alike.
type blocks struct {
	left  int64
	block []byte
	part  []byte
}

func newBlocks(size int64) *blocks {
	b := &blocks{left: size, block: make([]byte, 1<<20)}
	rand.NewChaCha8([32]byte{3}).Read(b.block)
	return b
}

func (b *blocks) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if len(b.part) == 0 {
		binary.LittleEndian.PutUint64(b.block, uint64(b.left))
		b.part = b.block[:min(b.left, int64(len(b.block)))]
	}
	n := copy(p, b.part)
	b.part = b.part[n:]
	b.left -= int64(n)
	return n, nil
}

// One GiB each way passes whole, by length and in chunks, while lb stays small.
func TestBulk(t *testing.T) {
	a := startApp(t, "bulk.mjs", "a")
	l := startLB(t, setup{backends: []*app{a}})
	before := l.memory("VmRSS")
	// HTTP/1 with buffers that make the client cheap: the machine also runs the app and lb.
	client := &http.Client{Transport: &http.Transport{WriteBufferSize: 1 << 18, ReadBufferSize: 1 << 18}}
	upload := func(size int64, chunked bool) {
		t.Helper()
		hash := sha256.New()
		req, err := http.NewRequest("POST", l.url+fmt.Sprintf("/up?size=%d&chunked=%t", size, chunked), io.TeeReader(newBlocks(size), hash))
		if err != nil {
			t.Fatal(err)
		}
		if req.ContentLength = size; chunked {
			req.ContentLength = -1
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var got struct {
			Length int64
			Sum    string
		}
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		if got.Length != size || got.Sum != hex.EncodeToString(hash.Sum(nil)) {
			t.Errorf("upload of %d bytes, chunked %t: the app got %d, the same: %t", size, chunked, got.Length, got.Sum == hex.EncodeToString(hash.Sum(nil)))
		}
	}
	download := func(id string, size int64, query string) {
		t.Helper()
		resp, err := client.Get(l.url + fmt.Sprintf("/down?id=%s&size=%d%s", id, size, query))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		hash := sha256.New()
		n, err := io.CopyBuffer(struct{ io.Writer }{hash}, resp.Body, make([]byte, 1<<18))
		if err != nil {
			t.Fatal(err)
		}
		if sum := a.hears("sent " + id); n != size || sum != hex.EncodeToString(hash.Sum(nil)) {
			t.Errorf("download of %d bytes%s: %d came, the same: %t", size, query, n, sum == hex.EncodeToString(hash.Sum(nil)))
		}
	}
	upload(gib, false)
	download("d1", gib, "")
	upload(gib/8, true)
	download("d2", gib/8, "&chunked")
	client.CloseIdleConnections()

	m := l.settled()
	grown := l.memory("VmHWM") - before
	if t.Logf("lb grew by %.1f MiB from %.1f", grown, before); grown > maxGrowth {
		t.Errorf("lb grew by %.1f MiB, at most %d will do", grown, maxGrowth)
	}
	if got := m.sum("lb_listener_sent_bytes_total"); got < gib+gib/8 || got > gib+gib/8+10000 {
		t.Errorf("lb counts %v bytes to clients", got)
	}
	if got := m.sum("lb_listener_received_bytes_total"); got < gib+gib/8 || got > gib+gib/8+gib/100 {
		t.Errorf("lb counts %v bytes from clients", got)
	}
	l.stop(0)
	log := readLog(t, l.logPath)
	if len(log) != 4 || log[0].BytesIn != gib || log[1].BytesOut != gib || log[0].Reason+log[1].Reason+log[2].Reason+log[3].Reason != "" {
		t.Errorf("the log has %+v", log)
	}
}

// Clients that do not read hold the app back, not lb's memory; the others are served meanwhile, and who reads nothing
// at all is given up after write_timeout. (Row 26 of the faults that lb has to come through.)
func TestSlowReaders(t *testing.T) {
	const size, readers = 256 << 20, 10
	a := startApp(t, "bulk.mjs", "a")
	l := startLB(t, setup{backends: []*app{a}, server: `write_timeout = "3s"`})
	before := l.memory("VmRSS")
	open := func(id string) (net.Conn, *bufio.Reader) {
		t.Helper()
		c, err := net.Dial("tcp", l.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "GET /down?id=%s&size=%d HTTP/1.1\r\nHost: e2e.test\r\n\r\n", id, size)
		return c, bufio.NewReader(c)
	}
	// given is how much of an answer the app has parted with.
	given := func(id string) int {
		t.Helper()
		n, _ := a.said("progress " + id)
		a.order("progress", id)
		v, err := strconv.Atoi(a.hearsTimes("progress "+id, n+1))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	var stuck []string
	for i := range readers {
		id := fmt.Sprintf("s%d", i)
		open(id)
		stuck = append(stuck, id)
	}
	// One that reads now and then must not be cut.
	slow, r := open("slow")
	slow.SetDeadline(time.Now().Add(4 * patience))
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	bite := func() {
		t.Helper()
		n, err := io.CopyN(io.Discard, resp.Body, 1<<16)
		if read += int(n); err != nil {
			t.Fatalf("the slow reader was cut after %d bytes: %v", read, err)
		}
	}
	quick := &conn{addr: l.addr}
	defer quick.close()
	for _, id := range stuck {
		last := -1
		eventually(t, "the app is held back", func() bool {
			bite()
			if a := quick.do("GET", "/down?id=quick&size=1000", ""); !a.ok() || len(a.body) != 1000 {
				t.Fatalf("beside slow readers, got %s", a.String())
			}
			now := given(id)
			same := now == last && now > 0
			last = now
			return same
		})
		if last > 64<<20 { // two pairs of socket buffers, which the system lets grow
			t.Errorf("the app has sent %d MiB to a client that reads nothing", last>>20)
		}
	}
	if grown := l.memory("VmHWM") - before; grown > maxGrowth {
		t.Errorf("lb grew by %.1f MiB for %d clients that do not read", grown, readers)
	}
	for _, id := range stuck {
		eventually(t, id+" is cut", func() bool {
			bite()
			_, rest := a.said("ended " + id)
			return rest != ""
		})
	}
	if got := l.metrics().sum("lb_listener_failed_requests_total", "reason=client_stalled"); got != readers {
		t.Errorf("lb gave up %v clients, want %d", got, readers)
	}
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || read+int(n) != size {
		t.Errorf("the slow reader got %d of %d bytes: %v", read+int(n), size, err)
	}
	if got := l.settled().sum("lb_backend_faults_total"); got != readers {
		t.Errorf("lb counts %v faults, want the %d of the clients", got, readers)
	}
	l.stop(0)
	stalled := 0
	for _, r := range readLog(t, l.logPath) {
		if r.Reason == "client_stalled" {
			stalled++
		}
	}
	if stalled != readers {
		t.Errorf("the log has %d clients that stalled, want %d", stalled, readers)
	}
}
