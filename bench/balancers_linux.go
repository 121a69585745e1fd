package main

import "fmt"

// balancer is a proxy with a way to balance. site.origin holds the addresses of its instances, with spaces.
type balancer struct {
	peer
	aside  bool // shown, but not compared with: it is told what the others have to find out
	learns bool // it goes by what it has measured, for which it needs some thousand answers
}

const subject = "lb adaptive"

// balancers are the strategies of lb, each in an lb of its own, and the peers, all with one thread. Where a setting of the
// peers suits this load better than their default, they get it.
func balancers(lb string) []balancer {
	var all []balancer
	for _, name := range []string{"adaptive", "least_conn", "ewma", "p2c", "random", "round_robin"} {
		all = append(all, balancer{learns: name == "adaptive" || name == "ewma", peer: lbPeer("lb "+name, lb, fmt.Sprintf("strategy = %q\n", name))})
	}
	return append(all,
		balancer{peer: nginxPeer("nginx least_conn", "least_conn;\n\t\tkeepalive 256;", "")},
		balancer{peer: haproxyPeer("haproxy leastconn", "leastconn", "")},
		balancer{aside: true, peer: haproxyPeer("haproxy, maxconn 1", "leastconn", " maxconn 1")},
	)
}
