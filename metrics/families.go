package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"lb/upstream"
)

// backendSum is what all loops together counted for one backend.
type backendSum struct {
	*upstream.Backend
	life    upstream.Life
	opinion upstream.Opinion

	requests [6]uint64
	faults   [upstream.Faults]uint64
	latency  upstream.HistogramSnapshot

	picks, retries, failOpen  uint64
	opened, reused, connError uint64
	open, idle                int64
	sent, received            uint64
}

func sum(b *upstream.Backend, o upstream.Opinion) *backendSum {
	t := &backendSum{Backend: b, life: b.Life(), opinion: o}
	for loop := range b.Loops() {
		s := b.Stats(loop)
		for i := range t.requests {
			t.requests[i] += s.Requests[i].Load()
		}
		for i := range t.faults {
			t.faults[i] += s.Faults[i].Load()
		}
		t.latency.Add(&s.Latency)
		t.picks += s.Picks.Load()
		t.retries += s.Retries.Load()
		t.failOpen += s.FailOpen.Load()
		t.opened += s.ConnsOpened.Load()
		t.reused += s.ConnsReused.Load()
		t.connError += s.ConnErrors.Load()
		t.open += s.ConnsOpen.Load()
		t.idle += s.ConnsIdle.Load()
		t.sent += s.BytesSent.Load()
		t.received += s.BytesReceived.Load()
	}
	return t
}

// family is a metric whose value is one number a thing.
type family[T any] struct {
	kind  dto.MetricType
	desc  *prometheus.Desc
	value func(T) float64
}

func counter[T any](name, help string, labels []string, value func(T) float64) family[T] {
	return family[T]{dto.MetricType_COUNTER, prometheus.NewDesc(name, help, labels, nil), value}
}

func gauge[T any](name, help string, labels []string, value func(T) float64) family[T] {
	return family[T]{dto.MetricType_GAUGE, prometheus.NewDesc(name, help, labels, nil), value}
}

// Label names are in alphabetical order everywhere, as label pairs have to be.
var (
	ofBackend  = []string{"backend", "pool"}
	ofPool     = []string{"pool"}
	ofListener = []string{"listener"}
)

var backendFamilies = []family[*backendSum]{
	counter("lb_backend_picks_total", "Attempts sent to the backend.", ofBackend,
		func(t *backendSum) float64 { return float64(t.picks) }),
	counter("lb_backend_retries_total", "Attempts sent to the backend that were not their request's first.", ofBackend,
		func(t *backendSum) float64 { return float64(t.retries) }),
	gauge("lb_backend_inflight_requests", "Requests that the backend is working on, parked ones included, tunnels not.", ofBackend,
		func(t *backendSum) float64 { return float64(t.Inflight()) }),
	gauge("lb_backend_parked_requests", "Requests in flight that only wait, such as long polls, and do not count as load.", ofBackend,
		func(t *backendSum) float64 { return float64(t.Load().Parked()) }),
	gauge("lb_backend_tunnels", "Upgraded connections (WebSocket) to the backend.", ofBackend,
		func(t *backendSum) float64 { return float64(t.Tunnels()) }),
	gauge("lb_backend_connections", "Open connections to the backend, idle ones included.", ofBackend,
		func(t *backendSum) float64 { return float64(t.open) }),
	gauge("lb_backend_idle_connections", "Open connections to the backend that wait for a request.", ofBackend,
		func(t *backendSum) float64 { return float64(t.idle) }),
	counter("lb_backend_connections_opened_total", "Connections made to the backend.", ofBackend,
		func(t *backendSum) float64 { return float64(t.opened) }),
	counter("lb_backend_connections_reused_total", "Requests sent on a connection that had served before.", ofBackend,
		func(t *backendSum) float64 { return float64(t.reused) }),
	counter("lb_backend_connection_errors_total", "Connections to the backend that could not be made.", ofBackend,
		func(t *backendSum) float64 { return float64(t.connError) }),
	counter("lb_backend_sent_bytes_total", "Bytes sent to the backend.", ofBackend,
		func(t *backendSum) float64 { return float64(t.sent) }),
	counter("lb_backend_received_bytes_total", "Bytes received from the backend.", ofBackend,
		func(t *backendSum) float64 { return float64(t.received) }),
	gauge("lb_backend_ready", "1 if the backend may be sent new requests.", ofBackend,
		func(t *backendSum) float64 { return truth(t.Index() >= 0) }),
	gauge("lb_backend_up", "0 if health checks found the backend down or it is ejected for its failures, else 1.", ofBackend,
		func(t *backendSum) float64 { return truth(t.life.Probed != upstream.Down && t.life.Ejected.IsZero()) }),
	gauge("lb_backend_draining", "1 if the backend only finishes what it has.", ofBackend,
		func(t *backendSum) float64 { return truth(t.life.Wanted != upstream.In) }),
	counter("lb_backend_ejections_total", "Times that the backend was ejected for its failures.", ofBackend,
		func(t *backendSum) float64 { return float64(t.Ejections()) }),
	counter("lb_backend_returns_total", "Times that an ejection of the backend ended.", ofBackend,
		func(t *backendSum) float64 { return float64(t.Returns()) }),
	counter("lb_backend_fail_open_picks_total", "Attempts sent to the backend although it was ejected, because nobody was ready.", ofBackend,
		func(t *backendSum) float64 { return float64(t.failOpen) }),
	gauge("lb_backend_sessions", "Sessions in use of late that lb remembers, of Socket.IO or by the application's cookie; tunnels left out.", ofBackend,
		func(t *backendSum) float64 { return float64(t.Sessions()) }),
	gauge("lb_backend_weight", "Weight of the backend against the others of its pool.", ofBackend,
		func(t *backendSum) float64 { return t.Weighs() }),
	gauge("lb_backend_limit_requests", "Requests in work from which on others wait in lb, learned by the strategy or max_inflight; 0: none.", ofBackend,
		func(t *backendSum) float64 { return float64(t.opinion.Limit) }),
	gauge("lb_backend_slowness", "How long the backend takes against the mean of its pool, 1 being as long; 0: the strategy does not measure.", ofBackend,
		func(t *backendSum) float64 { return t.opinion.Slow }),
	gauge("lb_backend_excess_failures", "Share of requests that the backend fails above its pool's share and what chance explains.", ofBackend,
		func(t *backendSum) float64 { return t.opinion.Excess }),
}

// Families with a label of their own beside the backend's or the listener's.
var (
	requestsDesc = prometheus.NewDesc("lb_backend_requests_total",
		"Attempts ended, by class of the final status; none: there was no status.", []string{"backend", "code", "pool"}, nil)
	faultsDesc = prometheus.NewDesc("lb_backend_faults_total",
		"Attempts that went wrong, by what it was; client: the client's doing.", []string{"backend", "fault", "pool"}, nil)
	durationDesc = prometheus.NewDesc("lb_backend_request_duration_seconds",
		"Time from choosing the backend to the end of its response, tunnels left out.", ofBackend, nil)
	checksDesc = prometheus.NewDesc("lb_backend_health_checks_total",
		"Active health checks of the backend, by what came of them.", []string{"backend", "pool", "result"}, nil)
	failedDesc = prometheus.NewDesc("lb_listener_failed_requests_total",
		"Requests that the application did not answer, or not to the end, by the reason that the access log gives.", []string{"listener", "reason"}, nil)
	reloadsDesc = prometheus.NewDesc("lb_config_reloads_total",
		"Times that the configuration was read again, by whether it is in force.", []string{"result"}, nil)
	visitsDesc = prometheus.NewDesc("lb_affinity_requests_total",
		"Requests answered whose client could be known, by what, and what became of it.", []string{"by", "pool", "result"}, nil)
	upgradesDesc = prometheus.NewDesc("lb_upgrades_total",
		"Times that another process was to take over, since the first of them started, by whether it did.", []string{"result"}, nil)
	buildDesc = prometheus.NewDesc("lb_build_info",
		"Always 1; the labels say which lb this is.", []string{"goversion", "version"}, nil)
)

var poolFamilies = []family[*poolState]{
	gauge("lb_pool_fail_open", "1 if no backend is ready and requests go to all that are not known to be dead.", ofPool,
		func(p *poolState) float64 { return truth(p.snap.Panic) }),
	gauge("lb_pool_ready_backends", "Backends that may be sent new requests.", ofPool,
		func(p *poolState) float64 { return float64(len(p.snap.Ready)) }),
	gauge("lb_pool_waiting_requests", "Requests that wait for a backend.", ofPool,
		func(p *poolState) float64 { return float64(p.queue.Waiting) }),
	counter("lb_pool_waits_total", "Requests that had to wait for a backend.", ofPool,
		func(p *poolState) float64 { return float64(p.queue.Waits) }),
	counter("lb_pool_wait_seconds_total", "Time that requests waited for a backend, counted when the wait is over.", ofPool,
		func(p *poolState) float64 { return float64(p.queue.Waited) / 1e9 }),
	counter("lb_pool_wait_timeouts_total", "Requests that waited for a backend in vain, until their deadline.", ofPool,
		func(p *poolState) float64 { return float64(p.queue.Timeouts) }),
	counter("lb_pool_queue_full_total", "Requests that could not wait for a backend because too many did.", ofPool,
		func(p *poolState) float64 { return float64(p.queue.Full) }),
	counter("lb_pool_requests_total", "Requests that came to the pool, each counted once; those that wait are not counted yet.", ofPool,
		func(p *poolState) float64 { return float64(p.Requests()) }),
	counter("lb_pool_failed_requests_total", "Requests that the application did not answer, or not to the end, for a reason that is not the client's.", ofPool,
		func(p *poolState) float64 { n, _ := p.Failed(); return float64(n) }),
	counter("lb_pool_retries_refused_total", "Retries that were left out because there had been too many.", ofPool,
		func(p *poolState) float64 { return float64(p.RetriesRefused()) }),
}

var affinityFamilies = []family[*Affinity]{
	counter("lb_affinity_learned_sessions_total", "Sessions whose backend was learned, again when it changed.", ofPool,
		func(a *Affinity) float64 { return float64(a.Learned) }),
	counter("lb_affinity_evicted_sessions_total", "Sessions that were forgotten because more were in use than are remembered.", ofPool,
		func(a *Affinity) float64 { return float64(a.Evicted) }),
	counter("lb_affinity_unread_answers_total", "Answers that should have begun a session of Socket.IO, and in which none was found.", ofPool,
		func(a *Affinity) float64 { return float64(a.Unread) }),
}

// poolState is a pool at the time of a scrape.
type poolState struct {
	*upstream.Pool
	snap  *upstream.Snapshot
	queue upstream.QueueStats
}

var listenerFamilies = []family[*ListenerStats]{
	counter("lb_listener_connections_accepted_total", "Connections accepted from clients.", ofListener,
		func(s *ListenerStats) float64 { return float64(s.Accepted) }),
	gauge("lb_listener_connections", "Open connections from clients, tunnels included.", ofListener,
		func(s *ListenerStats) float64 { return float64(s.Open) }),
	counter("lb_listener_pauses_total", "Times that accepting paused for want of file descriptors.", ofListener,
		func(s *ListenerStats) float64 { return float64(s.Paused) }),
	counter("lb_listener_requests_total", "Requests read from clients.", ofListener,
		func(s *ListenerStats) float64 { return float64(s.Requests) }),
	counter("lb_listener_received_bytes_total", "Bytes of request bodies from clients.", ofListener,
		func(s *ListenerStats) float64 { return float64(s.BytesIn) }),
	counter("lb_listener_sent_bytes_total", "Bytes of response bodies to clients.", ofListener,
		func(s *ListenerStats) float64 { return float64(s.BytesOut) }),
}

var processFamilies = []family[*Sources]{
	counter("lb_access_log_lines_total", "Access log lines written.", nil,
		func(s *Sources) float64 { return float64(call(s.LogLines)) }),
	counter("lb_access_log_dropped_lines_total", "Access log lines lost, because they could not be written in time.", nil,
		func(s *Sources) float64 { return float64(call(s.LogDropped)) }),
}

var reloadFamilies = []family[Reloads]{
	gauge("lb_config_last_reload_successful", "1 if the configuration was in order when it was last read, 0 if the one before is still in force.", nil,
		func(r Reloads) float64 { return truth(r.OK) }),
	gauge("lb_config_last_reload_success_timestamp_seconds", "When the configuration in force was read, in Unix time.", nil,
		func(r Reloads) float64 { return float64(r.Time.UnixMilli()) / 1e3 }),
}

func call(f func() uint64) uint64 {
	if f == nil {
		return 0
	}
	return f()
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
