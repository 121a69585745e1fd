package health

import (
	"context"
	"net"
	"testing"
	"time"

	"lb/upstream"
	"lb/upstream/upstreamtest"
)

// TestLocalhostBusy: that 127.0.0.1 refuses is no proof that nobody listens at localhost when ::1 does not.
func TestLocalhostBusy(t *testing.T) {
	_, port, _ := net.SplitHostPort(upstreamtest.Clog(t, upstreamtest.IPv6Only(t)))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := knock(ctx, addr(t, "localhost:"+port)); err == nil || upstream.ConnectFault(err) == upstream.FaultRefused {
		t.Error(err)
	}
}
