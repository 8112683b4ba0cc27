package sink

import (
	"bytes"
	"strings"
)

// oneLine reports whether b is a valid JSON value with no line break in it. It
// says so of nothing else, and may fail to say so: of a value that is nested
// deeper than maxDepth, for one. It is several times as fast as json.Valid,
// which is worth its length here, as each answer passes through it.
func oneLine(b []byte) bool {
	s := scanner{b: b}
	return s.value(0) && s.space() == 0 && s.i == len(b)
}

// maxDepth bounds the scanner's recursion. Answers nest about ten deep.
const maxDepth = 100

// A scanner reads JSON. Each of its methods moves it past what the method is
// named for, and reports whether that was there.
type scanner struct {
	b []byte
	i int
}

// peek returns the next byte, or 0 at the end. A NUL is not JSON either.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) byte(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.i++
	return true
}

// space skips blanks and tabs, and returns the byte after them.
func (s *scanner) space() byte {
	for s.peek() == ' ' || s.peek() == '\t' {
		s.i++
	}
	return s.peek()
}

func (s *scanner) value(depth int) bool {
	if depth > maxDepth {
		return false
	}
	switch c := s.space(); c {
	case '{':
		return s.list('}', func() bool {
			s.space()
			return s.string() && s.space() == ':' && s.byte(':') && s.value(depth+1)
		})
	case '[':
		return s.list(']', func() bool { return s.value(depth + 1) })
	case '"':
		return s.string()
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	default:
		return s.number()
	}
}

// list scans elements with commas between them, and the brackets around them.
func (s *scanner) list(end byte, element func() bool) bool {
	s.i++
	if s.space() == end {
		return s.byte(end)
	}
	for element() {
		if s.space() == end {
			return s.byte(end)
		}
		if !s.byte(',') {
			return false
		}
	}
	return false
}

func (s *scanner) word(w string) bool {
	if !bytes.HasPrefix(s.b[s.i:], []byte(w)) {
		return false
	}
	s.i += len(w)
	return true
}

func (s *scanner) string() bool {
	if !s.byte('"') {
		return false
	}
	for i := s.i; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			s.i = i + 1
			return true
		case c == '\\':
			s.i = i + 1
			if !s.escape() {
				return false
			}
			i = s.i - 1
		case c < ' ':
			return false
		}
	}
	return false
}

// escape scans what follows a backslash.
func (s *scanner) escape() bool {
	c := s.peek()
	s.i++
	if c != 'u' {
		return c != 0 && strings.IndexByte(`"\/bfnrt`, c) >= 0
	}
	for range 4 {
		c := s.peek()
		if !digit(c) && (c|0x20 < 'a' || 'f' < c|0x20) {
			return false
		}
		s.i++
	}
	return true
}

func (s *scanner) number() bool {
	s.byte('-')
	if !s.byte('0') && !s.digits() {
		return false
	}
	if s.byte('.') && !s.digits() {
		return false
	}
	if c := s.peek(); c != 'e' && c != 'E' {
		return true
	}
	s.i++
	if c := s.peek(); c == '+' || c == '-' {
		s.i++
	}
	return s.digits()
}

func (s *scanner) digits() bool {
	from := s.i
	for digit(s.peek()) {
		s.i++
	}
	return s.i > from
}

func digit(c byte) bool { return '0' <= c && c <= '9' }
