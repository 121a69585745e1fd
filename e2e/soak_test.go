package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// lasting is how long a test shall go on, from an environment variable or else def.
func lasting(t testing.TB, variable string, def time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return def
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return d
}

// slope is what the best straight line through the points gains from the first to the last.
func slope(y []float64) float64 {
	n := float64(len(y))
	var sx, sy, sxx, sxy float64
	for i, v := range y {
		x := float64(i)
		sx, sy, sxx, sxy = sx+x, sy+v, sxx+x*x, sxy+x*v
	}
	d := n*sxx - sx*sx
	if d == 0 {
		return 0
	}
	return (n*sxy - sx*sy) / d * (n - 1)
}

// Steady mixed load: not one request fails, and memory, goroutines and descriptors stay where they are: the line that
// fits their samples best, from a fifth of the time on, when lb has its size, rises by no more than a few.
// SOAK_TIME says how long; make soak takes an hour. SOAK_RATE is requests a second, SOAK_PATIENCE what clients have: other
// programs may have the processors for longer.
func TestSoak(t *testing.T) {
	length := lasting(t, "SOAK_TIME", 15*time.Second)
	rate := 100
	if text := os.Getenv("SOAK_RATE"); text != "" {
		if _, err := fmt.Sscan(text, &rate); err != nil {
			t.Fatalf("SOAK_RATE: %v", err)
		}
	}
	defer func(usual time.Duration) { patience = usual }(patience)
	patience = lasting(t, "SOAK_PATIENCE", patience)
	apps := startApps(t, 4, "chaos.mjs", "SESSIONS=1")
	l := startLB(t, setup{backends: apps, log: `path = "/dev/null"`})
	load := startMixed(t, l.addr, rate, 1, false)
	load.startVisits(4, 1)
	every := max(500*time.Millisecond, min(5*time.Second, length/100))
	tick := time.NewTicker(every)
	defer tick.Stop()
	begin := time.Now()
	var memory, goroutines, descriptors []float64
	for note := begin; time.Since(begin) < length; {
		<-tick.C
		u := l.usage()
		if time.Since(begin) >= length/5 {
			memory, goroutines, descriptors = append(memory, u.memory), append(goroutines, u.goroutines), append(descriptors, float64(u.descriptors))
		}
		if time.Since(note) >= 5*time.Minute || time.Since(begin) >= length {
			note = time.Now()
			t.Logf("after %v: %d requests, %d failed, %d WebSockets, %d sessions of Socket.IO; lb holds %v", time.Since(begin).Round(time.Second),
				load.sent.Load(), load.failed.Load(), load.talked.Load(), load.visited.Load(), u)
		}
	}
	load.over()
	for _, s := range load.shots {
		t.Errorf("%s", s.String())
	}
	for _, k := range load.talks {
		t.Errorf("WebSocket %s of %s, after %d messages: %v", k.id, k.instance, k.said, k.err)
	}
	for _, v := range load.visits {
		t.Errorf("%s", v.String())
	}
	// What connections there are at one moment varies with the load; the line through all samples does so less, the less
	// the more there are.
	slack := 1.0
	if length < 10*time.Minute {
		slack = 3
	}
	for _, c := range []struct {
		what    string
		y       []float64
		allowed float64
	}{
		{"MiB of memory", memory, 4},
		{"goroutines", goroutines, 5},
		{"descriptors", descriptors, 15},
	} {
		gain := slope(c.y)
		t.Logf("%s: first %.1f, last %.1f, the line through %d samples gains %+.2f", c.what, c.y[0], c.y[len(c.y)-1], len(c.y), gain)
		if gain > c.allowed*slack {
			t.Errorf("%s grow by %.1f within %v", c.what, gain, length)
		}
	}
	l.settled()
	l.reaches(0, "lb_backend_tunnels")
	l.reaches(0, "lb_listener_connections")
	l.stop(0)
}
