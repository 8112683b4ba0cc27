// Package skim finds its way through JSON text without decoding it.
//
// A prompt may be a megabyte long, and so may an answer. Their text is validated
// once, by package json, and from then on only looked through: a value that nobody
// needs is passed over, and one that is needed is a part of the text, byte for byte.
//
// Text that is not valid is no danger: what stands before the break is found, and
// nothing after it. Keys are compared exactly, where package json would take "Stream"
// for "stream". A key that comes twice is found twice; most readers of JSON heed the
// last.
package skim

import (
	"bytes"
	"encoding/json"
	"iter"
	"strings"
	"unicode/utf8"
)

// A Span is where a value stands in a text, without the space around it. The zero
// Span is nowhere: no value of an object or a list begins at the first byte.
type Span struct{ At, End int }

// Of returns the value, which shares the memory of text and has no room to grow into
// it.
func (s Span) Of(text []byte) []byte { return text[s.At:s.End:s.End] }

// Unset reports whether the value is missing or null.
func (s Span) Unset(text []byte) bool { return s.End == 0 || string(s.Of(text)) == "null" }

// A Member is a key of an object and where its value is.
type Member struct {
	Key   []byte // what it says, which is valid until text changes
	Start int    // where it begins, at its quote
	Span
}

// Members yields the members of the JSON object at text[at:]. Text that is no object
// has none.
func Members(text []byte, at int) iter.Seq[Member] {
	return func(yield func(Member) bool) {
		if at >= len(text) || text[at] != '{' {
			return
		}
		i := space(text, at+1)
		for i < len(text) && text[i] == '"' {
			end := stringEnd(text, i)
			if end-1 == i || text[end-1] != '"' {
				return
			}
			m := Member{Key: plain(text[i+1 : end-1]), Start: i}
			m.At = space(text, space(text, end)+1)
			if m.End = End(text, m.At); m.End <= m.At || !yield(m) {
				return
			}
			if i = space(text, m.End); i >= len(text) || text[i] != ',' {
				return
			}
			i = space(text, i+1)
		}
	}
}

// Find returns where the object at text[at:] has the value of key, or the zero Span.
// Of a key that comes twice it is the last.
func Find(text []byte, at int, key string) (found Span) {
	for m := range Members(text, at) {
		if string(m.Key) == key {
			found = m.Span
		}
	}
	return found
}

// Items yields the values of the JSON array at text[at:]. Text that is no array has
// none.
func Items(text []byte, at int) iter.Seq[Span] {
	return func(yield func(Span) bool) {
		if at >= len(text) || text[at] != '[' {
			return
		}
		for i := space(text, at+1); i < len(text) && text[i] != ']'; {
			v := Span{i, End(text, i)}
			if v.End <= v.At || !yield(v) {
				return
			}
			if i = space(text, v.End); i < len(text) && text[i] == ',' {
				i = space(text, i+1)
			}
		}
	}
}

// Unquote returns what a JSON string says.
func Unquote(value []byte) string {
	if len(value) >= 2 && bytes.IndexByte(value, '\\') < 0 && utf8.Valid(value) {
		return string(value[1 : len(value)-1])
	}
	var s string
	_ = json.Unmarshal(value, &s) // what is no string says nothing
	return s
}

// Quote returns s as a JSON string, with <, > and & as they are.
func Quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always can be
	return strings.TrimSuffix(b.String(), "\n")
}

// plain returns a key without escapes, which nobody writes and anybody may.
func plain(key []byte) []byte {
	if bytes.IndexByte(key, '\\') < 0 {
		return key
	}
	var s string
	if json.Unmarshal([]byte(`"`+string(key)+`"`), &s) != nil {
		return key
	}
	return []byte(s)
}

func space(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\r' || text[i] == '\t') {
		i++
	}
	return i
}

// stringEnd returns where the string ends whose opening quote is at i: after the next
// quote that an even number of backslashes stands before. It looks for quotes rather
// than at each character: prompts are long.
func stringEnd(text []byte, i int) int {
	for j := i + 1; ; j++ {
		k := bytes.IndexByte(text[j:], '"')
		if k < 0 {
			return len(text)
		}
		j += k
		slashes := 0
		for text[j-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return j + 1
		}
	}
}

// End returns where the value ends that begins at i, or the text if it ends first.
func End(text []byte, i int) int {
	if i >= len(text) {
		return len(text)
	}
	switch text[i] {
	case '"':
		return stringEnd(text, i)
	case '{', '[':
		return nestEnd(text, i)
	}
	if n := bytes.IndexAny(text[i:], ",}] \n\r\t"); n >= 0 {
		return i + n
	}
	return len(text)
}

func nestEnd(text []byte, i int) int {
	for depth := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i = stringEnd(text, i) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(text)
}
