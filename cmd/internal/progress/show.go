package progress

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// cost words a spend in few letters.
func cost(s Spend) string {
	if s.Unknown > 0 {
		return Dollars(s.USD) + "+?"
	}
	return Dollars(s.USD)
}

// A Row is a line of a table.
type Row struct{ Name, Value string }

// Summary words the counts as a table for the end.
func Summary(c Counts, elapsed time.Duration) []Row {
	rows := []Row{
		{"answers stored", fmt.Sprint(c.Stored)},
		{"failed", fmt.Sprint(c.Buried)},
	}
	if c.Duplicate > 0 {
		rows = append(rows, Row{"answered before", fmt.Sprint(c.Duplicate)})
	}
	for _, class := range slices.Sorted(maps.Keys(c.Classes)) {
		rows = append(rows, Row{"  " + string(class), fmt.Sprint(c.Classes[class])})
	}
	if c.Repairs > 0 {
		rows = append(rows, Row{"calls for repairs", fmt.Sprint(c.Repairs)})
	}
	if c.Extensions > 0 {
		rows = append(rows, Row{"calls with more room", fmt.Sprint(c.Extensions)})
	}
	rows = append(rows,
		Row{"refusals met", fmt.Sprintf("%d (429: %d, capacity: %d)", c.Refused, c.Throttled, c.Unavailable)},
		Row{"other failed calls", fmt.Sprint(c.Failed)},
		Row{"tokens", fmt.Sprintf("%s in (%s cached), %s out", Tokens(c.Usage.InputTokens), Tokens(c.Usage.CachedTokens), Tokens(c.Usage.OutputTokens))},
		Row{"cost", c.Cost.String()},
		Row{"time", Duration(elapsed)},
	)
	if s := elapsed.Seconds(); s > 0 {
		rows = append(rows, Row{"mean rate", fmt.Sprintf("%.1f answers/s", float64(c.Answered)/s)})
	}
	return rows
}

// Table writes rows in two columns.
func Table(w io.Writer, rows []Row) {
	width := 0
	for _, r := range rows {
		width = max(width, utf8.RuneCountInString(r.Name))
	}
	for _, r := range rows {
		fmt.Fprintf(w, "  %-*s  %s\n", width, r.Name, r.Value)
	}
}

// Dollars words an amount with as many digits as its size deserves.
func Dollars(usd float64) string {
	switch {
	case usd == 0:
		return "$0"
	case usd < 0.1:
		return fmt.Sprintf("$%.4f", usd)
	default:
		return fmt.Sprintf("$%.2f", usd)
	}
}

// Tokens words a number of tokens.
func Tokens(n int64) string {
	switch {
	case n < 10_000:
		return fmt.Sprint(n)
	case n < 10_000_000:
		return fmt.Sprintf("%.0fk", float64(n)/1e3)
	default:
		return fmt.Sprintf("%.1fM", float64(n)/1e6)
	}
}

// Short words a duration without the parts that are zero: 2h, 1m30s.
func Short(d time.Duration) string {
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// Duration words a duration to the second, or to the tenth below ten.
func Duration(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

const (
	chartWidth  = 64
	chartHeight = 8

	// steady is what a rate in the chart is taken over at least: in less, it is
	// mostly noise.
	steady = 2 * time.Second
)

// between returns the buckets from one place to another, at least one.
func between(history []Point, from, to float64) []Point {
	a := min(max(int(from+0.5), 0), len(history)-1)
	return history[a:max(min(int(to+0.5), len(history)), a+1)]
}

// Ramp draws answers per second over time, refusals beneath. capacity, if not
// nil, says what the endpoint would have allowed, which only a simulator knows.
func Ramp(w io.Writer, history []Point, width time.Duration, capacity func(time.Duration) float64) {
	if len(history) == 0 {
		return
	}
	per := float64(len(history)) / chartWidth            // buckets a column
	half := max(per, float64(steady)/float64(width)) / 2 // of what a column's rate is taken over
	rates, limits, refused := make([]float64, chartWidth), make([]float64, chartWidth), make([]int64, chartWidth)
	top := 1.0
	for x := range chartWidth {
		middle := (float64(x) + 0.5) * per
		near := between(history, middle-half, middle+half)
		for _, b := range near {
			rates[x] += float64(b.Answered)
		}
		rates[x] /= float64(len(near)) * width.Seconds()
		if capacity != nil {
			limits[x] = capacity(time.Duration(middle * float64(width)))
		}
		top = max(top, rates[x], limits[x])
	}
	for i, b := range history {
		refused[min(int(float64(i)/per), chartWidth-1)] += b.Refused
	}
	blocks := []rune(" ▁▂▃▄▅▆▇█")
	for y := chartHeight - 1; y >= 0; y-- {
		label := "      "
		if y == chartHeight-1 || y == 0 {
			label = fmt.Sprintf("%5.0f ", top*float64(y+1)/chartHeight)
		}
		var b strings.Builder
		for x := range chartWidth {
			fill := rates[x]/top*chartHeight - float64(y)
			limit := limits[x]/top*chartHeight - float64(y)
			switch {
			case fill <= 0 && limit > 0 && limit <= 1:
				b.WriteRune('┄')
			default:
				b.WriteRune(blocks[int(math.Round(min(max(fill, 0), 1)*8))])
			}
		}
		fmt.Fprintf(w, "  %s│%s\n", label, strings.TrimRight(b.String(), " "))
	}
	var marks strings.Builder
	for _, n := range refused {
		switch {
		case n == 0:
			marks.WriteByte(' ')
		case n < 10:
			fmt.Fprint(&marks, n)
		default:
			marks.WriteByte('#')
		}
	}
	span := Duration(time.Duration(len(history)) * width)
	fmt.Fprintf(w, "        └%s\n", strings.Repeat("─", chartWidth))
	fmt.Fprintf(w, "         0%*s\n", chartWidth-1, span)
	fmt.Fprintf(w, "  429s   %s\n", strings.TrimRight(marks.String(), " "))
}
