package document

import (
	"bytes"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

const (
	// maxNodes bounds the nodes of an HTML document, which take some 140 bytes each. A
	// page of a thousand printed ones has 100,000.
	maxNodes = 1 << 20

	// maxAttributes bounds those of one element.
	maxAttributes = 1000
)

// A strain reckons how many nodes parsing takes, without making them. The parser
// copies elements: one such as b that is still open when a paragraph ends is opened
// again in the next one, so that a few hundred of them at the beginning are there in
// each of 10,000 paragraphs, from a file of 80 KB. And one that is closed while a
// block in it is open is copied into that.
type strain struct {
	nodes  int
	open   []int // formatting elements: how many blocks were open where they begin
	blocks int   // open, as far as they are closed with a tag
	broken bool  // a block began or ended since the formatting was opened again

	single map[atom.Atom]bool // a and nobr, if one is open: the next one closes it
}

// strained reports whether the HTML takes more than it should.
func strained(data []byte) error {
	s := strain{single: make(map[atom.Atom]bool)}
	z := html.NewTokenizer(bytes.NewReader(data))
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			return nil // the end: there is no other error
		}
		name, more := z.TagName()
		s.token(kind, atom.Lookup(name))
		for n := 0; more; n++ {
			if n == maxAttributes {
				return unreadablef("an element of it has more than %d attributes; save it anew", maxAttributes)
			}
			_, _, more = z.TagAttr()
		}
		if s.nodes > maxNodes {
			return unreadablef("it is made of more than %d parts, as its elements are many or are not closed; save it anew, or split it", maxNodes)
		}
	}
}

// copies is how many copies closing a formatting element takes at most: eight rounds
// of up to four, as the standard has it.
const copies = 8 * 4

func (s *strain) token(kind html.TokenType, tag atom.Atom) {
	s.nodes++
	formatting := formats(tag)
	switch {
	case kind == html.EndTagToken && formatting:
		s.close(tag)
	case kind == html.EndTagToken:
		s.blocks, s.broken = s.blocks-1, true
	case kind == html.StartTagToken && formatting:
		s.again()
		if s.single[tag] {
			s.close(tag)
		}
		s.single[tag] = tag == atom.A || tag == atom.Nobr
		s.open = append(s.open, s.blocks)
	case kind == html.StartTagToken:
		s.blocks, s.broken = s.blocks+1, true
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

// close closes a formatting element. If blocks in it are open, it is copied into them.
func (s *strain) close(tag atom.Atom) {
	began := 0
	if n := len(s.open); n > 0 {
		began = s.open[n-1]
		s.open = s.open[:n-1]
	}
	if s.blocks > began {
		s.nodes += copies
	}
	s.single[tag] = false
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
