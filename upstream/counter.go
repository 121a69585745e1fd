package upstream

import "sync/atomic"

// Counter only grows. One goroutine at a time writes it, any may read it, which is why Add needs no locked
// instruction: see bump.
type Counter struct {
	_ [0]atomic.Uint64 // aligns v on 32-bit machines
	v uint64
}

// Add adds n; only the counter's owner may.
func (c *Counter) Add(n uint64) { bump(&c.v, n) }

// Inc adds 1; only the counter's owner may.
func (c *Counter) Inc() { bump(&c.v, 1) }

// Load is the count so far.
func (c *Counter) Load() uint64 { return atomic.LoadUint64(&c.v) }

// Gauge goes up and down. Like a Counter, it has one writer.
type Gauge struct {
	_ [0]atomic.Uint64
	v uint64
}

// Add adds n, which may be negative; only the gauge's owner may.
func (g *Gauge) Add(n int64) { bump(&g.v, uint64(n)) }

// Inc adds 1; only the gauge's owner may.
func (g *Gauge) Inc() { bump(&g.v, 1) }

// Dec subtracts 1; only the gauge's owner may.
func (g *Gauge) Dec() { bump(&g.v, ^uint64(0)) }

// Load is the present value.
func (g *Gauge) Load() int64 { return int64(atomic.LoadUint64(&g.v)) }
