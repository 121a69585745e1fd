package server

import (
	"testing"
	"time"
)

// TestStatusTellsOfLate asks for what was recent, before and after a reload.
func TestStatusTellsOfLate(t *testing.T) {
	a, b := app(t, "a"), app(t, "b")
	h := start(t, "[pool.app]\nbackends = [\""+a+"\", \""+b+"\"]\n")
	begin := time.Now()
	for range 20 {
		h.get("/")
	}
	waitFor(t, "a rate", func() bool {
		p := h.Status().Pools[0]
		return p.Recent.Rate > 0 && p.Backends[0].Recent.Rate > 0 && p.Backends[1].Recent.Rate > 0
	})
	p := h.Status().Pools[0]
	if p.Requests != 20 || p.Failed != 0 || p.Recent.ErrorRate != 0 || p.Recent.P99 <= 0 || p.Recent.P50 > p.Recent.P99 {
		t.Errorf("%+v", p)
	}
	share := 0.
	for _, b := range p.Backends {
		share += b.Share
		if b.Since.Before(begin.Add(-time.Minute)) || b.Since.After(time.Now()) {
			t.Errorf("%s is %s since %v", b.Name, b.State, b.Since)
		}
	}
	if share < .99999 || share > 1.00001 {
		t.Errorf("shares add up to %v", share)
	}
	h.reloadTo("[pool.app]\nstrategy = \"random\"\nbackends = [\"" + a + "\"]\n")
	if r := h.Status().Pools[0].Backends[0].Recent; r.Rate == 0 {
		t.Error("a reload forgets what was recent")
	}
}
