//go:build linux && !lb_portable

package loop

// portable tells the tests which of the two implementations they run on.
const portable = false
