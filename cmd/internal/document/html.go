package document

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
	"golang.org/x/net/html/charset"
)

// readHTML returns what a browser would show. Its encoding is what a byte order
// mark or a meta element says, else UTF-8 if it is that, else Windows-1252.
func readHTML(data []byte) (string, error) {
	if len(data) > maxText {
		return "", unreadablef("%d MiB of HTML; no model takes that much, split it", len(data)>>20)
	}
	r, err := charset.NewReader(bytes.NewReader(data), "text/html")
	if err != nil {
		return "", unreadablef("cannot tell its encoding: %v", err)
	}
	text, err := io.ReadAll(io.LimitReader(r, 4*maxText)) // no encoding becomes longer than that
	if err != nil {
		return "", unreadablef("cannot be decoded: %v", err)
	}
	if err := strained(text); err != nil {
		return "", err
	}
	root, err := html.Parse(bytes.NewReader(text))
	if err != nil {
		return "", unreadablef("cannot be parsed: %v", err)
	}
	p := page{tables: withTables(root)}
	p.node(root)
	return tidy(strings.ReplaceAll(p.b.String(), "\ufeff", "")), nil
}

// A page is the text of an HTML document as far as it is known.
type page struct {
	b     strings.Builder
	begun bool   // the line has something in it
	word  bool   // what was written last can have a space after it
	space bool   // and is to have one before the next word
	mark  bool   // the line has the mark of a list's item and nothing else
	pre   int    // how many pre elements are open
	cell  int    // how many table cells are, in which blocks do not break lines
	lists []list // that are open

	tables map[*html.Node]bool // the nodes with a table in them
}

// A list is an ol or ul element.
type list struct {
	ordered bool
	format  string // as numeral takes it
	n       int    // of the last item
}

// node adds what n shows. The parser allows 512 levels, so the recursion ends.
func (p *page) node(n *html.Node) {
	switch {
	case n.Type == html.TextNode:
		p.words(n.Data)
		return
	case hidden(n):
		return
	case n.Type == html.ElementNode:
		p.open(n)
		defer p.close(n)
	}
	for c := range n.ChildNodes() {
		p.node(c)
	}
}

// hidden reports whether nothing of an element is shown as text.
func hidden(n *html.Node) bool {
	switch n.DataAtom {
	case atom.Head, atom.Script, atom.Style, atom.Noscript, atom.Template, atom.Svg, atom.Iframe,
		atom.Object, atom.Audio, atom.Video, atom.Canvas, atom.Datalist:
		return true
	default:
		_, hidden := attr(n, "hidden")
		style, _ := attr(n, "style")
		return hidden || strings.Contains(strings.ReplaceAll(strings.ToLower(style), " ", ""), "display:none")
	}
}

func attr(n *html.Node, key string) (string, bool) {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val, true
		}
	}
	return "", false
}

func (p *page) words(s string) {
	if p.pre > 0 {
		p.b.WriteString(s)
		p.begun = p.begun || s != ""
		return
	}
	for _, c := range s {
		if unicode.IsSpace(c) && c != '\u00a0' {
			p.space = p.word
			continue
		}
		if p.space {
			p.b.WriteByte(' ')
		}
		p.b.WriteRune(c)
		p.space, p.word, p.begun, p.mark = false, true, true, false
	}
}

// put adds a mark that no space follows.
func (p *page) put(s string) {
	p.b.WriteString(s)
	p.begun, p.word, p.space, p.mark = true, false, false, false
}

// line ends the line, if it has begun.
func (p *page) line() {
	switch {
	case p.cell > 0:
		p.space = p.word
	case p.mark: // a paragraph in the item begins on its line
	case p.begun:
		p.b.WriteByte('\n')
		p.begun, p.word, p.space = false, false, false
	}
}

// gap ends the paragraph.
func (p *page) gap() {
	p.line()
	if p.cell == 0 && !p.mark {
		p.b.WriteByte('\n')
	}
}

func (p *page) open(n *html.Node) {
	switch n.DataAtom {
	case atom.Ol, atom.Ul:
		p.gap()
		p.lists = append(p.lists, listOf(n))
	case atom.Li:
		p.line()
		p.put(p.item(n))
		p.mark = true
	case atom.Pre, atom.Textarea:
		p.gap()
		p.pre++
	case atom.Td, atom.Th:
		if !p.tables[n] { // or it is there for the layout
			p.cell++
		}
	default:
		p.block(n.DataAtom)
	}
}

func (p *page) close(n *html.Node) {
	switch n.DataAtom {
	case atom.Br:
		if p.cell == 0 {
			p.begun = true
		}
		p.line()
	case atom.Ol, atom.Ul:
		p.lists = p.lists[:len(p.lists)-1]
		p.gap()
	case atom.Li:
		p.mark = false
		p.line()
	case atom.Pre, atom.Textarea:
		p.pre--
		p.gap()
	case atom.Td, atom.Th:
		if !p.tables[n] {
			p.cell--
		}
		p.put("\t")
	default:
		p.block(n.DataAtom)
	}
}

// block breaks the line at either end of an element that is a block.
func (p *page) block(a atom.Atom) {
	switch a {
	case atom.P, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Table, atom.Dl, atom.Blockquote, atom.Hr, atom.Figure:
		p.gap()
	case atom.Div, atom.Section, atom.Article, atom.Header, atom.Footer, atom.Main, atom.Nav, atom.Aside, atom.Address,
		atom.Tr, atom.Caption, atom.Dt, atom.Dd, atom.Form, atom.Fieldset, atom.Legend, atom.Option, atom.Figcaption,
		atom.Details, atom.Summary, atom.Body:
		p.line()
	default: // it is part of a line
	}
}

func listOf(n *html.Node) list {
	l := list{ordered: n.DataAtom == atom.Ol}
	if start, ok := attr(n, "start"); ok {
		if i, err := strconv.Atoi(start); err == nil {
			l.n = i - 1
		}
	}
	switch t, _ := attr(n, "type"); t {
	case "a":
		l.format = "lowerLetter"
	case "A":
		l.format = "upperLetter"
	case "i":
		l.format = "lowerRoman"
	case "I":
		l.format = "upperRoman"
	}
	return l
}

// item returns what stands before an item of the innermost list.
func (p *page) item(n *html.Node) string {
	if len(p.lists) == 0 || !p.lists[len(p.lists)-1].ordered {
		return "- "
	}
	l := &p.lists[len(p.lists)-1]
	l.n++
	if v, ok := attr(n, "value"); ok {
		if i, err := strconv.Atoi(v); err == nil {
			l.n = i
		}
	}
	return numeral(l.format, l.n) + ". "
}

// withTables returns the nodes under root that have a table in them.
func withTables(root *html.Node) map[*html.Node]bool {
	in := make(map[*html.Node]bool)
	for n := range root.Descendants() {
		if n.DataAtom != atom.Table {
			continue
		}
		for a := n.Parent; a != nil && !in[a]; a = a.Parent {
			in[a] = true
		}
	}
	return in
}
