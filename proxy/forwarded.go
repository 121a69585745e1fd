package proxy

import (
	"bytes"
	"net/netip"
	"unsafe"

	"lb/http1"
)

// identify finds out who asks.
func (x *exchange) identify() {
	x.client = x.peer
	x.trust = false
	if len(x.set.Trusted) == 0 || !x.set.trusts(x.peer) {
		return
	}
	x.trust = true
	// The list grows to the right as requests pass proxies: the last address that is not a trusted proxy's is
	// the one that a trusted proxy saw.
	for i := len(x.req.Fields) - 1; i >= 0; i-- {
		f := &x.req.Fields[i]
		if f.Kind != http1.FieldXForwardedFor {
			continue
		}
		rest := f.Value(x.in)
		for len(rest) > 0 {
			cut := bytes.LastIndexByte(rest, ',')
			last := bytes.Trim(rest[cut+1:], " \t")
			rest = rest[:max(cut, 0)]
			a, err := parseForwarded(last)
			if err != nil {
				return // whatever is left of it, nobody we trust wrote
			}
			x.client = a
			if !x.set.trusts(a) {
				return
			}
		}
	}
}

// parseForwarded reads an entry of X-Forwarded-For: an address, in some proxies' hands with a port.
func parseForwarded(b []byte) (netip.Addr, error) {
	s := unsafe.String(unsafe.SliceData(b), len(b)) // nobody keeps it: addresses have copies, and no one reads the errors
	a, err := netip.ParseAddr(s)
	if err != nil {
		var ap netip.AddrPort
		if ap, err = netip.ParseAddrPort(s); err == nil {
			a = ap.Addr()
		}
	}
	return a.Unmap().WithZone(""), err
}
