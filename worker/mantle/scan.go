package mantle

import (
	"bytes"
	"encoding/json"
	"iter"
)

// A span is where a value stands in a text. The zero span is nowhere: no value
// of an object begins at its first byte.
type span struct{ at, end int }

func (s span) of(text []byte) []byte { return text[s.at:s.end] }

// unset reports whether the value is missing or null.
func (s span) unset(text []byte) bool { return s.end == 0 || string(s.of(text)) == "null" }

// member returns where the object at v has its member key, or the zero span.
func member(text []byte, v span, key string) (found span) {
	for k, v := range members(text, v.at) {
		if string(k) == key {
			found = v
		}
	}
	return found
}

// members lists the keys and values of the JSON object at text[at:], in one
// pass that does not look at what is inside the values. Text that is not an
// object has none; text that breaks off has those before the break.
func members(text []byte, at int) iter.Seq2[[]byte, span] {
	return func(yield func([]byte, span) bool) {
		if at >= len(text) || text[at] != '{' {
			return
		}
		i := skipSpace(text, at+1)
		for i < len(text) && text[i] == '"' {
			end := stringEnd(text, i)
			if end-1 == i || text[end-1] != '"' {
				return
			}
			key := plain(text[i+1 : end-1])
			colon := skipSpace(text, end)
			v := span{at: skipSpace(text, colon+1)}
			v.end = valueEnd(text, v.at)
			if v.end <= v.at || !yield(key, v) {
				return
			}
			if i = skipSpace(text, v.end); i >= len(text) || text[i] != ',' {
				return
			}
			i = skipSpace(text, i+1)
		}
	}
}

// elements lists the values of the JSON array at text[at:].
func elements(text []byte, at int) iter.Seq[span] {
	return func(yield func(span) bool) {
		for i := skipSpace(text, at+1); i < len(text) && text[i] != ']'; {
			v := span{i, valueEnd(text, i)}
			if v.end <= v.at || !yield(v) {
				return
			}
			if i = skipSpace(text, v.end); i < len(text) && text[i] == ',' {
				i = skipSpace(text, i+1)
			}
		}
	}
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

func skipSpace(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\r' || text[i] == '\t') {
		i++
	}
	return i
}

// stringEnd returns where the string ends whose opening quote is at i. It finds
// quotes rather than reading characters: prompts are long.
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

// valueEnd returns where the value ends that begins at i.
func valueEnd(text []byte, i int) int {
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
