package main

import (
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"upwell/integration/bench/weather"
)

// A curve is what a kind's line in the picture looks like.
type curve struct {
	weather.Kind
	label string
	color color.Color
	width vg.Length
}

var (
	ink  = color.Gray{0x33}
	pale = color.Gray{0x88}
	edge = color.Gray{0xb0} // of the capacity
	body = color.Gray{0xf0}

	scale = []float64{0, 5, 10, 15, 20} // calls per second
)

// curves are what the picture shows beside the capacity: upwell, and what one would
// write by hand or take from the SDK. The last is drawn first.
func curves() []curve {
	list := []curve{{weather.Upwell(), "upwell", color.RGBA{0x00, 0x7a, 0x6c, 0xff}, vg.Points(2.2)}}
	colors := []color.Color{color.RGBA{0xe0, 0x7b, 0x00, 0xff}, color.RGBA{0x4a, 0x74, 0xd8, 0xff}}
	for _, k := range weather.Rivals() {
		if k.Name == "AIMD" || k.Name == "AWS adaptive" {
			list = append(list, curve{k, k.Name, colors[len(list)-1], vg.Points(1)})
		}
	}
	return list
}

// picture draws a run of the portrait to a file. Above are the calls per second
// that were accepted, over a grey capacity, below a mark for each second in which
// calls were refused.
func picture(file string, seed uint64) error {
	sc := weather.Portrait()
	list := curves()
	logs := make([]weather.Log, len(list))
	for i, c := range list {
		logs[i] = weather.Run(&sc, c.Kind, seed).Log
	}
	p := plot.New()
	style(p)
	ground(p, logs[0])
	top := accepted(p, list, logs)
	p.X.Min, p.X.Max = 0, minute(len(logs[0]))
	p.Y.Min, p.Y.Max = refusals(p, list, logs), top+2
	for _, n := range []note{
		{0, top + 1.2, "accepted calls/s", ink, draw.XLeft},
		{6, top + 1.2, "rises", pale, draw.XCenter},
		{12, top + 1.2, "to a quarter", pale, draw.XCenter},
		{18, top + 1.2, "fourfold", pale, draw.XCenter},
		{26.5, top + 1.2, "503 for 60 s", pale, draw.XCenter},
	} {
		p.Add(n)
	}
	return save(file, func(c draw.Canvas) {
		c.SetColor(color.White)
		c.Fill(c.Rectangle.Path())
		inner := draw.Crop(c, vg.Points(8), -vg.Points(46), vg.Points(6), -vg.Points(30))
		p.Draw(inner)
		legend(c, p.DataCanvas(inner).Min.X, list)
	})
}

// minute is where on the axis a second is.
func minute(second int) float64 { return float64(second) / 60 }

// ground draws the capacity.
func ground(p *plot.Plot, log weather.Log) {
	var edges plotter.XYs
	for s := range log {
		edges = append(edges, plotter.XY{X: minute(s), Y: log[s].Capacity}, plotter.XY{X: minute(s + 1), Y: log[s].Capacity})
	}
	area := append(plotter.XYs{{}}, edges...)
	area = append(area, plotter.XY{X: minute(len(log))})
	p.Add(&plotter.Polygon{XYs: []plotter.XYs{area}, Color: body},
		&plotter.Line{XYs: edges, LineStyle: draw.LineStyle{Color: edge, Width: vg.Points(1.2)}})
}

// accepted draws the lines, the first on top, and returns how high they reach.
func accepted(p *plot.Plot, list []curve, logs []weather.Log) (top float64) {
	for i, c := range slices.Backward(list) {
		line := &plotter.Line{LineStyle: draw.LineStyle{Color: c.color, Width: c.width}}
		for s := range logs[i] {
			if y, ok := smooth(logs[i], s); ok {
				line.XYs = append(line.XYs, plotter.XY{X: minute(s), Y: y})
				top = max(top, y)
			}
		}
		p.Add(line)
	}
	return top
}

// refusals draws the marks below zero, in the same axes as the lines, so that they
// stand under what they belong to: one row for each kind, named where the axis has
// its numbers. It returns how low they reach.
func refusals(p *plot.Plot, list []curve, logs []weather.Log) (bottom float64) {
	const title, first, row, high = -2.6, -4.4, 1.75, 1.2 // in calls per second, as the axis is
	last := minute(len(logs[0]))
	p.Add(note{0, title, "refusals", ink, draw.XLeft}, note{last, title, "  of all", pale, draw.XLeft})
	ticks := plot.ConstantTicks{}
	for _, v := range scale {
		ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprint(v)})
	}
	for i, c := range list {
		y := first - row*float64(i)
		sum := logs[i].Sum(0, time.Duration(len(logs[i]))*time.Second)
		p.Add(marks{logs[i], y - high/2, y + high/2, c.color},
			note{last, y, fmt.Sprintf("  %.1f %%", 100*sum.Refused/sum.Sent), c.color, draw.XLeft})
		ticks = append(ticks, plot.Tick{Value: y, Label: c.label})
	}
	p.Y.Tick.Marker = ticks
	return first - row*float64(len(list)-1) - high
}

// smooth is the mean of accepted calls over twenty seconds around one: less, and
// the lines of those that wobble hide the others.
func smooth(log weather.Log, s int) (rate float64, ok bool) {
	const side = 10
	if s < side || s+side > len(log) {
		return 0, false
	}
	from := time.Duration(s-side) * time.Second
	return log.Sum(from, from+2*side*time.Second).Accepted / (2 * side), true
}

// style sets fonts and takes away what is not needed.
func style(p *plot.Plot) {
	sans := font.Font{Typeface: "Liberation", Variant: "Sans"}
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Tick.Label.Font = font.From(sans, 9)
		a.Tick.Label.Color = ink
		a.Label.TextStyle.Font = font.From(sans, 9)
		a.Label.TextStyle.Color = ink
		a.Tick.Length = 0
		a.LineStyle.Width = 0
		a.Padding = vg.Points(3)
	}
	p.X.Label.Text = "minutes"
	p.X.Tick.Marker = plot.TickerFunc(func(_, last float64) (ticks []plot.Tick) {
		for m := 0.; m <= last; m += 4 {
			ticks = append(ticks, plot.Tick{Value: m, Label: fmt.Sprint(m)})
		}
		return ticks
	})
	p.BackgroundColor = nil // the canvas has it
	p.Add(rules(scale))
}

// sans is the style of the picture's own texts.
func sans(c color.Color) text.Style {
	return text.Style{
		Color: c, Font: font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, 9),
		YAlign: draw.YCenter, Handler: plot.DefaultTextHandler,
	}
}

// rules are faint horizontal lines.
type rules []float64

func (r rules) Plot(c draw.Canvas, p *plot.Plot) {
	_, y := p.Transforms(&c)
	for i, v := range r {
		s := draw.LineStyle{Color: color.Gray{0xe2}, Width: vg.Points(0.5)}
		if i == 0 {
			s.Color = pale
		}
		c.StrokeLine2(s, c.Min.X, y(v), c.Max.X, y(v))
	}
}

// marks are ticks where calls were refused.
type marks struct {
	log       weather.Log
	low, high float64
	color     color.Color
}

func (m marks) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for s := range m.log {
		if m.log[s].Refused > 0 {
			at := x(minute(s) + minute(1)/2)
			c.StrokeLine2(draw.LineStyle{Color: m.color, Width: vg.Points(0.6)}, at, y(m.low), at, y(m.high))
		}
	}
}

// A note is a text at a point.
type note struct {
	x, y  float64
	text  string
	color color.Color
	align text.XAlignment
}

func (n note) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	s := sans(n.color)
	s.XAlign = n.align
	// Centred as the axes centre their labels.
	c.FillText(s, vg.Point{X: x(n.x), Y: y(n.y) + s.FontExtents().Descent}, n.text)
}

// legend names the lines, in a row above the plot.
func legend(c draw.Canvas, x vg.Length, list []curve) {
	const sample, gap = 22, 18
	y := c.Max.Y - vg.Points(14)
	entry := func(label string, s draw.LineStyle) {
		c.StrokeLine2(s, x, y, x+sample, y)
		c.FillText(sans(ink), vg.Point{X: x + sample + 5, Y: y}, label)
		st := sans(ink)
		x += sample + 5 + st.Width(label) + gap
	}
	entry("capacity, hidden", draw.LineStyle{Color: edge, Width: vg.Points(1.2)})
	for _, k := range list {
		entry(k.label, draw.LineStyle{Color: k.color, Width: k.width})
	}
}

// save writes what paint draws in the format that the file's name asks for.
func save(file string, paint func(draw.Canvas)) error {
	const width, height = 9 * vg.Inch, 4.6 * vg.Inch
	var w vg.CanvasWriterTo
	switch ext := filepath.Ext(file); ext {
	case ".svg":
		w = vgsvg.New(width, height)
	case ".png":
		// 160 pixels per inch: 1440 across, twice what a README shows.
		w = vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(160))}
	default:
		return fmt.Errorf("no picture format %q: .png and .svg are", ext)
	}
	paint(draw.New(w))
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := w.WriteTo(f); err != nil {
		return err
	}
	return f.Close()
}
