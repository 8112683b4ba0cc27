package document

import (
	"bytes"
	"slices"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

const (
	// maxNodes bounds the nodes of an HTML document, which take some 140 bytes each. A
	// page of a thousand printed ones has 100,000.
	maxNodes = 1 << 20

	// maxAttributes bounds those of one element.
	maxAttributes = 1000

	// maxOpen bounds the formatting elements that are open at a time.
	maxOpen = 10_000
)

// A strain reckons how many nodes parsing takes, without making them. The parser
// copies elements: one such as b that is still open when a paragraph ends is opened
// again in the next one, so that a few hundred of them at the beginning are there in
// each of 10,000 paragraphs, from a file of 80 KB. And one that is closed while a
// block in it is open is copied into that.
type strain struct {
	nodes  int
	open   []formatting   // elements, in order
	blocks map[string]int // open, by name
	deep   int            // all of them together
	broken bool           // a block began or ended since the formatting was opened again

	single map[atom.Atom]bool // a and nobr, if one is open: the next one closes it
}

// A formatting is an open element such as b.
type formatting struct {
	tag  atom.Atom
	deep int // how many blocks were open where it begins
}

// strained reports whether the HTML takes more than it should.
func strained(data []byte) error {
	s := strain{single: make(map[atom.Atom]bool), blocks: make(map[string]int)}
	z := html.NewTokenizer(bytes.NewReader(data))
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			return nil // the end: there is no other error
		}
		if kind == html.SelfClosingTagToken {
			kind = html.StartTagToken // as the parser takes it, but for elements that are void
		}
		name, more := z.TagName()
		s.token(kind, string(name))
		for n := 0; more; n++ {
			if n == maxAttributes {
				return unreadablef("an element of it has more than %d attributes; save it anew", maxAttributes)
			}
			_, _, more = z.TagAttr()
		}
		if s.nodes > maxNodes || len(s.open) > maxOpen {
			return unreadablef("it is made of more than %d parts, as its elements are many or are not closed; save it anew, or split it", maxNodes)
		}
	}
}

// copies is how many copies closing a formatting element takes at most: eight rounds
// of up to four, as the standard has it.
const copies = 8 * 4

func (s *strain) token(kind html.TokenType, name string) {
	s.nodes++
	tag := atom.Lookup([]byte(name))
	switch {
	case kind == html.EndTagToken && formats(tag):
		s.close(tag)
	case kind == html.EndTagToken && s.blocks[name] > 0: // else it ends nothing
		s.blocks[name]--
		s.deep--
		s.broken = true
	case kind == html.EndTagToken:
		s.broken = true
	case kind == html.StartTagToken && formats(tag):
		s.again()
		if s.single[tag] {
			s.close(tag)
		}
		s.single[tag] = tag == atom.A || tag == atom.Nobr
		s.open = append(s.open, formatting{tag, s.deep})
	case kind == html.StartTagToken:
		s.blocks[name]++
		s.deep++
		s.broken = true
		s.again() // an element that is part of a line has its place in them
	case kind == html.TextToken:
		s.again()
	}
}

// again counts the formatting that is opened again.
func (s *strain) again() {
	if s.broken {
		s.nodes += len(s.open)
		s.broken = false
	}
}

// close closes the formatting element of that name that was opened last, if there is
// one. If blocks in it are open, it is copied into them.
func (s *strain) close(tag atom.Atom) {
	s.single[tag] = false
	for i, f := range slices.Backward(s.open) {
		if f.tag == tag {
			s.open = slices.Delete(s.open, i, i+1)
			if s.deep > f.deep {
				s.nodes += copies
			}
			return
		}
	}
}

// formats reports whether the standard calls an element formatting.
func formats(tag atom.Atom) bool {
	switch tag {
	case atom.A, atom.B, atom.Big, atom.Code, atom.Em, atom.Font, atom.I, atom.Nobr, atom.S, atom.Small, atom.Strike, atom.Strong, atom.Tt, atom.U:
		return true
	default:
		return false
	}
}
