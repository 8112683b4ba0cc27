package jobs

import (
	"bytes"
	"encoding/json"
	"iter"
	"strings"
)

// members returns the keys of an object and their values, which are parts of
// object and keep its memory. The text must be valid JSON. A key that comes twice
// is returned twice; most readers, the endpoint's among them, heed the last.
//
// A prompt may be a megabyte long, so a job's text is validated once, by package
// json, and from then on only looked through. Keys are matched exactly, where
// package json would take "Stream" for "stream".
func members(object []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for i := next(object, 1); object[i] != '}'; {
			k := end(object, i)
			v := next(object, k)
			e := end(object, v)
			if !yield(unquote(object[i:k]), object[v:e:e]) {
				return
			}
			i = next(object, e)
		}
	}
}

// next returns where the first token at or after i begins, commas and colons
// aside.
func next(text []byte, i int) int {
	for strings.IndexByte(" \t\r\n,:", text[i]) >= 0 {
		i++
	}
	return i
}

// end returns where the value that begins at i ends.
func end(text []byte, i int) int {
	depth := 0
	for ; i < len(text); i++ {
		switch text[i] {
		case '"':
			i = endString(text, i) - 1
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		default: // inside a number or a literal, or between the parts of a list
			if depth > 0 || i+1 < len(text) && strings.IndexByte(" \t\r\n,]}", text[i+1]) < 0 {
				continue
			}
		}
		if depth == 0 {
			return i + 1
		}
	}
	return i
}

// endString returns where the string that begins at i ends: after the next
// quote that an even number of backslashes stands before.
func endString(text []byte, i int) int {
	for {
		i += 1 + bytes.IndexByte(text[i+1:], '"')
		n := 0
		for text[i-1-n] == '\\' {
			n++
		}
		if n%2 == 0 {
			return i + 1
		}
	}
}

// unquote returns what a JSON string says.
func unquote(value []byte) string {
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1])
	}
	var s string
	if err := json.Unmarshal(value, &s); err != nil {
		panic(err) // it was valid
	}
	return s
}

// kind names the kind of a value as package json does in its errors.
func kind(value []byte) string {
	switch value[0] {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "bool"
	case 'n':
		return "null"
	default:
		return "number"
	}
}
