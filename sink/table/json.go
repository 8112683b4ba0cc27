package table

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// kindOf names the kind of a JSON value, in JSON's words.
func kindOf(v []byte) string {
	if v = bytes.TrimLeft(v, " \n\t\r"); len(v) == 0 {
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
