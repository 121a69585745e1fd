// Package strategy is the ways to choose a backend, a file each. They see ready backends only, read the counts that
// upstream keeps, and need no lock: several loops pick from one strategy at once.
//
// Weights work in all of them. A backend of weight 3 gets three times the requests of one of weight 1 where a strategy
// goes by share (round_robin, random, hash), and may have three times as many in flight where it goes by load. During
// slow start (upstream.Live.Share) a backend counts with a part of its weight in the same sense; where load decides, it
// also gets that part of its requests by chance while it is idle.
package strategy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"lb/upstream"
)

// Names are the strategies that New knows.
func Names() []string {
	return []string{"round_robin", "least_conn", "ewma", "adaptive", "p2c", "random", "hash"}
}

// Default is the strategy of a pool that names none.
func Default() string { return "adaptive" }

// Options are for tests and simulations.
type Options struct {
	Seed uint64 // of random choices; they are the same for the same seed and loop
}

// New returns what makes a strategy of that name, or an error that lists the names. A pool needs a Build of its own.
func New(name string, opt ...Options) (upstream.Build, error) {
	// Each process has its own choices, or several lbs that start together would go to the same backend each time.
	o := Options{Seed: rand.Uint64()}
	if len(opt) > 0 {
		o = opt[0]
	}
	switch name {
	case "round_robin":
		return buildRoundRobin, nil
	case "least_conn":
		return func(r []*upstream.Backend) upstream.Strategy { return newLeastConn(r, o.Seed) }, nil
	case "ewma":
		return func(r []*upstream.Backend) upstream.Strategy { return newEWMA(r, o.Seed) }, nil
	case "adaptive":
		return func(r []*upstream.Backend) upstream.Strategy { return newAdaptive(r, o.Seed) }, nil
	case "p2c":
		return func(r []*upstream.Backend) upstream.Strategy { return newP2C(r, o.Seed) }, nil
	case "random":
		return func(r []*upstream.Backend) upstream.Strategy { return newRandom(r, o.Seed) }, nil
	case "hash":
		return func(r []*upstream.Backend) upstream.Strategy { return newHash(r, o.Seed, DefaultBound) }, nil
	}
	return nil, fmt.Errorf("unknown strategy %q, want one of %s", name, strings.Join(slices.Sorted(slices.Values(Names())), ", "))
}
