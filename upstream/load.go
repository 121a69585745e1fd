package upstream

// Load is the number of leases of a backend at one moment, packed into the one word that all loops count in. One
// word makes "how busy is it" one read, "the last lease has gone" one comparison, and admission one instruction
// whose result says at once whether the backend is draining.
//
//	bits  0-20  active: requests in flight that are not parked
//	bits 21-41  parked: requests that wait on something other than the backend's processor, see Lease.Park
//	bits 42-62  tunnels
//	bit  63     draining: nothing new
//
// Each field holds 2,097,151, above what a process can have in open descriptors by Linux's default limit.
type Load uint64

const (
	one      Load = 1
	parked        = one << 21
	tunnel        = one << 42
	draining      = one << 63
	field         = parked - 1
)

// Active is the number of requests in flight that keep the backend busy.
func (l Load) Active() int64 { return int64(l & field) }

// Parked is the number of requests in flight that only wait, such as long polls.
func (l Load) Parked() int64 { return int64(l / parked & field) }

// Tunnels is the number of upgraded connections.
func (l Load) Tunnels() int64 { return int64(l / tunnel & field) }

// Draining reports whether the backend refuses new leases.
func (l Load) Draining() bool { return l&draining != 0 }

// requests is what MaxInflight limits.
func (l Load) requests() int64 { return l.Active() + l.Parked() }
