package metrics

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"lb/upstream"
	"lb/upstream/upstreamtest"
)

func specs(n int) []upstream.Spec {
	out := make([]upstream.Spec, n)
	for i := range out {
		addr, err := upstream.ParseAddr(fmt.Sprintf("127.0.0.1:%d", 3000+i))
		if err != nil {
			panic(err)
		}
		out[i] = upstream.Spec{Addr: addr, Weight: 1}
	}
	return out
}

func pool(name string, loops, n int) *upstream.Pool {
	return upstream.NewPool(name, loops, specs(n), nil, upstreamtest.BuildInOrder)
}

type listener struct {
	name  string
	stats ListenerStats
}

func (l listener) Name() string         { return l.name }
func (l listener) Stats() ListenerStats { return l.stats }

func world(pools ...*upstream.Pool) Sources {
	return Sources{
		Version: "1.2.3",
		Pools:   func() []*upstream.Pool { return pools },
		Listeners: func() []Listener {
			return []Listener{listener{"main", ListenerStats{
				Accepted: 7, Open: 3, Paused: 1, Requests: 70, BytesIn: 700, BytesOut: 7000,
				Failed: []Reason{{"", 1}, {"no_backend", 2}, {"bad_request", 0}},
			}}}
		},
		Affinity: func() []Affinity {
			return []Affinity{{Pool: "app", Visits: []Visits{{"sid", "hit", 5}, {"sid", "new", 0}}, Learned: 4, Evicted: 3, Unread: 2}}
		},
		LogLines:   func() uint64 { return 69 },
		LogDropped: func() uint64 { return 1 },
		Reloads:    func() Reloads { return Reloads{Succeeded: 3, Failed: 2, Time: time.Unix(1e9, 0)} },
		Upgrades:   func() Upgrades { return Upgrades{Succeeded: 5, Failed: 1} },
	}
}

// request is one attempt by way of a loop, ended after some ns.
func request(t testing.TB, p *upstream.Pool, loop int, ns int64, status int, fault upstream.Fault) {
	var s upstream.Selection
	s.Reset(1e9, loop)
	l, err := p.Acquire(&s)
	if err != nil {
		t.Error(err)
		return
	}
	l.Done(upstream.Outcome{Now: 1e9 + ns, Latency: ns, Status: status, Fault: fault})
}

// scrape asks the handler in the given format and returns what lb_ families it shows.
func scrape(t testing.TB, h http.Handler, format expfmt.Format) map[string]*dto.MetricFamily {
	t.Helper()
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", string(format))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	got := expfmt.ResponseFormat(w.Result().Header)
	if got.FormatType() != format.FormatType() {
		t.Fatalf("format %v, want %v", got, format)
	}
	out := map[string]*dto.MetricFamily{}
	for d := expfmt.NewDecoder(w.Body, got); ; {
		f := new(dto.MetricFamily)
		if err := d.Decode(f); err == io.EOF {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(f.GetName(), "lb_") {
			out[f.GetName()] = f
		}
	}
}

var (
	text     = expfmt.NewFormat(expfmt.TypeTextPlain)
	protobuf = expfmt.NewFormat(expfmt.TypeProtoDelim)
)

func id(name string, m *dto.Metric) string {
	var b strings.Builder
	b.WriteString(name)
	for _, l := range m.GetLabel() {
		fmt.Fprintf(&b, " %s=%s", l.GetName(), l.GetValue())
	}
	return b.String()
}

// values are the plain numbers of a scrape by name and labels.
func values(fs map[string]*dto.MetricFamily) map[string]float64 {
	out := map[string]float64{}
	for name, f := range fs {
		for _, m := range f.GetMetric() {
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				out[id(name, m)] = m.GetCounter().GetValue()
			case dto.MetricType_GAUGE:
				out[id(name, m)] = m.GetGauge().GetValue()
			case dto.MetricType_HISTOGRAM:
				out[id(name, m)] = float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return out
}

func TestScrape(t *testing.T) {
	p := pool("app", 2, 2)
	request(t, p, 0, 2e6, 200, upstream.FaultNone)
	request(t, p, 1, 3e6, 404, upstream.FaultNone)
	request(t, p, 1, 3e6, 0, upstream.FaultConnect)
	var s upstream.Selection
	s.Reset(0, 1)
	open, err := p.Acquire(&s)
	if err != nil {
		t.Fatal(err)
	}
	again, err := p.Acquire(&s) // a retry, on the other one
	if err != nil {
		t.Fatal(err)
	}
	again.Tunnel()
	st := p.Snapshot().All[0].Stats(1)
	st.ConnsOpened.Add(5)
	st.ConnsReused.Add(4)
	st.ConnErrors.Add(3)
	st.ConnsOpen.Add(2)
	st.ConnsIdle.Inc()
	st.BytesSent.Add(11)
	p.Snapshot().All[0].Stats(0).BytesSent.Add(11)
	st.BytesReceived.Add(33)
	p.SetProbed(p.Snapshot().All[1], upstream.Down)

	h := Handler(world(p))
	for _, format := range []expfmt.Format{text, protobuf} {
		got := values(scrape(t, h, format))
		const a, b = " backend=127.0.0.1:3000 pool=app", " backend=127.0.0.1:3001 pool=app"
		for name, want := range map[string]float64{
			"lb_backend_picks_total" + a:                                               4,
			"lb_backend_picks_total" + b:                                               1,
			"lb_backend_retries_total" + b:                                             1,
			"lb_backend_inflight_requests" + a:                                         1,
			"lb_backend_inflight_requests" + b:                                         0,
			"lb_backend_tunnels" + b:                                                   1,
			"lb_backend_connections" + a:                                               2,
			"lb_backend_idle_connections" + a:                                          1,
			"lb_backend_connections_opened_total" + a:                                  5,
			"lb_backend_connections_reused_total" + a:                                  4,
			"lb_backend_connection_errors_total" + a:                                   3,
			"lb_backend_sent_bytes_total" + a:                                          22,
			"lb_backend_received_bytes_total" + a:                                      33,
			"lb_backend_ready" + a:                                                     1,
			"lb_backend_ready" + b:                                                     0,
			"lb_backend_up" + a:                                                        1,
			"lb_backend_up" + b:                                                        0,
			"lb_backend_draining" + a:                                                  0,
			"lb_backend_weight" + a:                                                    1,
			"lb_backend_request_duration_seconds" + a:                                  3,
			"lb_backend_requests_total backend=127.0.0.1:3000 code=2xx pool=app":       1,
			"lb_backend_requests_total backend=127.0.0.1:3000 code=4xx pool=app":       1,
			"lb_backend_requests_total backend=127.0.0.1:3000 code=none pool=app":      1,
			"lb_backend_faults_total backend=127.0.0.1:3000 fault=connect pool=app":    1,
			"lb_backend_faults_total backend=127.0.0.1:3001 fault=malformed pool=app":  0,
			"lb_listener_connections_accepted_total listener=main":                     7,
			"lb_listener_connections listener=main":                                    3,
			"lb_listener_pauses_total listener=main":                                   1,
			"lb_listener_requests_total listener=main":                                 70,
			"lb_listener_received_bytes_total listener=main":                           700,
			"lb_listener_sent_bytes_total listener=main":                               7000,
			"lb_listener_failed_requests_total listener=main reason=no_backend":        2,
			"lb_listener_failed_requests_total listener=main reason=bad_request":       0,
			"lb_access_log_lines_total":                                                69,
			"lb_access_log_dropped_lines_total":                                        1,
			fmt.Sprintf("lb_build_info goversion=%s version=1.2.3", goversion(t, got)): 1,
		} {
			if v, ok := got[name]; !ok || v != want {
				t.Errorf("%s: %s is %v (%v), want %v", format, name, v, ok, want)
			}
		}
	}
	open.Done(upstream.Outcome{})
	again.Done(upstream.Outcome{})

	var unset Sources // a program without parts has metrics too
	if got := values(scrape(t, Handler(unset), text)); len(got) != 3 {
		t.Errorf("without sources: %v", got)
	}
}

func goversion(t *testing.T, got map[string]float64) string {
	for name := range got {
		if _, v, ok := strings.Cut(name, "lb_build_info goversion="); ok {
			v, _, _ = strings.Cut(v, " ")
			return v
		}
	}
	t.Error("no build info")
	return ""
}

// Both kinds of buckets must be there, and each must count exactly what was observed.
func TestHistogramIsExactInBothKinds(t *testing.T) {
	p := pool("app", 2, 1)
	rnd := rand.New(rand.NewPCG(1, 2))
	var seen []float64
	for i := range 4000 {
		ns := int64(math.Exp(rnd.Float64()*math.Log(300e9/10e3)) * 10e3) // 10 µs to 300 s
		if i%40 == 0 {
			ns = int64(upstream.ClassicBounds[i/40%len(upstream.ClassicBounds)] * 1e9) // bounds are inclusive
		}
		seen = append(seen, float64(ns)/1e9)
		request(t, p, i%2, ns, 200, upstream.FaultNone)
	}
	slices.Sort(seen)
	upTo := func(bound float64) uint64 {
		n, _ := slices.BinarySearchFunc(seen, bound, func(v, b float64) int {
			if v <= b {
				return -1
			}
			return 1
		})
		return uint64(n)
	}
	h := Handler(world(p))

	m := scrape(t, h, text)["lb_backend_request_duration_seconds"].GetMetric()[0].GetHistogram()
	if len(m.GetBucket()) != len(upstream.ClassicBounds)+1 || m.GetSampleCount() != uint64(len(seen)) {
		t.Errorf("text: %v", m)
	}

	m = scrape(t, h, protobuf)["lb_backend_request_duration_seconds"].GetMetric()[0].GetHistogram()
	if m.GetSampleCount() != uint64(len(seen)) || m.GetSchema() != 3 || m.GetZeroThreshold() != math.Exp2(-115./8) {
		t.Errorf("count %d, schema %d, zero threshold %v", m.GetSampleCount(), m.GetSchema(), m.GetZeroThreshold())
	}
	for i, b := range m.GetBucket() {
		if b.GetUpperBound() != upstream.ClassicBounds[i] || b.GetCumulativeCount() != upTo(b.GetUpperBound()) {
			t.Errorf("classic: %v, want %d up to %v", b, upTo(b.GetUpperBound()), upstream.ClassicBounds[i])
		}
	}
	if m.GetZeroCount() != upTo(m.GetZeroThreshold()) {
		t.Errorf("native: zero bucket has %d, want %d", m.GetZeroCount(), upTo(m.GetZeroThreshold()))
	}
	index, count, total, k := 0, int64(0), int64(m.GetZeroCount()), 0
	for _, s := range m.GetPositiveSpan() {
		index += int(s.GetOffset())
		for range s.GetLength() {
			count += m.GetPositiveDelta()[k]
			total += count
			k++
			if want := upTo(math.Exp2(float64(index) / 8)); index <= 56 && uint64(total) != want {
				t.Errorf("native: %d up to bucket %d, want %d", total, index, want)
			}
			index++
		}
	}
	if k != len(m.GetPositiveDelta()) || uint64(total) != m.GetSampleCount() {
		t.Errorf("native: %d in %d buckets, %d deltas; want %d", total, k, len(m.GetPositiveDelta()), m.GetSampleCount())
	}
	var want float64
	for _, v := range seen {
		want += v
	}
	if math.Abs(m.GetSampleSum()-want) > 1e-6*want {
		t.Errorf("sum %v, want %v", m.GetSampleSum(), want)
	}
}

func TestNativeSpans(t *testing.T) {
	var n native
	for _, b := range [][2]int{{-10, 1}, {-9, 3}, {-6, 3}, {-2, 5}, {40, 1}} {
		n.add(b[0], uint64(b[1]))
	}
	type span struct {
		Offset int32
		Length uint32
	}
	var spans []span
	for _, s := range n.spans {
		spans = append(spans, span{s.GetOffset(), s.GetLength()})
	}
	if diff := cmp.Diff([]span{{-10, 5}, {3, 1}, {41, 1}}, spans); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int64{1, 2, -3, 0, 3, 2, -4}, n.deltas); diff != "" {
		t.Error(diff)
	}
}

// The set of series follows from the configuration: traffic adds none, and who leaves takes his along.
func TestSeriesFollowTheConfiguration(t *testing.T) {
	p := pool("app", 1, 3)
	h := Handler(world(p))
	series := func() (out []string) {
		for name := range values(scrape(t, h, text)) {
			out = append(out, name)
		}
		slices.Sort(out)
		return out
	}
	before := series()
	for i := range 700 {
		request(t, p, 0, int64(i)*1e6, i, upstream.Fault(i%int(upstream.Faults)))
	}
	if diff := cmp.Diff(before, series()); diff != "" {
		t.Errorf("traffic changed the series:\n%s", diff)
	}
	p.Update(specs(2), nil, nil)
	after := series()
	if all, left := countBackends(before), countBackends(after); all*2 != left*3 || len(before)-all != len(after)-left {
		t.Errorf("%d series with 3 backends, %d with 2", all, left)
	}
	for _, s := range after {
		if strings.Contains(s, ":3002") {
			t.Errorf("%s of a backend that left", s)
		}
	}
}

// countBackends is the number of series that belong to backends.
func countBackends(series []string) (n int) {
	for _, s := range series {
		if strings.HasPrefix(s, "lb_backend_") {
			n++
		}
	}
	return n
}

func TestListenersOfOneNameAreAddedUp(t *testing.T) {
	src := world()
	src.Listeners = func() []Listener {
		return []Listener{
			listener{"main", ListenerStats{Open: 1, Failed: []Reason{{"stopped", 1}}}},
			listener{"other", ListenerStats{Open: 5}},
			listener{"main", ListenerStats{Open: 2, Failed: []Reason{{"stopped", 2}}}},
		}
	}
	src.OnError = func(err error) { t.Error(err) }
	got := values(scrape(t, Handler(src), text))
	for name, want := range map[string]float64{
		"lb_listener_connections listener=main":                          3,
		"lb_listener_connections listener=other":                         5,
		"lb_listener_failed_requests_total listener=main reason=stopped": 3,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

// A series that cannot be shown is reported; the others are shown all the same.
func TestOneOddSeriesHidesNoOther(t *testing.T) {
	src := world(pool("app", 1, 1), pool("app", 1, 1), pool("\xff", 1, 1))
	var told []error
	src.OnError = func(err error) { told = append(told, err) }
	got := values(scrape(t, Handler(src), text))
	for _, name := range []string{"app", "\ufffd"} {
		if v := got["lb_backend_up backend=127.0.0.1:3000 pool="+name]; v != 1 {
			t.Errorf("pool %s is %v", name, v)
		}
	}
	if len(told) != 1 || !strings.Contains(told[0].Error(), "collected before") {
		t.Errorf("told of %v", told)
	}
	errorLog(nil).Println(errors.New("nobody listens"))
}

func TestFormats(t *testing.T) {
	h := Handler(world(pool("app", 1, 1)))
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	body := w.Body.String()
	if !strings.HasSuffix(body, "# EOF\n") || !strings.Contains(body, "go_goroutines ") || !strings.Contains(body, "process_open_fds ") {
		t.Errorf("OpenMetrics: %s", body)
	}
}

func TestLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(registry(world(pool("app", 1, 2))))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	w := httptest.NewRecorder()
	Handler(world(pool("app", 1, 2))).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = w.Body
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// Scrapes while loops count: for the race detector, and counters never go back.
func TestScrapeUnderLoad(t *testing.T) {
	const loops, scrapes = 4, 15
	p := pool("app", loops, 3)
	h := Handler(world(p))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var sent [loops]int
	for loop := range loops {
		wg.Go(func() {
			for n := int64(0); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				request(t, p, loop, n%1e9*1000, 200+int(n%400), upstream.FaultNone)
				p.Snapshot().All[0].Stats(loop).BytesSent.Add(100)
				sent[loop]++
			}
		})
	}
	wg.Go(func() { // the pool changes meanwhile
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				p.Update(specs(2+n%3), nil, nil)
			}
		}
	})
	last := 0.
	for i := range scrapes {
		format := text
		if i%2 == 1 {
			format = protobuf
		}
		fs := scrape(t, h, format)
		now := values(fs)["lb_backend_picks_total backend=127.0.0.1:3000 pool=app"]
		if now < last {
			t.Errorf("picks went from %v to %v", last, now)
		}
		last = now
		for _, m := range fs["lb_backend_request_duration_seconds"].GetMetric() {
			b := m.GetHistogram().GetBucket()
			for k := 1; k < len(b); k++ {
				if b[k].GetCumulativeCount() < b[k-1].GetCumulativeCount() {
					t.Errorf("buckets fall: %v", b)
				}
			}
			if b[len(b)-1].GetCumulativeCount() > m.GetHistogram().GetSampleCount() {
				t.Errorf("more in a bucket than in all: %v", m)
			}
		}
	}
	close(stop)
	wg.Wait()
	total := 0
	for _, n := range sent {
		total += n
	}
	if got := values(scrape(t, h, text))["lb_backend_picks_total backend=127.0.0.1:3000 pool=app"]; got != float64(total) {
		t.Errorf("%v picks shown, %d made", got, total)
	}
}

func BenchmarkScrape(b *testing.B) {
	for _, n := range []int{4, 64} {
		p := pool("app", 4, n)
		for _, be := range p.Snapshot().All {
			for i := range 10000 {
				be.Stats(i % 4).Latency.Observe(int64(i) * 50000)
			}
		}
		src := world(p)
		h := Handler(src)
		for _, c := range []struct {
			name, accept, encoding string
		}{{"text", string(text), ""}, {"text+gzip", string(text), "gzip"}, {"protobuf", string(protobuf), ""}} {
			b.Run(fmt.Sprintf("%d/%s", n, c.name), func(b *testing.B) {
				b.ReportAllocs()
				var size int
				for b.Loop() {
					r := httptest.NewRequest("GET", "/metrics", nil)
					r.Header.Set("Accept", c.accept)
					r.Header.Set("Accept-Encoding", c.encoding)
					w := httptest.NewRecorder()
					h.ServeHTTP(w, r)
					size = w.Body.Len()
				}
				b.ReportMetric(float64(size), "bytes")
			})
		}
		b.Run(fmt.Sprintf("%d/gather", n), func(b *testing.B) {
			r := registry(src)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Gather(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
