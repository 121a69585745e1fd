package server

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"lb/admin"
)

// TestInTurn holds how long an order waits for its turn: as long as whoever gave it, and turnWait at least.
func TestInTurn(t *testing.T) {
	for _, c := range []struct {
		name     string
		asks     time.Duration // how long whoever gave it waits
		released time.Duration // when the turn is free
		ends     time.Duration // when lb ends
		want     error         // nil: it gets its turn
		after    time.Duration
	}{
		{"free", 0, 0, time.Hour, nil, 0},
		{"gone, and free in time", 0, turnWait - 1, time.Hour, nil, turnWait - 1},
		{"gone, and free too late", 0, turnWait + 1, time.Hour, admin.ErrRefused, turnWait},
		{"waits for less", turnWait - 1, time.Hour, 2 * time.Hour, admin.ErrRefused, turnWait},
		{"waits for longer", turnWait + 1, time.Hour, 2 * time.Hour, admin.ErrRefused, turnWait + 1},
		{"waits for long, and free in time", time.Hour, time.Hour - 1, 2 * time.Hour, nil, time.Hour - 1},
		{"lb ends first", time.Hour, time.Hour, time.Minute, admin.ErrNotNow, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Server{turn: make(turn, 1), gone: make(chan struct{}), upgrades: newUpgrades()}
				if c.released > 0 {
					s.turn.Lock()
					time.AfterFunc(c.released, s.turn.Unlock)
				}
				time.AfterFunc(c.ends, func() { close(s.gone) })
				ctx, cancel := context.WithTimeout(t.Context(), c.asks)
				defer cancel()
				begin := time.Now()
				done, err := s.inTurn(ctx)
				if took := time.Since(begin); took != c.after || !errors.Is(err, c.want) {
					t.Errorf("%v after %v, want %v after %v", err, took, c.want, c.after)
				}
				if err == nil {
					done()
				}
				time.Sleep(3 * time.Hour) // all timers are through
				s.turn.Lock()
			})
		})
	}
}
