package table

import (
	"bytes"
	"encoding/json"
	"iter"
	"strings"
	"unicode/utf8"
)

// The functions here take valid JSON apart without looking into the parts. What they
// read has been validated once, as a whole; encoding/json would do it at every level.

// members returns the members of an object. Each value has no space around it.
func members(v []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for rest := inside(v); len(rest) > 0 && rest[0] == '"'; {
			n := skip(rest)
			key := rest[:n]
			rest = space(rest[n:])
			if len(rest) == 0 {
				return
			}
			rest = space(rest[1:]) // the colon
			n = skip(rest)
			if !yield(unquote(key), rest[:n]) {
				return
			}
			rest = comma(rest[n:])
		}
	}
}

// items returns the items of an array.
func items(v []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for rest := inside(v); len(rest) > 0 && rest[0] != ']'; {
			n := skip(rest)
			if n == 0 || !yield(rest[:n]) {
				return
			}
			rest = comma(rest[n:])
		}
	}
}

// inside returns what follows the opening bracket.
func inside(v []byte) []byte {
	if v = space(v); len(v) == 0 {
		return nil
	}
	return space(v[1:])
}

func comma(v []byte) []byte {
	v = space(v)
	if len(v) > 0 && v[0] == ',' {
		return space(v[1:])
	}
	return v
}

func space(v []byte) []byte {
	for len(v) > 0 && (v[0] == ' ' || v[0] == '\n' || v[0] == '\t' || v[0] == '\r') {
		v = v[1:]
	}
	return v
}

// skip returns the length of the value that v begins with.
func skip(v []byte) int {
	depth := 0
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case '"':
			if i += 1 + closingQuote(v[i+1:]); depth == 0 {
				return min(i+1, len(v))
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			} else if depth < 0 {
				return i
			}
		case ',', ' ', '\n', '\t', '\r', ':':
			if depth == 0 {
				return i
			}
		}
	}
	return len(v)
}

// closingQuote returns where the string ends whose first quote is gone.
func closingQuote(v []byte) int {
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(v)
}

// kindOf names the kind of a JSON value, in JSON's words.
func kindOf(v []byte) string {
	if v = space(v); len(v) == 0 {
		return "null"
	}
	switch v[0] {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	default:
		return "number"
	}
}

// described is kindOf with an article.
func described(v []byte) string {
	switch k := kindOf(v); k {
	case "object", "array":
		return "an " + k
	case "null":
		return k
	default:
		return "a " + k
	}
}

// unquote returns the text of a JSON string.
func unquote(v []byte) string {
	if len(v) >= 2 && bytes.IndexByte(v, '\\') < 0 && utf8.Valid(v) {
		return string(v[1 : len(v)-1])
	}
	var s string
	_ = json.Unmarshal(v, &s) // v was valid
	return s
}

// quote returns s as a JSON string, with <, > and & as they are.
func quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always can be
	return strings.TrimSuffix(b.String(), "\n")
}
