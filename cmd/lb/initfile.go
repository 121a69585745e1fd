package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"lb/config"
)

// text is the configuration of these choices, with a comment for each thing that one might look for.
func (a *choices) text() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	p("# The configuration of lb, written by \"lb init\". A line that begins with \"#\" and no space is a key that one may want:\n" +
		"# take the \"#\" away. \"lb check\" names every mistake with its line; \"man lb-config\" and docs/config.md list all keys.\n\n")

	p("# The instances of the app; \"127.0.0.1:3000-3003\" is four of them. \"app\" shows in metrics and logs.\n")
	p("[pool.app]\nbackends = [%s]\n\n", quoted(a.ports, true))
	p("# Who gets the next request: %s.\n", strings.Join(config.Strategies(), ", "))
	p("%s\n\n", key("strategy", strconv.Quote(a.strategy), a.strategy != config.Strategies()[0]))
	p("# How long an instance may think before its answer begins. Then the client gets status 504.\n#response_timeout = \"60s\"\n")
	p("# How many requests each instance may be working on at once; 0 is no limit. More wait in lb.\n#max_inflight = 0\n\n")
	if a.health != "" {
		p("# An instance is well that answers this path with 200 to 399. \"fall\" faults in a row take it out, \"rise\" passes in again.\n")
	} else {
		p("# An instance is well that takes connections. Better: a path that says whether the app can do its work.\n")
	}
	path := a.health
	if path == "" {
		path = "/health"
	}
	p("[pool.app.health]\n%s\n#interval = \"2s\"\n#fall = 3\n#rise = 2\n\n", key("path", strconv.Quote(path), a.health != ""))
	if a.sticky || a.socketio {
		p("# Clients that come back to their instance: docs/affinity.md. Sessions of Socket.IO always do: docs/socketio.md.\n[pool.app.affinity]\n")
		p("%s\n", key("kind", `"cookie"`, a.sticky))
		p("# After instances were added: so many percent of WebSockets a minute may move to them.\n#rebalance = 10\n\n")
	}
	p("# Where clients connect: \":80\" is port 80 on all addresses of this machine, \"127.0.0.1:8080\" is for this machine only.\n")
	p("[listen.web]\naddress = %q\n\n", a.listen)
	p("# Metrics for Prometheus, status, /-/healthy and /-/ready of lb itself. Not for the internet.\n[admin]\naddress = \"127.0.0.1:9901\"\n\n")
	p("# A line for each request: \"json\", \"combined\" as nginx writes it, or \"off\". \"-\" is standard output.\n[access_log]\n#format = \"json\"\n")
	if a.output == servicePath {
		p("path = \"/var/log/lb/access.log\" # logrotate looks after it\n\n")
	} else {
		p("#path = \"-\"\n\n")
	}
	p("[server]\n# Proxies before lb, such as an ALB: only their X-Forwarded-For and X-Forwarded-Proto are believed. docs/alb.md\n")
	p("%s\n", key("trusted_proxies", "["+quoted(cmp.Or(a.proxies, "10.0.0.0/16"), false)+"]", a.proxies != ""))
	p("# The largest body of a request, such as \"10MiB\"; 0 is no limit.\n#max_body = 0\n")
	p("# How long a stopping lb lets requests finish.\n#grace = \"30s\"\n")
	return b.String()
}

// key is a line of the file; without use, one that is commented out.
func key(name, value string, use bool) string {
	line := name + " = " + value
	if !use {
		line = "#" + line
	}
	return line
}

// quoted turns a list with commas into elements of a TOML list. Ports alone are given their host.
func quoted(list string, ports bool) string {
	var all []string
	for _, s := range strings.Split(list, ",") {
		s = strings.TrimSpace(s)
		if ports && strings.Trim(s, "0123456789-") == "" {
			s = "127.0.0.1:" + s
		}
		all = append(all, strconv.Quote(s))
	}
	return strings.Join(all, ", ")
}

// writeFile has the whole of data at path, or changes nothing. Without force it never takes the place of a file, not of
// one that came meanwhile either.
func writeFile(path string, data []byte, force bool) (err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil && force {
		path = real // the link stays
	}
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(path); err == nil && force {
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is no file", path)
		}
		mode = info.Mode().Perm()
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".lb-init-")
	if err != nil {
		return fmt.Errorf("%s cannot be written: %w: --output names another file, - is standard output", path, errors.Unwrap(err))
	}
	defer os.Remove(tmp.Name())
	if _, err = tmp.Write(data); err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("%s cannot be written: %w", path, err)
	}
	if force {
		return os.Rename(tmp.Name(), path)
	}
	err = os.Link(tmp.Name(), path) // which fails if there is something
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there by now: --output names another file, --force writes over it", path)
	}
	return err
}
