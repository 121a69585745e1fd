package config

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/BurntSushi/toml"
)

// Key is one key that a file may hold. Reading, defaults, the search for unknown keys and docs/config.md all go by
// Keys, so what is documented is what is read.
type Key struct {
	Table   string // "server", "pool.NAME", "pool.NAME.backends" ...
	Name    string
	Default string // as one would write it in the file; "" means that the key must be given
	Doc     string // one sentence or two, Markdown
	Else    string // what holds without the key, where that is not plainly Default

	kind     kind
	min, max int64    // of numbers; durations in ns, sizes in bytes
	words    []string // that may stand in place of the value, or, for a choice, all there is
	off      int64    // what the word "off" stands for; other words stand for 0
}

// Path is the key with its table, such as pool.NAME.retries.
func (k *Key) Path() string { return k.Table + "." + k.Name }

// Type says for documentation what may be written.
func (k *Key) Type() string {
	switch k.kind {
	case kindChoice:
		return "one of " + quoteList(k.words, ", ")
	case kindInt, kindDuration, kindAddress:
		if len(k.words) > 0 {
			return kinds[k.kind].name + " or " + quoteList(k.words, " or ")
		}
	}
	return kinds[k.kind].name
}

// Range says for documentation what the least and the most is; "" where there is none.
func (k *Key) Range() string {
	if k.min == 0 && k.max == 0 {
		return ""
	}
	return k.show(k.min) + " to " + k.show(k.max)
}

// show writes a number as the file would.
func (k *Key) show(n int64) string {
	switch k.kind {
	case kindDuration:
		return showDuration(time.Duration(n))
	case kindSize:
		return showSize(n)
	}
	return fmt.Sprint(n)
}

type kind int

const (
	kindInt kind = iota
	kindBool
	kindSize
	kindDuration
	kindChoice
	kindAddress
	kindFile
	kindProxies
	kindHash
	kindBackends
	kindBackend
	kindName
	kindHost
	kindPath
	kindPool
	kindCheckPath
	kindCheckHost
	kindCheckHeaders
	kindCheckStatus
	kindText
	kindMode
	kindUser
	kindCookieName
	kindCookiePath
	kindCookieDomain
	kindSecrets
	kindCommand
	kindAmount
)

// kinds gives each kind its name in the documentation and the words of a type mismatch, of which %s is an example.
var kinds = [...]struct{ name, wants string }{
	kindInt:      {"whole number", "a whole number such as 2"},
	kindBool:     {"true or false", "true or false, without quotes"},
	kindSize:     {"size", `a size such as 16384 or "16KiB"`},
	kindDuration: {"duration", `a duration such as "5s"`},
	kindChoice:   {"text", "one of %s"},
	kindAddress:  {"address", `an address such as ":8080"`},
	kindFile:     {"path", `the path of a file such as "/run/lb.sock"`},
	kindProxies:  {"list of addresses", `a list of addresses such as ["10.0.0.0/8"]`},
	kindHash:     {`"ip", "header:NAME", "cookie:NAME", "query:NAME", "path" or "path:N"`, `"ip", "header:NAME", "cookie:NAME", "query:NAME", "path" or "path:N"`},
	kindBackends: {"list of backends", `a list of backends such as ["127.0.0.1:3000-3003"]`},
	kindBackend:  {"backend", `a backend such as "127.0.0.1:3000", a port, or a table such as { address = "127.0.0.1:3000" }`},
	kindName:     {"name", `a name such as "blue-1"`},
	kindHost:     {"host name", `a host name such as "example.com" or "*.example.com"`},
	kindPath:     {"path", `a path such as "/api"`},
	kindPool:     {"name of a pool", `the name of a pool such as "app"`},

	kindCheckPath:    {"path with a query, if any", `a path such as "/health"`},
	kindCheckHost:    {"host name", `a host name such as "example.com"`},
	kindCheckHeaders: {"table of texts", `a table such as { X-Check = "lb" }`},
	kindCheckStatus:  {"list of statuses and ranges, or one of them", `a status such as 200, a range such as "200-399", or a list of these`},
	kindText:         {"text", `text such as "ok"`},
	kindMode:         {"rights of a file", `rights in octal such as "0660"`},
	kindUser:         {"name or number", `a name or a number such as "lb" or "1000"`},

	kindCookieName:   {"name of a cookie", `the name of a cookie such as "lb"`},
	kindCookiePath:   {"path", `a path such as "/"`},
	kindCookieDomain: {"domain", `a domain such as "example.com"`},
	kindSecrets:      {"list of texts", `a list of texts such as ["${LB_KEY}"]`},
	kindCommand:      {"command", `a command such as "pm2 restart app-{port}"`},
	kindAmount:       {`whole number or share such as "25%"`, `a whole number such as 1, or a share such as "25%"`},
}

const (
	ms   = int64(time.Millisecond)
	sec  = int64(time.Second)
	hour = int64(time.Hour)
)

// Keys lists every key, in the order of the documentation.
func Keys() []Key { return append([]Key(nil), keys...) }

var keys = []Key{
	{Table: "listen.NAME", Name: "address", kind: kindAddress, Default: `":8080"`,
		Doc: `Where clients connect. ":8080" is port 8080 on all addresses of the machine, "127.0.0.1:8080" is reachable from this machine only. Port 0 takes any free port.`},

	{Table: "pool.NAME", Name: "backends", kind: kindBackends,
		Doc: `The instances of your app: "host:port", "host:3000-3003" for a range of ports, "unix:/path" for a unix socket. A port or a range alone is on 127.0.0.1; the host "localhost" is that and, where it refuses, ::1. Or tables, see below.`},
	{Table: "pool.NAME", Name: "strategy", kind: kindChoice, Default: `"adaptive"`, words: strategies,
		Doc: `Which backend gets the next request. See "Strategies" below.`},
	{Table: "pool.NAME", Name: "hash", kind: kindHash, Default: `"ip"`,
		Doc: `What the strategy "hash" looks at: the client's address, a request header, a cookie, a parameter of the query, the path, or its first, second ... part. Allowed with that strategy only.`},
	{Table: "pool.NAME", Name: "hash_bound", kind: kindInt, Default: "200", min: 100, max: 100_000, words: []string{"off"},
		Doc: `How many requests a backend may have in work, in percent of the mean, before others take requests that hash to it. Ten it may always have. "off": any number.`},
	{Table: "pool.NAME", Name: "connect_timeout", kind: kindDuration, Default: `"auto"`, min: ms, max: 300 * sec, words: []string{"auto"},
		Doc: `How long a connection to a backend may take. "auto" is 1s to this machine and 3s to another.`},
	{Table: "pool.NAME", Name: "response_timeout", kind: kindDuration, Default: `"60s"`, min: ms, max: 24 * hour,
		Doc: `How long a backend may think before its answer begins. The client then gets status 504.`},
	{Table: "pool.NAME", Name: "read_timeout", kind: kindDuration, Default: `"60s"`, min: ms, max: 24 * hour,
		Doc: `How long an answer that has begun may pause.`},
	{Table: "pool.NAME", Name: "tunnel_idle", kind: kindDuration, Default: `"1h"`, min: sec, max: 720 * hour,
		Doc: `How long a WebSocket may be silent both ways before it is closed.`},
	{Table: "pool.NAME", Name: "max_idle", kind: kindInt, Default: "128", min: 1, max: 65536,
		Doc: `How many idle connections are kept open to each backend, for the next requests.`},
	{Table: "pool.NAME", Name: "idle_timeout", kind: kindDuration, Default: `"4s"`, min: ms, max: hour,
		Doc: `How long a connection to a backend is kept idle. Stay below the keep-alive timeout of your app: Node.js closes after 5s.`},
	{Table: "pool.NAME", Name: "reuse", kind: kindBool, Default: "true",
		Doc: `Whether a connection to a backend serves more than one request. Turn it off for a port that several processes share, such as PM2's cluster mode: kept connections would pin requests to single workers. Requests that can safely be sent again are then also tried again on the same backend.`},
	{Table: "pool.NAME", Name: "retries", kind: kindInt, Default: "2", min: 0, max: 10,
		Doc: `How many other backends are tried when one fails. Only requests that can safely be sent again are.`},
	{Table: "pool.NAME", Name: "max_inflight", kind: kindInt, Default: "0", min: 0, max: 1_000_000,
		Doc: `How many requests each backend of the pool may be working on at once. 0 means no limit.`},

	{Table: "pool.NAME", Name: "retry_budget", kind: kindInt, Default: "20", min: 0, max: 100,
		Doc: `How many of the requests of the last 10s may be tried again, in percent, besides three. It keeps a pool that fails as a whole from being sent everything three times. 100 means no limit.`},
	{Table: "pool.NAME", Name: "try_timeout", kind: kindDuration, Default: `"off"`, min: ms, max: 24 * hour, words: []string{"off"},
		Doc: `How long a backend may think before a request that can safely be sent again is tried on another one, or, with reuse = false, on another connection to the same one. The last one that may be tried has response_timeout. Set it well above what your app takes for anything.`},
	{Table: "pool.NAME", Name: "queue", kind: kindInt, Default: `"auto"`, min: 1, max: 1_000_000, words: []string{"auto", "off"}, off: -1,
		Doc: `How many requests may wait while every backend is at its max_inflight. "auto" is twice as many as may be in work. Beyond that, the client gets status 503. Those that the strategy adaptive holds back where there is no max_inflight are bounded by hold_bytes alone.`},
	{Table: "pool.NAME", Name: "queue_timeout", kind: kindDuration, Default: `"5s"`, min: ms, max: hour,
		Doc: `How long a request may wait in that queue. Then status 503. Those that adaptive holds back may wait for response_timeout, but in a queue that does not end for no longer than this.`},
	{Table: "pool.NAME", Name: "hold", kind: kindDuration, Default: `"5s"`, min: ms, max: hour, words: []string{"off"},
		Doc: `How long a request may wait while no backend can be used, as while the only one restarts. Then status 503.`},
	{Table: "pool.NAME", Name: "hold_requests", kind: kindInt, Default: "1024", min: 1, max: 1_000_000,
		Doc: `How many requests may wait like that.`},
	{Table: "pool.NAME", Name: "hold_bytes", kind: kindSize, Default: `"64MiB"`, min: 64 << 10, max: 1 << 40,
		Doc: `How much memory all waiting requests of the pool may take.`},
	{Table: "pool.NAME", Name: "slow_start", kind: kindDuration, Default: `"10s"`, min: ms, max: hour, words: []string{"off"},
		Doc: `In which time a backend that comes back, or joins others, gets its whole share. It begins with a tenth.`},

	{Table: "pool.NAME.backends", Name: "address", kind: kindBackend,
		Doc: `As in the short form above.`},
	{Table: "pool.NAME.backends", Name: "name", kind: kindName, Default: `""`, Else: "its address",
		Doc: `What metrics and logs call the backend. No two of a pool may have the same.`},
	{Table: "pool.NAME.backends", Name: "weight", kind: kindInt, Default: "1", min: 0, max: 256,
		Doc: `Its share: 2 gets twice as much as 1, 0 gets nothing new.`},
	{Table: "pool.NAME.backends", Name: "max_inflight", kind: kindInt, Default: "0", Else: "that of the pool", min: 0, max: 1_000_000,
		Doc: `How many requests it may be working on at once. 0 means no limit.`},

	{Table: "route.NAME", Name: "pool", kind: kindPool,
		Doc: `The pool that gets the requests of this route.`},
	{Table: "route.NAME", Name: "host", kind: kindHost, Default: `""`, Else: "any",
		Doc: `Only requests for this host name. "*.example.com" is every name below example.com.`},
	{Table: "route.NAME", Name: "path", kind: kindPath, Default: `"/"`,
		Doc: `Only requests whose path is this or below: "/api" takes /api and /api/users, not /apiary. "/" takes all.`},

	{Table: "pool.NAME.health", Name: "kind", kind: kindChoice, Default: `"tcp"`, Else: "`\"http\"` with a path, else `\"tcp\"`", words: []string{"tcp", "http", "off"},
		Doc: `How backends are asked whether they are well: whether they take a connection, or by a request for a path. "off": they are not.`},
	{Table: "pool.NAME.health", Name: "path", kind: kindCheckPath, Default: `""`, Else: "none",
		Doc: `The path that is asked for. Without it, a backend is well that takes connections.`},
	{Table: "pool.NAME.health", Name: "method", kind: kindChoice, Default: `"GET"`, words: []string{"GET", "HEAD", "OPTIONS", "POST"},
		Doc: `The method of the request.`},
	{Table: "pool.NAME.health", Name: "host", kind: kindCheckHost, Default: `""`, Else: "the address that is asked",
		Doc: `The Host header of the request.`},
	{Table: "pool.NAME.health", Name: "port", kind: kindInt, Default: "0", Else: "the backend's own", min: 0, max: 65535,
		Doc: `The port that is asked in place of that which gets the requests.`},
	{Table: "pool.NAME.health", Name: "headers", kind: kindCheckHeaders, Default: "{}", Else: "none",
		Doc: `Further headers of the request.`},
	{Table: "pool.NAME.health", Name: "status", kind: kindCheckStatus, Default: `"200-399"`,
		Doc: `The statuses of a backend that is well.`},
	{Table: "pool.NAME.health", Name: "body", kind: kindText, Default: `""`, Else: "any",
		Doc: `What the answer of a backend that is well contains, within its first 64 KiB. At most 1024 bytes.`},
	{Table: "pool.NAME.health", Name: "interval", kind: kindDuration, Default: `"2s"`, min: 10 * ms, max: hour,
		Doc: `The time from one check to the next, of a backend that is well.`},
	{Table: "pool.NAME.health", Name: "changing", kind: kindDuration, Default: `"500ms"`, min: 10 * ms, max: hour,
		Doc: `The same while the checks of a backend begin to say something else.`},
	{Table: "pool.NAME.health", Name: "down", kind: kindDuration, Default: `"1s"`, min: 10 * ms, max: hour,
		Doc: `The same for a backend that is not well.`},
	{Table: "pool.NAME.health", Name: "timeout", kind: kindDuration, Default: `"2s"`, min: 10 * ms, max: 300 * sec,
		Doc: `How long one check may take.`},
	{Table: "pool.NAME.health", Name: "fall", kind: kindInt, Default: "3", min: 1, max: 100,
		Doc: `So many checks in a row have to fail before a backend gets nothing more.`},
	{Table: "pool.NAME.health", Name: "rise", kind: kindInt, Default: "2", min: 1, max: 100,
		Doc: `So many checks in a row have to pass before it gets requests again.`},
	{Table: "pool.NAME.health", Name: "jitter", kind: kindInt, Default: "10", min: 0, max: 50,
		Doc: `By how much the times between checks are changed by chance, in percent, so that checks do not come all at once.`},

	{Table: "pool.NAME.ejection", Name: "faults", kind: kindInt, Default: "5", min: 1, max: 1_000_000, words: []string{"off"},
		Doc: `So many requests have to fail within the window before a backend is left out for a while. "off": it never is.`},
	{Table: "pool.NAME.ejection", Name: "share", kind: kindInt, Default: "50", min: 1, max: 100,
		Doc: `And of its requests in that time, so many have to fail, in percent.`},
	{Table: "pool.NAME.ejection", Name: "window", kind: kindDuration, Default: `"10s"`, min: 10 * ms, max: hour,
		Doc: `The time that is looked back.`},
	{Table: "pool.NAME.ejection", Name: "out", kind: kindDuration, Default: `"5s"`, min: 10 * ms, max: hour,
		Doc: `How long a backend is left out the first time. Each time soon after that is twice as long.`},
	{Table: "pool.NAME.ejection", Name: "max_out", kind: kindDuration, Default: `"1m"`, min: 10 * ms, max: 24 * hour,
		Doc: `The longest time that a backend is left out.`},

	{Table: "pool.NAME.affinity", Name: "kind", kind: kindChoice, Default: `"off"`, words: []string{"off", "cookie", "app_cookie", "hash"},
		Doc: `How a client is known again: by a cookie that lb sets, by one that your app sets, or by a hash of something in its requests.`},
	{Table: "pool.NAME.affinity", Name: "name", kind: kindCookieName, Default: `""`, Else: "`lb_` and the pool's name; with `\"app_cookie\"` it must be given",
		Doc: `The name of the cookie.`},
	{Table: "pool.NAME.affinity", Name: "path", kind: kindCookiePath, Default: `"/"`,
		Doc: `The path below which browsers send the cookie.`},
	{Table: "pool.NAME.affinity", Name: "domain", kind: kindCookieDomain, Default: `""`, Else: "the host that was asked",
		Doc: `The domain to whose hosts browsers send the cookie.`},
	{Table: "pool.NAME.affinity", Name: "max_age", kind: kindDuration, Default: `"session"`, min: sec, max: 9600 * hour, words: []string{"session"},
		Doc: `How long browsers keep the cookie, counted from when it was set. "session": as long as they run.`},
	{Table: "pool.NAME.affinity", Name: "secure", kind: kindChoice, Default: `"auto"`, words: []string{"auto", "always", "never"},
		Doc: `Whether the cookie goes over HTTPS only. "auto": when the client came by HTTPS, as a trusted proxy says.`},
	{Table: "pool.NAME.affinity", Name: "same_site", kind: kindChoice, Default: `"lax"`, words: []string{"lax", "strict", "none"},
		Doc: `The cookie's SameSite. "none" is for apps in frames of other sites.`},
	{Table: "pool.NAME.affinity", Name: "keys", kind: kindSecrets, Default: "[]", Else: "those of key_file",
		Doc: `What cookies are signed with, at least 32 characters each, for several lb that share them. The first signs, all verify.`},
	{Table: "pool.NAME.affinity", Name: "key_file", kind: kindFile, Default: `""`, Else: "`affinity.keys` in `$STATE_DIRECTORY`",
		Doc: `A file of such keys, one a line. It is made with a random key when there is none.`},
	{Table: "pool.NAME.affinity", Name: "hash", kind: kindHash, Default: `"ip"`,
		Doc: `What kind "hash" looks at.`},
	{Table: "pool.NAME.affinity", Name: "socketio", kind: kindBool, Default: "true",
		Doc: `Whether sessions of Socket.IO stay with the backend that they began with.`},
	{Table: "pool.NAME.affinity", Name: "sessions", kind: kindInt, Default: "65536", min: 64, max: 16_777_216,
		Doc: `How many sessions of Socket.IO, and how many of your app's cookies, are remembered. They take 40 bytes each. The longest unused is forgotten first.`},
	{Table: "pool.NAME.affinity", Name: "ttl", kind: kindDuration, Default: `"10m"`, min: 120 * sec, max: 720 * hour,
		Doc: `How long a session is remembered that nobody uses.`},
	{Table: "pool.NAME.affinity", Name: "drain", kind: kindDuration, Default: `"30s"`, min: sec, max: 24 * hour, words: []string{"off"},
		Doc: `How long a draining backend goes on serving the clients it has. It gets no new ones.`},
	{Table: "pool.NAME.affinity", Name: "rebalance", kind: kindInt, Default: `"off"`, min: 1, max: 100, words: []string{"off"},
		Doc: `How many of its WebSockets a backend that has more than its share may lose in a minute, in percent, so that their clients connect to the others.`},
	{Table: "pool.NAME.rollout", Name: "exec", kind: kindCommand, Default: `""`, Else: "given by `--exec`",
		Doc: "The command that restarts one instance, run by `sh`. `{port}`, `{host}`, `{address}`, `{name}`, `{index}` and `{pool}` are filled in. Dollar signs are the shell's here, not of lb's environment variables."},
	{Table: "pool.NAME.rollout", Name: "wait", kind: kindDuration, Default: `"30s"`, min: 0, max: 24 * hour,
		Doc: `How long an instance that was taken out may take to finish what it has. What is left then meets the restart.`},
	{Table: "pool.NAME.rollout", Name: "timeout", kind: kindDuration, Default: `"2m"`, min: ms, max: 24 * hour,
		Doc: `How long the command may take. Then it is killed, with all that it started, and the instance is bad.`},
	{Table: "pool.NAME.rollout", Name: "start_timeout", kind: kindDuration, Default: `"1m"`, min: ms, max: 24 * hour,
		Doc: `How long the instance may take after the command to pass its checks.`},
	{Table: "pool.NAME.rollout", Name: "warmup", kind: kindDuration, Default: `"auto"`, Else: "the pool's slow_start", min: ms, max: 24 * hour, words: []string{"auto", "off"}, off: -1,
		Doc: `How long an instance that is back is given, and watched, before it is the next one's turn.`},
	{Table: "pool.NAME.rollout", Name: "max_unavailable", kind: kindAmount, Default: "1",
		Doc: `How many instances may be out at a time. A share is of all instances, rounded down, and at least one. The last one that is ready is never taken out.`},
	{Table: "pool.NAME.rollout", Name: "canary", kind: kindInt, Default: "0", min: 0, max: 1000,
		Doc: `After so many instances the rollout watches how they do beside the others, before it goes on. 0: it does not.`},
	{Table: "pool.NAME.rollout", Name: "watch", kind: kindDuration, Default: `"1m"`, min: sec, max: 24 * hour,
		Doc: `For how long it watches.`},
	{Table: "pool.NAME.rollout", Name: "canary_errors", kind: kindInt, Default: "1", min: 0, max: 100,
		Doc: `By how many percentage points the canary's share of errors may be above that of the others.`},
	{Table: "pool.NAME.rollout", Name: "canary_slower", kind: kindInt, Default: "50", min: 0, max: 10_000,
		Doc: `By how many percent, and by 10ms at least, the canary's p95 may be above that of the others.`},
	{Table: "pool.NAME.rollout", Name: "in_place", kind: kindBool, Default: "false",
		Doc: `Whether the command changes the instance without another process taking its port, as a reload does. Otherwise an instance only passes when the process from before has gone, as far as lb can see it.`},

	{Table: "admin", Name: "address", kind: kindAddress, Default: `"127.0.0.1:9901"`, words: []string{"off"},
		Doc: `Where ` + "`/metrics`" + ` for Prometheus and ` + "`/-/healthy`, `/-/ready`" + ` are served. Keep it away from the internet.`},
	{Table: "admin", Name: "socket", kind: kindFile, Default: `""`,
		Doc: `A unix socket for the same. "" means none.`},

	{Table: "admin", Name: "socket_mode", kind: kindMode, Default: `"0660"`,
		Doc: `Who may use the socket, and so change what runs: "0600" its owner, "0660" its group too. It holds for the socket by which ` + "`lb status`" + ` and the like find lb, too.`},
	{Table: "admin", Name: "socket_owner", kind: kindUser, Default: `""`, Else: "the user that lb runs as",
		Doc: `Whose the sockets are. To give them away takes root.`},
	{Table: "admin", Name: "socket_group", kind: kindUser, Default: `""`, Else: "the group that lb runs as",
		Doc: `Which group the sockets have: one that lb's user is in, or any for root. Its members may use them if they can get to the directory.`},
	{Table: "admin", Name: "page_actions", kind: kindBool, Default: "false",
		Doc: `Whether backends can be drained and made ready on the live page, at ` + "`/`" + ` of the address. There is no login: whoever reaches the address can do it.`},
	{Table: "admin", Name: "page_host", kind: kindCheckHost, Default: `""`, Else: "none",
		Doc: `A host name by which the page may be reached to do so, beside "localhost" and addresses.`},

	{Table: "access_log", Name: "format", kind: kindChoice, Default: `"json"`, words: []string{"json", "combined", "off"},
		Doc: `One JSON object a line, the "combined" lines of nginx and Apache, or nothing.`},
	{Table: "access_log", Name: "path", kind: kindFile, Default: `"-"`,
		Doc: `The file to append to. "-" is standard output.`},

	{Table: "server", Name: "workers", kind: kindInt, Default: "0", min: 0, max: 1024,
		Doc: `Event loops. 0 means one for each CPU core.`},
	{Table: "server", Name: "trusted_proxies", kind: kindProxies, Default: "[]",
		Doc: `Who may say on behalf of whom a request comes: addresses or networks of proxies before lb, such as an AWS ALB. Only their X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host are believed.`},
	{Table: "server", Name: "grace", kind: kindDuration, Default: `"30s"`, min: ms, max: 24 * hour,
		Doc: `How long a stopping lb lets requests finish before it cuts them.`},
	{Table: "server", Name: "stop_pause", kind: kindDuration, Default: `"0s"`, min: 0, max: hour,
		Doc: `How long a stopping lb goes on taking connections while ` + "`/-/ready`" + ` says 503, so that a load balancer before it can turn away first. It comes before the grace.`},
	{Table: "server", Name: "max_connections", kind: kindInt, Default: "0", min: 0, max: 10_000_000,
		Doc: `How many connections of clients there may be. More are answered with status 503 and closed. 0 means no limit.`},
	{Table: "server", Name: "max_connections_per_client", kind: kindInt, Default: "0", min: 0, max: 10_000_000,
		Doc: `How many of them one client may have: an IPv4 address, or a /64 network of IPv6. Trusted proxies may have any number. 0 means no limit.`},
	{Table: "server", Name: "header_timeout", kind: kindDuration, Default: `"10s"`, min: ms, max: hour,
		Doc: `How long a client may take to send the head of a request. Then status 408.`},
	{Table: "server", Name: "body_timeout", kind: kindDuration, Default: `"30s"`, min: ms, max: hour,
		Doc: `How long an upload may pause. Then status 408.`},
	{Table: "server", Name: "idle_timeout", kind: kindDuration, Default: `"75s"`, min: ms, max: 24 * hour,
		Doc: `How long a client's connection is kept open between requests. Behind an AWS ALB, stay above its 60s.`},
	{Table: "server", Name: "write_timeout", kind: kindDuration, Default: `"30s"`, min: ms, max: hour,
		Doc: `How long a client may take nothing of its answer before it is given up.`},
	{Table: "server", Name: "max_header_bytes", kind: kindSize, Default: `"16KiB"`, min: 1 << 10, max: 1 << 20,
		Doc: `The largest head of a request (Node.js allows the same 16 KiB). Then status 431.`},
	{Table: "server", Name: "max_header_fields", kind: kindInt, Default: "200", min: 8, max: 10000,
		Doc: `The most header lines in a request. Then status 431.`},
	{Table: "server", Name: "max_body", kind: kindSize, Default: "0", min: 0, max: 1 << 50,
		Doc: `The largest body of a request. Then status 413. 0 means no limit: bodies are streamed, not stored.`},
}

var strategies = []string{"adaptive", "least_conn", "ewma", "p2c", "round_robin", "random", "hash"}

// Strategies lists the names that pool.NAME.strategy takes, the default first.
func Strategies() []string { return append([]string(nil), strategies...) }

func keysOf(table string) (of []*Key) {
	for i := range keys {
		if keys[i].Table == table {
			of = append(of, &keys[i])
		}
	}
	return of
}

// keyNames are the names of keys outside of tables that stand in others.
func keyNames() (names []string) {
	for _, k := range keys {
		if !k.inner() {
			names = append(names, k.Name)
		}
	}
	return names
}

// inner says whether the key's table stands in another.
func (k *Key) inner() bool { return strings.Count(k.Table, ".") > 1 }

// tableOf is the table with a key of that name, one that stands in no other if there is such a one; "" without any.
func tableOf(name string) (table string) {
	for _, k := range keys {
		if k.Name == name && (table == "" || !k.inner()) {
			if table = k.Table; !k.inner() {
				return table
			}
		}
	}
	return table
}

// defaults holds the decoded Default of each key by its path.
var defaults = sync.OnceValue(func() map[string]any {
	m := map[string]any{}
	for _, k := range keys {
		if k.Default == "" {
			continue
		}
		var v struct{ V any }
		if _, err := toml.Decode("V="+k.Default, &v); err != nil {
			panic(k.Path() + ": its default is no TOML: " + err.Error())
		}
		m[k.Path()] = v.V
	}
	return m
})
