package upstream

import "sync/atomic"

// FailureKinds is how many kinds of failures a Pool tells apart.
const FailureKinds = 32

// failures counts requests that came to nothing. They are rare, so that loops may share it.
type failures struct {
	kinds    [FailureKinds]atomic.Uint64
	unserved atomic.Uint64
}

// Fail counts a request that the application did not answer, or not to the end, for a reason that is not its client's.
// What the kinds mean is up to the caller, see proxy.Reason; one that is not below FailureKinds counts as the last.
// tried says whether a backend was asked.
func (p *Pool) Fail(kind int, tried bool) {
	p.failed.kinds[min(kind, FailureKinds-1)].Add(1)
	if !tried {
		p.failed.unserved.Add(1)
	}
}

// Failed is how many requests Fail was called for, and how many of them no backend was asked for.
func (p *Pool) Failed() (all, unserved uint64) {
	unserved = p.failed.unserved.Load() // first, so that it is never more than all
	for _, n := range p.FailedBy() {
		all += n
	}
	return all, unserved
}

// FailedBy is how many requests Fail was called for, by kind.
func (p *Pool) FailedBy() (kinds [FailureKinds]uint64) {
	for i := range kinds {
		kinds[i] = p.failed.kinds[i].Load()
	}
	return kinds
}
