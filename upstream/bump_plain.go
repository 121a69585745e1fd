//go:build !race && (amd64 || arm64 || ppc64le || riscv64 || loong64 || s390x)

package upstream

// bump adds n to a word that this goroutine alone writes.
//
// An atomic store is a locked exchange on amd64: some 20 cycles, and it waits for all stores before it. A request
// bumps a dozen words. The Go memory model lets a concurrent read of one aligned machine word see only values that
// were written there, the old or the new, which is all that a scrape asks for. Builds with the race detector, which
// rightly knows nothing of that intent, and 32-bit machines use bump_atomic.go.
func bump(p *uint64, n uint64) { *p += n }
