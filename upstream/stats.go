package upstream

// Stats counts what one loop did with one backend. That loop alone writes it; scrapes read it at any time.
//
// Pool.Acquire counts Picks and Retries; Lease.Done counts Requests, Faults and Latency. The rest is about
// connections and is counted by who opens them.
type Stats struct {
	Picks    Counter         // leases given
	Retries  Counter         // those of them that were not their exchange's first
	FailOpen Counter         // those of them given while nobody was ready, see Snapshot.Panic
	Requests [6]Counter      // leases ended, by status class; [0] ended without a status
	Faults   [Faults]Counter // leases ended, by Fault; [FaultNone] stays 0
	Latency  Histogram       // of a request: from Acquire to the end of the response. Tunnels are left out.

	ConnsOpened   Counter // connections made
	ConnsReused   Counter // requests sent on a connection that had served before
	ConnErrors    Counter // connections that could not be made
	ConnsOpen     Gauge
	ConnsIdle     Gauge
	BytesSent     Counter // to the backend
	BytesReceived Counter // from the backend

	newest Gauge // latest start, ns, of a lease that was answered: see Lease.Park
}

// shard keeps the Stats of two loops out of one cache line, and out of pairs of lines that are fetched together.
type shard struct {
	_ [64]byte
	Stats
	_ [64]byte
}
