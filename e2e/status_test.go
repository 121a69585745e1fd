package e2e

import "encoding/json"

// status is what tests look at in /status.
type status struct {
	Listeners []struct{ Name, Address string }
	Pools     []poolStatus
}

type poolStatus struct {
	Queue    struct{ Waiting, Waits, Timeouts, Full int }
	Failed   int
	Backends []backendStatus
}

type backendStatus struct {
	Name, State, Since, Why string
	Until                   string `json:"ejected_until"`
	Slow                    float64
	Requests                uint64
	Limit, Inflight         int
	Parked, Tunnels         int
}

// status reads /status.
func (l *lb) status() (s status) {
	l.t.Helper()
	if code, body := l.get("/status"); code != 200 || json.Unmarshal([]byte(body), &s) != nil || len(s.Pools) == 0 {
		l.t.Fatalf("/status: %d %s", code, body)
	}
	return s
}

// pool is the first pool.
func (l *lb) pool() poolStatus { l.t.Helper(); return l.status().Pools[0] }

// backends are those of all pools by their names.
func (l *lb) backends() map[string]backendStatus {
	l.t.Helper()
	m := map[string]backendStatus{}
	for _, p := range l.status().Pools {
		for _, b := range p.Backends {
			m[b.Name] = b
		}
	}
	return m
}
