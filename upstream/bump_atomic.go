//go:build race || !(amd64 || arm64 || ppc64le || riscv64 || loong64 || s390x)

package upstream

import "sync/atomic"

// bump adds n to a word that this goroutine alone writes, so that nothing comes between load and store.
func bump(p *uint64, n uint64) { atomic.StoreUint64(p, atomic.LoadUint64(p)+n) }
