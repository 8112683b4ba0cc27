package progress_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

// A screen is a terminal that understands what a Console writes, and nothing else.
type screen struct {
	t             *testing.T
	width, height int

	mu       sync.Mutex
	lines    [][]rune
	row, col int
	raw      strings.Builder
	colours  int // sequences that set one
}

func newScreen(t *testing.T, width int) *screen {
	t.Helper()
	return &screen{t: t, width: width, height: 24, lines: make([][]rune, 1)}
}

func (s *screen) size() (width, height int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.width, s.height
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw.Write(p)
	for rest := string(p); rest != ""; {
		r, n := utf8.DecodeRuneInString(rest)
		rest = rest[n:]
		switch r {
		case '\r':
			s.col = 0
		case '\n':
			if s.col, s.row = 0, s.row+1; s.row == len(s.lines) {
				s.lines = append(s.lines, nil)
			}
		case '\x1b':
			rest = s.escape(rest)
		default:
			s.put(r)
		}
	}
	return len(p), nil
}

func (s *screen) put(r rune) {
	if s.col == s.width { // as a terminal does: the character begins a new line
		if s.col, s.row = 0, s.row+1; s.row == len(s.lines) {
			s.lines = append(s.lines, nil)
		}
	}
	line := s.lines[s.row]
	for len(line) <= s.col {
		line = append(line, ' ')
	}
	line[s.col] = r
	s.lines[s.row] = line
	s.col++
}

// escape obeys a sequence and returns what comes after it.
func (s *screen) escape(rest string) string {
	end := strings.IndexFunc(rest, func(r rune) bool { return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' })
	if rest == "" || rest[0] != '[' || end < 0 {
		s.t.Errorf("sequence %.10q, want one that a Console has", rest)
		return rest
	}
	n, _ := strconv.Atoi(rest[1:end])
	switch rest[end] {
	case 'A':
		if s.row -= n; s.row < 0 {
			s.t.Errorf("the cursor goes above the screen")
			s.row = 0
		}
	case 'K':
		s.lines[s.row] = s.lines[s.row][:min(s.col, len(s.lines[s.row]))]
	case 'J':
		s.lines[s.row] = s.lines[s.row][:min(s.col, len(s.lines[s.row]))]
		s.lines = s.lines[:s.row+1]
	case 'm':
		s.colours++
	default:
		s.t.Errorf("sequence %q, want one that a Console has", rest[:end+1])
	}
	return rest[end+1:]
}

// narrow makes the terminal narrower: it breaks the lines that are longer.
func (s *screen) narrow(width int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines [][]rune
	for i, line := range s.lines {
		if i == s.row {
			s.row = len(lines)
		}
		for len(line) > width {
			lines, line = append(lines, line[:width:width]), line[width:]
		}
		lines = append(lines, line)
	}
	s.lines, s.width = lines, width
}

// String returns what is to be seen.
func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, line := range s.lines[:len(s.lines)-1] {
		if len(line) > s.width {
			s.t.Errorf("line %q is wider than %d", string(line), s.width)
		}
		fmt.Fprintln(&b, strings.TrimRight(string(line), " "))
	}
	b.WriteString(string(s.lines[len(s.lines)-1]))
	return b.String()
}

// clean verifies that the cursor is at the beginning of an empty last line.
func (s *screen) clean() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.row != len(s.lines)-1 || s.col != 0 || len(s.lines[s.row]) != 0 {
		s.t.Errorf("the cursor is at line %d, column %d of %d lines, want the beginning of a line of its own", s.row, s.col, len(s.lines))
	}
}
