package affinity_test

import (
	"fmt"
	"net/netip"

	"lb/affinity"
	"lb/upstream"
)

type first []*upstream.Backend

func (f first) Pick(*upstream.Selection) *upstream.Backend { return f[0] }

// A request's life, with a session of Socket.IO: the second request goes where the first was answered.
func Example() {
	pool := upstream.NewPool("app", 1, []upstream.Spec{
		{Name: "app-3000", Weight: 1, Addr: upstream.Addr{AddrPort: netip.MustParseAddrPort("127.0.0.1:3000")}},
		{Name: "app-3001", Weight: 1, Addr: upstream.Addr{AddrPort: netip.MustParseAddrPort("127.0.0.1:3001")}},
	}, nil, func(ready []*upstream.Backend) upstream.Strategy { return first(ready) })
	a, err := affinity.New(pool, 1, 0, affinity.Options{SocketIO: true}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	serve := func(query, body string, chosen *upstream.Backend) {
		var v affinity.Visit // kept with the exchange
		v.Begin(a, &affinity.Request{Now: 1, Query: []byte(query)})
		b, _ := v.Prefer()
		if b == nil {
			b = chosen // by the strategy
		}
		head := v.Answer([]byte("HTTP/1.1 200 OK\r\n"), &affinity.Answer{Now: 2, Backend: b, Status: 200})
		if v.Reading() {
			v.Feed([]byte(body), true)
		}
		v.End()
		fmt.Printf("%s: %s %s, %d bytes of head\n", b.Name, v.By(), v.Result(), len(head))
	}
	all := pool.Snapshot().All
	serve("EIO=4&transport=polling", `0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"]}`, all[1])
	serve("EIO=4&transport=polling&sid=lv_VI97HAXpY6yYWAAAC", "", all[0])
	// Output:
	// app-3001: sid new, 17 bytes of head
	// app-3001: sid hit, 17 bytes of head
}
