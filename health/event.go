package health

import (
	"context"
	"log/slog"
	"time"
)

// Event is a change of what is known about a backend, or of how its pool gets by.
type Event struct {
	Time    time.Time
	Pool    string
	Backend string // empty for FailOpen and FailOpenOver
	What    What
	Why     string
	Until   time.Time // of Ejected; it may end earlier
}

// What is what happened.
type What uint8

// The kinds of events.
const (
	WentUp       What = iota // active checks pass
	WentDown                 // active checks fail
	Ejected                  // its requests failed
	Returned                 // an ejection is over
	Drains                   // it asked for it
	TakenBack                // it no longer asks for it
	FailOpen                 // nobody of the pool is ready: all are used that are not known to be dead
	FailOpenOver             // somebody is ready again, or all are known to be dead
	Spared                   // its requests failed, and too many others are out already
)

func (w What) String() string {
	return [...]string{"up", "down", "ejected", "returned", "draining", "taken back", "fail open", "fail open over", "spared"}[w]
}

var levels = [...]slog.Level{
	WentUp: slog.LevelInfo, WentDown: slog.LevelWarn, Ejected: slog.LevelWarn, Returned: slog.LevelInfo,
	Drains: slog.LevelInfo, TakenBack: slog.LevelInfo, FailOpen: slog.LevelError, FailOpenOver: slog.LevelInfo,
	Spared: slog.LevelWarn,
}

var texts = [...]string{
	WentUp: "backend is up", WentDown: "backend is down", Ejected: "backend is ejected", Returned: "backend is back",
	Drains: "backend asks to be drained", TakenBack: "backend takes requests again",
	FailOpen:     "no backend is ready: requests go to all that are not known to be dead",
	FailOpenOver: "requests go to ready backends only again",
	Spared:       "backend fails requests, and is used on",
}

// log writes the event.
func (e *Event) log(l *slog.Logger) {
	attrs := []slog.Attr{slog.String("pool", e.Pool)}
	if e.Backend != "" {
		attrs = append(attrs, slog.String("backend", e.Backend))
	}
	if e.Why != "" {
		attrs = append(attrs, slog.String("why", e.Why))
	}
	if !e.Until.IsZero() {
		attrs = append(attrs, slog.Duration("for", e.Until.Sub(e.Time).Round(100*time.Millisecond)))
	}
	l.LogAttrs(context.Background(), levels[e.What], texts[e.What], attrs...)
}
