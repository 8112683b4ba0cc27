package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
)

// Measures of the picture, in pixels.
const (
	width   = 760
	labels  = 250 // the bars begin here
	longest = 400 // bar
	thick   = 13  // bar
	pitch   = 42  // from row to row
	head    = 52
	foot    = 30
)

// style has colours that are told apart on white and on black, and text that
// follows the reader's scheme.
const style = `text{font:13px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1f2328}` +
	`.quiet{fill:#59636e}.upwell{fill:#0f9d87}.connect{fill:#a3aab3}.axis{stroke:#a3aab3}` +
	`@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9198a1}.upwell{fill:#2cc2a8}.connect{fill:#6e7681}.axis{stroke:#6e7681}}`

// draw draws the rows that have a short name: in each, two bars, of which the longer
// is the same in all rows.
func (rec *record) draw(rows []row) []byte {
	var shown []row
	for _, r := range rows {
		if r.short != "" && max(r.upwell.n, r.connect.n) > 0 {
			shown = append(shown, r)
		}
	}
	height := head + len(shown)*pitch + foot
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="upwell and Redpanda Connect on the same work">`+"\n",
		width, height, width, height)
	fmt.Fprintf(&b, "<style>%s</style>\n", style)
	label := func(x, y int, class, anchor, text string) {
		fmt.Fprintf(&b, `<text x="%d" y="%d" class="%s" text-anchor="%s">%s</text>`+"\n", x, y, class, anchor, escape(text))
	}
	bar := func(x, y, length int, class string) {
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" rx="2" class="%s"/>`+"\n", x, y, length, thick, class)
	}
	bar(labels, 14, 24, "upwell")
	label(labels+32, 25, "", "start", "upwell")
	bar(labels+110, 14, 24, "connect")
	label(labels+142, 25, "", "start", "Redpanda Connect "+rec.Connect)
	for i, r := range shown {
		y := head + i*pitch
		text := r.short
		if r.more {
			text += " ▲"
		}
		label(labels-12, y+19, "", "end", text)
		whole := max(r.upwell.n, r.connect.n)
		for k, c := range []struct {
			cell
			class string
		}{{r.upwell, "upwell"}, {r.connect, "connect"}} {
			length := int(c.n/whole*longest + 0.5)
			bar(labels, y+k*(thick+2), length, c.class)
			number, _, _ := strings.Cut(c.text, " (") // without the spread
			label(labels+length+6, y+k*(thick+2)+11, "", "start", number)
		}
	}
	fmt.Fprintf(&b, `<path d="M%d.5 %dV%d" class="axis"/>`+"\n", labels-1, head-6, height-foot-4)
	label(labels, height-10, "quiet", "start", "Shorter is better, but where ▲ says that longer is.")
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder has no errors
	return b.String()
}
