package upstream

import "time"

// Settings is how a pool is talked to. It is part of a Snapshot and never changes: a reload brings another one.
type Settings struct {
	ConnectTimeout  time.Duration // for one connection; 0: see ConnectTimeoutFor
	ResponseTimeout time.Duration // from the request sent to the response head
	TryTimeout      time.Duration // the same of an attempt that another backend may follow; 0: ResponseTimeout
	ReadTimeout     time.Duration // between two reads of a response body
	TunnelIdle      time.Duration // a tunnel on which nothing moved for so long is closed
	MaxIdle         int           // idle connections kept per backend
	IdleTimeout     time.Duration // of an idle connection to a backend
	DrainSessions   time.Duration // how long a draining backend keeps its sessions; 0: it does not, see Pool.StartDraining
	Reuse           bool          // keep connections to backends open for the next request
	Retries         int           // further attempts after the first
	RetryShare      float64       // share of the requests in 10 s that may be retried, besides 3; 1 or more is no limit

	QueueLen     int           // requests that may wait while all are at MaxInflight; 0: twice the places; < 0: none
	QueueTimeout time.Duration // for how long; the proxy sees to it. For those that a strategy holds back see Pool.Overdue
	HoldRequests int           // requests that may wait while nobody is ready; 0: none
	HoldBytes    int64         // of memory that waiting requests may hold in all; 0: no limit
	HoldTimeout  time.Duration // for how long; the proxy sees to it
	SlowStart    time.Duration // in which the share of a backend that returns or joins grows to its whole; 0: at once
}

// DefaultSettings is what a pool gets that sets nothing. IdleTimeout is below the 5 s after which Node closes an idle
// connection by default: the side that closes first never sends a request into a connection that is being closed.
func DefaultSettings() *Settings {
	return &Settings{
		ResponseTimeout: 60 * time.Second,
		ReadTimeout:     60 * time.Second,
		TunnelIdle:      time.Hour,
		MaxIdle:         128,
		IdleTimeout:     4 * time.Second,
		Reuse:           true,
		Retries:         2,
		RetryShare:      .2,
		QueueTimeout:    5 * time.Second,
		HoldRequests:    1024,
		HoldBytes:       64 << 20,
		HoldTimeout:     5 * time.Second,
		SlowStart:       10 * time.Second,
	}
}

// ConnectTimeoutFor is ConnectTimeout, or when that is not set 1 s for a backend on this machine and 3 s for others:
// one lost SYN is sent again after 1 s, so over a network the second must still have time to be answered.
func (s *Settings) ConnectTimeoutFor(a Addr) time.Duration {
	switch {
	case s.ConnectTimeout > 0:
		return s.ConnectTimeout
	case a.Local():
		return time.Second
	}
	return 3 * time.Second
}

// KeyOf hashes what a client is known by to a Selection.Key. It gives the same on every machine and in every version,
// so that several balancers, and one before and after a restart, send a key to the same backend. (FNV-1a, then the
// finalizer of MurmurHash3, which FNV needs for short inputs that differ in their last byte.)
func KeyOf(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return h
}
