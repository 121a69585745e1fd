package proxy

import (
	"testing"

	"lb/route"
)

// TestHostWithPort holds that a request finds the route of its host whatever port the client names, as browsers do on
// every port but 80.
func TestHostWithPort(t *testing.T) {
	l := newLab(t, []string{newOrigin(t, echo).addr})
	table, err := route.New([]route.Rule{{Name: "a", Host: "a.example", Pool: l.pool}, {Name: "v6", Host: "[::1]", Pool: l.pool}})
	if err != nil {
		t.Fatal(err)
	}
	set := *l.proxy.Settings()
	set.Table = table
	l.proxy.Update(&set)
	p := l.client()
	for host, status := range map[string]int{
		"a.example": 200, "a.example:8080": 200, "A.Example.:1": 200, "[::1]:8080": 200, "[::1]": 200,
		"b.example:8080": 404, "[::2]:8080": 404,
	} {
		p.send("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
		p.status(status)
		p.send("GET http://" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
		p.status(status)
	}
}
