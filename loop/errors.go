package loop

import "errors"

var (
	// ErrClosed is returned by operations on a Conn that was closed on this side.
	ErrClosed = errors.New("loop: connection closed")
	// ErrTimeout is returned when a deadline passed before the operation could go on.
	ErrTimeout = errors.New("loop: deadline passed")
	// ErrPeerGone interrupts the task that watches a connection whose peer has gone: see Conn.Watch.
	ErrPeerGone = errors.New("loop: peer of the watched connection has gone")
	// ErrStopped is returned when the group of loops has been closed.
	ErrStopped = errors.New("loop: stopped")
)
