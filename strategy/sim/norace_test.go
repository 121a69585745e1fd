//go:build !race

package sim

// race tells tests of one goroutine that the race detector has nothing to find in them and makes them ten times slower.
const race = false
