package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// peer is a proxy to measure. Another one is another value in peers, or on the command line -extra.
type peer struct {
	name    string
	program string   // found on PATH, or a path
	version []string // arguments that print it
	config  func(site) string
	args    func(site) []string
}

// site is where one instance of a peer works.
type site struct {
	dir    string // its own
	config string // file in dir with what peer.config returned
	listen string // host:port to serve
	port   string
	origin string // host:port to send to
	conns  int    // client connections that it must be able to hold
	files  uint64 // limit of open files
}

// peers as a competent admin would set them up to proxy with keep-alive on both sides, one thread, without access log.
// Where there is a choice between a default and what suits this load better, they get the better: connections that
// never count as used up, idle connections shared between all clients. They set X-Forwarded-For and nothing else,
// which is less than lb does.
func peers(lb string) []peer {
	return []peer{
		{name: "lb", program: lb, version: []string{"version"}, config: lbConfig,
			args: func(s site) []string { return []string{"run", s.config} }},
		{name: "haproxy", program: "haproxy", version: []string{"-v"}, config: haproxyConfig,
			args: func(s site) []string { return []string{"-db", "-f", s.config} }},
		{name: "nginx", program: "nginx", version: []string{"-v"}, config: nginxConfig,
			args: func(s site) []string { return []string{"-p", s.dir, "-c", s.config, "-e", "error.log"} }},
	}
}

// extraPeer makes a peer of "name=program arg ...", in which {port}, {listen}, {origin} and {dir} stand for the
// instance's own.
func extraPeer(s string) (peer, error) {
	name, command, _ := strings.Cut(s, "=")
	words := strings.Fields(command)
	if name == "" || len(words) == 0 {
		return peer{}, fmt.Errorf("-extra %q: want name=program and its arguments", s)
	}
	return peer{name: name, program: words[0], args: func(s site) []string {
		r := strings.NewReplacer("{port}", s.port, "{listen}", s.listen, "{origin}", s.origin, "{dir}", s.dir)
		args := make([]string, len(words)-1)
		for i, w := range words[1:] {
			args[i] = r.Replace(w)
		}
		return args
	}}, nil
}

func lbConfig(s site) string {
	return fmt.Sprintf(`[listen.main]
address = %q
[admin]
address = "127.0.0.1:0"
[server]
workers = 1
[access_log]
format = "off"
[pool.app]
backends = [%q]
`, s.listen, s.origin)
}

// http-reuse always: with the default, safe, the first request of every client would open a connection of its own.
// Its maxconn counts clients; it derives the file limit from it, and the buffers only come with use.
func haproxyConfig(s site) string {
	return fmt.Sprintf(`global
	nbthread 1
	maxconn %d
defaults
	mode http
	option http-keep-alive
	option forwardfor
	http-reuse always
	timeout connect 5s
	timeout client 75s
	timeout server 75s
	timeout http-request 10s
	timeout http-keep-alive 75s
	timeout tunnel 1h
frontend main
	bind %s
	default_backend app
backend app
	server app1 %s
`, s.conns+256, s.listen, s.origin)
}

// nginx closes idle connections once less than a 16th of worker_connections is free; 3 for each client, which takes up
// to two, keep it from that.
func nginxConfig(s site) string {
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
		server %s;
		keepalive 128;
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
		location /upload {
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
	}
}
`, s.files, 3*s.conns, s.origin, s.listen)
}

// contender is a peer that is there, and an instance of it that runs.
type contender struct {
	peer
	path  string // of its program
	says  string // its version
	notes []string
	*instance
}

// instance of a peer.
type instance struct {
	*process
	site site
	pids []int
}

// find looks for the peer's program and asks for its version.
func (p peer) find(ctx context.Context) (*contender, error) {
	path, err := exec.LookPath(p.program)
	if err != nil && !strings.Contains(p.program, "/") {
		path, err = exec.LookPath(filepath.Join("/usr/sbin", p.program)) // Debian's place, not on a user's PATH
	}
	if err != nil {
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	c := &contender{peer: p, path: path, says: p.name}
	if len(p.version) > 0 {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, path, p.version...).CombinedOutput()
		if line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n"); err == nil && line != "" {
			c.says = strings.TrimSpace(strings.TrimPrefix(line, "nginx version: "))
		}
	}
	return c, nil
}

// start starts an instance in a directory of its own under dir, and waits until it answers through to the origin.
func (c *contender) start(ctx context.Context, dir string, cpu int, s site) (*instance, string, error) {
	var err error
	if s.dir, err = os.MkdirTemp(dir, c.name+"-"); err != nil {
		return nil, "", err
	}
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	s.port = strconv.Itoa(port)
	s.listen = "127.0.0.1:" + s.port
	if c.peer.config != nil {
		s.config = filepath.Join(s.dir, c.name+".conf")
		if err := os.WriteFile(s.config, []byte(c.peer.config(s)), 0o644); err != nil {
			return nil, "", err
		}
	}
	cmd := exec.Command(c.path, c.args(s)...)
	cmd.Dir = s.dir
	p, err := startPinned(c.name, cmd, cpu)
	if err != nil {
		return nil, "", err
	}
	head, err := p.waitAnswer(ctx, s.listen, "/head")
	if err == nil {
		var pids []int
		if pids, err = tree(cmd.Process.Pid); err == nil {
			return &instance{process: p, site: s, pids: pids}, head, nil
		}
	}
	p.stop()
	return nil, "", err
}

// freePort is a port that was free a moment ago: not every peer can say which one it got for port 0.
func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}
