package proxy

import (
	"net/netip"
	"testing"
)

func TestConnectionLimits(t *testing.T) {
	for _, test := range []struct {
		name string
		set  option
	}{
		{"in all", func(p *plan) { p.MaxConns = 3 }},
		{"of one client", func(p *plan) { p.MaxConnsPerClient = 3 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOrigin(t, echo)
			l := newLab(t, []string{o.addr}, test.set)
			var ps []*peer
			for range 3 { // below and at the limit
				p := l.client()
				p.send(get("/", "Connection: keep-alive"))
				p.status(200)
				ps = append(ps, p)
			}
			over := l.client() // above
			head, body := over.answer()
			own(t, head, body, 503, true)
			l.answered(TooManyConnections, 1)
			for _, p := range ps { // the others do not notice
				p.send(get("/", "Connection: keep-alive"))
				p.status(200)
			}
			ps[0].close()
			over.close()
			eventually(t, "connections close", func() bool { return l.ln.Stats().Open == 2 })
			p := l.client()
			p.send(get("/"))
			p.status(200)
		})
	}
}

// A proxy in front that is trusted brings many clients.
func TestConnectionLimitOfTrusted(t *testing.T) {
	o := newOrigin(t, echo)
	l := newLab(t, []string{o.addr}, trust("127.0.0.0/8"), func(p *plan) { p.MaxConnsPerClient = 1 })
	for range 3 {
		p := l.client()
		p.send(get("/", "Connection: keep-alive"))
		p.status(200)
	}
}

func TestOwner(t *testing.T) {
	for _, test := range [][2]string{
		{"192.0.2.7", "192.0.2.7"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"},
		{"fe80::1%eth0", "fe80::"},
	} {
		if got := owner(netip.MustParseAddr(test[0])); got.String() != test[1] {
			t.Errorf("%s counts for %s, want %s", test[0], got, test[1])
		}
	}
}
