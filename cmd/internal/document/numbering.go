package document

import (
	"maps"
	"strconv"
	"strings"
)

// numbering counts the numbered paragraphs of a DOCX. Their numbers are not in the
// text: a paragraph names a list and a level, directly or by its style, and the
// list says how a number of that level looks. Without them, "see clause 4.2" would
// refer to nothing.
type numbering struct {
	lists  map[string]*numberList // by the numId that paragraphs name
	styles map[string]style
}

// A numberList is what the paragraphs with the same numId have. Lists may share
// their counters.
type numberList struct {
	levels map[int]level
	starts map[int]int // by level: where this list begins anew, the first time
	counts *counts
}

// counts has the last number of each level of a list, and whether it has begun.
type counts struct {
	n     [9]int
	begun [9]bool
}

type value struct {
	Val string `xml:"val,attr"`
}

type number struct {
	Val int `xml:"val,attr"`
}

type numberFormat struct {
	Level *number `xml:"ilvl"`
	ID    value   `xml:"numId"`
}

type level struct {
	Index   int     `xml:"ilvl,attr"`
	Start   *number `xml:"start"`
	Format  value   `xml:"numFmt"`
	Text    value   `xml:"lvlText"`
	Style   value   `xml:"pStyle"`
	Restart *number `xml:"lvlRestart"`
	Legal   *value  `xml:"isLgl"` // all numbers are to be decimal
}

type style struct {
	ID     string        `xml:"styleId,attr"`
	Base   value         `xml:"basedOn"`
	Number *numberFormat `xml:"pPr>numPr"`
}

// numbering reads the parts of the names given. Either may be missing.
func (a *archive) numbering(name, styles string) (*numbering, error) {
	n := &numbering{lists: make(map[string]*numberList), styles: make(map[string]style)}
	var sheet struct {
		Style []style `xml:"style"`
	}
	if err := a.decode(styles, &sheet); err != nil {
		return nil, err
	}
	for _, s := range sheet.Style {
		n.styles[s.ID] = s
	}
	var part numberingPart
	if err := a.decode(name, &part); err != nil {
		return nil, err
	}
	n.add(part)
	return n, nil
}

// decode decodes a part, if there is one of that name.
func (a *archive) decode(name string, v any) error {
	if _, ok := a.parts[name]; !ok {
		return nil
	}
	dec, err := a.open(name)
	if err != nil {
		return err
	}
	return a.sheet(dec, v)
}

type numberingPart struct {
	Abstract []struct {
		ID    string  `xml:"abstractNumId,attr"`
		Level []level `xml:"lvl"`
		Link  value   `xml:"numStyleLink"` // the style whose list has the levels
	} `xml:"abstractNum"`
	Num []struct {
		ID       string `xml:"numId,attr"`
		Abstract value  `xml:"abstractNumId"`
		Override []struct {
			Index int     `xml:"ilvl,attr"`
			Start *number `xml:"startOverride"`
			Level *level  `xml:"lvl"`
		} `xml:"lvlOverride"`
	} `xml:"num"`
}

// set sets a level. Lists have nine, and what a file says of others is kept for none
// of the lists that may share them.
func (l *numberList) set(i int, lv level) {
	if i >= 0 && i < len(l.counts.n) {
		l.levels[i] = lv
	}
}

func (n *numbering) add(part numberingPart) {
	shared := make(map[string]*numberList)
	links := make(map[string]string)
	for _, a := range part.Abstract {
		l := &numberList{levels: make(map[int]level), counts: new(counts)}
		for _, lv := range a.Level {
			l.set(lv.Index, lv)
		}
		shared[a.ID] = l
		links[a.ID] = a.Link.Val
	}
	abstract := make(map[string]string)
	for _, num := range part.Num {
		abstract[num.ID] = num.Abstract.Val
	}
	for _, num := range part.Num {
		id := num.Abstract.Val
		if s, ok := n.styles[links[id]]; ok && s.Number != nil {
			id = abstract[s.Number.ID.Val]
		}
		base, ok := shared[id]
		if !ok {
			continue
		}
		l := &numberList{levels: base.levels, starts: make(map[int]int), counts: base.counts}
		if len(num.Override) > 0 {
			l.levels = maps.Clone(base.levels)
		}
		for _, o := range num.Override {
			if o.Level != nil {
				l.set(o.Index, *o.Level)
			}
			if o.Start != nil {
				l.starts[o.Index] = o.Start.Val
			}
		}
		n.lists[num.ID] = l
	}
}

// next returns what stands before the next paragraph, with a space after it. It
// is empty for a paragraph that is in no list.
func (n *numbering) next(styleID string, own *numberFormat) string {
	l, i := n.find(styleID, own)
	if l == nil || i < 0 || i >= len(l.counts.n) {
		return ""
	}
	l.count(i)
	lv := l.levels[i]
	switch lv.Format.Val {
	case "none":
		return ""
	case "bullet":
		return "• " // its own sign is of a font for symbols, and means nothing elsewhere
	}
	s := l.text(lv)
	if s == "" {
		return ""
	}
	return s + " "
}

// find returns the list and the level of a paragraph. What the paragraph says
// itself goes before its style, and that before what it is based on.
func (n *numbering) find(styleID string, own *numberFormat) (*numberList, int) {
	for range 20 { // a style may be based on itself, in a broken document
		if own != nil && own.ID.Val != "" {
			break
		}
		s, ok := n.styles[styleID]
		if !ok {
			return nil, 0
		}
		if own == nil {
			own = s.Number
		} else if s.Number != nil {
			own = &numberFormat{own.Level, s.Number.ID}
		}
		if own == nil || own.ID.Val == "" {
			styleID = s.Base.Val
		}
	}
	if own == nil {
		return nil, 0
	}
	l := n.lists[own.ID.Val]
	switch {
	case l == nil:
		return nil, 0
	case own.Level != nil:
		return l, own.Level.Val
	}
	for i, lv := range l.levels {
		if styleID != "" && lv.Style.Val == styleID {
			return l, i
		}
	}
	return l, 0
}

// count goes on to the next number of level i.
func (l *numberList) count(i int) {
	c := l.counts
	for k := range i {
		if !c.begun[k] {
			c.n[k], c.begun[k] = l.start(k), true
		}
	}
	if start, ok := l.starts[i]; ok {
		delete(l.starts, i)
		c.n[i] = start
	} else if c.begun[i] {
		c.n[i]++
	} else {
		c.n[i] = l.start(i)
	}
	c.begun[i] = true
	for k := i + 1; k < len(c.n); k++ {
		if r := l.levels[k].Restart; r == nil || r.Val > i {
			c.begun[k] = false
		}
	}
}

func (l *numberList) start(i int) int {
	if s := l.levels[i].Start; s != nil {
		return s.Val
	}
	return 0 // as the standard has it, though Word always writes a start
}

// text fills in the numbers of a level's text: %1.%2 is 4.2.
func (l *numberList) text(lv level) string {
	s := lv.Text.Val
	for k := range l.counts.n {
		format := l.levels[k].Format.Val
		if lv.Legal != nil && lv.Legal.Val != "0" {
			format = "decimal"
		}
		s = strings.ReplaceAll(s, "%"+strconv.Itoa(k+1), numeral(format, l.counts.n[k]))
	}
	return s
}
