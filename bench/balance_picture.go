package main

import (
	"fmt"
	"strings"
)

// chart is figures over the bound as a picture: a line for each row, a dot for each balancer.
type chart struct {
	names []string // of balancers; the first is the subject
	rows  []string
	x     [][]float64 // by row and balancer, 0: none
}

const (
	chartMost  = 3.0 // what is beyond stands at the right edge
	chartLeft  = 330
	chartWidth = 420
	chartRow   = 30
	chartTop   = 86
)

// Colours that can be told apart, by the kinds of colour blindness too, on white and on black.
var chartColours = []string{"#1a9850", "#8c6bb1", "#4393c3", "#b8860b", "#999999", "#777777", "#d6604d", "#e08214"}

// svg has no colour of background: it stands on light and on dark pages.
func (c *chart) svg() []byte {
	var b strings.Builder
	height := chartTop + len(c.rows)*chartRow + 34
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui,sans-serif" font-size="13" role="img">
<title>p99 of the response time over the bound, by row and balancer</title>
<style>text{fill:#444}line{stroke:#8888}.own{font-weight:600}@media(prefers-color-scheme:dark){text{fill:#ccc}}</style>
`, chartLeft+chartWidth+70, height)
	for i, name := range c.names {
		x, y := 16+i%4*195, 20+i/4*22
		class := ""
		if i == 0 {
			class = ` class="own"`
		}
		b.WriteString(c.dot(i, float64(x), float64(y)))
		fmt.Fprintf(&b, `<text x="%d" y="%d"%s>%s</text>`+"\n", x+12, y+4, class, name)
	}
	bottom := chartTop + len(c.rows)*chartRow
	for tick := 1.0; tick <= chartMost; tick += .5 {
		x, label := c.at(tick), fmt.Sprintf("%.1f", tick)
		switch tick {
		case 1:
			label = "1.0 = the bound"
		case chartMost:
			label += " and more"
		}
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n",
			x, chartTop-18, x, bottom, x, bottom+18, label)
	}
	for r, title := range c.rows {
		y := float64(chartTop + r*chartRow)
		fmt.Fprintf(&b, `<text x="%d" y="%.0f" text-anchor="end">%s</text>`+"\n", chartLeft-16, y+4, title)
		for i := len(c.names) - 1; i >= 0; i-- { // the subject lies on top
			if v := c.x[r][i]; v > 0 {
				b.WriteString(c.dot(i, c.at(v), y) + "\n")
			}
		}
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

func (c *chart) at(v float64) float64 {
	return chartLeft + (min(v, chartMost)-1)/(chartMost-1)*chartWidth
}

func (c *chart) dot(i int, x, y float64) string {
	if i == 0 {
		return fmt.Sprintf(`<circle cx="%.1f" cy="%.1f" r="6.5" fill="%s"/>`, x, y, chartColours[0])
	}
	return fmt.Sprintf(`<circle cx="%.1f" cy="%.1f" r="4.5" fill="none" stroke="%s" stroke-width="2.5"/>`, x, y, chartColours[i%len(chartColours)])
}
