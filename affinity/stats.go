package affinity

import "lb/upstream"

// By is what a client was known by.
type By uint8

// The ways to be known.
const (
	ByNothing By = iota
	BySID        // of Socket.IO
	ByCookie
	ByAppCookie
	ByHash
	bys
)

func (b By) String() string { return [...]string{"", "sid", "cookie", "app_cookie", "hash"}[b] }

// Result is what became of a preference.
type Result uint8

// The results.
const (
	NoResult Result = iota // nothing was asked, or nothing has been answered
	Newcomer               // the request brought nothing to know its client by
	Hit                    // it went where its session is
	Miss                   // it brought something that says nothing here: forgotten, forged, of another lb
	Moved                  // its backend can serve it no more: from now on it is another's
	Strayed                // its backend is well, but did not take it this once: it was full, or an attempt there failed
	results
)

func (r Result) String() string {
	return [...]string{"", "new", "hit", "miss", "moved", "strayed"}[r]
}

// Bys and Results are the dimensions of Stats.Visits.
const (
	Bys     = int(bys)
	Results = int(results)
)

// Stats counts what one loop saw. That loop alone writes it; scrapes read it at any time.
type Stats struct {
	Visits  [bys][results]upstream.Counter
	Learned upstream.Counter // sessions whose backend was learned, again for those that moved
	Unread  upstream.Counter // answers to Socket.IO handshakes in which no session ID was found
}

// Uses reports whether clients may be known so.
func (a *Affinity) Uses(by By) bool {
	switch by {
	case BySID:
		return a.sids != nil
	case ByCookie:
		return a.opt.Kind == Cookie
	case ByAppCookie:
		return a.opt.Kind == AppCookie
	case ByHash:
		return a.opt.Kind == Hash
	}
	return false
}

// shard keeps the Stats of two loops out of one cache line.
type shard struct {
	_ [64]byte
	Stats
	_ [64]byte
}

// Stats are the counters that loop writes; for others they are there to be read.
func (a *Affinity) Stats(loop int) *Stats { return &a.shards[loop].Stats }

// Loops is the number of Stats.
func (a *Affinity) Loops() int { return len(a.shards) }
