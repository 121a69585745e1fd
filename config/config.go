// Package config says what a config.toml means: plain values, every default filled in, every fault found.
//
// A *Config that Parse or Load hands out is whole and free of contradictions: whoever runs it only has to
// turn values into things. The package knows nothing of what runs, and nothing outside it knows TOML.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"time"
)

// Config is one read file. The order of the named tables is that of the file; it has no meaning.
type Config struct {
	File      string // as it was given to Load or Parse
	Server    Server
	Admin     Admin
	AccessLog AccessLog
	Listens   []Listen // at least one: without [listen.NAME], one named "default" on :8080
	Pools     []Pool   // at least one
	Routes    []Route  // at least one: with one pool and no [route.NAME], one named "default" that sends it everything
}

// Pos is where in the file something stands. Lines and columns count from 1, columns in characters.
// The zero Pos is of what lb added itself, such as the listener of a file that names none.
type Pos struct{ Line, Column int }

// Server is what holds for the whole process and for all listeners.
type Server struct {
	Workers         int            // event loops; 0: one per core
	TrustedProxies  []netip.Prefix // whose X-Forwarded-* are believed; masked
	Grace           time.Duration  // how long a stop waits for requests in flight
	StopPause       time.Duration  // between not being ready and taking no new connections
	HeaderTimeout   time.Duration  // for a whole request head
	BodyTimeout     time.Duration  // between two reads of a request body
	IdleTimeout     time.Duration  // of a keep-alive client between requests
	WriteTimeout    time.Duration  // while a client takes nothing of its answer
	MaxHeaderBytes  int            // of a request head
	MaxHeaderFields int
	MaxBody         int64 // of a request, bytes; 0: no limit

	MaxConns          int // of clients, in all; 0: no limit
	MaxConnsPerClient int // of one client address; 0: no limit
}

// Admin is where metrics, health and the admin API are served.
type Admin struct {
	Address string // host:port; "" when the file says "off"
	Socket  string // path of a unix socket; "": none

	SocketMode  string // of all unix sockets, four octal digits
	SocketOwner string // name or number of a user; "": who runs lb
	SocketGroup string // the same of a group

	PageActions bool   // the live page may drain backends and take them back
	PageHost    string // a name that the page is reached by, beside localhost and addresses; "": none

	Pos Pos
}

// AccessLog says what is written for each request.
type AccessLog struct {
	Format string // "json", "combined" or "off"
	Path   string // "": standard output
	Pos    Pos
}

// Listen is an address that clients connect to.
type Listen struct {
	Name    string
	Address string // host:port as net.Listen takes it; the host may be "", the port 0
	Pos     Pos
}

// Pool is a set of interchangeable backends and how to talk to them.
type Pool struct {
	Name            string
	Backends        []Backend     // ranges are expanded, addresses and names unique
	Strategy        string        // one of Strategies
	Hash            HashKey       // set (Source "ip" at least) whatever the strategy
	HashBound       int           // percent of the mean in flight that a backend may have before its keys give way; 0: any
	ConnectTimeout  time.Duration // 0: 1 s to a backend on this machine, 3 s to any other
	ResponseTimeout time.Duration // to the response head
	ReadTimeout     time.Duration // between two reads of a response body
	TunnelIdle      time.Duration // of a WebSocket without traffic
	MaxIdle         int           // idle connections kept per backend
	IdleTimeout     time.Duration // of an idle connection to a backend
	Reuse           bool          // connections serve more than one request
	Retries         int           // on other backends, after the first try
	MaxInflight     int64         // requests at once per backend; 0: no limit. Already applied to Backends
	RetryBudget     int           // retries in percent of requests; 100: no limit
	TryTimeout      time.Duration // to the response head, of an attempt that need not be the last; 0: ResponseTimeout
	QueueLen        int           // requests waiting for a place below MaxInflight; 0: twice the places; -1: none
	QueueTimeout    time.Duration
	HoldTimeout     time.Duration // of requests waiting while nobody is ready; 0: they do not
	HoldRequests    int
	HoldBytes       int64         // of memory that waiting requests may take
	SlowStart       time.Duration // 0: none
	Health          Health
	Ejection        Ejection
	Affinity        Affinity
	Rollout         Rollout
	Pos             Pos
}

// HashKey is what the hash strategy looks at.
type HashKey struct {
	Source string // "ip", "header", "cookie", "query" or "path"
	Name   string // of the header, cookie or query parameter; of "path" the number of the part, "" for all of it; "" for "ip"
}

// Backend is one instance of the app.
type Backend struct {
	Address     string // "host:port", "[v6]:port" or "unix:/path"; the host may be a name, yet to be resolved
	Name        string // Address unless the file gives one
	Weight      int    // 0 to 256; 0: gets nothing new
	MaxInflight int64  // 0: no limit
	Pos         Pos
}

// Route says which requests go to a pool.
type Route struct {
	Name string
	Host string // lower case; "" any, "*.example.com" any name below
	Path string // prefix, "/" at least
	Pool string // the Name of one of Pools
	Pos  Pos
}

// maxFile is far above any file that a person or a program writes for 1024 backends a pool.
const maxFile = 4 << 20

// Load reads the file at path. What is wrong in the file is an Errors; not being able to read it is an error of
// another type.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, unreadable(path, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: larger than 4 MiB, so this is not a config file", path)
	}
	return Parse(path, data)
}

func unreadable(path string, err error) error {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		err = pe.Err // without the path, which comes first already
	}
	return fmt.Errorf("%s: cannot be read: %w", path, err)
}

// Parse reads the text of a file; name is what its errors call it. Strings may refer to the environment of the
// process as ${VAR} or ${VAR:-default}. A returned error is an Errors with all faults.
func Parse(name string, data []byte) (*Config, error) {
	return parse(name, data, os.LookupEnv)
}
