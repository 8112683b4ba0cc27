package pdftext

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// A glyph is a character where it stands on the page, which was turned so that the
// character is upright.
type glyph struct {
	text   string
	x, y   float64 // of the left end of its base line; y grows upwards
	width  float64
	size   float64
	turned int  // by how many quarters, anticlockwise
	space  bool // there is a space before it
}

// newGlyph returns the glyph that the unit square of at shows.
func newGlyph(text string, at matrix, width float64) glyph {
	g := glyph{text: text, size: math.Hypot(at[2], at[3])}
	along := math.Hypot(at[0], at[1])
	g.width = width * along
	x, y := at[4], at[5]
	switch a, b := at[0], at[1]; {
	case math.Abs(a) >= math.Abs(b) && a >= 0:
		g.x, g.y = x, y
	case math.Abs(a) >= math.Abs(b):
		g.x, g.y, g.turned = -x, -y, 2
	case b > 0:
		g.x, g.y, g.turned = y, -x, 1
	default:
		g.x, g.y, g.turned = -y, x, 3
	}
	return g
}

const (
	// wordGap is the gap between words, in parts of the size. The narrowest spaces
	// of justified text are a little more, and pdftotext has the same bound.
	wordGap = 0.1

	// maxColumn is the last column to which a line is filled up with spaces.
	maxColumn = 200
)

// layout writes glyphs as lines of text. What stands side by side on the page
// stays so; what is turned comes after what is not.
func layout(glyphs []glyph) string {
	glyphs = slices.DeleteFunc(glyphs, func(g glyph) bool {
		finite := !math.IsInf(g.x+g.y+g.width+g.size, 0) && !math.IsNaN(g.x+g.y+g.width+g.size)
		return !finite || g.size <= 0 || g.text == ""
	})
	var b strings.Builder
	for turned := range 4 {
		var group []glyph
		for _, g := range glyphs {
			if g.turned == turned {
				group = append(group, g)
			}
		}
		lines(&b, group)
	}
	return b.String()
}

// sameLine reports whether two glyphs are on one line. Raised figures are off by a
// third of the size of the text, and by up to two thirds of their own. Beside a
// large heading there may be several lines of small text.
func sameLine(a, b glyph) bool {
	return math.Abs(a.y-b.y) <= min(0.5*max(a.size, b.size), 0.7*min(a.size, b.size))
}

func lines(b *strings.Builder, glyphs []glyph) {
	if len(glyphs) == 0 {
		return
	}
	slices.SortStableFunc(glyphs, func(a, b glyph) int { return cmp.Compare(b.y, a.y) })
	g := gridOf(glyphs)
	for len(glyphs) > 0 {
		n, size := 1, glyphs[0].size
		for n < len(glyphs) && sameLine(glyphs[0], glyphs[n]) {
			size = max(size, glyphs[n].size)
			n++
		}
		line(b, glyphs[:n], g)
		if n < len(glyphs) && glyphs[n-1].y-glyphs[n].y > 1.8*size {
			b.WriteByte('\n')
		}
		glyphs = glyphs[n:]
	}
}

// A grid has the columns in which lines of text are to agree.
type grid struct{ left, column float64 }

// gridOf returns columns as wide as the characters of a page are on average.
func gridOf(glyphs []glyph) grid {
	g := grid{left: glyphs[0].x}
	for _, gl := range glyphs {
		g.left = min(g.left, gl.x)
		g.column += gl.width / float64(len(glyphs))
	}
	return g
}

// spaces returns what to write from column at on, so that x is in its column.
func (g grid) spaces(at int, x float64) string {
	n := 0
	if g.column > 0 {
		n = int(min(maxColumn, (x-g.left)/g.column)) - at
	}
	return strings.Repeat(" ", max(0, n))
}

// line writes the glyphs of one line.
func line(b *strings.Builder, glyphs []glyph, on grid) {
	slices.SortStableFunc(glyphs, func(a, b glyph) int { return cmp.Compare(a.x, b.x) })
	end, written := on.left, 0
	var last glyph
	put := func(s string) {
		b.WriteString(s)
		written += utf8.RuneCountInString(s)
	}
	for _, g := range glyphs {
		if g.text == last.text && g.x-last.x < 0.1*g.size {
			continue // drawn twice, to look bold or to have a shadow
		}
		switch gap := (g.x - end) / g.size; {
		case last.text == "":
			put(on.spaces(0, g.x))
		case gap > 1.5: // another column or cell
			put("  ")
			put(on.spaces(written, g.x))
		case gap > wordGap, g.space && gap > -wordGap:
			put(" ")
		}
		put(g.text)
		end, last = max(end, g.x+g.width), g
	}
	b.WriteByte('\n')
}
