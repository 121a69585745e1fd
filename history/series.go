package history

import "lb/upstream"

// series is the ring of samples of one thing. A sample is added by begin, end for the durations of what ended, if
// anything did, and add.
type series struct {
	n    int // samples ever added
	ring [Length]Sample
	// hists are all durations at the end of each of the last Window samples, and at the beginning of the first.
	hists [Window + 1]upstream.HistogramSnapshot

	recent   Recent // of the last Window samples
	requests uint64 // in them
}

// before is the durations at the end of the last sample but one, now of the last.
func (s *series) before() *upstream.HistogramSnapshot { return &s.hists[(s.n+Window)%(Window+1)] }
func (s *series) now() *upstream.HistogramSnapshot    { return &s.hists[s.n%(Window+1)] }

// begin makes room for one more sample.
func (s *series) begin() {
	s.n++
	*s.now() = *s.before()
}

// end adds the durations by which h is more than was.
func (s *series) end(h, was *upstream.HistogramSnapshot) { s.now().AddDifference(h, was) }

func (s *series) add(x Sample) {
	if x.Ended > 0 {
		d := difference(s.now(), s.before())
		x.P50, x.P99 = d.Quantile(.5), d.Quantile(.99)
	}
	s.ring[(s.n-1)%Length] = x
}

func difference(h, was *upstream.HistogramSnapshot) (d upstream.HistogramSnapshot) {
	d.AddDifference(h, was)
	return d
}

// sum sums up the last Window samples, or as many as there are, and returns their requests.
func (s *series) sum() uint64 {
	var all Sample
	k := min(s.n, Window)
	for i := s.n - k; i < s.n; i++ {
		x := &s.ring[i%Length]
		all.Requests += x.Requests
		all.Errors += x.Errors
		all.Ended += x.Ended
		all.Took += x.Took
	}
	s.requests, s.recent = all.Requests, Recent{Rate: float64(all.Requests) / all.Took.Seconds()}
	if all.Ended > 0 {
		s.recent.ErrorRate = min(1, float64(all.Errors)/float64(all.Ended))
		d := difference(s.now(), &s.hists[(s.n-k)%(Window+1)])
		s.recent.P50, s.recent.P99 = d.Quantile(.5), d.Quantile(.99)
	}
	return all.Requests
}

// last gives the last n samples, or as many as there are.
func (s *series) last(n int) []Sample {
	n = min(n, s.n, Length)
	out := make([]Sample, 0, n)
	for i := s.n - n; i < s.n; i++ {
		out = append(out, s.ring[i%Length])
	}
	return out
}
