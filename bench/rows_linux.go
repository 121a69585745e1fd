package main

import (
	"fmt"
	"time"
)

// row is one comparison.
type row struct {
	name  string
	title string
	job   job
	goal  goal
	held  bool // measures memory of held connections instead of CPU of requests
}

// goal is what lb is to reach in a row. A bound of 0 is none.
type goal struct {
	haproxy float64 // CPU per request at most this × HAProxy's
	nginx   bool    // CPU per request below nginx's
	kb      float64 // resident memory per connection at most, in KiB
}

func (g goal) String() string {
	switch {
	case g.kb > 0:
		return fmt.Sprintf("≤ %g KB each", g.kb)
	case g.haproxy > 0:
		return fmt.Sprintf("≤ %g × HAProxy, < nginx", g.haproxy)
	default:
		return "< nginx"
	}
}

// rows in the order they run in. conns is the number of idle connections.
func rows(conns int) []row {
	return []row{
		{
			name: "small", title: "Keep-alive GET of 64 B, saturated (64 connections)",
			job:  job{Path: "/64", Answer: smallBody, Conns: 64},
			goal: goal{haproxy: 0.95, nginx: true},
		},
		{
			name: "paced", title: "Keep-alive GET of 64 B, 5,000 requests/s evenly paced (64 connections)",
			job:  job{Path: "/64", Answer: smallBody, Conns: 64, Rate: 5000},
			goal: goal{haproxy: 0.9, nginx: true},
		},
		{
			name: "connect", title: "A connection per request, GET of 64 B (64 at a time)",
			job:  job{Path: "/64", Answer: smallBody, Conns: 64, PerRequest: true},
			goal: goal{nginx: true},
		},
		{
			name: "download", title: "1 MiB downloads (8 connections)",
			job:  job{Path: "/1m", Answer: largeBody, Conns: 8},
			goal: goal{haproxy: 0.8, nginx: true},
		},
		{
			name: "upload", title: "64 KiB uploads (16 connections)",
			job:  job{Path: "/upload", Answer: smallBody, Conns: 16, Upload: 64 << 10},
			goal: goal{nginx: true},
		},
		{
			name: "idle", title: fmt.Sprintf("%d idle keep-alive clients", conns), held: true,
			job:  job{Path: "/64", Answer: smallBody, Conns: conns, Hold: true, Duration: time.Minute},
			goal: goal{kb: 0.6},
		},
		{
			name: "websocket", title: fmt.Sprintf("%d idle WebSockets", conns), held: true,
			job:  job{Path: "/ws", Conns: conns, Hold: true, WebSocket: true, Duration: time.Minute},
			goal: goal{kb: 2},
		},
	}
}
