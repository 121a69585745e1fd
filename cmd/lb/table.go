package main

import (
	"fmt"
	"strings"
	"time"

	"lb/admin"
)

const (
	bold  = "\x1b[1m"
	dim   = "\x1b[2m"
	green = "\x1b[32m"
	red   = "\x1b[31m"
	plain = "\x1b[0m"

	barWidth = 20
)

// table shows who got what; pretty is with colours and bars.
func table(s admin.Status, f *fleet, n tally, since time.Duration, pretty bool) string {
	var b strings.Builder
	paint := func(code, text string) string {
		if !pretty {
			return text
		}
		return code + text + plain
	}
	for _, p := range s.Pools {
		var total uint64
		width := len("backend")
		for _, be := range p.Backends {
			total += be.Requests
			width = max(width, len(f.label(be.Name)))
		}
		fmt.Fprintf(&b, "%s  %d requests, %.0f a second, %d failed\n",
			paint(bold, "pool "+p.Name+", "+p.Strategy), total, float64(total)/max(since.Seconds(), .001), n.failed)
		b.WriteString(paint(dim, fmt.Sprintf("  %-*s  %-9s %8s %6s %5s %7s %7s", width, "backend", "state", "requests", "share", "busy", "p50", "p99")) + "\n")
		for _, be := range p.Backends {
			share := 0.
			if total > 0 {
				share = float64(be.Requests) / float64(total)
			}
			color := green
			if be.State != admin.Ready {
				color = red
			}
			fmt.Fprintf(&b, "  %-*s  %s %8d %4.0f %% %5d %7s %7s", width, f.label(be.Name), paint(color, fmt.Sprintf("%-9s", be.State)),
				be.Requests, 100*share, be.Inflight, millis(be.P50), millis(be.P99))
			if pretty {
				full := int(share*barWidth + .5)
				b.WriteString("  " + strings.Repeat("█", full) + dim + strings.Repeat("░", barWidth-full) + plain)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func millis(ms float64) string {
	switch {
	case ms == 0:
		return "-"
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}
