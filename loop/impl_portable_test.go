//go:build !linux || lb_portable

package loop

const portable = true
