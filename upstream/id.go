package upstream

import (
	"runtime"
	"slices"
	"sync"
)

// ids gives the smallest free number to each Live.
var ids struct {
	mu   sync.Mutex
	free []int // sorted, largest first
	next int
}

func takeID() int {
	ids.mu.Lock()
	defer ids.mu.Unlock()
	if n := len(ids.free); n > 0 {
		id := ids.free[n-1]
		ids.free = ids.free[:n-1]
		return id
	}
	ids.next++
	return ids.next - 1
}

func freeID(id int) {
	ids.mu.Lock()
	defer ids.mu.Unlock()
	i, _ := slices.BinarySearchFunc(ids.free, id, func(a, b int) int { return b - a })
	ids.free = slices.Insert(ids.free, i, id)
}

// identify gives l its ID, and takes it back when nothing refers to l any more. Leaving that to the garbage collector
// means that no table of any loop can mix up two backends: whoever still holds something of the old one, a lease, a
// connection, a message on its way to a loop, also holds its number.
func identify(l *Live) {
	l.ID = takeID()
	runtime.AddCleanup(l, freeID, l.ID)
}
