package document

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// words turns the XML of a DOCX part into text. Elements are told by their local
// names: the strict and the transitional format differ in the namespaces only.
type words struct {
	dec     *xml.Decoder
	add     func(string) error // counts text that does not stand in the part
	numbers *numbering
	depth   int

	out    *strings.Builder // of the run, paragraph, cell or part that is being read
	boxes  []string         // the text boxes of the paragraph, which are to follow it
	joined bool             // the end of the paragraph before is deleted

	notes []note          // that the text refers to, in this order
	texts map[note]string // of the notes, if the part is one of notes
}

// A note is a footnote or an endnote.
type note struct{ kind, id string }

// children calls f for each element up to the end of the one that is open.
func (w *words) children(f func(xml.StartElement) error) error {
	if w.depth++; w.depth > maxDepth {
		return unreadablef("its elements are nested more than %d deep", maxDepth)
	}
	defer func() { w.depth-- }()
	for {
		tok, err := w.dec.Token()
		if errors.Is(err, io.EOF) && w.depth == 1 {
			return nil
		}
		if err != nil {
			return err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if err := f(tok); err != nil {
				return err
			}
		case xml.EndElement:
			return nil
		}
	}
}

// inside returns the text of the element that is open instead of adding it.
func (w *words) inside(f func(xml.StartElement) error) (string, error) {
	around := w.out
	w.out = new(strings.Builder)
	err := w.children(f)
	s := w.out.String()
	w.out = around
	return s, err
}

// element adds the text of an element.
func (w *words) element(e xml.StartElement) error {
	switch e.Name.Local {
	case "t":
		return w.text()
	case "r":
		return w.run()
	case "p":
		return w.paragraph()
	case "tbl":
		w.out.WriteByte('\n')
		err := w.children(w.element)
		w.out.WriteByte('\n')
		return err
	case "tr":
		return w.row()
	case "tc":
		return w.cell()
	case "AlternateContent":
		return w.alternatives()
	case "txbxContent":
		return w.box()
	case "tab", "ptab":
		w.out.WriteByte('\t')
	case "br", "cr":
		w.out.WriteByte('\n')
	case "sym":
		w.out.WriteString(symbol(attribute(e, "font"), attribute(e, "char")))
	case "noBreakHyphen":
		w.out.WriteByte('-')
	case "footnoteReference", "endnoteReference":
		w.notes = append(w.notes, note{strings.TrimSuffix(e.Name.Local, "Reference"), attribute(e, "id")})
		fmt.Fprintf(w.out, "[%d]", len(w.notes))
	case "footnote", "endnote":
		s, err := w.inside(w.element)
		w.texts[note{e.Name.Local, attribute(e, "id")}] = s
		return err
	case "del", "moveFrom", "delText", // deleted
		"instrText", "rt", // fields show their results; rt is how to pronounce a word
		"pPr", "rPr", "sectPr", "sdtPr", "tblPr", "tblGrid", "trPr", "tcPr":
	default:
		return w.children(w.element)
	}
	return w.dec.Skip()
}

// symbol returns the character of a font for symbols, such as the tick of a box: the
// one that looks like it, or U+FFFD where none is known. char is hexadecimal; the
// fonts' own characters are written with F000 added, or without.
func symbol(font, char string) string {
	n, err := strconv.ParseUint(char, 16, 21)
	r := rune(n)
	own := font == "Symbol" || font == "Webdings" || strings.HasPrefix(font, "Wingdings")
	if own && r <= 0xff {
		r |= 0xf000
	}
	s := string(r)
	if !own || font == "Wingdings" || r == 0xf0b7 && font == "Symbol" {
		s = bullets.Replace(s)
	}
	if last, _ := utf8.DecodeRuneInString(s); err != nil || !unicode.IsGraphic(last) {
		return "\ufffd"
	}
	return s
}

func attribute(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func (w *words) text() error {
	for {
		tok, err := w.dec.Token()
		if err != nil {
			return err
		}
		switch tok := tok.(type) {
		case xml.CharData:
			w.out.WriteString(strings.ReplaceAll(string(tok), "\n", " "))
		case xml.StartElement:
			if err := w.dec.Skip(); err != nil {
				return err
			}
		case xml.EndElement:
			return nil
		}
	}
}

// run adds a stretch of text with the same format, unless that is to be hidden.
func (w *words) run() error {
	var format struct {
		Vanish *struct {
			Val string `xml:"val,attr"`
		} `xml:"vanish"`
	}
	s, err := w.inside(func(e xml.StartElement) error {
		if e.Name.Local == "rPr" {
			return w.dec.DecodeElement(&format, &e)
		}
		return w.element(e)
	})
	if v := format.Vanish; v == nil || v.Val == "0" || v.Val == "false" {
		w.out.WriteString(s)
	}
	return err
}

// paragraphFormat is what matters of a paragraph's properties.
type paragraphFormat struct {
	Style   value         `xml:"pStyle"`
	Number  *numberFormat `xml:"numPr"`
	Deleted *struct{}     `xml:"rPr>del"` // the end of the paragraph, not its text
	Moved   *struct{}     `xml:"rPr>moveFrom"`
}

func (w *words) paragraph() error {
	around := w.boxes
	w.boxes = nil
	var format paragraphFormat
	s, err := w.inside(func(e xml.StartElement) error {
		if e.Name.Local == "pPr" {
			return w.dec.DecodeElement(&format, &e)
		}
		return w.element(e)
	})
	boxes := w.boxes
	w.boxes = around
	if err != nil {
		return err
	}
	gone := format.Deleted != nil || format.Moved != nil
	if gone && s == "" && len(boxes) == 0 {
		return nil
	}
	if !w.joined {
		n := w.numbers.next(format.Style.Val, format.Number)
		if err := w.add(n); err != nil {
			return err
		}
		w.out.WriteString(n)
	}
	w.out.WriteString(s)
	if w.joined = gone; !gone {
		w.out.WriteByte('\n')
	}
	w.out.WriteString(strings.Join(boxes, ""))
	return nil
}

// box keeps the text of a text box until its paragraph ends.
func (w *words) box() error {
	joined := w.joined
	w.joined = false
	s, err := w.inside(w.element)
	w.joined = joined
	w.boxes = append(w.boxes, s)
	return err
}

func (w *words) row() error {
	var format struct {
		Deleted *struct{} `xml:"del"`
	}
	s, err := w.inside(func(e xml.StartElement) error {
		if e.Name.Local == "trPr" {
			return w.dec.DecodeElement(&format, &e)
		}
		return w.element(e)
	})
	if format.Deleted == nil {
		w.out.WriteString(s + "\n")
	}
	return err
}

func (w *words) cell() error {
	s, err := w.inside(w.element)
	w.joined = false
	w.out.WriteString(strings.Join(strings.Fields(s), " ") + "\t")
	return err
}

// alternatives adds the first of several forms of the same content. Word writes a
// text box once for itself and once for its versions before 2010.
func (w *words) alternatives() error {
	first := true
	return w.children(func(xml.StartElement) error {
		if !first {
			return w.dec.Skip()
		}
		first = false
		return w.children(w.element)
	})
}
