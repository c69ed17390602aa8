// Package render draws time series as an SVG: what a Prometheus answered, and
// nothing else. It is no Grafana; it draws the panels of Grafana's dashboard for a
// page that has no Grafana.
package render

import (
	"fmt"
	"html"
	"math"
	"strings"
	"time"
)

// Series is one line of a chart. A value that is no finite number interrupts it.
type Series struct {
	Name   string
	Times  []time.Time
	Values []float64
}

// Chart is one panel.
type Chart struct {
	Title  string
	Unit   string // as Grafana names units: short, s, bytes, Bps, ops, percentunit
	Series []Series
}

// Event is a time at which something began. It is drawn in every chart.
type Event struct {
	At   time.Time
	Name string
}

// Picture is a grid of charts over one span of time.
type Picture struct {
	Title, Note string
	From, To    time.Time
	Step        time.Duration // between two values; where one is missing, the line has a gap. 0: it has none
	Charts      []Chart
	Events      []Event // numbered in the charts, named below them
}

// Measures, in pixels.
const (
	columns     = 3
	chartWidth  = 380
	plotLeft    = 58 // room for the numbers of the vertical axis
	plotTop     = 30
	plotHeight  = 110
	legendLine  = 14
	legendLines = 3
	chartHeight = plotTop + plotHeight + 26 + legendLine*legendLines
	margin      = 16
	headHeight  = 46
)

// colors are those of Okabe and Ito, which people who see fewer colors tell apart.
var colors = []string{"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999"}

// SVG draws the picture.
func (p Picture) SVG() []byte {
	rows := (len(p.Charts) + columns - 1) / columns
	eventLines := (len(p.Events) + columns - 1) / columns
	width := margin + columns*(chartWidth+margin)
	height := headHeight + rows*(chartHeight+margin) + eventLines*legendLine + 2*margin
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	text(&b, margin, 22, "start", 15, "#000", p.Title)
	text(&b, margin, 38, "start", 11, "#555", p.Note)
	for i, c := range p.Charts {
		x, y := margin+i%columns*(chartWidth+margin), headHeight+i/columns*(chartHeight+margin)
		fmt.Fprintf(&b, `<g transform="translate(%d,%d)">`+"\n", x, y)
		p.chart(&b, c)
		b.WriteString("</g>\n")
	}
	for i, e := range p.Events {
		x, y := margin+i%columns*(chartWidth+margin), headHeight+rows*(chartHeight+margin)+margin+i/columns*legendLine
		text(&b, x, y, "start", 11, "#555", fmt.Sprintf("%d  %s", i+1, e.Name))
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

func text(b *strings.Builder, x, y int, anchor string, size int, color, s string) {
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="%s" font-size="%d" fill="%s">%s</text>`+"\n", x, y, anchor, size, color, html.EscapeString(s))
}

func (p Picture) chart(b *strings.Builder, c Chart) {
	fmt.Fprintf(b, `<rect width="%d" height="%d" fill="none" stroke="#ddd"/>`+"\n", chartWidth, chartHeight)
	text(b, 8, 18, "start", 12, "#000", c.Title)
	top := nice(c.max(), c.Unit)
	for i := range 3 {
		v := top * float64(i) / 2
		y := plotTop + plotHeight - int(float64(plotHeight)*float64(i)/2)
		fmt.Fprintf(b, `<path d="M%d %dH%d" stroke="#eee"/>`+"\n", plotLeft, y, chartWidth-8)
		text(b, plotLeft-4, y+4, "end", 10, "#555", Format(v, c.Unit))
	}
	for i, e := range p.Events {
		x := p.x(e.At)
		fmt.Fprintf(b, `<path d="M%.1f %dV%d" stroke="#ddd" stroke-dasharray="2 2"/>`+"\n", x, plotTop, plotTop+plotHeight)
		text(b, int(x), plotTop+plotHeight+11, "middle", 8, "#888", fmt.Sprint(i+1))
	}
	legendX, legendY := 8, plotTop+plotHeight+28
	for i, s := range c.Series {
		color := colors[i%len(colors)]
		if d := p.line(s, top); d != "" {
			fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", d, color)
		}
		width := 22 + 6*len(s.Name)
		if legendX+width > chartWidth {
			legendX, legendY = 8, legendY+legendLine
		}
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="10" height="3" fill="%s"/>`+"\n", legendX, legendY-5, color)
		text(b, legendX+14, legendY, "start", 10, "#333", s.Name)
		legendX += width
	}
}

// x is where a time is.
func (p Picture) x(at time.Time) float64 {
	return plotLeft + float64(chartWidth-8-plotLeft)*float64(at.Sub(p.From))/float64(p.To.Sub(p.From))
}

// line is the path of a series; one point alone becomes a short line.
func (p Picture) line(s Series, top float64) string {
	var b strings.Builder
	draw := false
	for i, v := range s.Values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			draw = false
			continue
		}
		if i > 0 && p.Step > 0 && s.Times[i].Sub(s.Times[i-1]) > p.Step*3/2 {
			draw = false
		}
		x, y := p.x(s.Times[i]), plotTop+plotHeight*(1-v/top)
		if draw {
			fmt.Fprintf(&b, "L%.1f %.1f", x, y)
			continue
		}
		fmt.Fprintf(&b, "M%.1f %.1fh1", x, y)
		draw = true
	}
	return b.String()
}

func (c Chart) max() float64 {
	most := 0.0
	for _, s := range c.Series {
		for _, v := range s.Values {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				most = max(most, v)
			}
		}
	}
	return most
}

// nice rounds up to 1, 2 or 5 times a power of ten, of the unit that is shown; 0 becomes 1.
func nice(v float64, unit string) float64 {
	if v <= 0 {
		return 1
	}
	shown := 1.0
	for unit == "bytes" || unit == "Bps" {
		if v < 1024*shown {
			break
		}
		shown *= 1024
	}
	v /= shown
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, step := range []float64{1, 2, 5} {
		if v <= step*power*(1+1e-9) {
			return step * power * shown
		}
	}
	return 10 * power * shown
}

// Format writes a value with its unit, shortly.
func Format(v float64, unit string) string {
	switch unit {
	case "percentunit":
		return number(v*100) + " %"
	case "s":
		if v != 0 && v < 1 {
			return number(v*1000) + " ms"
		}
		return number(v) + " s"
	case "bytes", "Bps":
		suffix := "B"
		for _, larger := range []string{"KiB", "MiB", "GiB"} {
			if v < 1024 {
				break
			}
			v, suffix = v/1024, larger
		}
		if unit == "Bps" {
			suffix += "/s"
		}
		return number(v) + " " + suffix
	case "ops":
		return number(v) + "/s"
	default:
		return number(v)
	}
}

func number(v float64) string { return fmt.Sprintf("%.3g", v) }
