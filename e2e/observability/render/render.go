// Package render draws time series as an SVG, for a page of the documentation that cannot show
// Grafana.
package render

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"strconv"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Series is one line of a chart. A value that is no finite number interrupts it.
type Series struct {
	Name   string
	Times  []time.Time
	Values []float64
}

// Event is a time at which something began. It is drawn and named in its chart.
type Event struct {
	At   time.Time
	Name string
}

// Chart is one panel.
type Chart struct {
	Title  string
	Unit   string   // as Grafana names units: a key of units
	Series []Series // one that has no value but 0 is left out, unless all are so
	Events []Event
}

// units are those in which values are drawn, by Grafana's names.
var units = map[string]struct {
	size   float64
	suffix string // of the chart's title
}{
	"short": {1, ""}, "s": {1, ", s"}, "ops": {1, ", 1/s"}, "percentunit": {0.01, ", %"},
	"bytes": {1 << 20, ", MiB"}, "Bps": {1 << 10, ", KiB/s"},
}

// Picture is a grid of charts over one span of time.
type Picture struct {
	Title, Note string
	From, To    time.Time
	Step        time.Duration // between two values; where one is missing, the line has a gap. 0: no gaps
	Charts      []Chart
}

// Measures of the picture.
const (
	columns     = 2
	chartWidth  = 490 * vg.Length(1)
	chartHeight = 160 * vg.Length(1)
	titleHeight = 18 * vg.Length(1)
	legendWidth = 130 * vg.Length(1)
	headHeight  = 56 * vg.Length(1)
	gap         = 16 * vg.Length(1)
	// headroom is the part of a plot above its highest value, in which events are named.
	headroom = 0.35
)

// fonts are alike in the widths of their letters, which the positions are computed from.
const fonts = "'Liberation Sans',Arimo,Helvetica,Arial,sans-serif"

var (
	// palette is that of Okabe and Ito, which people with colour blindness can tell apart
	// (https://jfly.uni-koeln.de/color/).
	palette = []color.RGBA{
		{0x00, 0x72, 0xB2, 0xFF},
		{0xD5, 0x5E, 0x00, 0xFF},
		{0x00, 0x9E, 0x73, 0xFF},
		{0xCC, 0x79, 0xA7, 0xFF},
		{0x56, 0xB4, 0xE9, 0xFF},
		{0xE6, 0x9F, 0x00, 0xFF},
		{0x00, 0x00, 0x00, 0xFF},
		{0x99, 0x99, 0x99, 0xFF},
	}
	grey  = color.RGBA{0x66, 0x66, 0x66, 0xFF}
	faint = color.RGBA{0xE4, 0xE4, 0xE4, 0xFF}
)

// SVG draws the picture.
func (p Picture) SVG() ([]byte, error) {
	rows := (len(p.Charts) + columns - 1) / columns
	width := columns*(chartWidth+gap) + gap
	height := headHeight + vg.Length(rows)*(chartHeight+gap)
	out := vgsvg.New(width, height)
	canvas := draw.New(out)
	canvas.SetColor(color.White)
	canvas.Fill(canvas.Rectangle.Path())
	write(canvas, gap, height-20, 15, color.Black, p.Title)
	write(canvas, gap, height-36, 10, grey, p.Note)
	for i, c := range p.Charts {
		x := gap + vg.Length(i%columns)*(chartWidth+gap)
		top := height - headHeight - vg.Length(i/columns)*(chartHeight+gap)
		panel := draw.Canvas{Canvas: canvas.Canvas, Rectangle: vg.Rectangle{
			Min: vg.Point{X: x, Y: top - chartHeight}, Max: vg.Point{X: x + chartWidth, Y: top},
		}}
		if err := p.chart(panel, c); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Title, err)
		}
	}
	var b bytes.Buffer
	if _, err := out.WriteTo(&b); err != nil {
		return nil, err
	}
	return bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:"+fonts+";")), nil
}

// write puts one line of text with its left end on the baseline at x, y.
func write(c draw.Canvas, x, y vg.Length, size float64, ink color.Color, text string) {
	c.FillText(style(size, ink), vg.Point{X: x, Y: y}, text)
}

func style(size float64, ink color.Color) draw.TextStyle {
	font := plot.DefaultFont
	font.Variant, font.Size = "Sans", vg.Points(size)
	return draw.TextStyle{Color: ink, Font: font, Handler: plot.DefaultTextHandler}
}

// chart draws a panel: the plot on the left, its legend on the right.
func (p Picture) chart(c draw.Canvas, chart Chart) error {
	shown := moving(chart.Series)
	unit, known := units[chart.Unit]
	if !known {
		return fmt.Errorf("unit %q is unknown", chart.Unit)
	}
	top := most(shown) / unit.size
	if top == 0 {
		top = 1
	}
	plt := p.axes(top)
	legend := plot.NewLegend()
	legend.Top, legend.Left, legend.TextStyle = true, true, style(9, color.Black)
	legend.ThumbnailWidth, legend.Padding = 14, 3
	for i, s := range shown {
		look := draw.LineStyle{Color: palette[i%len(palette)], Width: vg.Points(1.4)}
		if i >= len(palette) {
			look.Dashes = []vg.Length{4, 2}
		}
		for _, piece := range p.pieces(s, unit.size) {
			line, err := plotter.NewLine(piece)
			if err != nil {
				return err
			}
			line.LineStyle = look
			plt.Add(line)
		}
		legend.Add(s.Name, &plotter.Line{LineStyle: look})
	}
	if err := p.mark(plt, chart.Events, top); err != nil {
		return err
	}
	write(c, c.Min.X, c.Max.Y-11, 11, color.Black, chart.Title+unit.suffix)
	c = draw.Crop(c, 0, 0, 0, -titleHeight)
	plt.Draw(draw.Crop(c, 0, -legendWidth, 0, 0))
	legend.Draw(draw.Crop(c, chartWidth-legendWidth+8, 0, 0, -24))
	return nil
}

// axes makes an empty plot, from 0 to top, over the picture's span.
func (p Picture) axes(top float64) *plot.Plot {
	plt := plot.New()
	plt.X.Min, plt.X.Max = 0, p.To.Sub(p.From).Seconds()
	plt.Y.Min, plt.Y.Max = 0, top*(1+headroom)
	for _, axis := range []*plot.Axis{&plt.X, &plt.Y} {
		axis.Color, axis.Padding = grey, 0
		axis.Tick.Color, axis.Tick.Label.Color, axis.Tick.Label.Font = grey, grey, style(9, grey).Font
	}
	plt.X.Tick.Marker, plt.Y.Tick.Marker = plot.TickerFunc(ticks), plot.TickerFunc(ticks)
	grid := plotter.NewGrid()
	grid.Vertical.Width, grid.Horizontal.Color = 0, faint
	plt.Add(grid)
	return plt
}

// mark draws a line at each event, and its name in the headroom.
func (p Picture) mark(plt *plot.Plot, events []Event, top float64) error {
	for i, place := range p.places(events) {
		e, x := events[i], events[i].At.Sub(p.From).Seconds()
		y := top * (1 + headroom*(0.7-0.45*float64(place.level)))
		line, err := plotter.NewLine(plotter.XYs{{X: x, Y: 0}, {X: x, Y: y + top*headroom/4}})
		if err != nil {
			return err
		}
		line.Color, line.Dashes = grey, []vg.Length{2, 2}
		label, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: x, Y: y}}, Labels: []string{e.Name}})
		if err != nil {
			return err
		}
		label.TextStyle[0], label.Offset.X = style(9, grey), 4
		if place.left {
			label.TextStyle[0].XAlign, label.Offset.X = draw.XRight, -4
		}
		plt.Add(line, label)
	}
	return nil
}

// ticks are the library's, with as few digits as each needs.
func ticks(least, most float64) []plot.Tick {
	all := plot.DefaultTicks{}.Ticks(least, most)
	for i, t := range all {
		if t.Label != "" {
			all[i].Label = strconv.FormatFloat(t.Value, 'g', 4, 64)
		}
	}
	return all
}

// place is where the name of an event goes: to the left or the right of its line, on the upper
// level 0 or below it.
type place struct {
	left  bool
	level int
}

// places puts names to the right of their lines, but those near the end of the picture, and those
// shortly before such a one, to the left. Neighbours take turns in level, so that no name lies on
// another name or its line.
func (p Picture) places(events []Event) []place {
	all := make([]place, len(events))
	span := p.To.Sub(p.From)
	for i := len(events) - 1; i >= 0; i-- {
		last := i == len(events)-1
		all[i].left = events[i].At.Sub(p.From) > span*2/3 ||
			!last && all[i+1].left && events[i+1].At.Sub(events[i].At) < span/3
		if all[i].left && !last {
			all[i].level = 1 - all[i+1].level
		}
	}
	for i := 1; i < len(events) && !all[i].left; i++ {
		all[i].level = 1 - all[i-1].level
	}
	return all
}

// moving returns the series that are not 0 all the time, or all if there is none.
func moving(all []Series) []Series {
	var some []Series
	for _, s := range all {
		if most([]Series{s}) > 0 {
			some = append(some, s)
		}
	}
	if some == nil {
		return all
	}
	return some
}

// pieces cuts a series where a value is missing or not finite. A single value becomes a short line.
func (p Picture) pieces(s Series, unit float64) []plotter.XYs {
	var all []plotter.XYs
	var piece plotter.XYs
	end := func() {
		if len(piece) == 1 {
			piece = append(piece, plotter.XY{X: piece[0].X + p.To.Sub(p.From).Seconds()/200, Y: piece[0].Y})
		}
		if piece != nil {
			all, piece = append(all, piece), nil
		}
	}
	for i, v := range s.Values {
		missing := i > 0 && p.Step > 0 && s.Times[i].Sub(s.Times[i-1]) > p.Step*3/2
		if !finite(v) || missing {
			end()
		}
		if finite(v) {
			piece = append(piece, plotter.XY{X: s.Times[i].Sub(p.From).Seconds(), Y: v / unit})
		}
	}
	end()
	return all
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func most(all []Series) float64 {
	most := 0.0
	for _, s := range all {
		for _, v := range s.Values {
			if finite(v) {
				most = max(most, v)
			}
		}
	}
	return most
}
