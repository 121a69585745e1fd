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
