package upstream

import (
	"sync"
	"sync/atomic"
)

// The budget of retries: in any retryWindow, Settings.RetryShare of the requests and retryFree more. It keeps a pool whose
// backends all fail from being sent every request three times, which is how a failure lasts (Envoy's retry budget has
// the same share).
const (
	retryWindow = 10e9 // ns
	retryFree   = 3
	retrySlots  = 10
)

// The budget of searches, see AllowSearch: once the requests, and searchFree more.
const (
	searchShare = 1
	searchFree  = 100
)

// budget counts retries in tenths of the window. Requests are not counted for it: how many there were is read from the
// backends' Stats when somebody wants to retry.
type budget struct {
	mu    sync.Mutex
	slots [retrySlots]retrySlot
	last  retrySlot // the one whose place was taken last
	past  uint64    // requests of backends that have left
	given uint64    // requests of another process, see InheritRetries

	refused atomic.Uint64
}

// retrySlot is a tenth of the window.
type retrySlot struct {
	at       int64  // ns, of the slot's first retry
	requests uint64 // that had begun then
	retries  uint64 // 0: the slot is unused
}

// AllowRetry reports whether a request may be sent once more at time now, ns, and if so counts that.
func (p *Pool) AllowRetry(now int64) bool {
	snap := p.snap.Load()
	if snap.Settings.RetryShare >= 1 {
		return true
	}
	return p.allow(&p.retry, now, snap, snap.Settings.RetryShare, retryFree)
}

// AllowSearch is AllowRetry for a request whose session the backend did not know, and another may. Such an attempt costs a
// backend next to nothing, and behind several balancers each session is searched for by each of them once; but whoever
// makes sessions up has all backends asked.
func (p *Pool) AllowSearch(now int64) bool {
	return p.allow(&p.search, now, p.snap.Load(), searchShare, searchFree)
}

func (p *Pool) allow(r *budget, now int64, snap *Snapshot, share float64, free uint64) bool {
	total := p.retry.left()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range snap.All {
		total += b.begun()
	}
	total += r.given
	if !r.allow(now, total, share, free) {
		r.refused.Add(1)
		return false
	}
	return true
}

// Retried is how many requests there were in the window that ends at time now, ns, and how many retries: what the next
// process shall know by InheritRetries.
func (p *Pool) Retried(now int64) (requests, retries uint64) {
	r := &p.retry
	total := r.left()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range p.snap.Load().All {
		total += b.begun()
	}
	retries, n := r.inWindow(now, total+r.given)
	return uint64(n), retries
}

// InheritRetries says what Retried said in the process that this one takes over from, at time now, ns. A pool that has
// not seen a request yet could retry hardly anything, and what befalls backends does not wait for that.
func (p *Pool) InheritRetries(now int64, requests, retries uint64) {
	r := &p.retry
	r.mu.Lock()
	defer r.mu.Unlock()
	r.given = requests
	r.last = retrySlot{at: now - retryWindow, retries: 1}
	if retries > 0 {
		r.slots[now/(retryWindow/retrySlots)%retrySlots] = retrySlot{at: now, requests: requests, retries: retries}
	}
}

// RetriesRefused is how often AllowRetry said no.
func (p *Pool) RetriesRefused() uint64 { return p.retry.refused.Load() }

// Requests is how many requests the pool had to serve so far: those that backends were sent, each counted once, and
// those that none was asked for.
func (p *Pool) Requests() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock() // so that who leaves now is counted once
	n := p.failed.unserved.Load() + p.retry.left()
	for _, b := range p.snap.Load().All {
		n += b.begun()
	}
	return n
}

// begun is the number of requests that went to the backend first. Its loops go on counting meanwhile, so that a retry may be
// seen and the pick that it was not.
func (l *Live) begun() uint64 {
	n := uint64(0)
	for _, s := range l.shards {
		picks, retries := s.Picks.Load(), s.Retries.Load()
		n += picks - min(retries, picks)
	}
	return n
}

// gone keeps the count of a backend that leaves.
func (r *budget) gone(b *Backend) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.past += b.begun()
}

// left is the count of the backends that have left.
func (r *budget) left() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.past
}

// allow is AllowRetry with the number of requests that have begun so far.
func (r *budget) allow(now int64, total uint64, share float64, free uint64) bool {
	const width = int64(retryWindow / retrySlots)
	retries, requests := r.inWindow(now, total)
	if float64(retries) >= share*requests+float64(free) {
		return false
	}
	slot := &r.slots[now/width%retrySlots]
	if slot.at/width != now/width || slot.retries == 0 {
		if slot.retries > 0 {
			r.last = *slot
		}
		*slot = retrySlot{at: now, requests: total}
	}
	slot.retries++
	return true
}

// inWindow is the number of retries and of requests in the window that ends now.
//
// Requests are known from the first retry in the window on. For the part before that they are taken to have come
// evenly since the last retry, or since time 0.
func (r *budget) inWindow(now int64, total uint64) (retries uint64, requests float64) {
	begin := now - int64(retryWindow)
	first, before := retrySlot{at: now, requests: total}, r.last
	for _, s := range r.slots {
		switch {
		case s.retries == 0:
		case s.at > begin:
			retries += s.retries
			if s.at < first.at {
				first = s
			}
		case s.at >= before.at:
			before = s
		}
	}
	// Counts that several loops change are not read in one moment, and a backend that leaves just now is counted twice: then
	// there are fewer requests than there were.
	if total > first.requests {
		requests = float64(total - first.requests)
	}
	if begin = max(begin, before.at); first.at > begin && first.requests > before.requests {
		requests += float64(first.requests-before.requests) * float64(first.at-begin) / float64(first.at-before.at)
	}
	return retries, requests
}
