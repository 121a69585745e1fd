//go:build linux && !lb_portable

package proxy

const portable = false
