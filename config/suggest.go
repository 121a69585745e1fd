package config

import (
	"fmt"
	"slices"
	"strings"
)

// aliases are words of nginx, HAProxy, Traefik and Caddy, and others that people try, for ours.
var aliases = map[string]string{
	"servers": "backends pool", "server": "backends", "upstreams": "backends pool", "upstream": "backends pool", "targets": "backends pool",
	"target": "backends", "hosts": "backends", "ports": "backends", "nodes": "backends", "instances": "backends",
	"algorithm": "strategy", "balance": "strategy", "lb_method": "strategy", "policy": "strategy", "lb_policy": "strategy", "method": "strategy",
	"port": "address", "bind": "address", "listen": "address", "addr": "address", "address": "backends", "url": "address",
	"keepalive": "max_idle", "keep_alive": "max_idle", "max_idle_conns": "max_idle", "keepalive_timeout": "idle_timeout",
	"proxy_connect_timeout": "connect_timeout", "proxy_read_timeout": "read_timeout", "timeout": "response_timeout",
	"client_max_body_size": "max_body", "client_header_timeout": "header_timeout", "client_body_timeout": "body_timeout",
	"max_conns": "max_inflight", "maxconn": "max_inflight max_connections", "max_connections": "max_inflight",
	"threads": "workers", "processes": "workers", "worker_processes": "workers", "real_ip_from": "trusted_proxies", "set_real_ip_from": "trusted_proxies",
	"health_check": "health", "healthcheck": "health", "health_checks": "health", "check": "health", "active": "health", "option_httpchk": "health",
	"passive": "ejection", "outlier": "ejection", "outlier_detection": "ejection", "circuit_breaker": "ejection", "passive_health_check": "ejection",
	"uri": "path hash", "health_uri": "path", "health_path": "path", "expect": "status", "match": "body", "expect_body": "body", "ok": "status",
	"inter": "interval", "every": "interval", "fastinter": "changing", "downinter": "down", "unhealthy_interval": "down",
	"unhealthy_threshold": "fall", "fails": "fall", "healthy_threshold": "rise", "passes": "rise", "type": "kind", "mode": "kind", "header": "headers",
	"max_fails": "faults fall", "fail_timeout": "out window", "errors": "faults", "consecutive": "faults", "base_ejection_time": "out", "max_ejection_time": "max_out", "ratio": "share", "percent": "share",
	"slowstart": "slow_start", "warmup": "slow_start", "max_queue": "queue", "maxqueue": "queue", "max_pending": "queue", "pause": "hold", "per_try_timeout": "try_timeout",
	"max_clients": "max_connections", "worker_connections": "max_connections", "limit_conn": "max_connections_per_client", "drain_delay": "stop_pause", "pre_stop": "stop_pause",
	"deploy": "rollout", "rolling": "rollout", "command": "exec", "cmd": "exec", "restart": "exec", "hook": "exec", "max_surge": "max_unavailable", "batch": "max_unavailable",
	"domain": "host", "hostname": "host", "server_name": "host", "prefix": "path", "location": "path route", "path_prefix": "path",
	"backend": "pool", "service": "pool", "services": "pool", "cluster": "pool", "clusters": "pool", "shutdown_timeout": "grace", "file": "path", "output": "path", "websocket_timeout": "tunnel_idle",
	"frontend": "listen", "listener": "listen", "entrypoint": "listen", "entrypoints": "listen", "http": "listen", "log": "access_log", "logging": "access_log",
	"metrics": "admin", "global": "server", "defaults": "server", "backends": "pool", "rule": "route",

	"leastconn": "least_conn", "least_connections": "least_conn", "least_connection": "least_conn", "least_requests": "least_conn", "least_request": "least_conn",
	"roundrobin": "round_robin", "rr": "round_robin", "wrr": "round_robin", "weighted_round_robin": "round_robin", "static_rr": "round_robin",
	"ip_hash": "hash", "source": "hash", "consistent_hash": "hash", "hrw": "hash", "sticky": "affinity hash", "stickiness": "affinity", "session_affinity": "affinity", "persistence": "affinity", "stick": "affinity", "session": "affinity", "cookie": "affinity name", "socket_io": "socketio", "samesite": "same_site", "maxage": "max_age", "secret": "keys", "expires": "max_age", "ring_hash": "hash", "maglev": "hash",
	"least_time": "ewma", "leasttime": "ewma", "peak_ewma": "ewma", "latency": "ewma", "fastest": "ewma", "random_two": "p2c", "power_of_two": "p2c", "two_choices": "p2c",
	"none": "off", "no": "off", "false": "off", "disabled": "off", "nginx": "combined", "apache": "combined", "common": "combined", "clf": "combined",
}

// absent are words that people look for, and what there is in their place.
var absent = map[string]string{
	"weight": `a backend has a weight: backends = [{ address = "127.0.0.1:3000", weight = 2 }]`,
	"tls":    "lb has no TLS: let a load balancer or nginx before it end it", "ssl": "lb has no TLS: let a load balancer or nginx before it end it",
	"backup": "there are no backup backends: all that are ready get requests", "rate_limit": "there are no rate limits yet; max_inflight and server.max_connections_per_client bound what reaches the app",
	"gzip": "lb does not compress: the app or a CDN does", "cache": "lb does not cache: the app or a CDN does", "rewrite": "lb does not change paths",
}

// Suggest gives the one of known that word was probably meant to be, or "".
func Suggest(word string, known []string) string {
	if len(word) > 64 {
		return ""
	}
	flat := flatten(word)
	best, least := "", (len(flat)+1)/3+1
	for _, k := range known {
		if d := distance(flat, strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	if least > 1 {
		for _, k := range strings.Fields(aliases[flat]) {
			if slices.Contains(known, k) {
				return k
			}
		}
	}
	return best
}

// flatten makes Max-Idle and max_idle one word.
func flatten(word string) string { return strings.ReplaceAll(strings.ToLower(word), "-", "_") }

// distance is that of Levenshtein, with two neighbours changing places counted as one step.
func distance(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}

// didYouMean is the second half of a message about an unknown word: a guess, or all there is.
func didYouMean(word string, known []string, all string) string {
	if s := Suggest(word, known); s != "" {
		return ", did you mean \"" + s + "\"?"
	}
	return all
}

// DidYouMean is the end of a message about a word that is not among known: a guess, and what there is.
func DidYouMean(word string, known []string) string {
	all := known
	more := ""
	if n := len(known); n > 10 {
		all, more = known[:9], fmt.Sprintf(" and %d more", n-9)
	}
	there := "; there is " + strings.Join(all, ", ") + more
	if len(known) == 0 {
		there = "; there is none"
	}
	if s := Suggest(word, known); s != "" {
		return fmt.Sprintf(", did you mean %q?", s)
	}
	return there
}
