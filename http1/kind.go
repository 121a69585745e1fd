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

// A nameKey is a name of 2 to 24 bytes in lower case as three overlapping words: first, last and middle.
type nameKey struct {
	first, last, mid uint64
	kind             Kind
}

var (
	kindsByLen     [longestKind + 1][]nameKey
	lookalikeByLen [longestKind + 1]bool
)

func init() {
	for k := FieldOther + 1; k < FieldLookalike; k++ {
		s := kindNames[k]
		key := keyOf([]byte(s))
		key.kind = k
		kindsByLen[len(s)] = append(kindsByLen[len(s)], key)
		if lookalikes&k.bit() != 0 {
			lookalikeByLen[len(s)] = true
		}
	}
}

// lower sets the bit that makes a letter small. Of the bytes of a token it maps onto letters, digits and '-' only their own kind,
// so comparing with a name made of those is exact.
const lower = 0x2020202020202020

func keyOf(name []byte) (k nameKey) {
	n := len(name)
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
	n := len(name)
	if n > longestKind || len(kindsByLen[n]) == 0 {
		return FieldOther
	}
	key := keyOf(name)
	known := kindsByLen[n]
	for i := range known {
		if k := &known[i]; k.first == key.first && k.last == key.last && k.mid == key.mid {
			return k.kind
		}
	}
	if lookalikeByLen[n] && bytes.IndexByte(name, '_') >= 0 {
		return lookalike(name)
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
	key := keyOf(dashed[:len(name)])
	for _, k := range kindsByLen[len(name)] {
		if lookalikes&k.kind.bit() != 0 && k.first == key.first && k.last == key.last && k.mid == key.mid {
			return FieldLookalike
		}
	}
	return FieldOther
}
