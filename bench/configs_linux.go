package main

import (
	"fmt"
	"os"
	"strings"
)

// peers as a competent admin would set them up to proxy with keep-alive on both sides, one thread, without access log.
// Where there is a choice between a default and what suits this load better, they get the better: connections that
// never count as used up, idle connections shared between all clients. They set X-Forwarded-For and nothing else,
// which is less than lb does.
func peers(lb string) []peer {
	return []peer{
		lbPeer("lb", lb, ""),
		haproxyPeer("haproxy", "", ""),
		nginxPeer("nginx", "keepalive 128;", nginxMore),
	}
}

// lbPeer has more in the section of its pool.
func lbPeer(name, program, more string) peer {
	return peer{name: name, program: program, version: []string{"version"},
		args: func(s site) []string { return []string{"run", s.config} },
		config: func(s site) string {
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
%s`, s.listen, strings.ReplaceAll(s.origin, " ", `", "`), more)
		}}
}

// haproxyPeer balances in that way, if any, and says more of each server.
//
// http-reuse always: with the default, safe, the first request of every client would open a connection of its own.
// Its maxconn counts clients; it derives the file limit from it, and the buffers only come with use.
func haproxyPeer(name, balance, more string) peer {
	return peer{name: name, program: "haproxy", version: []string{"-v"},
		args: func(s site) []string { return []string{"-db", "-f", s.config} },
		config: func(s site) string {
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
	timeout http-request 10s
	timeout http-keep-alive 75s
	timeout tunnel 1h
frontend main
	bind %s
	default_backend app
backend app
`, s.conns+256, s.listen)
			if balance != "" {
				fmt.Fprintf(&b, "\tbalance %s\n", balance)
			}
			for i, addr := range strings.Fields(s.origin) {
				fmt.Fprintf(&b, "\tserver app%d %s%s\n", i, addr, more)
			}
			return b.String()
		}}
}

// nginxPeer has how it chooses and what it keeps in the section of its servers, and more locations than /.
//
// nginx closes idle connections once less than a 16th of worker_connections is free; 3 for each client, which takes up
// to two, keep it from that.
func nginxPeer(name, servers, more string) peer {
	return peer{name: name, program: "nginx", version: []string{"-v"},
		args: func(s site) []string { return []string{"-p", s.dir, "-c", s.config, "-e", "error.log"} },
		config: func(s site) string {
			user := ""
			if os.Geteuid() == 0 {
				user = "user root;\n" // the worker must get at the directory's temporary files
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
	sendfile on;
	tcp_nopush on;
	tcp_nodelay on;
	keepalive_timeout 75s;
	keepalive_requests 1000000000;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	upstream app {
		%s
		server %s;
		keepalive_requests 1000000000;
	}
	server {
		listen %s;
		proxy_http_version 1.1;
		proxy_set_header Host $http_host;
		proxy_set_header Connection "";
		proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
		location / {
			proxy_pass http://app;
		}
%s	}
}
`, s.files, 3*s.conns, servers, strings.ReplaceAll(s.origin, " ", ";\n\t\tserver "), s.listen, more)
		}}
}

// nginxMore is for the rows with uploads and WebSockets.
const nginxMore = `		location /upload {
			# A body of 64 KiB stays in memory instead of going through a file.
			client_body_buffer_size 128k;
			proxy_pass http://app;
		}
		location /ws {
			proxy_set_header Host $http_host;
			proxy_set_header Connection "upgrade";
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
			proxy_read_timeout 1h;
			proxy_send_timeout 1h;
			proxy_pass http://app;
		}
`
