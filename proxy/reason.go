package proxy

import (
	"lb/http1"
	"lb/upstream"
)

// Reason says why lb answered a request itself, or why an answer was not what the client could expect. It
// stands in the access log and is a label of a metric.
type Reason uint8

// The reasons. None is for answers of the application.
const (
	None               Reason = iota
	BadRequest                // the request broke the rules; the log has a code of its own for each
	HeaderTimeout             // the request head did not come in time
	BodyTimeout               // the request body stopped coming
	BodyTooLarge              // more than max_body
	TooManyConnections        // over max_connections or max_connections_per_client
	NoRoute                   // no route for this host and path
	NoBackend                 // no backend of the pool may be used
	Exhausted                 // lb is out of descriptors, ports or memory for a connection to a backend
	Overloaded                // all backends were at max_inflight for too long, or too many requests waited already
	ConnectFailed             // no backend accepted a connection
	ConnectTimeout            // the backend did not accept in time
	ResponseTimeout           // no response head in time
	BackendClosed             // the backend closed or reset the connection before it answered
	BackendUnready            // the backend answered 503 while it warmed up or went away, and nobody else took the request
	SessionUnknown            // no backend that was asked knows the session of Socket.IO
	BadResponse               // the backend's response made no sense
	BackendCut                // the backend broke off in the middle of its answer
	BackendStalled            // the backend stopped in the middle of its answer, or took nothing of the request
	ClientGone                // the client went away
	ClientStalled             // the client stopped reading the answer
	Stopped                   // lb was told to stop and the grace was over
	InternalError             // lb itself failed: a bug
	reasons
)

// answers are what lb says for each reason.
var answers = [reasons]struct {
	code   string
	status int
	fault  upstream.Fault
}{
	BadRequest:         {"bad_request", 400, upstream.FaultClient},
	HeaderTimeout:      {"header_timeout", 408, upstream.FaultClient},
	BodyTimeout:        {"body_timeout", 408, upstream.FaultClient},
	BodyTooLarge:       {"body_too_large", 413, upstream.FaultClient},
	TooManyConnections: {"too_many_connections", 503, upstream.FaultNone},
	NoRoute:            {"no_route", 404, upstream.FaultNone},
	NoBackend:          {"no_backend", 503, upstream.FaultNone},
	Exhausted:          {"exhausted", 503, upstream.FaultClient},
	Overloaded:         {"overloaded", 503, upstream.FaultNone},
	ConnectFailed:      {"connect_failed", 502, upstream.FaultConnect},
	ConnectTimeout:     {"connect_timeout", 504, upstream.FaultConnect},
	ResponseTimeout:    {"response_timeout", 504, upstream.FaultTimeout},
	BackendClosed:      {"backend_closed", 502, upstream.FaultReset},
	BackendUnready:     {"backend_unready", 503, upstream.FaultStatus},
	SessionUnknown:     {"session_unknown", 400, upstream.FaultNone},
	BadResponse:        {"bad_response", 502, upstream.FaultMalformed},
	BackendCut:         {"backend_cut", 502, upstream.FaultReset},
	BackendStalled:     {"backend_stalled", 504, upstream.FaultTimeout},
	ClientGone:         {"client_gone", 499, upstream.FaultClient},
	ClientStalled:      {"client_stalled", 499, upstream.FaultClient},
	Stopped:            {"stopped", 503, upstream.FaultClient},
	InternalError:      {"internal_error", 500, upstream.FaultClient},
}

// Reasons is the number of reasons, None included.
const Reasons = int(reasons)

const _ = uint(upstream.FailureKinds - Reasons) // does not compile when there are more than a pool can count

// String is the reason's code: "" for None, else snake case.
func (r Reason) String() string { return answers[r].code }

// clients reports whether it was the client's own doing that its request came to nothing.
func (r Reason) clients() bool {
	switch r {
	case BadRequest, HeaderTimeout, BodyTimeout, BodyTooLarge, ClientGone, ClientStalled:
		return true
	}
	return false
}

// failure is why a request, or one attempt at it, came to nothing. The zero failure is none.
type failure struct {
	reason Reason
	status int // in place of the reason's
	detail string
	fault  upstream.Fault // in place of the reason's
	again  bool           // with ResponseTimeout: another backend is to be tried, see giveUp
	missed bool           // with BackendClosed: it is certain that the backend got nothing of the request, see exchange.missed
	stale  bool           // the connection had served before and ended before a byte of the answer, see staleFor
}

// staleFor is how long, in ns from when a request was sent on a connection that had served before, the end of that connection
// says nothing about the backend. A server may close an idle one at any time, and the request may just be on its way then: the
// kernel's answer to that takes one way there and back. Whoever hangs up later had the request, and is to blame.
const staleFor = 1e9

func (f *failure) failed() bool { return f.reason != None }

func (f *failure) statusCode() int {
	if f.status != 0 {
		return f.status
	}
	return answers[f.reason].status
}

// blame is whose fault it was that an attempt failed after so many ns.
func (f *failure) blame(after int64) upstream.Fault {
	switch {
	case f.stale && after < staleFor:
		return upstream.FaultNone
	case f.fault != upstream.FaultNone:
		return f.fault
	}
	return answers[f.reason].fault
}

// code is what the log calls it.
func (f *failure) code() string {
	if f.detail != "" {
		return f.detail
	}
	return answers[f.reason].code
}

// badRequest turns what http1 says of a request into a failure.
func badRequest(err error) failure {
	e := err.(*http1.Error)
	return failure{reason: BadRequest, status: e.Status, detail: e.Reason}
}

func badResponse(err error) failure {
	return failure{reason: BadResponse, detail: err.(*http1.Error).Reason}
}
