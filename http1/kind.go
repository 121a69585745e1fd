package http1

import (
	"bytes"
	"encoding/binary"
)

// A Kind tells which field a line is, for those that a proxy treats in some way of its own.
type Kind uint8

// The kinds of fields. FieldLookalike is a name that becomes one of the fields of framing, routing or client identity when '_' is
// read as '-', as CGI and its heirs do: a backend may take it for the real one, so it must not be passed on.
const (
	FieldOther Kind = iota
	FieldHost
	FieldConnection
	FieldKeepAlive
	FieldProxyConnection
	FieldContentLength
	FieldTransferEncoding
	FieldTE
	FieldTrailer
	FieldUpgrade
	FieldHTTP2Settings
	FieldExpect
	FieldXForwardedFor
	FieldXForwardedProto
	FieldXForwardedHost
	FieldXForwardedPort
	FieldXRealIP
	FieldForwarded
	FieldXRequestID
	FieldCookie
	FieldSetCookie
	FieldUserAgent
	FieldAccept
	FieldReferer
	FieldProxyAuthenticate
	FieldProxyAuthorization
	FieldDate
	FieldServer
	FieldVia
	FieldIdempotencyKey
	FieldContentType
	FieldContentEncoding
	FieldRetryAfter
	FieldSecWebSocketKey
	FieldXLBDrain
	FieldLookalike
	kinds
)

// Within one length, names stand in the order in which they are likely to be met.
var kindNames = [kinds]string{
	FieldHost:               "host",
	FieldConnection:         "connection",
	FieldKeepAlive:          "keep-alive",
	FieldProxyConnection:    "proxy-connection",
	FieldContentLength:      "content-length",
	FieldTransferEncoding:   "transfer-encoding",
	FieldTE:                 "te",
	FieldTrailer:            "trailer",
	FieldUpgrade:            "upgrade",
	FieldHTTP2Settings:      "http2-settings",
	FieldExpect:             "expect",
	FieldXForwardedFor:      "x-forwarded-for",
	FieldXForwardedProto:    "x-forwarded-proto",
	FieldXForwardedHost:     "x-forwarded-host",
	FieldXForwardedPort:     "x-forwarded-port",
	FieldXRealIP:            "x-real-ip",
	FieldForwarded:          "forwarded",
	FieldXRequestID:         "x-request-id",
	FieldCookie:             "cookie",
	FieldSetCookie:          "set-cookie",
	FieldUserAgent:          "user-agent",
	FieldAccept:             "accept",
	FieldReferer:            "referer",
	FieldProxyAuthenticate:  "proxy-authenticate",
	FieldProxyAuthorization: "proxy-authorization",
	FieldDate:               "date",
	FieldServer:             "server",
	FieldVia:                "via",
	FieldIdempotencyKey:     "idempotency-key",
	FieldContentType:        "content-type",
	FieldContentEncoding:    "content-encoding",
	FieldRetryAfter:         "retry-after",
	FieldSecWebSocketKey:    "sec-websocket-key",
	FieldXLBDrain:           "x-lb-drain",
}

// String is the name in lower case, "other" or "lookalike".
func (k Kind) String() string {
	switch {
	case k == FieldLookalike:
		return "lookalike"
	case k > FieldOther && k < kinds:
		return kindNames[k]
	}
	return "other"
}

func (k Kind) bit() uint64 { return 1 << k }

const longestKind = len("proxy-authorization")

// lookalikes are the kinds with a '-' that a backend must not meet under another spelling.
const lookalikes = 1<<FieldXForwardedFor | 1<<FieldXForwardedProto | 1<<FieldXForwardedHost | 1<<FieldXForwardedPort |
	1<<FieldXRealIP | 1<<FieldXRequestID | 1<<FieldTransferEncoding | 1<<FieldContentLength

// A nameKey is a name of 2 to 24 bytes in lower case as three overlapping words. With a fifth field the compiler would keep it in
// memory, which costs a third of the whole parse.
type nameKey struct {
	first, last, mid, len uint64
}

// kindTable holds the names by a hash without collisions, kindAt their kinds: to find one is to compare once.
var (
	kindTable [1 << kindBits]nameKey
	kindAt    [1 << kindBits]Kind
)

func init() {
	for k := FieldOther + 1; k < FieldLookalike; k++ {
		key := keyOf([]byte(kindNames[k]))
		i := key.slot()
		if kindAt[i] != FieldOther {
			panic("http1: " + kindNames[k] + " and " + kindNames[kindAt[i]] + " collide: choose another kindHash")
		}
		kindTable[i], kindAt[i] = key, k
	}
}

const (
	kindBits = 6
	kindHash = 0x7c23d1415bf0ad37 // found by trial
)

func (k nameKey) slot() uint64 { return (k.first + k.last) * kindHash >> (64 - kindBits) }

// lower sets the bit that makes a letter small. Of the bytes of a token it maps onto letters, digits and '-' only their own kind,
// so comparing with a name made of those is exact.
const lower = 0x2020202020202020

func keyOf(name []byte) (k nameKey) {
	n := len(name)
	k.len = uint64(n)
	switch {
	case n >= 8:
		k.first = binary.LittleEndian.Uint64(name) | lower
		k.last = binary.LittleEndian.Uint64(name[n-8:]) | lower
		if n > 16 {
			k.mid = binary.LittleEndian.Uint64(name[8:]) | lower
		}
	case n >= 4:
		k.first = uint64(binary.LittleEndian.Uint32(name)) | uint64(binary.LittleEndian.Uint32(name[n-4:]))<<32 | lower
	case n >= 2:
		k.first = uint64(name[0]) | uint64(name[1])<<8 | uint64(name[n-1])<<16 | lower
	}
	return k
}

// kindOf classifies a name that is known to be a token.
func kindOf(name []byte) Kind {
	if len(name) > longestKind {
		return FieldOther
	}
	key := keyOf(name)
	if i := key.slot(); kindTable[i] == key {
		return kindAt[i]
	}
	switch byte(key.first) { // all that have lookalikes begin so
	case 'x', 'c', 't':
		if bytes.IndexByte(name, '_') >= 0 {
			return lookalike(name)
		}
	}
	return FieldOther
}

func lookalike(name []byte) Kind {
	var dashed [longestKind]byte
	for i, c := range name {
		if c == '_' {
			c = '-'
		}
		dashed[i] = c
	}
	if k := kindOf(dashed[:len(name)]); lookalikes&k.bit() != 0 {
		return FieldLookalike
	}
	return FieldOther
}
