package table

import "bytes"

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
