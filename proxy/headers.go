package proxy

import (
	"encoding/hex"
	"net/netip"

	"lb/http1"
)

// mask is a set of field kinds.
type mask uint64

func kinds(ks ...http1.Kind) (m mask) {
	for _, k := range ks {
		m |= 1 << k
	}
	return m
}

func (m mask) has(k http1.Kind) bool { return m>>k&1 != 0 }

// Header rules. A field that is in none of these masks, and that Connection does not name, goes through as
// it came, byte for byte.
var (
	// hopByHop concern one connection (RFC 9110 7.6.1) or offer what lb does not do on the other side.
	hopByHop = kinds(http1.FieldConnection, http1.FieldKeepAlive, http1.FieldProxyConnection, http1.FieldTE,
		http1.FieldUpgrade, http1.FieldHTTP2Settings, http1.FieldProxyAuthorization, http1.FieldProxyAuthenticate)

	// dropRequest is what does not go to the backend; of what says who asked, lb writes its own.
	dropRequest = hopByHop | kinds(http1.FieldLookalike, http1.FieldXForwardedFor, http1.FieldXRealIP, http1.FieldXRequestID)

	// claims are believed from a trusted proxy only.
	claims = kinds(http1.FieldXForwardedProto, http1.FieldXForwardedHost, http1.FieldXForwardedPort, http1.FieldForwarded)

	dropResponse = hopByHop

	// kept fields are not dropped because Connection names them. http1 refuses that for what decides about framing,
	// a client must not be able to have removed what a trusted proxy says of it, and without Expect the backend would
	// not say the 100 that the client waits for.
	kept = claims | kinds(http1.FieldContentLength, http1.FieldTransferEncoding, http1.FieldHost, http1.FieldExpect)
)

// appendFields appends the fields of a head that are not to be dropped. Neighbours are copied in one piece.
func appendFields(dst, head []byte, fields []http1.Field, drop mask, nominates func(*http1.Field) bool) []byte {
	from, to := int32(0), int32(0) // the piece under way
	for i := range fields {
		f := &fields[i]
		if drop.has(f.Kind) || nominates != nil && !kept.has(f.Kind) && nominates(f) {
			continue
		}
		if f.Start != to {
			dst = append(dst, head[from:to]...)
			from = f.Start
		}
		to = f.End
	}
	return append(dst, head[from:to]...)
}

// appendRequestHead appends the request's head as the backend shall see it.
func (x *exchange) appendRequestHead(dst []byte) []byte {
	r := &x.req
	dst = append(dst, r.Method...)
	dst = append(dst, ' ')
	dst = append(dst, r.Target...)
	dst = append(dst, " HTTP/1.1\r\n"...)

	drop := dropRequest
	if !x.trust {
		drop |= claims
	}
	if r.Minor == 0 { // to whom it means nothing (RFC 9110 10.1.1), while the backend sees HTTP/1.1
		drop |= 1 << http1.FieldExpect
	}
	if r.Absolute || len(r.Host) == 0 {
		drop |= 1 << http1.FieldHost
		dst = append(dst, "Host: "...)
		switch to := &x.lease.Backend().Addr; {
		case len(r.Host) > 0:
			dst = append(dst, r.Host...)
		case to.Path == "": // HTTP/1.0 has no Host, HTTP/1.1 must
			dst = to.AddrPort.AppendTo(dst)
		default:
			dst = append(dst, "localhost"...)
		}
		dst = append(dst, "\r\n"...)
	}
	switch {
	case x.visit.Handshake(): // whose answer lb has to read
		dst = appendFields(dst, x.in, r.Fields, drop, func(f *http1.Field) bool {
			return r.Nominated && r.Nominates(x.in, f) || equalName(f.Name(x.in), "Accept-Encoding")
		})
		dst = append(dst, "Accept-Encoding: identity\r\n"...)
	case r.Nominated:
		dst = appendFields(dst, x.in, r.Fields, drop, func(f *http1.Field) bool { return r.Nominates(x.in, f) })
	default:
		dst = appendFields(dst, x.in, r.Fields, drop, nil)
	}

	dst = append(dst, "X-Forwarded-For: "...)
	if x.trust {
		for i := range r.Fields {
			if f := &r.Fields[i]; f.Kind == http1.FieldXForwardedFor && f.ValueStart < f.ValueEnd {
				dst = append(dst, f.Value(x.in)...)
				dst = append(dst, ", "...)
			}
		}
	}
	dst = appendAddr(dst, x.peer)
	dst = append(dst, "\r\nX-Real-IP: "...)
	dst = appendAddr(dst, x.client)
	if !x.trust || !r.Has(http1.FieldXForwardedProto) {
		dst = append(dst, "\r\nX-Forwarded-Proto: http"...)
	}
	if (!x.trust || !r.Has(http1.FieldXForwardedHost)) && len(r.Host) > 0 {
		dst = append(dst, "\r\nX-Forwarded-Host: "...)
		dst = append(dst, r.Host...)
	}
	dst = append(dst, "\r\nX-Request-Id: "...)
	dst = append(dst, x.requestID()...)
	switch {
	case r.Upgrade:
		dst = append(dst, "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"...)
	case !x.snap.Settings.Reuse:
		dst = append(dst, "\r\nConnection: close\r\n\r\n"...)
	default:
		dst = append(dst, "\r\n\r\n"...)
	}
	return dst
}

// appendAddr appends an address as X-Forwarded-For has it; on a unix socket there is none.
func appendAddr(dst []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return append(dst, "unknown"...)
	}
	return a.AppendTo(dst)
}

// requestID is the request's X-Request-Id: the client's if it comes from a trusted proxy, else 128 random
// bits.
func (x *exchange) requestID() []byte {
	if x.reqID != nil {
		return x.reqID
	}
	if x.trust && x.req.Has(http1.FieldXRequestID) {
		for i := range x.req.Fields {
			if f := &x.req.Fields[i]; f.Kind == http1.FieldXRequestID {
				if v := f.Value(x.in); len(v) > 0 && len(v) <= 128 {
					x.reqID = v
					return v
				}
			}
		}
	}
	var b [16]byte
	x.w.random.Read(b[:])
	hex.Encode(x.id[:], b[:])
	x.reqID = x.id[:]
	return x.reqID
}

// appendResponseHead appends the response's head as the client shall see it. connection is the field that
// says what becomes of the connection, empty for HTTP/1.1's default. The empty line is left to the caller.
func (x *exchange) appendResponseHead(dst []byte, head []byte, drop mask, more string) []byte {
	r := &x.resp
	if r.Minor == 1 && len(r.Fields) > 0 {
		dst = append(dst, head[:r.Fields[0].Start]...)
	} else {
		dst = append(dst, "HTTP/1.1 "...)
		dst = append(dst, byte('0'+r.Status/100), byte('0'+r.Status/10%10), byte('0'+r.Status%10), ' ')
		dst = append(dst, r.Reason...)
		dst = append(dst, "\r\n"...)
	}
	if r.Nominated {
		dst = appendFields(dst, head, r.Fields, dropResponse|drop, func(f *http1.Field) bool { return r.Nominates(head, f) })
	} else {
		dst = appendFields(dst, head, r.Fields, dropResponse|drop, nil)
	}
	return append(dst, more...)
}

// equalName compares field names, of which want is in any case too.
func equalName(name []byte, want string) bool {
	if len(name) != len(want) {
		return false
	}
	for i, c := range name {
		d := want[i]
		if c != d && (c|0x20 != d|0x20 || c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}
