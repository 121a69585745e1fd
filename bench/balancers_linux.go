package main

import (
	"fmt"
	"os"
	"strings"
)

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
		all = append(all, balancer{learns: name == "adaptive" || name == "ewma", peer: peer{
			name: "lb " + name, program: lb, version: []string{"version"},
			args:   func(s site) []string { return []string{"run", s.config} },
			config: func(s site) string { return lbBalance(s, name) }}})
	}
	nginx := func(s site) []string { return []string{"-p", s.dir, "-c", s.config, "-e", "error.log"} }
	haproxy := func(s site) []string { return []string{"-db", "-f", s.config} }
	version := []string{"-v"}
	return append(all,
		balancer{peer: peer{name: "nginx least_conn", program: "nginx", version: version, args: nginx, config: nginxBalance}},
		balancer{peer: peer{name: "haproxy leastconn", program: "haproxy", version: version, args: haproxy,
			config: func(s site) string { return haproxyBalance(s, "") }}},
		balancer{aside: true, peer: peer{name: "haproxy, maxconn 1", program: "haproxy", version: version, args: haproxy,
			config: func(s site) string { return haproxyBalance(s, " maxconn 1") }}},
	)
}

func lbBalance(s site, strategy string) string {
	return fmt.Sprintf(`[listen.main]
address = %q
[admin]
address = "127.0.0.1:0"
[server]
workers = 1
[access_log]
format = "off"
[pool.app]
backends = ["%s"]
strategy = %q
`, s.listen, strings.ReplaceAll(s.origin, " ", `", "`), strategy)
}

func haproxyBalance(s site, more string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `global
	nbthread 1
	maxconn %d
defaults
	mode http
	option http-keep-alive
	option forwardfor
	http-reuse always
	timeout connect 5s
	timeout queue 30s
	timeout client 75s
	timeout server 75s
frontend main
	bind %s
	default_backend app
backend app
	balance leastconn
`, s.conns, s.listen)
	for i, addr := range strings.Fields(s.origin) {
		fmt.Fprintf(&b, "\tserver app%d %s%s\n", i, addr, more)
	}
	return b.String()
}

func nginxBalance(s site) string {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n"
	}
	return user + fmt.Sprintf(`daemon off;
worker_processes 1;
worker_rlimit_nofile %d;
pid nginx.pid;
error_log error.log warn;
events {
	worker_connections %d;
}
http {
	access_log off;
	tcp_nodelay on;
	keepalive_timeout 75s;
	keepalive_requests 1000000000;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	upstream app {
		least_conn;
		server %s;
		keepalive 256;
		keepalive_requests 1000000000;
	}
	server {
		listen %s;
		location / {
			proxy_http_version 1.1;
			proxy_set_header Host $http_host;
			proxy_set_header Connection "";
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
			proxy_pass http://app;
		}
	}
}
`, s.files, 3*s.conns, strings.ReplaceAll(s.origin, " ", ";\n\t\tserver "), s.listen)
}
