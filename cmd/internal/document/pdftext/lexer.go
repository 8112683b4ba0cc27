package pdftext

import (
	"bytes"
	"strconv"
)

// The objects of a PDF, beside nil, bool, float64 for all numbers, and string for
// what is in parentheses or in angle brackets.
type (
	name  string
	array []any
	dict  map[name]any
	ref   struct{ num int }

	// op is a word that is none of the others: an operator, obj, R or endstream.
	op string
)

// maxDepth is how deep objects may be nested in each other. Real ones are nested
// less than ten deep.
const maxDepth = 100

// A lexer takes bytes apart into objects. It never fails: what is wrong is left
// out, as viewers do.
type lexer struct {
	b     []byte
	i     int
	depth int
}

// next returns the next object, or false at the end.
func (l *lexer) next() (any, bool) {
	l.blanks()
	if l.i >= len(l.b) {
		return nil, false
	}
	c := l.b[l.i]
	l.i++
	switch c {
	case '/':
		return l.name(), true
	case '(':
		return l.literal(), true
	case '<':
		if l.at('<') {
			return l.dict(), true
		}
		return l.hex(), true
	case '[':
		return l.list("]"), true
	case '>':
		if l.at('>') {
			return op(">>"), true
		}
		return op(">"), true
	case ']', '{', '}', ')':
		return op(rune(c)), true
	}
	l.i--
	return l.word(), true
}

// at skips c if it is next.
func (l *lexer) at(c byte) bool {
	if l.i < len(l.b) && l.b[l.i] == c {
		l.i++
		return true
	}
	return false
}

func blank(c byte) bool {
	return c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == '\f' || c == 0
}

func delimiter(c byte) bool { return bytes.IndexByte([]byte("()<>[]{}/%"), c) >= 0 }

// blanks skips white space and comments.
func (l *lexer) blanks() {
	for l.i < len(l.b) {
		switch c := l.b[l.i]; {
		case blank(c):
			l.i++
		case c == '%':
			for l.i < len(l.b) && l.b[l.i] != '\n' && l.b[l.i] != '\r' {
				l.i++
			}
		default:
			return
		}
	}
}

// raw returns the bytes up to the next blank or delimiter.
func (l *lexer) raw() []byte {
	start := l.i
	for l.i < len(l.b) && !blank(l.b[l.i]) && !delimiter(l.b[l.i]) {
		l.i++
	}
	return l.b[start:l.i]
}

func (l *lexer) word() any {
	w := string(l.raw())
	switch w {
	case "true":
		return true
	case "false":
		return false
	case "null":
		return nil
	}
	if c := w[0]; '0' <= c && c <= '9' || c == '-' || c == '+' || c == '.' {
		if x, err := strconv.ParseFloat(w, 64); err == nil {
			return x
		}
	}
	return op(w)
}

func (l *lexer) name() name {
	raw := l.raw()
	if bytes.IndexByte(raw, '#') < 0 {
		return name(raw)
	}
	var out []byte
	for i := 0; i < len(raw); i++ {
		if raw[i] == '#' && i+2 < len(raw) {
			if x, err := strconv.ParseUint(string(raw[i+1:i+3]), 16, 8); err == nil {
				out = append(out, byte(x))
				i += 2
				continue
			}
		}
		out = append(out, raw[i])
	}
	return name(out)
}

func (l *lexer) literal() string {
	var out []byte
	for open := 1; l.i < len(l.b); l.i++ {
		c := l.b[l.i]
		switch c {
		case '(':
			open++
		case ')':
			if open--; open == 0 {
				l.i++
				return string(out)
			}
		case '\\':
			l.i++
			out = l.escape(out)
			continue
		}
		out = append(out, c)
	}
	return string(out)
}

// escape appends what the character after a backslash stands for, and leaves l at
// the last character of it.
func (l *lexer) escape(out []byte) []byte {
	if l.i >= len(l.b) {
		return out
	}
	c := l.b[l.i]
	switch {
	case '0' <= c && c <= '7':
		x := 0
		for n := 0; n < 3 && l.i < len(l.b) && '0' <= l.b[l.i] && l.b[l.i] <= '7'; n++ {
			x = x*8 + int(l.b[l.i]-'0')
			l.i++
		}
		l.i--
		return append(out, byte(x))
	case c == '\r':
		if l.i+1 < len(l.b) && l.b[l.i+1] == '\n' {
			l.i++
		}
		return out
	case c == '\n':
		return out
	}
	if i := bytes.IndexByte([]byte("nrtbf"), c); i >= 0 {
		c = "\n\r\t\b\f"[i]
	}
	return append(out, c)
}

func (l *lexer) hex() string {
	var out []byte
	var x, digits byte
	for l.i < len(l.b) {
		c := l.b[l.i]
		l.i++
		if c == '>' {
			break
		}
		d, ok := hexDigit(c)
		if !ok {
			continue
		}
		x = x<<4 | d
		if digits++; digits%2 == 0 {
			out = append(out, x)
		}
	}
	if digits%2 == 1 {
		out = append(out, x<<4)
	}
	return string(out)
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

// list returns the objects up to an op. A number, a number and an R among them are
// a reference.
func (l *lexer) list(end op) array {
	if l.depth++; l.depth > maxDepth {
		l.i = len(l.b)
	}
	defer func() { l.depth-- }()
	var out array
	for {
		v, ok := l.next()
		if !ok || v == end {
			return out
		}
		if n := len(out); v == op("R") && n >= 2 {
			if num, ok := out[n-2].(float64); ok {
				out = append(out[:n-2], ref{int(num)})
				continue
			}
		}
		if o, ok := v.(op); ok && (o == "endobj" || o == "stream" || o == "endstream") {
			l.i -= len(o) // it was not closed
			return out
		}
		out = append(out, v)
	}
}

func (l *lexer) dict() dict {
	list := l.list(">>")
	d := make(dict, len(list)/2)
	for i := 0; i+1 < len(list); {
		key, ok := list[i].(name)
		if !ok {
			i++
			continue
		}
		if _, taken := d[key]; !taken {
			d[key] = list[i+1]
		}
		i += 2
	}
	return d
}
