package metrics

import (
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"lb/upstream"
)

// collector reads the sources whenever it is asked.
type collector struct {
	src   Sources
	build []*dto.LabelPair
}

func newCollector(s Sources) *collector {
	return &collector{src: s, build: []*dto.LabelPair{pair("goversion", runtime.Version()), pair("version", s.Version)}}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range backendFamilies {
		ch <- f.desc
	}
	for _, f := range poolFamilies {
		ch <- f.desc
	}
	for _, f := range listenerFamilies {
		ch <- f.desc
	}
	for _, f := range processFamilies {
		ch <- f.desc
	}
	for _, f := range reloadFamilies {
		ch <- f.desc
	}
	for _, f := range affinityFamilies {
		ch <- f.desc
	}
	for _, d := range []*prometheus.Desc{reloadsDesc, upgradesDesc, visitsDesc, checksDesc, requestsDesc, faultsDesc, durationDesc, failedDesc, buildDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	var out samples
	out.add(dto.MetricType_GAUGE, buildDesc, 1, c.build)
	for _, f := range processFamilies {
		out.add(f.kind, f.desc, f.value(&c.src), nil)
	}
	if c.src.Reloads != nil {
		r := c.src.Reloads()
		for _, f := range reloadFamilies {
			out.add(f.kind, f.desc, f.value(r), nil)
		}
		out.add(dto.MetricType_COUNTER, reloadsDesc, float64(r.Succeeded), results[:1])
		out.add(dto.MetricType_COUNTER, reloadsDesc, float64(r.Failed), results[1:])
	}
	if c.src.Upgrades != nil {
		n := c.src.Upgrades()
		out.add(dto.MetricType_COUNTER, upgradesDesc, float64(n.Succeeded), results[:1])
		out.add(dto.MetricType_COUNTER, upgradesDesc, float64(n.Failed), results[1:])
	}
	if c.src.Listeners != nil {
		collectListeners(&out, c.src.Listeners())
	}
	if c.src.Affinity != nil {
		for _, a := range c.src.Affinity() {
			pool := pair("pool", a.Pool)
			for _, f := range affinityFamilies {
				out.add(f.kind, f.desc, f.value(&a), []*dto.LabelPair{pool})
			}
			for _, v := range a.Visits {
				out.add(dto.MetricType_COUNTER, visitsDesc, float64(v.Count), []*dto.LabelPair{pair("by", v.By), pool, pair("result", v.Result)})
			}
		}
	}
	if c.src.Pools != nil {
		for _, p := range c.src.Pools() {
			pool := pair("pool", p.Name)
			state := &poolState{p, p.Snapshot(), p.Queue()}
			for _, f := range poolFamilies {
				out.add(f.kind, f.desc, f.value(state), []*dto.LabelPair{pool})
			}
			for _, b := range state.snap.All {
				t := sum(b, state.snap.Opinion(b))
				collectBackend(&out, t, pool)
				ch <- &duration{t: &t.latency, labels: []*dto.LabelPair{pair("backend", b.Name), pool}}
			}
		}
	}
	for i := range out {
		ch <- &out[i]
	}
}

func collectBackend(out *samples, t *backendSum, pool *dto.LabelPair) {
	backend := pair("backend", t.Name)
	labels := []*dto.LabelPair{backend, pool}
	for _, f := range backendFamilies {
		out.add(f.kind, f.desc, f.value(t), labels)
	}
	passed, failed := t.Checks()
	out.add(dto.MetricType_COUNTER, checksDesc, float64(passed), []*dto.LabelPair{backend, pool, results[0]})
	out.add(dto.MetricType_COUNTER, checksDesc, float64(failed), []*dto.LabelPair{backend, pool, results[1]})
	for i, n := range t.requests {
		out.add(dto.MetricType_COUNTER, requestsDesc, float64(n), []*dto.LabelPair{backend, codes[i], pool})
	}
	for i, n := range t.faults {
		if upstream.Fault(i) != upstream.FaultNone {
			out.add(dto.MetricType_COUNTER, faultsDesc, float64(n), []*dto.LabelPair{backend, faults[i], pool})
		}
	}
}

func collectListeners(out *samples, all []Listener) {
	sums := map[string]*ListenerStats{}
	var names []string
	for _, l := range all {
		s := l.Stats()
		t := sums[l.Name()]
		if t == nil {
			t = new(ListenerStats)
			sums[l.Name()] = t
			names = append(names, l.Name())
		}
		t.Accepted += s.Accepted
		t.Open += s.Open
		t.Paused += s.Paused
		t.Requests += s.Requests
		t.BytesIn += s.BytesIn
		t.BytesOut += s.BytesOut
		t.Failed = append(t.Failed, s.Failed...)
	}
	for _, name := range names {
		t, listener := sums[name], pair("listener", name)
		labels := []*dto.LabelPair{listener}
		for _, f := range listenerFamilies {
			out.add(f.kind, f.desc, f.value(t), labels)
		}
		counts := map[string]uint64{}
		for _, r := range t.Failed {
			counts[r.Name] += r.Count
		}
		delete(counts, "")
		for reason, n := range counts {
			out.add(dto.MetricType_COUNTER, failedDesc, float64(n), []*dto.LabelPair{listener, pair("reason", reason)})
		}
	}
}

// codes and faults are the label pairs for the indices of upstream.Stats; results are of reading the configuration.
var (
	results = labelPairs("result", []string{"success", "failure"})

	codes  = labelPairs("code", []string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"})
	faults = func() []*dto.LabelPair {
		names := make([]string, upstream.Faults)
		for i := range names {
			names[i] = upstream.Fault(i).String()
		}
		return labelPairs("fault", names)
	}()
)

func labelPairs(name string, values []string) []*dto.LabelPair {
	out := make([]*dto.LabelPair, len(values))
	for i, v := range values {
		out[i] = pair(name, v)
	}
	return out
}

func pair(name, value string) *dto.LabelPair {
	value = strings.ToValidUTF8(value, "\ufffd") // else the whole scrape fails
	return &dto.LabelPair{Name: &name, Value: &value}
}

// sample is a prometheus.Metric with its labels made up already: the metrics of a backend share them, where
// MustNewConstMetric would make and sort them for each.
type sample struct {
	kind   dto.MetricType
	desc   *prometheus.Desc
	value  float64
	labels []*dto.LabelPair
}

type samples []sample

func (s *samples) add(kind dto.MetricType, desc *prometheus.Desc, value float64, labels []*dto.LabelPair) {
	*s = append(*s, sample{kind, desc, value, labels})
}

// Desc implements prometheus.Metric.
func (s *sample) Desc() *prometheus.Desc { return s.desc }

// Write implements prometheus.Metric.
func (s *sample) Write(m *dto.Metric) error {
	m.Label = s.labels
	if s.kind == dto.MetricType_COUNTER {
		m.Counter = &dto.Counter{Value: &s.value}
	} else {
		m.Gauge = &dto.Gauge{Value: &s.value}
	}
	return nil
}

// duration is one histogram with classic buckets for scrapers of text, and native ones for those of protobuf.
type duration struct {
	t      *upstream.HistogramSnapshot
	labels []*dto.LabelPair
}

// Desc implements prometheus.Metric.
func (d *duration) Desc() *prometheus.Desc { return durationDesc }

// Write implements prometheus.Metric.
func (d *duration) Write(m *dto.Metric) error {
	h := &dto.Histogram{
		SampleCount:   ptr(d.t.Count()),
		SampleSum:     ptr(d.t.Sum()),
		Schema:        ptr(int32(upstream.NativeSchema)),
		ZeroThreshold: ptr(upstream.NativeZeroThreshold),
		ZeroCount:     ptr(d.t.Zero()),
	}
	d.t.Classic(func(bound float64, cumulative uint64) {
		h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: &bound, CumulativeCount: &cumulative})
	})
	var n native
	d.t.Native(n.add)
	h.PositiveSpan, h.PositiveDelta = n.spans, n.deltas
	m.Label, m.Histogram = d.labels, h
	return nil
}

// native gathers buckets as the exposition format has them: runs of neighbours, and each count as the difference to
// the one before.
type native struct {
	spans  []*dto.BucketSpan
	deltas []int64
	next   int // index after the last bucket
	last   int64
}

// add takes buckets in rising order. A gap of one or two is filled with empty buckets, which takes fewer bytes than
// another run.
func (n *native) add(index int, count uint64) {
	gap := index - n.next
	if len(n.spans) == 0 || gap > 2 {
		n.spans = append(n.spans, &dto.BucketSpan{Offset: ptr(int32(gap)), Length: new(uint32)})
		gap = 0
	}
	for range gap {
		n.put(0)
	}
	n.put(int64(count))
	n.next = index + 1
}

func (n *native) put(count int64) {
	*n.spans[len(n.spans)-1].Length++
	n.deltas = append(n.deltas, count-n.last)
	n.last = count
}

func ptr[T any](v T) *T { return &v }
