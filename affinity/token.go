package affinity

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"math/bits"
)

// tokenLen is 128 bits in base64url.
const tokenLen = 22

// A token is the value of a cookie that stands for a backend: the first 128 bits of HMAC-SHA256 over the names of pool
// and backend, and nothing else. Thus it tells nobody what a backend is called, which often is an address; all lb with a
// key agree on it; and to verify one is to find it among those of the pool's backends, which are computed when the pool
// changes, not when a request comes. Nobody can make one without the key: a guess is right once in 2^128 / backends.
type token [tokenLen]byte

// tokenLabel keeps these apart from whatever else the keys may come to sign.
const tokenLabel = "lb affinity cookie 1"

func tokenOf(key []byte, pool, backend string) (t token) {
	h := hmac.New(sha256.New, key)
	var n [4]byte
	for _, s := range []string{tokenLabel, pool, backend} {
		binary.BigEndian.PutUint32(n[:], uint32(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	base64.RawURLEncoding.Encode(t[:], h.Sum(nil)[:16])
	return t
}

// tokenTable finds tokens. Open addressing, at most a quarter full; tokens are random, so their own bytes say where.
type tokenTable struct {
	slots []tokenSlot // a power of two
	shift uint8
	set   map[string]*token // what to set for a backend
}

type tokenSlot struct {
	token   token
	current bool // it is what is set now
	ref     *ref // nil: free
}

// tokenTable holds the tokens of all backends that memory knows, those that left too. The caller holds memory.mu.
func (a *Affinity) tokenTable() tokenTable {
	keys := a.opt.Cookie.Keys.list
	n := uint64(8)
	for n < uint64(4*len(keys)*len(a.memory.refs)) {
		n *= 2
	}
	t := tokenTable{
		slots: make([]tokenSlot, n),
		shift: uint8(64 - bits.TrailingZeros64(n)),
		set:   make(map[string]*token, len(a.memory.refs)),
	}
	for name, r := range a.memory.refs {
		list := a.tokens[name]
		if list == nil {
			for _, k := range keys {
				list = append(list, tokenOf(k, a.pool.Name, name))
			}
			a.tokens[name] = list
		}
		t.set[name] = &list[0]
		for i := range list {
			slot := t.home(list[i][:])
			for t.slots[slot].ref != nil {
				slot = (slot + 1) & (n - 1)
			}
			t.slots[slot] = tokenSlot{list[i], i == 0, r}
		}
	}
	return t
}

func (t *tokenTable) home(v []byte) uint64 {
	return binary.LittleEndian.Uint64(v) * 0x9e3779b97f4a7c15 >> t.shift
}

// find is the slot of a cookie's value, nil when it is no token of ours.
//
// It does not compare in constant time. Who tries to find out a token byte by byte learns what any visitor is told, and
// the bytes of one say nothing about another's.
func (t *tokenTable) find(v []byte) *tokenSlot {
	if len(v) != tokenLen || len(t.slots) == 0 {
		return nil
	}
	for i := t.home(v); ; i++ {
		s := &t.slots[i&uint64(len(t.slots)-1)]
		if s.ref == nil {
			return nil
		}
		if string(s.token[:]) == string(v) {
			return s
		}
	}
}
