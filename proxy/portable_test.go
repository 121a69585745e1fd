//go:build !linux || lb_portable

package proxy

// portable is the version of the loops on goroutines. It allocates, cannot ask what the peer has taken of what the
// system holds, and sees a reset behind a FIN only when it writes.
const portable = true
