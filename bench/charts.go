package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// picture is a chart of rows that were measured.
type picture struct {
	name string // of its file, without .svg
	alt  string
	rows []*row // it stands in the document behind the last of them
	draw func(*picture, palette) (*chart, error)
}

// axis is what the rows of a sweep differ in.
type axis struct {
	name, label string
	log         bool
}

var sweeps = []axis{
	{name: "connections", label: "connections", log: true},
	{name: "cpu", label: "CPU limit (processors)"},
	{name: "memory", label: "memory limit (MiB)", log: true},
}

// sweepOf is the axis of that name; one that has no chart is its own label.
func sweepOf(name string) axis {
	for _, a := range sweeps {
		if a.name == name {
			return a
		}
	}
	return axis{name: name, label: name}
}

// pictures are those that can be drawn from what was measured.
func (r *results) pictures() []*picture {
	var drawn []*picture
	for _, a := range sweeps {
		rows := slices.DeleteFunc(r.sweep(a.name), func(m *row) bool { return len(m.ranking()) == 0 })
		if len(rows) > 1 {
			drawn = append(drawn, &picture{a.name, rows[0].Title + ", by " + a.label, rows, drawSweep})
		}
	}
	// Servers before probes: their colours are handed out in this order.
	for _, p := range []struct {
		name, alt string
		ids       []string
		draw      func(*picture, palette) (*chart, error)
	}{
		{"latency", "latency at 1,000 requests a second", []string{"p50-1000", "p99-1000", "p999-1000"}, drawLatency},
		{"image-bytes", "size of the image", []string{"image-bytes"}, drawBars},
		{"probe-wall", "wall time of a probe", []string{"probe-wall"}, drawBars},
	} {
		var rows []*row
		for _, id := range p.ids {
			if m := r.find(id); m != nil && len(m.ranking()) > 0 {
				rows = append(rows, m)
			}
		}
		if len(rows) == len(p.ids) {
			drawn = append(drawn, &picture{p.name, p.alt, rows, p.draw})
		}
	}
	return drawn
}

// charts writes an SVG file for each picture into the folder.
func (r *results) charts(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	pictures := r.pictures()
	colours := newPalette(pictures)
	for _, p := range pictures {
		c, err := p.draw(p, colours)
		if err != nil {
			return fmt.Errorf("chart %s: %w", p.name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, p.name+".svg"), c.svg(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// palette is the place of each subject among the colours and shapes, the same in
// all charts.
type palette map[string]int

// Okabe and Ito's colours, which people tell apart however they see colours.
// Yellow is last, as it is faint on white.
var colours = []color.Color{
	color.RGBA{0x00, 0x72, 0xb2, 255}, // blue
	color.RGBA{0x00, 0x00, 0x00, 255}, // black
	color.RGBA{0xd5, 0x5e, 0x00, 255}, // vermilion
	color.RGBA{0x00, 0x9e, 0x73, 255}, // green
	color.RGBA{0xe6, 0x9f, 0x00, 255}, // orange
	color.RGBA{0xcc, 0x79, 0xa7, 255}, // purple
	color.RGBA{0x56, 0xb4, 0xe9, 255}, // sky
	color.RGBA{0xf0, 0xe4, 0x42, 255}, // yellow
}

var shapes = []draw.GlyphDrawer{
	draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.PyramidGlyph{},
	draw.BoxGlyph{}, draw.RingGlyph{}, draw.PlusGlyph{}, draw.CrossGlyph{},
}

// newPalette gives the subjects their places in the order of the pictures. Only
// imagelab and bare keep theirs if there are more subjects than colours.
func newPalette(pictures []*picture) palette {
	places := palette{"imagelab": 0, "imagelab --healthcheck": 0, "bare": 1}
	next := 0
	for _, p := range pictures {
		for _, m := range p.rows {
			for _, s := range m.Samples {
				if _, ok := places[s.Subject]; !ok {
					places[s.Subject] = 2 + next%(len(colours)-2)
					next++
				}
			}
		}
	}
	return places
}

func (p palette) colour(subject string) color.Color { return colours[p[subject]] }

// chart is a plot with its legend beside it, where no line can be under it.
type chart struct {
	*plot.Plot
	legend plot.Legend
	height vg.Length
}

const (
	chartWidth  = 7.5 * vg.Inch
	chartHeight = 3.5 * vg.Inch
	margin      = vg.Length(8)

	// spare is the room for a font that is wider than Liberation, as a part of a
	// text's width.
	spare = 0.2
)

func newChart(title string) *chart {
	c := &chart{Plot: plot.New(), legend: plot.NewLegend(), height: chartHeight}
	c.Title.Text = title
	c.Title.Padding = vg.Points(8)
	for _, style := range []*text.Style{
		&c.Title.TextStyle, &c.X.Label.TextStyle, &c.X.Tick.Label,
		&c.Y.Label.TextStyle, &c.Y.Tick.Label, &c.legend.TextStyle,
	} {
		style.Font.Variant = "Sans"
		style.Font.Size = 10
	}
	c.Title.TextStyle.Font.Size = 12
	c.X.Label.Padding, c.Y.Label.Padding = vg.Points(4), vg.Points(4)
	// The grid says enough.
	c.Y.LineStyle.Width, c.Y.Tick.Length, c.Y.Padding = 0, 0, vg.Points(10)
	c.legend.Left, c.legend.Top = true, true
	c.legend.Padding = vg.Points(4)
	return c
}

func (c *chart) svg() []byte {
	canvas := vgsvg.New(chartWidth, c.height)
	whole := draw.New(canvas)
	whole.SetColor(color.White)
	whole.Fill(whole.Rectangle.Path())
	inner := draw.Crop(whole, margin, -margin, margin, -margin)
	area := inner
	if size := c.legend.Rectangle(inner).Size(); size.Y > 0 {
		area = draw.Crop(inner, 0, -size.X*(1+spare)-2*margin, 0, 0)
		c.legend.Draw(draw.Crop(inner, area.Size().X+2*margin, 0, 0, -3*margin))
	}
	c.Draw(area)
	var b bytes.Buffer
	canvas.WriteTo(&b) // a buffer takes all
	// Where there is no Liberation, what has its widths.
	return bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"),
		[]byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
}

// ticks are made for the range that the axis has.
type ticks func(low, high float64) []plot.Tick

func (t ticks) Ticks(low, high float64) []plot.Tick { return t(low, high) }

// linear has about five ticks from 0 to beyond the highest value.
func linear(unit string) ticks {
	return func(_, high float64) []plot.Tick {
		step := math.Pow10(int(math.Floor(math.Log10(high / 5))))
		switch n := high / 5 / step; {
		case n > 5:
			step *= 10
		case n > 2:
			step *= 5
		case n > 1:
			step *= 2
		}
		var marks []plot.Tick
		for i := range 1 + int(math.Ceil(high/step)) {
			v := float64(i) * step
			marks = append(marks, plot.Tick{Value: v, Label: short(v, unit)})
		}
		return marks
	}
}

// logarithmic has ticks at 1, 2 and 5, as the range is seldom many decades.
func logarithmic(unit string) ticks {
	return func(low, high float64) []plot.Tick {
		var marks []plot.Tick
		for e := int(math.Floor(math.Log10(low))); math.Pow10(e) <= high; e++ {
			for _, digit := range []float64{1, 2, 5} {
				v := digit * math.Pow10(e)
				marks = append(marks, plot.Tick{Value: v, Label: short(v, unit)})
			}
		}
		return marks
	}
}

// short is the value without the digits that say nothing.
func short(v float64, unit string) string {
	if unit == "requests/s" {
		unit = ""
	}
	for _, s := range scales[unit] {
		if v >= s.factor {
			return strconv.FormatFloat(v/s.factor, 'g', 3, 64) + " " + s.unit
		}
	}
	return format(v, "")
}

// drawSweep is a line for each subject through the medians, over the spreads.
func drawSweep(p *picture, colours palette) (*chart, error) {
	sweep := sweepOf(p.rows[0].Sweep)
	var marks plot.ConstantTicks
	for _, r := range p.rows {
		marks = append(marks, plot.Tick{Value: r.X, Label: condition(r.X)})
	}
	c := newChart(heading(p.rows[0].Title))
	c.X.Label.Text, c.X.Tick.Marker = sweep.label, marks
	c.Y.Tick.Marker, c.Y.AutoRescale = linear(p.rows[0].Unit), true
	c.Y.Min = 0
	if sweep.log && p.rows[0].X > 0 {
		c.X.Scale = plot.LogScale{}
	}
	return c, c.lines(p.rows, colours, func(i int) float64 { return p.rows[i].X })
}

// drawLatency has a percentile at each step of the x axis.
func drawLatency(p *picture, colours palette) (*chart, error) {
	c := newChart(heading(p.alt))
	c.NominalX("p50", "p99", "p99.9")
	c.Y.Scale, c.Y.Tick.Marker = plot.LogScale{}, logarithmic(p.rows[0].Unit)
	err := c.lines(p.rows, colours, func(i int) float64 { return float64(i) })
	c.Y.Min, c.Y.Max = c.Y.Min/1.3, c.Y.Max*1.3
	return c, err
}

// points are the medians of a line and how far the spreads reach from them.
type points struct {
	plotter.XYs
	plotter.YErrors
}

// lines draws one for each subject, and names them in the order in which they end.
func (c *chart) lines(rows []*row, colours palette, x func(int) float64) error {
	var all []sample
	for _, r := range rows {
		all = append(all, r.Samples...)
	}
	c.Add(grid())
	_, log := c.Y.Scale.(plot.LogScale)
	type line struct {
		subject string
		points
	}
	var lines []line
	for _, subject := range unique(all, func(s sample) string { return s.Subject }) {
		l := line{subject: subject}
		for i, r := range rows {
			s := r.of(subject)
			if s == nil || len(s.numbers()) == 0 {
				continue
			}
			low, high := s.spread()
			y := s.median()
			if log && low <= 0 {
				continue // a logarithm has no place for it
			}
			l.XYs = append(l.XYs, plotter.XY{X: x(i), Y: y})
			l.YErrors = append(l.YErrors, struct{ Low, High float64 }{y - low, high - y})
		}
		if len(l.XYs) > 0 {
			lines = append(lines, l)
		}
	}
	if len(lines) == 0 {
		return errors.New("no subject has a value to draw")
	}
	slices.SortStableFunc(lines, func(a, b line) int {
		return cmp.Compare(b.XYs[len(b.XYs)-1].Y, a.XYs[len(a.XYs)-1].Y)
	})
	for _, l := range lines {
		curve, dots, err := plotter.NewLinePoints(l.XYs)
		if err != nil {
			return fmt.Errorf("%s: %w", l.subject, err)
		}
		spreads, err := plotter.NewYErrorBars(l.points)
		if err != nil {
			return fmt.Errorf("%s: %w", l.subject, err)
		}
		colour := colours.colour(l.subject)
		curve.Color, dots.Color, spreads.Color = colour, colour, colour
		curve.Width, dots.Radius = vg.Points(1.5), vg.Points(3)
		dots.Shape = shapes[colours[l.subject]]
		c.Add(spreads, curve, dots)
		c.legend.Add(l.subject, curve, dots)
	}
	return nil
}

func grid() *plotter.Grid {
	g := plotter.NewGrid()
	g.Vertical.Color = nil
	g.Horizontal.Color = color.Gray{0xdd}
	return g
}

// drawBars has the best on top, and the value at the end of each bar.
func drawBars(p *picture, colours palette) (*chart, error) {
	r := p.rows[0]
	subjects := slices.Concat(r.ranking()...)
	slices.Reverse(subjects)
	c := newChart(heading(p.alt))
	c.height = vg.Length(len(subjects))*22 + 70
	var labels plotter.XYLabels
	for i, subject := range subjects {
		value := r.of(subject).median()
		bar, err := plotter.NewBarChart(plotter.Values{value}, 14)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", subject, err)
		}
		bar.Horizontal, bar.XMin = true, float64(i)
		bar.Color, bar.LineStyle.Width = colours.colour(subject), 0
		c.Add(bar)
		labels.XYs = append(labels.XYs, plotter.XY{X: value, Y: float64(i)})
		labels.Labels = append(labels.Labels, format(value, r.Unit))
	}
	values, err := plotter.NewLabels(labels)
	if err != nil {
		return nil, err
	}
	for i := range values.TextStyle {
		values.TextStyle[i] = c.Y.Tick.Label
		values.TextStyle[i].XAlign = draw.XLeft
	}
	values.Offset = vg.Point{X: 4, Y: c.Y.Tick.Label.FontExtents().Descent}
	c.Add(values)
	c.NominalY(subjects...)
	c.HideX()
	c.X.Min = 0
	for _, subject := range subjects {
		c.Y.Padding = max(c.Y.Padding, spare*c.Y.Tick.Label.Width(subject))
	}
	return c, nil
}
