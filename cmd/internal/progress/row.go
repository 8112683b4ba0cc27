package progress

import (
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"upwell/cmd/internal/dead"
)

// A row is a line of a block.
type row []span

// A span is a part of a row in one style.
type span struct {
	text  string
	style style
}

// A style is the parameter of the escape sequence that turns it on, or nothing. There
// are few, and those can be read on light and on dark.
type style string

const (
	bold  style = "1"
	faint style = "2"
	bad   style = "31" // red
	good  style = "32" // green
)

func text(s string) span            { return span{text: s} }
func textf(f string, a ...any) span { return span{text: fmt.Sprintf(f, a...)} }
func styled(s style, t string) span { return span{t, s} }
func (r row) add(spans ...span) row { return append(r, spans...) }
func (s span) width() int           { return utf8.RuneCountInString(s.text) }

// width is that of the row in characters, each of which takes one place: see tidy.
func (r row) width() (n int) {
	for _, s := range r {
		n += s.width()
	}
	return n
}

// clip returns the row cut to a width.
func (r row) clip(width int) row {
	if r.width() <= width {
		return r
	}
	var out row
	for _, s := range r {
		if n := s.width(); n < width {
			out, width = append(out, s), width-n
			continue
		}
		return append(out, span{cut(s.text, width), s.style})
	}
	return out
}

// render returns the row as a terminal takes it.
func (r row) render(colour bool) string {
	var b strings.Builder
	for _, s := range r {
		if !colour || s.style == "" || s.text == "" {
			b.WriteString(s.text)
			continue
		}
		fmt.Fprintf(&b, "\x1b[%sm%s\x1b[0m", s.style, s.text)
	}
	return b.String()
}

// flow puts parts into rows of at most that width, as many in each as it has room for.
func flow(width int, parts []span) (rows []row) {
	var r row
	for _, p := range parts {
		if len(r) > 0 && r.width()+3+p.width() > width {
			rows, r = append(rows, r), nil
		}
		if len(r) > 0 {
			r = append(r, styled(faint, " · "))
		}
		r = append(r, p)
	}
	return append(rows, r)
}

// bar returns a bar that is as full as done is of total.
func bar(width int, done, total int64) row {
	if width < 3 {
		return nil
	}
	inside := width - 2
	eighths := int(math.Floor(min(max(float64(done)/float64(total), 0), 1) * float64(8*inside)))
	full := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		full += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return row{
		styled(faint, "▕"), styled(good, full), text(strings.Repeat(" ", inside-utf8.RuneCountInString(full))), styled(faint, "▏"),
	}
}

// percent words a share, so that only all of it is 100 %.
func percent(done, total int64) string {
	return fmt.Sprintf("%3d %%", min(max(100*done/total, 0), 100))
}

// cut returns the first n characters of s, or all of it.
func cut(s string, n int) string {
	r := []rune(s)
	switch {
	case len(r) <= n:
		return s
	case n < 1:
		return ""
	}
	return string(r[:n-1]) + "…"
}

// middle returns s with its middle left out as far as it is longer than n characters.
func middle(s string, n int) string {
	r := []rune(s)
	if len(r) <= n || n < 3 {
		return cut(s, n)
	}
	head := (n - 1) / 2
	return string(r[:head]) + "…" + string(r[len(r)-(n-1-head):])
}

// tidy returns a text that others may have written, such as a model's name, without what
// a terminal might obey, and with nothing in it that takes more or fewer places than
// one.
func tidy(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.M, r) || unicode.Is(wide, r) {
			return '·'
		}
		return r
	}, dead.Clean(s))
}

// wide are the characters that take two places on a terminal, and some beside them.
var wide = &unicode.RangeTable{ //nolint:gochecknoglobals // a table
	R16: []unicode.Range16{
		{0x1100, 0x115f, 1},
		{0x231a, 0x231b, 1},
		{0x2329, 0x232a, 1},
		{0x23e9, 0x23f3, 1},
		{0x25fd, 0x25fe, 1},
		{0x2600, 0x27bf, 1},
		{0x2b1b, 0x2b1c, 1},
		{0x2b50, 0x2b55, 5},
		{0x2e80, 0xa4cf, 1},
		{0xa960, 0xa97f, 1},
		{0xac00, 0xd7a3, 1},
		{0xf900, 0xfaff, 1},
		{0xfe10, 0xfe19, 1},
		{0xfe30, 0xfe6f, 1},
		{0xff00, 0xff60, 1},
		{0xffe0, 0xffe6, 1},
	},
	R32: []unicode.Range32{{0x16fe0, 0x18cff, 1}, {0x1aff0, 0x1b2ff, 1}, {0x1f000, 0x1faff, 1}, {0x20000, 0x3fffd, 1}},
}
