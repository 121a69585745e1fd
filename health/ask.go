package health

import (
	"context"

	"lb/upstream"
)

// Ask asks b once, as the pool's checks would, and by TCP where there are none. It is for who needs to know now: it
// goes beside the checks and changes nothing. ErrDrain is an answer too, see Probe.
func (m *Monitor) Ask(ctx context.Context, b *upstream.Backend) error {
	m.mu.Lock()
	c, probe := m.check, m.opt.Probe
	m.mu.Unlock()
	if probe == nil {
		probe = c.probe()
	}
	return probe.run(ctx, b.Addr, c.Timeout)
}
