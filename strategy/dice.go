package strategy

import "lb/upstream"

// dice gives each loop numbers of its own: a count and a random sequence. They are the same for the same seed, share
// nothing between loops, and outlive snapshots, so that a set that changes often does not start over each time.
type dice []die

type die struct {
	count uint64
	state uint64
	_     [112]byte // the next loop's is on another pair of cache lines
}

// diceOf are the pool's dice, made when the first strategy asks for them.
func diceOf(ready []*upstream.Backend, seed uint64) dice {
	return ready[0].Pool().Recall("dice", func() any {
		d := make(dice, ready[0].Loops())
		for i := range d {
			d[i].state = mix(seed + uint64(i+1)*0x9e3779b97f4a7c15)
			d[i].count = d[i].state >> 32 // loops start their rounds at different backends
		}
		return d
	}).(dice)
}

// next counts up.
func (d *die) next() uint64 {
	d.count++
	return d.count
}

// below is a random number in [0, n). (SplitMix64; Lemire's multiplication in place of a division, whose bias is
// n/2^32.)
func (d *die) below(n int) int {
	d.state += 0x9e3779b97f4a7c15
	return int(mix(d.state) >> 32 * uint64(n) >> 32)
}

// unit is a random number in [0, 1).
func (d *die) unit() float64 {
	d.state += 0x9e3779b97f4a7c15
	return unit(mix(d.state))
}

// unit makes a number in [0, 1) of the bits of x.
func unit(x uint64) float64 { return float64(x>>11) / (1 << 53) }

// mix is the finalizer of SplitMix64: every bit of the result depends on every bit of x.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
